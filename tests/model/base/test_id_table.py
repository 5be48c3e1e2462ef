"""The item table of a model of ids: from its run, from RecBole's checkpoint, and only if it is of the same data."""

import json
import shutil

import pytest
import torch

from recbole_hllm import Config, create_dataset, data_preparation, load_run, run
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.base.id_table import read_id_table

NAME = "item_embedding.weight"


@pytest.fixture(scope="module")
def sasrec(settings_of, tmp_path_factory):
    """Folder of a trained SASRec of width 8."""
    folder = tmp_path_factory.mktemp("runs") / "sasrec"
    run("SASRec", config_dict=settings_of("SASRec"), run_dir=folder)
    return folder


@pytest.fixture
def training(settings_of):
    """(**keys) -> the training part of a data set as E4SRec gets it."""

    def make(**keys):
        config = Config("E4SRec", config_dict={**settings_of("E4SRec"), **keys})
        return data_preparation(config, create_dataset(config))[0]._dataset

    return make


@pytest.fixture
def moved(sasrec, tmp_path):
    """A copy of the run that may be damaged."""
    return shutil.copytree(sasrec, tmp_path / "moved" / "sasrec")


def read(path, dataset, width=8):
    return read_id_table(path, "item_table", width, dataset)


def test_a_run_gives_its_best_weights(sasrec, moved, training):
    weights = load_run(sasrec).model.item_embedding.weight.detach()
    table = read(sasrec, training())
    assert table.shape == (13, 8) and torch.equal(table[1:], weights[1:])
    assert table.dtype == torch.float32 and not table.requires_grad
    assert weights[0].abs().max() > 0 and table[0].abs().max() == 0, "RecBole's row of padding is random"
    assert torch.equal(read(moved, training()), table), "a moved folder is as good"


@pytest.mark.parametrize("rows", ["positions", "prefix", "user"])
def test_rows_of_training_make_no_difference(sasrec, training, rows):
    assert read(sasrec, training(training_rows=rows, MAX_ITEM_LIST_LENGTH=3)).shape == (13, 8)


def test_a_part_of_the_training_data_may_be_trained_on(sasrec, training):
    assert read(sasrec, training(train_user_fraction=0.5)).shape == (13, 8)


def test_another_model_of_ids(settings_of, training, tmp_path):
    run("GRU4Rec", config_dict={**settings_of("GRU4Rec"), "epochs": 1}, run_dir=tmp_path / "gru")
    weights = load_run(tmp_path / "gru").model.item_embedding.weight
    assert torch.equal(read(tmp_path / "gru", training())[1:], weights[1:])


@pytest.mark.parametrize(
    "keys, names",
    [
        ({"eval_args": {"split": {"LS": "valid_only"}}}, "training"),
        ({"eval_args": {"split": {"RS": [0.5, 0.25, 0.25]}}}, "training"),
        ({"item_inter_num_interval": "[9,inf)"}, "item_ids and training"),
        ({"dataset": "labelled"}, "training"),
    ],
)
def test_a_run_on_other_data_is_refused(sasrec, training, keys, names):
    with pytest.raises(ConfigError, match=f"^item_table: {sasrec} was trained on other data .* its {names} differ"):
        read(sasrec, training(**keys))


def test_a_run_of_another_width_is_refused(sasrec, training):
    with pytest.raises(ConfigError, match=f"^item_table: rows of {sasrec} have 8 numbers; set item_embed_dim: 8$"):
        read(sasrec, training(), width=16)


def test_a_run_without_item_ids_is_refused(settings_of, training, tmp_path):
    run("Markov", config_dict=settings_of("Markov"), run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="^item_table: .*run has no item_embedding.weight; take a model of ids"):
        read(tmp_path / "run", training())


def test_nothing_there_and_an_unfinished_run(moved, training, tmp_path):
    with pytest.raises(ConfigError, match=f"^item_table: there is nothing at {tmp_path}/no; give the folder of a run"):
        read(tmp_path / "no", training())
    (moved / "protocol.json").unlink()
    with pytest.raises(ConfigError, match=f"^item_table: {moved} is no folder of a finished run"):
        read(moved, training())


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '"text"'])
def test_a_damaged_protocol(moved, training, content):
    (moved / "protocol.json").write_text(content)
    with pytest.raises(ModelError, match="^item_table: .*protocol.json is damaged"):
        read(moved, training())


def test_an_old_protocol_is_not_trusted(moved, training):
    protocol = json.loads((moved / "protocol.json").read_text())
    del protocol["fingerprint"]["training"]
    (moved / "protocol.json").write_text(json.dumps(protocol))
    with pytest.raises(ConfigError, match="its training differ"):
        read(moved, training())


def test_damaged_and_missing_weights(moved, training):
    file = moved / "best" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=f"^item_table: {file} is missing or damaged"):
        read(moved, training())
    file.unlink()
    with pytest.raises(ModelError, match=f"^item_table: {file} is missing or damaged"):
        read(moved, training())


def test_a_checkpoint_of_recbole(training, tmp_path):
    file, table = tmp_path / "SASRec.pth", torch.randn(13, 8, dtype=torch.float16)
    torch.save({"state_dict": {NAME: table}}, file, pickle_protocol=4)
    found = read(file, training())
    assert found.dtype == torch.float32 and torch.equal(found[1:], table[1:].float()) and found[0].abs().max() == 0


@pytest.mark.parametrize(
    "weights, said",
    [
        ({NAME: torch.ones(14, 8)}, "has 14 rows, and toy 13 items .padding included.; it is of other data"),
        ({NAME: torch.ones(13, 4)}, "have 4 numbers; set item_embed_dim: 4"),
        ({"user_embedding.weight": torch.ones(13, 8)}, "has no item_embedding.weight; take a model of ids"),
        ({NAME: torch.ones(13)}, "has no item_embedding.weight"),
        ({NAME: [1, 2]}, "has no item_embedding.weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit(training, tmp_path, weights, said):
    torch.save({"state_dict": weights}, tmp_path / "f.pth")
    with pytest.raises(ConfigError, match=f"^item_table: .*f.pth {said}"):
        read(tmp_path / "f.pth", training())
