"""HLLM with whitening, a perceptron as item head, and a part of the item's id."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.base import next_item
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.hllm.hllm import HLLM
from recbole_hllm.model.hllm.item_part import build_bounded_ids
from recbole_hllm.nn.losses import info_nce
from recbole_hllm.nn.whitening import zca
from recbole_hllm.runs.export import export_model
from recbole_hllm.runs.run import run
from recbole_hllm.training.checkpoint import load_model, save_model
from recbole_hllm.training.trainer import Trainer

N_ITEMS = 12  # of the data set in conftest.py
EVERY = torch.arange(N_ITEMS + 1)
WINDOWS = Interaction(
    {
        "item_id_list": torch.tensor([[3, 5, 3, 9, 1], [2, 8, 0, 0, 0], [7, 4, 6, 0, 0]]),
        "neg_item_id": torch.tensor([[5, 11, 2, 5, 10, 12]]),
    }
)
HISTORIES = Interaction(
    {"item_id_list": torch.tensor([[3, 5, 9], [2, 0, 0], [7, 4, 0]]), "item_length": torch.tensor([3, 1, 2])}
)
ALL = {"item_whitening": "zca", "item_head_hidden": 10, "item_id_bound": 0.5}
TUNINGS = {
    "full": {},
    "lora": {"item_llm_tuning": "lora"},
    "last": {"item_llm_tuning": "last", "item_llm_layers_trained": 1},
    "frozen": {"item_llm_tuning": "frozen"},
}


@pytest.fixture
def built(build, tiny_llm):
    """(tuning, **keys) -> a model whose Item LLM is wider than its User LLM."""
    wider = {"item_pretrain_dir": tiny_llm("bert", hidden_size=24), "item_emb_token_n": 0}
    return lambda tuning, **keys: build(**{**wider, **TUNINGS[tuning], **keys})[0]


def scores(model):
    with torch.no_grad():
        return model.eval().full_sort_predict(HISTORIES)


def train(model, steps=4, rate=0.02):
    """Some steps, after the start of an epoch; the last loss."""
    optimizer = torch.optim.AdamW([{**group, "lr": rate} for group in model.parameter_groups()])
    model.train().begin_epoch(0)
    for _ in range(steps):
        loss = model.calculate_loss(WINDOWS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def pooled(model):
    """(N_ITEMS, H) vectors before whitening, in evaluation mode."""
    if model.item_llm_is_frozen:
        return np.array(model.item_encoder.vectors[1:])
    mode = model.training
    model.eval()
    tokens, lengths = model.catalogue.lookup(EVERY[1:])
    with torch.no_grad():
        vectors = model.item_encoder.pooled(tokens, lengths).numpy()
    model.train(mode)
    return vectors


# ---- whitening ----


@pytest.mark.parametrize("tuning", TUNINGS)
def test_vectors_are_the_plain_formula(built, tuning):
    model = built(tuning, **ALL)
    train(model)
    found = model.item_vectors()[1:]
    encoder, of = model.item_encoder, pooled(model).astype(np.float64)
    mean, matrix = zca(of)
    white = torch.from_numpy(((of - mean) @ matrix).astype(np.float32))
    with torch.no_grad():
        expected = encoder.projection(white)
        rows = model.id_part.rows.weight[1:]
        share = (0.5 / rows.norm(dim=1, keepdim=True)).clamp(max=1) * model.id_part.seen[1:, None]
        expected = expected + expected.norm(dim=1, keepdim=True) * rows * share
    # 12 items in 24 numbers: what does not vary is far from what does, so the last digits of the vectors count.
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)
    assert rows.any()


@pytest.mark.parametrize("tuning", ["full", "last"])
def test_statistics_follow_the_weights(built, encoded, tuning):
    model = built(tuning, **ALL)
    whitening = model.item_encoder.whitening
    assert whitening.items == 0
    model.train().begin_epoch(0)
    first, start = whitening.matrix.clone(), zca(pooled(model))[1]
    np.testing.assert_allclose(first, start, atol=1e-2 * np.abs(start).max())
    train(model, rate=0.05)
    assert torch.equal(whitening.matrix, first), "inside an epoch they stay"
    scores(model)
    second = whitening.matrix.clone()
    assert not torch.equal(second, first)
    encoded.clear()
    model.train().begin_epoch(0)
    assert not encoded and torch.equal(whitening.matrix, second), "an evaluation has taken them"
    model.calculate_loss(WINDOWS)
    encoded.clear()
    model.train().begin_epoch(0)
    assert sum(encoded) == N_ITEMS


def test_a_frozen_item_llm_is_whitened_once(built, monkeypatch):
    fits, fit = [], np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: fits.append(1) or fit(matrix))
    for method in ("zca", "pca"):
        fits.clear()
        model = built("frozen", **{**ALL, "item_whitening": method})
        train(model)
        scores(model)
        model.train().begin_epoch(0)
        assert len(fits) == 1 and model.item_encoder.whitening.items == N_ITEMS


def test_whitened_vectors_of_a_frozen_item_llm(built):
    """11 of 24 directions vary: in these the covariance is 1."""
    model = built("frozen", item_whitening="zca")
    model.item_encoder.projection = torch.nn.Identity()
    with torch.no_grad():
        white = model.item_encoder(EVERY[1:]).double().numpy()
    variances = np.linalg.eigvalsh(np.cov(white.T, bias=True))[::-1]
    np.testing.assert_allclose(variances[: N_ITEMS - 4], 1, atol=0.05)
    assert abs(white.mean()) < 1e-3 and variances.max() < 1.01


def test_pca_of_weights_that_move_is_refused(built):
    for tuning in ("full", "lora", "last"):
        with pytest.raises(ConfigError, match="item_whitening: pca: with item_llm_tuning: " + tuning):
            built(tuning, item_whitening="pca")


# ---- what is trained ----


@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_head_and_ids_are_trained_in_every_tuning(built, tuning):
    model = built(tuning, **ALL)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    first = train(model, steps=1)
    assert train(model, steps=12) < first
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    names = {name for name in before if name.startswith(("item_encoder.projection.", "id_part."))}
    assert len(names) == 5 and names <= changed


def test_the_catalogue_of_a_frozen_item_llm_costs_one_pass_of_the_head(built):
    model, calls = built("frozen", negatives="catalogue", nce_thres=None, **ALL), []
    model.item_encoder.projection.register_forward_hook(lambda module, inputs, _: calls.append(len(inputs[0])))
    rows = Interaction({**WINDOWS.interaction, "neg_item_id": EVERY[None, 1:]})
    model.train().calculate_loss(rows).backward()
    assert calls == [N_ITEMS]


def test_learning_rates(built):
    def rates(model):
        names = {id(weight): name for name, weight in model.named_parameters()}
        found = {}
        for group in model.parameter_groups():
            for weight in group["params"]:
                name = names[id(weight)]
                part = name.partition(".")[0] if ".projection." not in name else "head"
                found.setdefault(part, set()).add(group.get("lr"))
        return found

    keys = {"item_learning_rate": 2e-5}
    trained = {"item_encoder": {2e-5}, "user_encoder": {None}, "logit_scale": {None}}
    assert rates(built("full", **ALL, **keys)) == {**trained, "head": {2e-5}, "id_part": {None}}
    keys["item_head_learning_rate"] = 3e-4
    assert rates(built("full", **ALL, **keys)) == {**trained, "head": {3e-4}, "id_part": {3e-4}}
    trained.pop("item_encoder")
    assert rates(built("frozen", **ALL, **keys)) == {**trained, "head": {3e-4}, "id_part": {3e-4}}


def test_keys_of_parts_that_are_not_there_are_named(built, build, caplog):
    built("full", item_id_min_count=3)
    assert "item_id_min_count without effect: item_id_bound is 0" in caplog.text
    caplog.clear()
    build(item_head_learning_rate=0.1)  # equal widths
    assert "item_head_learning_rate without effect: there is neither an item head nor an id part" in caplog.text
    caplog.clear()
    built("full", **ALL, item_id_min_count=3, item_head_learning_rate=0.1)
    assert "without effect" not in caplog.text


def test_rare_items_are_those_of_the_training_data(toy):
    config, _, loaders = toy(item_id_bound=0.5, item_id_min_count=3)
    settings, training = HLLM.Keys.of(config), loaders[0]._dataset
    counts = training.rows.item_counts()
    assert build_bounded_ids(settings, training, 8).seen.tolist() == (counts >= 3).tolist()
    assert 0 < (counts >= 3).sum() < N_ITEMS
    assert build_bounded_ids(SimpleNamespace(item_id_bound=0.0), training, 8) is None


@pytest.mark.parametrize("key", ["item_head_hidden", "item_id_min_count"])
def test_sizes_below_1_are_refused(built, key):
    with pytest.raises(ConfigError, match=f"{key}: 0 must be at least 1"):
        built("full", **{key: 0})


# ---- with the cache ----


def test_cached_negatives_have_a_part_of_their_id(built, monkeypatch):
    model = built("full", negatives="cached", item_id_bound=0.5)
    with torch.no_grad():
        model.id_part.rows.weight[1:].normal_()
    compared = []

    def kept(*inputs, **further):
        compared.append(inputs)
        return info_nce(*inputs, **further)

    monkeypatch.setattr(next_item, "info_nce", kept)
    model.train().calculate_loss(WINDOWS)
    negatives, ids = compared[0][2], compared[0][4]
    with torch.no_grad():
        torch.testing.assert_close(negatives, model.vectors_of(ids), atol=1e-5, rtol=1e-5)
    assert ids.tolist() == EVERY[1:].tolist()


# ---- checkpoints and exports ----


@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_saved_and_loaded_scores_are_equal(built, toy, tiny_llm, tmp_path, tuning):
    model = built(tuning, **ALL)
    train(model)
    expected = scores(model)
    save_model(tmp_path, model, {})
    keys = {"item_pretrain_dir": tiny_llm("bert", hidden_size=24), "item_emb_token_n": 0, **TUNINGS[tuning], **ALL}
    config, _, loaders = toy(**keys)
    other = HLLM(config, loaders[0]._dataset, weights=Weights.FOLLOW)
    load_model(tmp_path, other)
    torch.testing.assert_close(scores(other), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("tuning", "following"), [("frozen", ["last"]), ("lora", ["full", "frozen"])])
def test_an_export_carries_all_parts(built, tmp_path, tuning, following):
    model = built(tuning, **ALL)
    train(model)
    expected = scores(model)
    export_model(model, tmp_path / "export")
    for after in following:
        other = built(after, **ALL, pretrained_hllm=str(tmp_path / "export"), user_llm_config=None)
        torch.testing.assert_close(scores(other), expected, atol=2e-2, rtol=0)
        found, wanted = other.state_dict(), model.state_dict()
        for name in wanted:
            if name.startswith(("item_encoder.projection.", "id_part.")):
                assert torch.equal(found[name], wanted[name])
    # What a head was trained with stays, where the vectors stay.
    assert after != "frozen" or torch.equal(other.item_encoder.whitening.matrix, model.item_encoder.whitening.matrix)


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"item_whitening": None}, "item_whitening is empty, and .* was trained with zca"),
        ({"item_whitening": "pca"}, "item_whitening is pca, and .* was trained with zca"),
        ({"item_head_hidden": None}, "item_head_hidden is empty, and .* was trained with 10"),
        ({"item_head_hidden": 9}, "item_head_hidden is 9, and .* was trained with 10"),
    ],
)
def test_another_whitening_or_head_than_the_exports_is_refused(built, tmp_path, keys, words):
    export_model(built("frozen", **ALL), tmp_path / "export")
    with pytest.raises(ModelError, match=f"^pretrained_hllm: {words}"):
        built("frozen", **{**ALL, **keys}, pretrained_hllm=str(tmp_path / "export"), user_llm_config=None)


def test_a_plain_export_takes_no_new_whitening_or_head(built, tmp_path):
    export_model(built("frozen"), tmp_path / "export")
    for key, word in (("item_whitening", "zca"), ("item_head_hidden", "10")):
        keys = {key: ALL[key], "pretrained_hllm": str(tmp_path / "export"), "user_llm_config": None}
        with pytest.raises(ModelError, match=f"{key} is {word}, and .* was trained with an empty one"):
            built("frozen", **keys)


def test_an_export_without_ids_or_of_other_items(built, tmp_path, caplog):
    model = built("frozen", **ALL)
    train(model)
    export_model(model, tmp_path / "export")
    keys = {**ALL, "pretrained_hllm": str(tmp_path / "export"), "user_llm_config": None}
    other = built("frozen", **{**keys, "item_id_bound": 0})
    assert "the part of item ids in" in caplog.text and other.id_part is None
    plain = built("frozen", item_whitening="zca", item_head_hidden=10)
    export_model(plain, tmp_path / "plain")
    with_ids = built("frozen", **{**keys, "pretrained_hllm": str(tmp_path / "plain")})
    assert not with_ids.id_part.rows.weight.any()


# ---- whole runs ----


@pytest.mark.parametrize("tuning", ["frozen", "full"])
def test_runs_end_to_end(settings, tmp_path, tuning):
    keys = settings(**ALL, **TUNINGS[tuning], eval_step=0)  # no validation: epochs take the statistics
    result = run(config_dict=keys, run_dir=tmp_path / "run")
    again = run(config_dict={"evaluate_only": True}, run_dir=tmp_path / "run")
    assert again["test_result"] == result["test_result"] and 0 <= result["test_result"]["ndcg@5"] <= 1


class Killed(BaseException):
    """Nobody catches it, like a signal."""


@pytest.mark.parametrize("eval_step", [1, 0], ids=["validated", "not validated"])
def test_a_run_killed_inside_an_epoch_goes_on_with_the_same_losses(settings, tmp_path, monkeypatch, eval_step):
    losses, killed_at, train_batch = [], [None], Trainer.train_batch

    def watched(trainer, *arguments, **keywords):
        if len(losses) == killed_at[0]:
            raise Killed
        losses.append(train_batch(trainer, *arguments, **keywords))
        return losses[-1]

    monkeypatch.setattr(Trainer, "train_batch", watched)
    keys = settings(**ALL, save_every_steps=1, eval_step=eval_step)
    run(config_dict=keys, run_dir=tmp_path / "whole")
    expected = torch.stack(losses)
    losses.clear()
    killed_at[0] = len(expected) // 2 + 1
    with pytest.raises(Killed):
        run(config_dict=keys, run_dir=tmp_path / "killed")
    killed_at[0] = None
    run(config_dict={"resume": True}, run_dir=tmp_path / "killed")
    assert len(expected) >= 4 and torch.equal(torch.stack(losses), expected)
