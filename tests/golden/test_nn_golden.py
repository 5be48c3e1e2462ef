"""The networks and the loss give the official code's numbers, for every item language model it was run with.

Tolerances: vectors 2e-5 absolute; losses and accuracies 1e-5 absolute (large losses: float32's rounding).
"""

import math

import numpy as np
import pytest
import torch
from reference_numbers import close, info_nce_near

from recbole_hllm.nn.backbone import BackboneSpec, load_backbone
from recbole_hllm.nn.chunked import encode_items
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.losses import INITIAL_LOGIT_SCALE, clamp_logit_scale
from recbole_hllm.nn.user_encoder import UserEncoder

DEFAULT_NCE_THRES = 0.99


class Reference:
    """The two encoders with the reference's start weights, and every item's tokens and vectors."""

    def __init__(self, goldens, kind):
        models = goldens.root / "models"
        init = goldens.read(f"{kind}/init.npz")
        self.n_item_tokens = goldens.setting("item_emb_token_n", 1)
        self.logit_scale = torch.as_tensor(init.get("logit_scale", INITIAL_LOGIT_SCALE)).float()

        items = goldens.given(f"{kind}/items.json")
        if len(goldens.holding(items, "input_ids")) < len(items):
            pytest.skip("these goldens do not have every item's tokens")
        lengths = [item.get("input_len", len(item["input_ids"])) - self.n_item_tokens for item in items]
        texts = [item["input_ids"][:length] for item, length in zip(items, lengths, strict=True)]
        self.lengths = torch.tensor([len(text) for text in texts])
        self.tokens = torch.tensor([token for text in texts for token in text])

        backbone = load_backbone(BackboneSpec(str(models / f"{kind}_item"))).eval()
        longest = goldens.setting("MAX_TEXT_LENGTH", 256)
        options = {"max_text_length": longest, "right_aligned_positions": True}
        item_token = ItemEncoder(backbone, item_emb_token_n=1, **options)
        if self.n_item_tokens:
            item_tokens = goldens.given(f"{kind}/init.npz", "item_emb_tokens")
            item_token.item_emb_tokens.data = torch.from_numpy(item_tokens)
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
    def nce(self, vectors, batch, logit_scale=None, nce_thres=None, loss=None):
        rows, negatives, mask = (torch.as_tensor(np.array(array)).long() for array in batch)
        valid = mask == 1
        outputs = self.user_outputs(vectors, rows[:, :-1], mask)[valid]
        targets, negatives = rows[:, 1:][valid], negatives.flatten()
        scale = self.logit_scale if logit_scale is None else logit_scale
        scale = clamp_logit_scale(torch.nn.Parameter(scale.clone()))
        compute = info_nce_near(loss)
        return compute(outputs, vectors[targets], vectors[negatives], targets, negatives, scale, nce_thres)

    def undefined(self, vectors):
        """Whether the reference's numbers may be none: its mean over the tokens of a text that has not any."""
        return vectors is self.mean_pool and bool((self.lengths[1:] == 0).any())


@pytest.fixture(scope="module")
def reference(goldens, kind):
    return Reference(goldens, kind)


def threshold(goldens, result):
    return result.get("nce_thres") or goldens.setting("nce_thres", DEFAULT_NCE_THRES)


def assert_nce_equal(ours, result, undefined=False):
    if not any(name in ("loss", "nce_samples") or name.startswith("nce_top") for name in result):
        pytest.skip("these goldens have no such loss")
    if not math.isfinite(result.get("loss", 0.0)):  # the other numbers come from what is none
        assert undefined and ours.loss.isfinite()
        return
    if "loss" in result:
        assert ours.loss.item() == pytest.approx(result["loss"], abs=1e-5, rel=5e-7)
    if "nce_samples" in result:
        assert ours.surviving.item() + 1 == pytest.approx(result["nce_samples"], abs=1e-5)
    expected = {
        int(name.removeprefix("nce_top").removesuffix("_acc")): value
        for name, value in result.items()
        if name.startswith("nce_top")
    }
    assert {k: ours.accuracy[k].item() for k in expected} == pytest.approx(expected, abs=1e-5)


def test_item_vectors_at_item_token(goldens, reference, kind):
    if not reference.n_item_tokens:
        pytest.skip("these goldens were made with mean pooling")
    expected = goldens.given(f"{kind}/item_embeddings.npz", "item_emb_token")
    close(reference.item_token, expected, 2e-5)


def test_item_vectors_of_mean_pooling(goldens, reference, kind):
    expected = goldens.given(f"{kind}/item_embeddings.npz", "mean_pool")
    close(reference.mean_pool, expected, 2e-5, undefined=bool((reference.lengths == 0).any()))


def vectors_in_use(reference):
    return reference.item_token if reference.n_item_tokens else reference.mean_pool


def test_user_outputs(goldens, reference, kind):
    suffix = "_user_llm_output"
    batches = goldens.given(f"{kind}/batches.npz")
    prefixes = [name.removesuffix(suffix) for name in batches if name.endswith(suffix)]
    if not prefixes:
        pytest.skip("these goldens have no outputs of the User LLM")
    for prefix in prefixes:
        own = {name.removeprefix(f"{prefix}_"): values for name, values in batches.items()}
        number = int(prefix.removeprefix("batch"))
        rows, _, mask = (torch.from_numpy(array).long() for array in goldens.rows_of(kind, {"batch": number, **own}))
        outputs = reference.user_outputs(vectors_in_use(reference), rows[:, :-1], mask)
        valid = mask == 1
        undefined = reference.undefined(vectors_in_use(reference))
        close(outputs[valid], batches[prefix + suffix][valid], 2e-5, undefined)


def check_nce(goldens, reference, kind, vectors, result, **options):
    rows = goldens.rows_of(kind, result)
    options |= {"nce_thres": threshold(goldens, result), "loss": result.get("loss")}
    assert_nce_equal(reference.nce(vectors, rows, **options), result, reference.undefined(vectors))


def test_loss_of_every_batch(goldens, reference, kind, batch):
    result = {"batch": batch, **goldens.given(f"{kind}/batch_results.json", "batches", batch)}
    check_nce(goldens, reference, kind, vectors_in_use(reference), result)


@pytest.mark.parametrize("name", ["other_negative_mode", "nce_thres_variant"])
def test_loss_with_another_setting(goldens, reference, kind, name):
    """Another number of negatives, and a lower threshold of the filter."""
    result = goldens.given(f"{kind}/batch_results.json", name)
    check_nce(goldens, reference, kind, vectors_in_use(reference), result)


def test_loss_with_mean_pooling(goldens, reference, kind, mean_pool):
    result = goldens.given(f"{kind}/batch_results.json", "mean_pool", mean_pool)
    check_nce(goldens, reference, kind, reference.mean_pool, result)


def test_logit_scale_is_clamped_before_use(goldens, reference, kind, clamp):
    result = goldens.given(f"{kind}/batch_results.json", "logit_scale_clamp", clamp)
    goldens.holding([result], "before")
    scale = clamp_logit_scale(torch.nn.Parameter(torch.tensor(result["before"])))
    assert scale.item() == pytest.approx(result.get("after", scale.item()), abs=1e-6)
    before = torch.tensor(result["before"])
    check_nce(goldens, reference, kind, vectors_in_use(reference), result, logit_scale=before)
