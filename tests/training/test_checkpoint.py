"""What is saved comes back, nothing is unpickled, and what cannot be read says which file it is."""

import json
import pickle
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import recbole_hllm  # noqa: F401  (NumPy names before RecBole)

# isort: split
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.training.checkpoint import load_model, load_training, replacing, save_model, save_training


class Toy(AbstractRecommender):
    """Weights, a tied weight, and RecBole's three kinds of state outside the weights."""

    other_parameter_name = ["counts", "top", "extra", "names"]

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
        self.second.weight = self.first.weight
        self.counts, self.top = torch.zeros(5, dtype=torch.long), None
        object.__setattr__(self, "extra", torch.nn.Linear(2, 2))  # a module that is no submodule
        self.names = ["a", {"b": 1.5}]


class Other(Toy):
    pass


class Kept(Toy):
    other_parameter_name = ["thing"]
    thing = object()


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(1)
    model = Toy()
    model.counts[2], model.top, model.names = 7, 0.25, ["c", {"d": [True, None]}]
    save_model(tmp_path, model, {"epoch": 3})
    return tmp_path, model


def test_weights_and_state_outside_them_come_back(saved):
    folder, model = saved
    torch.manual_seed(2)
    fresh = Toy()
    assert load_model(folder, fresh)["epoch"] == 3
    for name, tensor in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor)
    assert torch.equal(fresh.extra.weight, model.extra.weight)
    assert torch.equal(fresh.counts, model.counts) and fresh.counts.dtype == torch.long
    assert (fresh.top, fresh.names) == (0.25, ["c", {"d": [True, None]}])
    assert fresh.second.weight is fresh.first.weight


def test_files_are_json_and_safetensors(saved):
    folder, _ = saved
    assert sorted(path.name for path in folder.iterdir()) == ["state.json", "weights.safetensors"]
    assert "tensor.counts" in load_file(folder / "weights.safetensors")
    assert json.loads((folder / "state.json").read_text())["other_parameter"] == {
        "top": 0.25,
        "names": ["c", {"d": [True, None]}],
    }


def test_state_of_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(ModelError, match="Kept.thing is a object, which a checkpoint cannot hold"):
        save_model(tmp_path, Kept(), {})


def truncate(path):
    path.write_bytes(path.read_bytes()[:40])


def pickled(path):
    path.write_bytes(pickle.dumps({"state_dict": {}}))


@pytest.mark.parametrize("name", ["weights.safetensors", "state.json"])
@pytest.mark.parametrize("damage", [truncate, pickled, lambda path: path.unlink()], ids=["cut", "pickle", "missing"])
def test_damaged_and_missing_files_are_named(saved, name, damage):
    folder, _ = saved
    damage(folder / name)
    with pytest.raises(ModelError, match=f"{name} is missing or damaged"):
        load_model(folder, Toy())


@pytest.mark.parametrize("content", ["[]", "{}", '{"model": "Toy", "other_parameter": 3}'])
def test_another_json_file_is_no_state(saved, content):
    folder, _ = saved
    (folder / "state.json").write_text(content)
    with pytest.raises(ModelError, match="state.json is not the state of a checkpoint"):
        load_model(folder, Toy())


def test_a_checkpoint_of_another_model_is_refused(saved):
    folder, _ = saved
    with pytest.raises(ModelError, match="state.json belongs to a Toy, not to a Other"):
        load_model(folder, Other())


def test_weights_of_other_sizes_are_refused(saved):
    folder, _ = saved
    wider = Toy()
    wider.first = torch.nn.Linear(3, 9)
    with pytest.raises(ModelError, match="does not fit Toy: first.bias, first.weight differ; keys that"):
        load_model(folder, wider)


def test_state_that_lacks_a_part_is_refused(saved):
    folder, _ = saved
    state = json.loads((folder / "state.json").read_text())
    del state["other_parameter"]["top"]
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(ModelError, match=r"\['top'\] of Toy do not fit"):
        load_model(folder, Toy())


# ---- a folder is replaced whole ----


