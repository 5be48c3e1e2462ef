"""LEARN: towers and targets against plain loops, what is frozen, and what its keys refuse."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import recbole_hllm  # noqa: F401

# isort: split
from recbole.data.interaction import Interaction

from recbole_hllm.config.config import Config
from recbole_hllm.data.loader import data_preparation
from recbole_hllm.data.rows.columns import TARGET_ITEMS
from recbole_hllm.data.rows.dataset import create_dataset
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.nn.all_action import dense_all_action
from recbole_hllm.runs.run import load_run, run


def plain_loss(model, rows, item_tower):
    """Every row's every history position against every target, read one by one; negatives are of other users."""
    users = rows["user_id"].tolist()
    outputs, targets = [], []
    for history, wanted in zip(rows["item_id_list"], rows[TARGET_ITEMS], strict=True):
        read = model.user_tower(model.content(history[history != 0])[None])[0]
        items, tower = wanted[wanted != 0], model.item_tower
        if item_tower == "causal":
            vectors = tower(model.content(items)[None])[0]
        elif item_tower == "alone":
            vectors = torch.cat([tower(model.content(item[None])[None])[0] for item in items])
        else:
            vectors = model.content(items)
        outputs.append(F.normalize(read, dim=-1))
        targets.append(F.normalize(vectors, dim=-1))
    terms = []
    for user, mine in enumerate(outputs):
        others = torch.cat([vectors for other, vectors in enumerate(targets) if users[other] != users[user]])
        for output in mine:
            for target in targets[user]:
                logits = torch.cat([(output @ target)[None], others @ output]) * 20
                terms.append(-logits.log_softmax(0)[0])
    return torch.stack(terms).mean()


@pytest.mark.parametrize("item_tower", ["causal", "alone", "content"])
@pytest.mark.parametrize("shared", [True, False])
def test_loss_is_the_plain_formula(build, item_tower, shared):
    model, rows = build(item_tower=item_tower, shared_towers=shared)
    expected = plain_loss(model, rows, item_tower)
    torch.testing.assert_close(model.calculate_loss(rows), expected, rtol=1e-4, atol=1e-5)
    assert (model.own_item_tower is not None) == (not shared and item_tower != "content")
    assert model.loss_terms["all_action"] == pytest.approx(expected.item(), rel=1e-4)


def test_alone_is_causal_with_one_target(build):
    causal, rows = build(target_length=1)
    alone, same = build(target_length=1, item_tower="alone")
    assert torch.equal(rows[TARGET_ITEMS], same[TARGET_ITEMS])
    torch.testing.assert_close(causal.calculate_loss(rows), alone.calculate_loss(same))


def test_a_later_target_never_moves_an_earlier_vector(build):
    model = build()[0]
    targets = torch.tensor([[3, 5, 7]])
    before = model.target_vectors(targets)
    after = model.target_vectors(torch.tensor([[3, 5, 8]]))
    assert torch.allclose(before[:, :2], after[:, :2]) and not torch.allclose(before[:, 2], after[:, 2])


def test_users_and_items_in_use(build):
    """The output at the last item, whatever the padding, and each item alone."""
    model = build()[0]
    histories = torch.tensor([[3, 5, 2, 0], [4, 0, 0, 0]])
    rows = Interaction({"item_id_list": histories, "item_length": torch.tensor([3, 1])})
    users = torch.stack([model.user_tower(model.content(torch.tensor([row])))[0, -1] for row in ([3, 5, 2], [4])])
    torch.testing.assert_close(model.user_vectors(rows), users)
    items = torch.stack([model.item_tower(model.content(torch.tensor([[item]])))[0, 0] for item in range(1, 13)])
    torch.testing.assert_close(model.item_vectors()[1:], items)
    assert model.item_vectors()[0].tolist() == [0.0] * 4
    expected = F.cosine_similarity(users[:, None], items[None], dim=-1)
    torch.testing.assert_close(model.full_sort_predict(rows)[:, 1:], expected)


