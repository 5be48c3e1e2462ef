"""HLLM whose language models are tuned with LoRA or frozen: what is trained, the cache of item vectors, exports."""

import shutil

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from transformers import AutoModel, AutoTokenizer

from recbole_hllm.errors import DataError
from recbole_hllm.model.base.item_vectors import encode_catalogue, encoder_digest
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.tuning import tune
from recbole_hllm.runs.export import export_model
from recbole_hllm.runs.run import run
from recbole_hllm.training.checkpoint import load_model, save_model

N_ITEMS = 12  # of the data set in conftest.py
WINDOWS = Interaction(
    {
        "item_id_list": torch.tensor([[3, 5, 3, 9, 1], [2, 8, 0, 0, 0], [7, 4, 6, 0, 0]]),
        "neg_item_id": torch.tensor([[5, 11, 2, 5, 10, 12]]),
    }
)
HISTORIES = Interaction(
    {"item_id_list": torch.tensor([[3, 5, 9], [2, 0, 0], [7, 4, 0]]), "item_length": torch.tensor([3, 1, 2])}
)
VARIANTS = {
    "lora": {"item_llm_tuning": "lora", "user_llm_tuning": "lora"},
    "frozen item": {"item_llm_tuning": "frozen"},
    "lora item, frozen user": {"item_llm_tuning": "lora", "user_llm_tuning": "frozen"},
    "frozen item, lora user": {"item_llm_tuning": "frozen", "user_llm_tuning": "lora"},
}


@pytest.fixture
def variant(build, tiny_llm):
    """(name of VARIANTS, **keys) -> a model whose Item LLM is wider than its User LLM, and its loaders."""
    wider = {"item_pretrain_dir": tiny_llm("llama", hidden_size=24)}
    return lambda name, **keys: build(**{**wider, **VARIANTS[name], **keys})


def scores(model):
    with torch.no_grad():
        return model.eval().full_sort_predict(HISTORIES)


