"""The networks and the loss give the official code's numbers, for every item language model it was run with.

Tolerances: vectors 2e-5 absolute; losses and accuracies 1e-5 absolute (large losses: float32's rounding).
"""

import numpy as np
import pytest
import torch

from recbole_hllm.nn.backbone import BackboneSpec, load_backbone
from recbole_hllm.nn.chunked import encode_items
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.losses import clamp_logit_scale, info_nce
from recbole_hllm.nn.user_encoder import UserEncoder

DEFAULT_NCE_THRES = 0.99


class Reference:
    """The two encoders with the reference's start weights, and every item's tokens and vectors."""

    def __init__(self, goldens, kind):
        models = goldens.root / "models"
        init = goldens.npz(kind, "init")
        self.n_item_tokens = goldens.setting("item_emb_token_n", 1)
        self.logit_scale = torch.from_numpy(init["logit_scale"]).float()

        items = goldens.json(kind, "items")
        texts = [item["input_ids"][: item["input_len"] - self.n_item_tokens] for item in items]
        self.lengths = torch.tensor([len(text) for text in texts])
        self.tokens = torch.tensor([token for text in texts for token in text])

        backbone = load_backbone(BackboneSpec(str(models / f"{kind}_item"))).eval()
        longest = goldens.setting("MAX_TEXT_LENGTH", 256)
        options = {"max_text_length": longest, "right_aligned_positions": True}
        item_token = ItemEncoder(backbone, item_emb_token_n=1, **options)
        if "item_emb_tokens" in init:
            item_token.item_emb_tokens.data = torch.from_numpy(init["item_emb_tokens"])
        mean_pool = ItemEncoder(backbone, item_emb_token_n=0, **options)
        self.user_encoder = UserEncoder(load_backbone(BackboneSpec(str(models / "llama_user")))).eval()
        with torch.no_grad():
            self.item_token = encode_items(item_token, self.tokens, self.lengths, token_budget=1024)
            self.mean_pool = encode_items(mean_pool, self.tokens, self.lengths, token_budget=1024)

    @torch.no_grad()
    def user_outputs(self, vectors, inputs, mask):
        """(B, S, H) in the reference's layout: rows are turned left to right, and the outputs back again.

        Row layout of the reference: padding (random items) on the left.
        """
        padding = (mask == 0).sum(1, keepdim=True)
        column = torch.arange(mask.shape[1])
        to_left = (column + padding) % mask.shape[1]
        outputs = self.user_encoder(vectors[inputs.gather(1, to_left)])
        to_right = (column - padding) % mask.shape[1]
        return outputs.gather(1, to_right[..., None].expand_as(outputs))

    @torch.no_grad()
    def nce(self, vectors, batch, logit_scale=None, nce_thres=None):
        rows, negatives, mask = (torch.as_tensor(np.array(array)).long() for array in batch)
        valid = mask == 1
        outputs = self.user_outputs(vectors, rows[:, :-1], mask)[valid]
        targets, negatives = rows[:, 1:][valid], negatives.flatten()
        scale = self.logit_scale if logit_scale is None else logit_scale
        scale = clamp_logit_scale(torch.nn.Parameter(scale.clone()))
        return info_nce(outputs, vectors[targets], vectors[negatives], targets, negatives, scale, nce_thres)


@pytest.fixture(scope="module")
def reference(goldens, kind):
    return Reference(goldens, kind)


def fixed_batch(goldens, kind, b):
    batches = goldens.npz(kind, "train_batches")
    return tuple(batches[f"{name}_{b}"] for name in ("pos_item_ids", "neg_item_ids", "attention_mask"))


def batch_of(result):
    return tuple(result[name] for name in ("pos_item_ids", "neg_item_ids", "attention_mask"))


def threshold(goldens, result):
    return result.get("nce_thres") or goldens.setting("nce_thres", DEFAULT_NCE_THRES)