def test_only_drawn_places_are_compared(build, monkeypatch):
    from recbole_hllm.model.learn import learn

    seen = []
    monkeypatch.setattr(learn, "dense_all_action", lambda *args: seen.append(args) or dense_all_action(*args))
    model, rows = build(history_samples=2, target_samples=1, mask_same_items=True)
    model.calculate_loss(rows)
    outputs, users, targets, target_users, _, owners, (ids, owned) = seen[0]
    real = (rows["item_id_list"] != 0).sum(1)
    assert torch.bincount(users).tolist() == real.clamp(max=2).tolist()
    assert target_users.tolist() == list(range(len(rows))) and len(outputs) == len(users)
    assert all(item in row for item, row in zip(ids.tolist(), rows[TARGET_ITEMS].tolist(), strict=True))
    assert torch.equal(owned, rows[TARGET_ITEMS]) and torch.equal(owners, rows["user_id"])


def test_the_catalogue_as_negatives(build):
    """With one target, one position and every item it is the softmax over the catalogue."""
    settings = {"negatives": "catalogue", "target_length": 1, "target_samples": None, "dropout": 0.0}
    model, _ = build(**settings)
    rows = Interaction({"user_id": torch.tensor([1, 2]), "item_id_list": torch.tensor([[3], [4]]),
                        TARGET_ITEMS: torch.tensor([[5], [2]])})  # fmt: skip
    loss = model.calculate_loss(rows)
    lasts = Interaction({"item_id_list": rows["item_id_list"], "item_length": torch.tensor([1, 1])})
    with torch.no_grad():
        logits = model.full_sort_predict(lasts)[:, 1:] / 0.05
    torch.testing.assert_close(loss.detach(), F.cross_entropy(logits, torch.tensor([4, 1])), rtol=1e-4, atol=1e-4)
    assert loss.requires_grad


def test_the_latest_places_without_a_draw(build):
    model, _ = build(sampling="last", history_samples=2)
    items = torch.tensor([[3, 5, 2, 7], [4, 6, 0, 0], [1, 0, 0, 0]])
    assert model._drawn("history", items).int().tolist() == [[0, 0, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]
    assert torch.equal(model._drawn("targets", items), items != 0)  # target_samples: all


def test_positions_that_are_counted(build):
    model, rows = build()
    history, targets = (rows[name] for name in ("item_id_list", TARGET_ITEMS))
    both = int((history != 0).sum() + (targets != 0).sum())
    assert model.positions_read(rows) == both
    assert build(negatives="catalogue", num_negatives=4)[0].positions_read(rows) == both + 4
    distinct = len(targets[targets != 0].unique())
    assert build(item_tower="alone")[0].positions_read(rows) == int((history != 0).sum()) + distinct < both
    assert build(item_tower="content")[0].positions_read(rows) == int((history != 0).sum())


def test_so_many_items_of_the_catalogue(build):
    model, rows = build(negatives="catalogue", num_negatives=4)
    draws = [model._negatives("cpu") for _ in range(200)]
    assert all(len(draw.unique()) == 4 for draw in draws)
    assert torch.cat(draws).unique().tolist() == list(range(1, model.n_items))
    assert torch.isfinite(model.calculate_loss(rows))
    assert len(build(negatives="catalogue", num_negatives=10_000)[0]._negatives("cpu")) == model.n_items - 1


def test_recent_places_are_drawn_more_often(build):
    model, _ = build(sampling="recent", history_samples=1)
    torch.manual_seed(0)
    items = torch.ones(20_000, 3, dtype=torch.long)
    shares = model._drawn("history", items).float().mean(0)
    weights = torch.log(torch.tensor([10, 10 + 9990 / 2, 10_000]))
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.015)


# ---- content ----


@pytest.mark.parametrize("content", ["bert", "llm", "random"])
def test_frozen_vectors_never_change(build, content):
    model, rows = build(content=content)
    before = model.content(torch.arange(13)).clone()
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        model.calculate_loss(rows).backward()
        optimizer.step()
    assert torch.equal(model.content(torch.arange(13)), before)
    assert not any(name.startswith("content") for name, _ in model.named_parameters()), "no language model is held"
    torch.testing.assert_close(before[1:].norm(dim=-1), torch.ones(12))
    assert before[0].abs().max() == 0