def train(model, steps=5, rate=0.05):
    """Losses of some steps of a plain optimizer over the model's groups."""
    optimizer = torch.optim.AdamW([{**group, "lr": rate} for group in model.parameter_groups()])
    losses = []
    for _ in range(steps):
        loss = model.train().calculate_loss(WINDOWS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# ---- what is trained ----


@pytest.mark.parametrize("name", VARIANTS)
def test_only_what_a_mode_trains_is_trained(variant, name):
    model, _ = variant(name)
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    in_groups = {id(p) for group in model.parameter_groups() for p in group["params"]}
    assert in_groups == {id(p) for p in model.parameters() if p.requires_grad}
    losses = train(model)
    assert losses[-1] < losses[0]
    changed = {key for key, weight in model.state_dict().items() if not torch.equal(weight, before[key])}
    tuned = [part for part in ("item", "user") if VARIANTS[name].get(f"{part}_llm_tuning", "full") == "full"]
    for key in before:
        is_lora, in_llm = ".lora_" in key, ".backbone." in key
        part = key.partition("_")[0]
        trained = is_lora or (in_llm and part in tuned) or (not in_llm and key != "item_encoder.source")
        assert (key in changed) == trained, key
    assert "item_encoder.projection.weight" in changed and "logit_scale" in changed


def test_full_lora_and_frozen_start_alike(variant):
    (full, _), (lora, _) = variant("lora", item_llm_tuning="full", user_llm_tuning="full"), variant("lora")
    torch.testing.assert_close(scores(lora), scores(full), atol=1e-6, rtol=0)
    (mean, _), (frozen, _) = variant("frozen item", item_llm_tuning="full", item_emb_token_n=0), variant("frozen item")
    torch.testing.assert_close(scores(frozen), scores(mean), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_frozen_trains_as_an_item_llm_without_gradients_does(build, tiny_llm, kind):
    keys = {
        "item_pretrain_dir": tiny_llm(kind, hidden_size=24), "item_emb_token_n": 0, "item_llm_dropout": 0.0,
        "item_learning_rate": None,
    }  # fmt: skip
    plain, _ = build(**keys)
    plain.item_encoder.backbone.requires_grad_(False)
    frozen, _ = build(**keys, item_llm_tuning="frozen")
    assert train(frozen, 8) == pytest.approx(train(plain, 8), abs=1e-5)
    torch.testing.assert_close(scores(frozen), scores(plain), atol=1e-5, rtol=0)


def test_frozen_holds_no_item_llm(variant, encoded):
    model, _ = variant("frozen item")
    assert sum(encoded) == N_ITEMS
    assert not any(isinstance(module, ItemEncoder) for module in model.modules())
    names = {name for name, _ in model.item_encoder.named_parameters()}
    assert names == {"projection.weight", "projection.bias"}
    assert not any("backbone" in name for name in model.state_dict() if name.startswith("item_"))
    train(model)
    scores(model)
    assert sum(encoded) == N_ITEMS, "encoded at construction and never again"


def test_keys_that_a_frozen_item_llm_does_not_read_are_named(variant, caplog):
    variant("frozen item")
    assert "without effect" not in caplog.text
    variant("frozen item", recompute_items=True, item_learning_rate=2e-5)
    assert "recompute_items, item_learning_rate without effect: item_llm_tuning is frozen" in caplog.text


def test_the_rate_of_an_item_llm_is_not_that_of_a_frozen_ones_projection(variant):
    for name, expected in (("lora", {2e-5, None}), ("frozen item", {None})):
        model, _ = variant(name, item_learning_rate=2e-5)
        assert {group.get("lr") for group in model.parameter_groups()} == expected


@pytest.mark.parametrize("name", ["lora", "lora item, frozen user", "frozen item, lora user"])
def test_gradient_checkpointing_gives_the_same_gradients(variant, monkeypatch, name):
    results, calls = [], []
    for checkpointing in (False, True):
        model, _ = variant(name, gradient_checkpointing=checkpointing, lora_dropout=0.0)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(2)
            for key, parameter in model.named_parameters():
                if ".lora_" in key:
                    parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        llm = model.user_encoder.backbone
        monkeypatch.setattr(llm.layers[0].self_attn, "forward", counting(llm.layers[0].self_attn.forward, calls))
        loss = model.train().calculate_loss(WINDOWS)
        loss.backward()
        results.append((loss.item(), {key: p.grad for key, p in model.named_parameters()}))
        # Windows of two lengths: once for each, and then twice, forward and again for backward.
        assert len(calls) == (6 if checkpointing else 2)
    (loss, gradients), (other_loss, others) = results
    assert other_loss == pytest.approx(loss, abs=1e-6) and gradients.keys() == others.keys()
    for key, gradient in gradients.items():
        assert (gradient is None) == (others[key] is None), key
        if gradient is not None:
            torch.testing.assert_close(others[key], gradient, atol=1e-6, rtol=1e-5)
    assert any(gradient is not None for gradient in gradients.values())


def counting(forward, calls):
    def counted(*arguments, **options):
        calls.append(1)
        return forward(*arguments, **options)

    return counted


# ---- the contract of every model, for the variants ----


@pytest.mark.parametrize("name", VARIANTS)
def test_scores_and_checkpoints(variant, tmp_path, name):
    model, _ = variant(name)
    train(model)
    table = scores(model)
    assert table.shape == (3, N_ITEMS + 1) and table.isfinite().all() and not model.item_vectors()[0].any()
    for item in range(1, N_ITEMS + 1):
        rows = Interaction({**HISTORIES.interaction, "item_id": torch.full((3,), item)})
        torch.testing.assert_close(model.predict(rows), table[:, item], atol=1e-6, rtol=0)
    save_model(tmp_path, model, {})
    other, _ = variant(name)
    train(other, 2)
    assert not torch.allclose(scores(other), table, atol=1e-3)
    load_model(tmp_path, other)
    assert torch.equal(scores(other), table)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_seed_gives_the_same_losses(variant, name):
    (first, _), (second, _) = variant(name), variant(name)
    assert train(first, 3) == train(second, 3)


# ---- item vectors on disk ----


def caches(tmp_path):
    return sorted((tmp_path / "toy" / ".recbole_hllm_cache").glob("vectors-*"))


def test_a_frozen_item_llm_encodes_a_catalogue_once(variant, encoded, tmp_path):
    first, _ = variant("frozen item")
    assert sum(encoded) == N_ITEMS and len(caches(tmp_path)) == 1
    second, _ = variant("frozen item")
    assert sum(encoded) == N_ITEMS
    assert torch.equal(scores(first), scores(second))
    assert isinstance(second.item_encoder.vectors, np.memmap)


def test_without_the_cache_nothing_is_written(variant, encoded, tmp_path):
    for times in (1, 2):
        model, _ = variant("frozen item", item_vector_cache=False)
        assert sum(encoded) == times * N_ITEMS
    assert caches(tmp_path) == [] and scores(model).isfinite().all()


def test_a_changed_text_is_encoded_alone(variant, encoded, tmp_path):
    variant("frozen item")
    del encoded[:]
    file = tmp_path / "toy" / "toy.item"
    file.write_text(file.read_text().replace("i7\tw7 w14 w7 w14 w7 w14 \tw12", "i7\tw1\tw12"))
    model, (train_data, *_) = variant("frozen item")
    assert encoded == [1]
    fresh, _ = variant("frozen item", item_vector_cache=False)
    torch.testing.assert_close(torch.tensor(model.item_encoder.vectors), torch.tensor(fresh.item_encoder.vectors))


def test_a_damaged_cache_is_rebuilt(variant, encoded, tmp_path):
    first, _ = variant("frozen item")
    (entry,) = caches(tmp_path)
    content = bytearray((entry / "vectors.npy").read_bytes())
    content[-1] ^= 255
    (entry / "vectors.npy").write_bytes(content)
    good = scores(variant("frozen item", item_vector_cache=False)[0])
    del encoded[:]
    second, _ = variant("frozen item")
    assert sum(encoded) == N_ITEMS and torch.equal(scores(second), good)


@pytest.mark.parametrize("keys", [{"precision": "bf16"}, {"item_llm_layers": 1}, {"MAX_TEXT_LENGTH": 3}])
def test_other_vectors_are_not_taken_from_the_cache(variant, encoded, keys):
    variant("frozen item")
    del encoded[:]
    variant("frozen item", **keys)
    assert sum(encoded) >= 6  # with fewer tokens some texts stay the same


def test_other_numbers_with_the_same_weights_are_others(tiny_llm, build):
    model, _ = build()
    encoder = model.item_encoder
    key = encoder_digest(encoder)
    assert encoder_digest(build(gradient_checkpointing=True)[0].item_encoder) == key
    encoder.backbone.config.rms_norm_eps *= 2
    assert encoder_digest(encoder) != key
    encoder.backbone.config.rms_norm_eps /= 2
    assert encoder_digest(encoder) == key
    with torch.no_grad():
        encoder.item_emb_tokens[0, 0, 0] += 1e-3
    assert encoder_digest(encoder) != key


def test_lora_counts_as_weights(build):
    model, _ = build(item_llm_tuning="lora")
    key = encoder_digest(model.item_encoder)
    full, _ = build()
    assert encoder_digest(full.item_encoder) == key  # its additions are zero at first
    with torch.no_grad():
        next(p for name, p in model.item_encoder.named_parameters() if "lora_B" in name).add_(0.1)
    assert encoder_digest(model.item_encoder) != key


def test_encode_catalogue_is_the_encoder_item_by_item(build, tmp_path):
    model, _ = build()
    encoder = model.item_encoder.train()
    options = {"precision": "fp32", "token_budget": 20}
    vectors = encode_catalogue(encoder, model.catalogue, **options, cache=tmp_path / "c")
    assert encoder.training and vectors.shape == (N_ITEMS + 1, 16) and not vectors[0].any()
    for item in range(1, N_ITEMS + 1):
        with torch.no_grad():
            alone = encoder.eval().pooled(*model.catalogue.lookup([item]))
        np.testing.assert_allclose(vectors[item], alone[0].numpy(), atol=1e-5)


def test_a_full_disk_is_a_clear_error(variant, monkeypatch):
    variant("lora")  # texts are tokenised
    usage = shutil._ntuple_diskusage(10, 10, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match="not enough disk.*cache_dir"):
        variant("frozen item")


@pytest.mark.parametrize("mode", ["full", "lora", "frozen"])
def test_a_finished_run_is_evaluated_from_the_cache(finished, encoded, tmp_path, mode):
    folder = finished(item_llm_tuning=mode)
    assert len(caches(tmp_path)) == (1 if mode == "frozen" else 0), "nothing of weights that change is kept"
    trained = sum(encoded)
    result = run(config_dict={"evaluate_only": True}, run_dir=folder)
    first = sum(encoded) - trained
    assert first == (0 if mode == "frozen" else N_ITEMS) and len(caches(tmp_path)) == 1
    again = run(config_dict={"evaluate_only": True}, run_dir=folder)
    assert sum(encoded) == trained + first
    assert again["test_result"] == result["test_result"] and again["valid_result"] == result["valid_result"]
    plain = run(config_dict={"evaluate_only": True, "item_vector_cache": False}, run_dir=folder)
    assert sum(encoded) == trained + first + N_ITEMS
    assert plain["test_result"] == result["test_result"]


# ---- export ----


@pytest.mark.parametrize("modes", ["full full", "lora lora", "frozen lora", "lora frozen"])
def test_an_export_gives_the_same_scores(build, tiny_llm, tmp_path, modes):
    item, user = modes.split()
    wide = tiny_llm("llama", hidden_size=24)
    model, _ = build(item_pretrain_dir=wide, item_llm_tuning=item, user_llm_tuning=user, item_llm_layers=1)
    train(model)
    expected = scores(model)
    export_model(model, tmp_path / "out")
    assert torch.equal(scores(model), expected)

    again, _ = build(
        item_pretrain_dir="nowhere", user_pretrain_dir=None, user_llm_init=False, item_llm_init=False,
        pretrained_hllm=str(tmp_path / "out"),
    )  # fmt: skip
    assert not any("lora" in name for name in again.state_dict())
    torch.testing.assert_close(scores(again), expected, atol=1e-5, rtol=0)
    assert again.logit_scale.item() == model.logit_scale.item()
    frozen, _ = build(
        pretrained_hllm=str(tmp_path / "out"), item_llm_tuning="frozen", user_llm_tuning="frozen"
    )
    torch.testing.assert_close(scores(frozen), expected, atol=1e-5, rtol=0)
    export_model(frozen, tmp_path / "once more")
    last, _ = build(pretrained_hllm=str(tmp_path / "once more"))
    torch.testing.assert_close(scores(last), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["full", "frozen"])
@pytest.mark.parametrize(
    ("kind", "tokens"), [("bert", 1), ("bert", 0), ("t5", 0), ("gpt2", None), ("xglm", 0), ("mamba", 1)]
)
def test_an_export_needs_no_further_key(build, tiny_llm, tmp_path, kind, tokens, mode):
    if tokens and mode == "frozen":
        pytest.skip("an [ITEM] token has to be trained")
    model, _ = build(item_pretrain_dir=tiny_llm(kind), item_llm_tuning=mode, item_emb_token_n=tokens)
    export_model(model, tmp_path / "out")
    for keys in ({}, {"item_llm_tuning": "frozen"}):
        again, _ = build(pretrained_hllm=str(tmp_path / "out"), **keys)
        torch.testing.assert_close(scores(again), scores(model), atol=1e-5, rtol=0)


def test_exported_llms_are_hugging_face_folders(build, tmp_path):
    model, _ = build(item_llm_tuning="lora", user_llm_tuning="lora")
    train(model)
    export_model(model, tmp_path / "out")
    names = ["item_encoder", "training.safetensors", "user_llm", "user_model.safetensors", "vectors.safetensors"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names
    inputs = torch.randn(2, 4, 16)
    for part, encoder in (("item_encoder", model.item_encoder), ("user_llm", model.user_encoder)):
        llm, report = AutoModel.from_pretrained(tmp_path / "out" / part, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        ours = encoder.backbone.eval()(inputs_embeds=inputs).last_hidden_state
        torch.testing.assert_close(llm.eval()(inputs_embeds=inputs).last_hidden_state, ours, atol=1e-4, rtol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "item_encoder" / "tokenizer")
    assert tokenizer("w1 w2")["input_ids"] == [1, tokenizer.vocab["w1"], tokenizer.vocab["w2"]]


def test_frozen_from_the_official_code(build, official_names, tmp_path):
    """Its [ITEM] token is trained, so a frozen Item LLM may pool with it."""
    official, _ = build()
    torch.save(official_names(official.state_dict(), 0.1), tmp_path / "pytorch_model.bin")
    keys = {"pretrained_hllm": str(tmp_path / "pytorch_model.bin")}
    (full, _), (frozen, _) = build(**keys), build(**keys, item_llm_tuning="frozen")
    torch.testing.assert_close(scores(frozen), scores(full), atol=1e-6, rtol=0)
    export_model(frozen, tmp_path / "out")
    torch.testing.assert_close(scores(build(pretrained_hllm=str(tmp_path / "out"))[0]), scores(full), atol=1e-5, rtol=0)


def test_tuning_comes_after_the_weights(build, tmp_path):
    """LoRA renames layers; weights are loaded before."""
    model, _ = build()
    tune(model.user_encoder.backbone, "lora")
    export_model(model, tmp_path / "out")
    lora, _ = build(pretrained_hllm=str(tmp_path / "out"), item_llm_tuning="lora")
    torch.testing.assert_close(scores(lora), scores(model), atol=1e-6, rtol=0)
