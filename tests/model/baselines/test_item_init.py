"""Tables that start from item vectors: against NumPy's principal components, and how far rows may go."""

import json

import numpy as np
import pytest
import torch

from recbole_hllm import Config, create_dataset, data_preparation, load_run, run
from recbole_hllm.errors import ConfigError, UserError
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.tables.side_by_side import compare
from recbole_hllm.training.trainer import Trainer

MODELS = ("SASRec", "SASRecNCE")
WIDTH = 4


@pytest.fixture(scope="session")
def vectors_run(settings_of, tmp_path_factory):
    """Folder of a finished run with item vectors of texts."""
    folder = tmp_path_factory.mktemp("vectors") / "TextKNN"
    return run("TextKNN", config_dict=settings_of("TextKNN"), run_dir=folder)["run_dir"]


@pytest.fixture
def keys_of(settings_of):
    """(model, **keys) -> keys of a small one."""
    sizes = {"hidden_size": WIDTH, "inner_size": 8, "learning_rate": 0.05}
    own = {"SASRec": {}, "SASRecNCE": {"num_negatives": 8}}
    return lambda model, **keys: {**settings_of(model), **own[model], **sizes, **keys}


@pytest.fixture
def build(keys_of):
    """(model, weights, **keys) -> config, training loader and the model."""

    def make(model, weights=Weights.FRESH, **keys):
        config = Config(model, config_dict=keys_of(model, **keys))
        train, *_ = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        return config, train, config.spec.build(config, train._dataset, weights)

    return make


def principal(folder, width, norm, whitened=False):
    """(12, width) components by NumPy, without their signs, with rows of that root mean square length."""
    vectors = load_run(folder).model.item_vectors()[1:].double().numpy()
    left, values, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    found = left[:, :width] * (1 if whitened else values[:width])
    return np.abs(found) * norm / np.sqrt((found**2).sum(1).mean())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("whitened", [False, True])
def test_the_table_starts_as_principal_components(build, vectors_run, model, whitened):
    keys = {"item_init": vectors_run, "item_init_norm": 0.7, "item_init_whitened": whitened}
    table = build(model, **keys)[2].item_embedding.weight
    expected = principal(vectors_run, WIDTH, 0.7, whitened)
    np.testing.assert_allclose(table[1:].detach().abs().numpy(), expected, atol=1e-5)
    assert not table[0].any() and table[1:].square().sum(1).mean().sqrt().item() == pytest.approx(0.7)
    assert table.requires_grad and len(np.unique(table[1:].detach().sign().numpy())) == 2