def test_ids_are_learned(build):
    model, rows = build(content="id", content_dim=6)
    assert model.content.width == 6
    model.train()
    model.calculate_loss(rows).backward()
    gradient = model.content.table.weight.grad
    assert gradient[1:].abs().sum() > 0 and gradient[0].abs().sum() == 0


def test_content_is_the_mean_of_the_language_models_states(build, keys_of, tiny_llm):
    from transformers import AutoModel, AutoTokenizer

    model, _ = build(content="bert", content_normalised=False, text_keys=["brand"])
    llm, tokenizer = (part.from_pretrained(tiny_llm("bert")) for part in (AutoModel, AutoTokenizer))
    read = tokenizer("brand: w8", return_tensors="pt")
    expected = llm.eval()(**{"input_ids": read["input_ids"]}).last_hidden_state[0].mean(0)
    data = create_dataset(Config("LEARN", config_dict=keys_of()))
    vector = model.content(torch.tensor(data.token2id("item_id", ["i3"])))[0]
    torch.testing.assert_close(vector, expected.detach(), rtol=1e-4, atol=1e-5)


def test_half_precision_on_the_disk(build, tmp_path):
    full = build()[0].content(torch.arange(13))
    half, rows = build(content_dtype="float16", cache_dir=str(tmp_path / "cache"))
    assert half.content.table.vectors.dtype == np.float16 and isinstance(half.content.table.vectors, np.memmap)
    torch.testing.assert_close(half.content(torch.arange(13)), full, rtol=2e-3, atol=2e-3)
    assert half.content(torch.arange(13)).dtype == torch.float32
    half.calculate_loss(rows)


def test_a_language_model_as_preference_module(build, tiny_llm):
    pytest.importorskip("peft")
    keys = {"user_pretrain_dir": tiny_llm("llama"), "user_llm_layers": 1, "gradient_checkpointing": True}
    model, rows = build(preference="llm", **keys)
    assert all(layer.gradient_checkpointing for layer in model.user_tower.reader.backbone.layers)
    model.calculate_loss(rows).backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.abs().sum()}
    assert any("lora_" in name for name in trained)
    assert all("lora_" in name or "_proj" in name.split("backbone")[0] for name in trained)


def test_a_run_is_read_back(keys_of, tmp_path):
    run("LEARN", config_dict=keys_of(), run_dir=tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    rows = next(iter(loaded.test_data))[0]
    again = load_run(tmp_path / "run").model
    assert torch.equal(loaded.model.full_sort_predict(rows), again.full_sort_predict(rows))
    kept = {name for name in loaded.model.state_dict() if name.startswith("content")}
    assert kept == {"content.table.source"}, "which vectors they were, and not the vectors"


def test_a_run_with_other_content_is_refused(keys_of, tmp_path, tiny_llm):
    run("LEARN", config_dict=keys_of(), run_dir=tmp_path / "run")
    with pytest.raises(ModelError, match="other weights"):
        load_run(tmp_path / "run", {"item_llm_layers": 1})


def test_a_second_stage_starts_with_the_weights_of_the_first(keys_of, build, tmp_path):
    run("LEARN", config_dict=keys_of(), run_dir=tmp_path / "first")
    first = load_run(tmp_path / "first").model
    second = build(pretrained_learn=str(tmp_path / "first"), sampling="recent")[0]
    theirs = second.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in first.state_dict().items())
    assert not torch.equal(first.user_tower.input_proj.weight, build()[0].user_tower.input_proj.weight)
    with pytest.raises(ModelError, match="pretrained_learn: .*of another model"):
        build(pretrained_learn=str(tmp_path / "first"), output_size=5)
    for key, value in (("n_heads", 1), ("content_normalised", False), ("item_prompt", "w3 "), ("item_tower", "alone")):
        with pytest.raises(ConfigError, match=f"^{key}: the run in pretrained_learn has .* compute something else"):
            build(pretrained_learn=str(tmp_path / "first"), **{key: value})
    with pytest.raises(ConfigError, match="^pretrained_learn: there is no finished run of LEARN or LEARNScorer in"):
        build(pretrained_learn=str(tmp_path / "nowhere"))