def test_a_replacement_is_all_or_nothing(tmp_path):
    folder = tmp_path / "best"
    with replacing(folder) as new:
        (new / "a").write_text("1")
    with pytest.raises(KeyboardInterrupt), replacing(folder) as new:
        (new / "a").write_text("2")
        raise KeyboardInterrupt
    assert (folder / "a").read_text() == "1"
    with replacing(folder) as new:
        assert list(new.iterdir()) == []  # nothing left of the broken one
        (new / "b").write_text("3")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert [path.name for path in folder.iterdir()] == ["b"]


def checkpoint(folder, value):
    folder.mkdir()
    model = Toy()
    model.top = value
    save_model(folder, model, {})
    save_training(folder, optimizer_of(model), torch.Generator(), {"epoch": value})


@pytest.mark.parametrize("new_in_place", [True, False])
def test_a_replacement_killed_between_its_two_steps(tmp_path, new_in_place):
    """Reading takes what is whole and changes nothing; the next replacement tidies up."""
    checkpoint(tmp_path / ".last.replaced", 1.0)
    checkpoint(tmp_path / ("last" if new_in_place else ".last.part"), 2.0)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    model = Toy()
    load_model(tmp_path / "last", model)
    loop = load_training(tmp_path / "last", optimizer_of(model), torch.Generator())
    assert model.top == loop["epoch"] == (2.0 if new_in_place else 1.0)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
    with replacing(tmp_path / "last") as new:
        assert list(new.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_folders_of_the_user_beside_a_checkpoint_stay(tmp_path):
    mine = [tmp_path / "best.old", tmp_path / "best.part"]
    for folder in mine:
        folder.mkdir()
        (folder / "mine").write_text("mine")
    for _ in range(2):
        with replacing(tmp_path / "best") as new:
            save_model(new, Toy(), {})
        load_model(tmp_path / "best", Toy())
    assert all((folder / "mine").read_text() == "mine" for folder in mine)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write .*best"), replacing(tmp_path / "file" / "best"):
        pass
    with pytest.raises(ConfigError, match="cannot write .*weights.safetensors"):
        save_model(tmp_path / "file", Toy(), {})


# ---- optimizer and random generators ----


def optimizer_of(model):
    groups = [{"params": [model.first.weight], "lr": 0.1}, {"params": [model.first.bias], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.9), weight_decay=0.3)


def step(model, optimizer):
    model.first(torch.randn(2, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def draws(shuffling):
    values = [torch.rand(2), torch.rand(2, generator=shuffling)]
    return [*torch.cat(values).tolist(), *np.random.rand(2), np.random.randn(), random.random(), random.gauss(0, 1)]


def test_training_goes_on_where_it_was(tmp_path):
    torch.manual_seed(0)
    np.random.seed(0)
    np.random.randn()  # leaves a second normal number waiting
    model, shuffling = Toy(), torch.Generator().manual_seed(5)
    optimizer = optimizer_of(model)
    for _ in range(3):
        step(model, optimizer)
    save_model(tmp_path, model, {})
    save_training(tmp_path, optimizer, shuffling, {"epoch": 4})
    expected_draws = draws(shuffling)
    step(model, optimizer)

    fresh, other_shuffling = Toy(), torch.Generator()
    other = optimizer_of(fresh)
    other.param_groups[0]["lr"] = 99.0
    load_model(tmp_path, fresh)
    assert load_training(tmp_path, other, other_shuffling) == {"epoch": 4}
    assert draws(other_shuffling) == expected_draws
    step(fresh, other)
    assert torch.equal(fresh.first.weight, model.first.weight) and torch.equal(fresh.first.bias, model.first.bias)
    for ours, theirs in zip(other.param_groups, optimizer.param_groups, strict=True):
        for key in ("lr", "weight_decay", "eps"):
            assert ours[key] == theirs[key]


def test_training_state_of_another_optimizer_is_refused(tmp_path):
    model = Toy()
    save_training(tmp_path, optimizer_of(model), torch.Generator(), {})
    with pytest.raises(ModelError, match="does not fit this run"):
        load_training(tmp_path, torch.optim.SGD(model.parameters(), lr=1), torch.Generator())
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(ModelError, match="does not fit this run"):
        load_training(tmp_path, optimizer_of(model), torch.Generator())