def test_a_language_model_gives_the_vectors_that_its_textknn_has(build, settings_of, vectors_run):
    keys = settings_of("TextKNN")
    read = {"item_llm_layers": 1, "text_keys": ["title"]}
    by_name = build("SASRec", item_init=keys["item_pretrain_dir"], item_init_keys=read)[2]
    by_run = build("SASRec", item_init=vectors_run)[2]
    torch.testing.assert_close(by_name.item_embedding.weight, by_run.item_embedding.weight)
    others = build("SASRec", item_init=keys["item_pretrain_dir"], item_init_keys={**read, "text_keys": ["class"]})[2]
    assert not torch.allclose(others.item_embedding.weight, by_run.item_embedding.weight, atol=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_all_else_starts_as_it_would_alone(build, vectors_run, model):
    alone, given = (build(model, **keys)[2].state_dict() for keys in ({}, {"item_init": vectors_run}))
    assert alone.keys() == given.keys() and not any("start" in name for name in given)
    for name, weight in alone.items():
        assert torch.equal(weight, given[name]) == (name != "item_embedding.weight"), name


def test_without_the_key_sasrec_is_recboles(build):
    from recbole.model.sequential_recommender import SASRec

    config, train, ours = build("SASRec")
    torch.manual_seed(0)
    theirs = SASRec(config, train._dataset)
    assert all(torch.equal(weight, theirs.state_dict()[name]) for name, weight in ours.state_dict().items())
    rows = next(iter(train))
    ours.eval(), theirs.eval()
    assert torch.equal(ours.calculate_loss(rows), theirs.calculate_loss(rows))
    assert torch.equal(ours.predict(rows), theirs.predict(rows))


@pytest.mark.parametrize(
    ("start", "message"),
    [(False, "item_init_norm, item_init_bound without effect: item_init is empty"),
     (True, "item_init_bound without effect: item_init_tuning is free")],
)  # fmt: skip
def test_keys_that_nothing_reads_are_named(build, vectors_run, caplog, start, message):
    build("SASRec", item_init=vectors_run if start else None, item_init_norm=2.0, item_init_bound=0.1)
    assert message in caplog.text


def steps(built, number):
    """The table after each step of the Trainer's."""
    config, train, model = built
    trainer, seen = Trainer(config, model, "unused"), []
    trainer._prepare(train)
    model.train()
    while len(seen) < number:
        for rows in train:
            trainer.train_batch(rows)
            trainer._step()
            seen.append(model.item_embedding.weight.detach().clone())
    return seen[:number]


@pytest.mark.parametrize("model", MODELS)
def test_no_row_goes_further_than_the_bound(build, vectors_run, model):
    keys = {"item_init": vectors_run, "item_init_tuning": "bounded", "item_init_bound": 0.2}
    built = build(model, **keys)
    start = built[2].item_embedding.weight.detach().clone()
    longest = [(table - start).norm(dim=1).max().item() for table in steps(built, 12)]
    assert max(longest) <= 0.2 * (1 + 1e-5) and longest[-1] > 0.199 and 0 < longest[0]
    free = steps(build(model, item_init=vectors_run), 12)[-1]
    assert (free - start).norm(dim=1).max() > 0.25


def test_a_row_comes_back_along_its_own_way(build, vectors_run):
    model = build("SASRec", item_init=vectors_run, item_init_tuning="bounded", item_init_bound=0.5)[2]
    start = model.item_embedding.weight.detach().clone()
    with torch.no_grad():
        model.item_embedding.weight[1] += torch.tensor([3.0, 0, 4, 0])
        model.item_embedding.weight[2] += torch.tensor([0.3, 0, 0, 0])
    model.after_step()
    moved = (model.item_embedding.weight - start).detach()
    torch.testing.assert_close(moved[1:3], torch.tensor([[0.3, 0, 0.4, 0], [0.3, 0, 0, 0]]))
    assert not moved[3:].any()


@pytest.mark.parametrize("model", MODELS)
def test_a_frozen_table_stays(build, vectors_run, model):
    built = build(model, item_init=vectors_run, item_init_tuning="frozen", weight_decay=0.5)
    start = built[2].item_embedding.weight.detach().clone()
    others = {name: weight.detach().clone() for name, weight in built[2].named_parameters()}
    assert all(torch.equal(table, start) for table in steps(built, 4))
    changed = {name for name, weight in built[2].named_parameters() if not torch.equal(weight, others[name])}
    assert changed == others.keys() - {"item_embedding.weight"}


def test_a_checkpoint_holds_the_table_and_needs_no_run(keys_of, settings_of, vectors_run, tmp_path):
    keys = keys_of("SASRec", item_init=vectors_run, item_init_tuning="bounded")
    result = run("SASRec", config_dict=keys, run_dir=tmp_path / "run")
    settings = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(settings.replace(vectors_run, str(tmp_path / "gone")))
    again = run(config_dict={"evaluate_only": True}, run_dir=tmp_path / "run")
    assert again["test_result"] == result["test_result"]


def test_a_row_of_a_table_is_where_another_starts(keys_of, settings_of, tmp_path, started):
    keys = {name: value for name, value in keys_of("SASRec").items()} | {"sanity_rows": False, "text_keys": ["title"]}
    of_texts = {f"TextKNN.{name}": settings_of("TextKNN")[name] for name in ("item_pretrain_dir", "item_llm_layers")}
    own = {**of_texts, "SASRec@text.item_init": "row:TextKNN", "SASRec@text.item_init_tuning": "frozen"}
    table = compare("TextKNN,SASRec@text", "toy", config_dict={**keys, **own}, run_dir=tmp_path / "table")
    assert not table["failed"]
    expected = principal(tmp_path / "table" / "TextKNN", WIDTH, 1.0)
    found = load_run(tmp_path / "table" / "SASRec@text").model.item_embedding.weight[1:].detach().abs()
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    costs = json.loads((tmp_path / "table" / "SASRec@text" / "costs.json").read_text())
    assert costs["parameters_total"] - costs["parameters_trained"] == 13 * WIDTH
    with pytest.raises(ConfigError, match="Pop is a Pop, which has no item vectors"):
        compare("Pop,SASRec", "toy", config_dict={**keys, "SASRec.item_init": "row:Pop"}, run_dir=tmp_path)
    with pytest.raises(ConfigError, match="no row HLLM before it"):
        compare("Pop,SASRec", "toy", config_dict={**keys, "SASRec.item_init": "row:HLLM"}, run_dir=tmp_path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"item_init_tuning": "frozen"}, "item_init_tuning: there is nothing to start from"),
        ({"item_init_keys": {"text_keys": ["title"]}}, "item_init_keys: there is nothing to start from"),
        ({"item_init": "run", "hidden_size": 12}, "12 vectors of 64 numbers have no 12 principal components"),
        ({"item_init": "run", "hidden_size": 18}, "have no 18 principal components"),
        ({"item_init": "run", "item_init_keys": {"text_keys": ["title"]}}, "item_init names a run"),
        ({"item_init": "llm", "item_init_keys": {"text_key": "title"}}, "did you mean 'text_keys'"),
        ({"item_init": "llm", "item_init_keys": {"text_keys": ["none"]}}, "item_init: .* no column 'none'"),
        ({"item_init": "run", "item_init_tuning": "bound"}, "not one of free, frozen, bounded"),
        ({"item_init": "run", "item_init_tuning": "bounded", "strategy": "deepspeed"}, "take strategy: ddp, or free"),
    ],
)
def test_wrong_keys_say_what_to_do(keys_of, settings_of, vectors_run, tmp_path, keys, message):
    sources = {"run": vectors_run, "llm": settings_of("TextKNN")["item_pretrain_dir"]}
    keys = {key: sources.get(value, value) if key == "item_init" else value for key, value in keys.items()}
    with pytest.raises(UserError, match=message):
        run("SASRec", config_dict=keys_of("SASRec", **keys), run_dir=tmp_path / "run")


def test_vectors_of_other_items_are_refused(keys_of, vectors_run, write_dataset, tmp_path):
    rows = [(f"u{user}", f"j{(user + step) % 9}", step) for user in range(9) for step in range(6)]
    write_dataset(tmp_path, "others", rows)
    others = {"data_path": str(tmp_path), "dataset": "others", "topk": [5], "valid_metric": "MRR@5"}
    keys = keys_of("SASRec", item_init=vectors_run, **others)
    with pytest.raises(ConfigError, match="item_init: .* was trained on other data than this run: its item_ids"):
        run("SASRec", config_dict=keys, run_dir=tmp_path / "run")