def test_a_second_stage_on_what_the_first_may_not_have_seen(keys_of, build, tmp_path):
    """The same items, split in another way: the targets to come may have been among what it was trained on."""
    whole = {"split": {"LS": "test_only"}, "order": "TO", "mode": "full", "group_by": "user"}
    run("LEARN", config_dict=keys_of(eval_args=whole), run_dir=tmp_path / "first")
    with pytest.raises(ConfigError, match="pretrained_learn: .* was trained on other data than this run: its training"):
        build(pretrained_learn=str(tmp_path / "first"))
    theirs = build(pretrained_learn=str(tmp_path / "first"), eval_args=whole)[0].state_dict()
    first = load_run(tmp_path / "first").model.state_dict()
    assert torch.equal(theirs["user_tower.input_proj.weight"], first["user_tower.input_proj.weight"])


def test_random_vectors_of_another_seed_are_no_first_stage(keys_of, build, tmp_path):
    run("LEARN", config_dict=keys_of(content="random"), run_dir=tmp_path / "first")
    build(content="random", pretrained_learn=str(tmp_path / "first"))
    with pytest.raises(ConfigError, match="^seed: the run in pretrained_learn has"):
        build(content="random", pretrained_learn=str(tmp_path / "first"), seed=1)


@pytest.mark.parametrize("content", ["bert", "id"])
def test_a_first_stage_on_other_items(keys_of, build, tmp_path, caplog, content):
    """Texts carry over, and what was trained on cannot be compared; vectors of ids are of their items."""
    run("LEARN", config_dict=keys_of(content=content), run_dir=tmp_path / "first")
    protocol = tmp_path / "first" / "protocol.json"
    said = json.loads(protocol.read_text())
    said["fingerprint"]["item_ids"] = "others"
    protocol.write_text(json.dumps(said))
    if content == "id":
        with pytest.raises(ConfigError, match="pretrained_learn: .* its item_ids differ"):
            build(content=content, pretrained_learn=str(tmp_path / "first"))
    else:
        build(content=content, pretrained_learn=str(tmp_path / "first"))
        assert "was trained on other items; whether what is to be predicted here" in caplog.text


def test_a_first_stage_with_another_language_model(keys_of, build, tmp_path, tiny_llm):
    llm = {"preference": "llm", "user_pretrain_dir": tiny_llm("llama"), "user_llm_tuning": "lora", "lora_r": 2}
    run("LEARN", config_dict=keys_of(**llm), run_dir=tmp_path / "first")
    build(**llm, pretrained_learn=str(tmp_path / "first"))
    for changed in ({"lora_alpha": 64}, {"user_pretrain_dir": tiny_llm("llama", rope_theta=100.0)}):
        (key,) = changed
        with pytest.raises(ConfigError, match=f"^{key}: the run in pretrained_learn has"):
            build(**{**llm, **changed}, pretrained_learn=str(tmp_path / "first"))


def test_one_row_left_over_has_company(keys_of):
    config = Config("LEARN", config_dict=keys_of(train_batch_size=2))
    train = data_preparation(config, create_dataset(config))[0]
    config = Config("LEARN", config_dict=keys_of(train_batch_size=len(train._dataset) - 1))
    train = data_preparation(config, create_dataset(config))[0]
    sizes = [len(rows) for rows in train]
    assert sizes == [len(train._dataset) - 1, 2]
    assert len(list(train)[-1]["user_id"].unique()) == 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_only_products_are_rounded(build, precision):
    """What the layers add to stays in float32."""
    model, rows = build(precision=precision)
    seen = []
    for layer in model.user_tower.reader.layers.layers:
        layer.norm1.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    model.user_vectors(rows)
    assert set(seen) == {torch.float32}