def assert_nce_equal(ours, result):
    assert ours.loss.item() == pytest.approx(result["loss"], abs=1e-5, rel=5e-7)
    if result.get("nce_samples") is not None:
        assert ours.surviving.item() + 1 == pytest.approx(result["nce_samples"], abs=1e-5)
    expected = {
        int(name.removeprefix("nce_top").removesuffix("_acc")): value
        for name, value in result.items()
        if name.startswith("nce_top") and value is not None
    }
    assert {k: ours.accuracy[k].item() for k in expected} == pytest.approx(expected, abs=1e-5)


def test_item_vectors_at_item_token(goldens, reference, kind):
    expected = goldens.npz(kind, "item_embeddings")["item_emb_token"]
    np.testing.assert_allclose(reference.item_token.numpy(), expected, atol=2e-5, rtol=0)


def test_item_vectors_of_mean_pooling(goldens, reference, kind):
    # the reference gives NaN for an item without a single token
    some = (reference.lengths > 0).numpy()
    expected = goldens.npz(kind, "item_embeddings")["mean_pool"]
    np.testing.assert_allclose(reference.mean_pool.numpy()[some], expected[some], atol=2e-5, rtol=0)
    assert not reference.mean_pool.isnan().any()


def vectors_in_use(reference):
    return reference.item_token if reference.n_item_tokens else reference.mean_pool


def test_user_outputs(goldens, reference, kind):
    batches = goldens.npz(kind, "batches")
    names = [name for name in batches if name.endswith("_user_llm_output")]
    assert names
    for name in names:
        prefix = name.removesuffix("_user_llm_output")
        mask = torch.from_numpy(batches[f"{prefix}_attention_mask"]).long()
        rows = torch.from_numpy(batches[f"{prefix}_pos_item_ids"]).long()
        outputs = reference.user_outputs(vectors_in_use(reference), rows[:, :-1], mask)
        valid = (mask == 1).numpy()
        np.testing.assert_allclose(outputs.numpy()[valid], batches[name][valid], atol=2e-5, rtol=0)


def test_loss_of_every_batch(goldens, reference, kind):
    results = goldens.json(kind, "batch_results")["batches"]
    assert results
    for b, result in enumerate(results):
        ours = reference.nce(
            vectors_in_use(reference), fixed_batch(goldens, kind, b), nce_thres=threshold(goldens, result)
        )
        assert_nce_equal(ours, result)


def test_loss_in_the_other_negative_mode(goldens, reference, kind):
    result = goldens.json(kind, "batch_results").get("other_negative_mode")
    if result is None:
        pytest.skip("these goldens have no other negative mode")
    ours = reference.nce(vectors_in_use(reference), batch_of(result), nce_thres=threshold(goldens, result))
    assert_nce_equal(ours, result)


def test_loss_with_mean_pooling(goldens, reference, kind):
    for result in goldens.json(kind, "batch_results").get("mean_pool") or []:
        ours = reference.nce(reference.mean_pool, batch_of(result), nce_thres=threshold(goldens, result))
        assert_nce_equal(ours, result)


def test_loss_with_a_lower_threshold_of_the_filter(goldens, reference, kind):
    result = goldens.json(kind, "batch_results").get("nce_thres_variant")
    if result is None:
        pytest.skip("these goldens have no variant of the threshold")
    batch = fixed_batch(goldens, kind, result["batch"])
    ours = reference.nce(vectors_in_use(reference), batch, nce_thres=result["nce_thres"])
    assert_nce_equal(ours, result)


def test_logit_scale_is_clamped_before_use(goldens, reference, kind):
    for result in goldens.json(kind, "batch_results").get("logit_scale_clamp") or []:
        scale = clamp_logit_scale(torch.nn.Parameter(torch.tensor(result["before"])))
        assert scale.item() == pytest.approx(result["after"], abs=1e-6)
        ours = reference.nce(
            vectors_in_use(reference),
            fixed_batch(goldens, kind, result["batch"]),
            logit_scale=torch.tensor(result["before"]),
            nce_thres=threshold(goldens, result),
        )
        assert_nce_equal(ours, result)
