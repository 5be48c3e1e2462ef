"""RecBole's own checkpoints, written by RecBole, and files that only look like them."""

import os
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from recbole_hllm.errors import ModelError
from recbole_hllm.model.base.recbole_checkpoint import read_recbole_weight

# isort: split
import recbole.config
import recbole.data.dataset
import recbole.trainer
from recbole.model.sequential_recommender import SASRec

NAME = "item_embedding.weight"


def read(file, name=NAME):
    return read_recbole_weight(file, name, "item_table")


@pytest.fixture
def trained(toy_data, tmp_path, monkeypatch):
    """A SASRec of RecBole that its trainer trained for a step and saved, and the file: stock RecBole all the way."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    # It asks NumPy 2 for names that are gone; everything else here is RecBole as it is.
    monkeypatch.setattr(recbole.config.Config, "compatibility_settings", lambda config: None)
    keys = {
        "data_path": toy_data, "checkpoint_dir": str(tmp_path / "saved"), "hidden_size": 8, "inner_size": 8,
        "train_neg_sample_args": None, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "use_gpu": False,
        "state": "error", "MAX_ITEM_LIST_LENGTH": 5,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
    }  # fmt: skip
    config = recbole.config.Config(SASRec, "toy", config_dict=keys)
    train = recbole.data.dataset.SequentialDataset(config).build()[0]
    model = SASRec(config, train)
    trainer = recbole.trainer.Trainer(config, model)
    model.calculate_loss(train[list(range(8))]).backward()
    trainer.optimizer.step()
    trainer._save_checkpoint(0, verbose=False)
    return model, Path(trainer.saved_model_file)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # RecBole's own
def test_a_checkpoint_of_recboles_trainer(trained):
    model, file = trained
    saved = torch.load(file, weights_only=False)
    assert type(saved["config"]) is recbole.config.Config and saved["optimizer"]["state"], "all that RecBole keeps"
    assert torch.equal(read(file), model.item_embedding.weight)
    assert torch.equal(read(file, "position_embedding.weight"), model.position_embedding.weight)
    assert read(file, "no.weight") is None


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_any_type_layout_and_protocol(tmp_path, dtype, protocol):
    whole = torch.randn(6, 9).to(dtype)
    for table in (whole, whole[1:4], whole.T, torch.nn.Parameter(whole[:, 2:5].float()).to(dtype)):
        torch.save({"state_dict": OrderedDict({NAME: table})}, tmp_path / "f.pth", pickle_protocol=protocol)
        found = read(tmp_path / "f.pth")
        assert found.dtype == dtype and torch.equal(found, table)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, command, *arguments):
        self.doing = command, arguments

    def __reduce__(self):
        return self.doing


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_malicious_pickle_runs_nothing(tmp_path, protocol):
    touched, file, table = tmp_path / "touched", tmp_path / "f.pth", torch.ones(3, 2)
    for evil in (
        Malicious(os.system, f"touch {touched}"),
        Malicious(eval, f"open({str(touched)!r}, 'w')"),
        Malicious(exec, f"import os; os.mkdir({str(touched)!r})"),
        Malicious(open, str(touched), "w"),
    ):
        for content in (
            {"state_dict": {NAME: table}, "config": evil},
            {"config": {"deep": [evil, {evil: evil}]}, "state_dict": {"other": evil, NAME: table}},
        ):
            torch.save(content, file, pickle_protocol=protocol)
            assert torch.equal(read(file), table)
        torch.save({"state_dict": {NAME: evil}}, file, pickle_protocol=protocol)
        assert read(file) is None, "inert, and no table"
        torch.save(evil, file, pickle_protocol=protocol)
        with pytest.raises(ModelError, match="no checkpoint of RecBole"):
            read(file)
    assert not touched.exists()
    torch.save(Malicious(os.system, f"touch {touched}"), file)
    torch.load(file, weights_only=False)
    assert touched.exists(), "it would have, read in the usual way"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript
def test_a_program_in_place_of_a_checkpoint_runs_nothing(tmp_path):
    """torch.load would run it without asking."""

    class Program(torch.nn.Module):
        def forward(self, x):
            return x

    torch.jit.script(Program()).save(str(tmp_path / "f.pth"))
    with pytest.raises(ModelError, match="^item_table: .*f.pth is damaged, or no checkpoint of RecBole"):
        read(tmp_path / "f.pth")


def test_damaged_files(tmp_path):
    file = tmp_path / "f.pth"
    torch.save({"state_dict": {NAME: torch.randn(50, 50)}}, file)
    whole = file.read_bytes()
    damaged = [b"", b"text", whole[: len(whole) // 2], whole[:40] + bytes(60) + whole[100:]]
    for content in damaged:
        file.write_bytes(content)
        with pytest.raises(ModelError, match="^item_table: .*f.pth is damaged, or no checkpoint of RecBole 1.2"):
            read(file)
    for saved in ([1, 2], {"weights": {}}, {"state_dict": None}):
        torch.save(saved, file)
        with pytest.raises(ModelError, match="damaged, or no checkpoint"):
            read(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02.")
    with pytest.raises(ModelError, match="damaged, or no checkpoint"):
        read(file)


def test_a_shape_that_reaches_out_of_the_file(tmp_path):
    """What lies behind a tensor's own numbers is other memory of this process."""
    table = torch.ones(2, 2)
    torch.save({"state_dict": {NAME: torch.as_strided(table, (2, 2), (2, 1))}}, tmp_path / "f.pth")
    with zipfile.ZipFile(tmp_path / "f.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    data = next(name for name in members if name.endswith("/data/0"))
    members[data] = members[data][:8]
    with zipfile.ZipFile(tmp_path / "f.pth", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ModelError, match="damaged"):
        read(tmp_path / "f.pth")
