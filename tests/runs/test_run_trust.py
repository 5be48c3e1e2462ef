"""Folders that somebody sent: no pickle in them is opened, and no code of theirs is run unless asked for."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import yaml

from recbole_hllm import load_run, run
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.runs.folder import read_settings
from recbole_hllm.runs.run import evaluate_run
from recbole_hllm.storage.files import read_json


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_that_recbole_would_open_stay_closed(settings_of, toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    names = ["toy-SequentialDataset.pth", "toy-SequenceDataset.pth", "toy-Dataset.pth", "toy-for-SASRec-dataloader.pth"]
    for folder in (Path("saved"), Path("run"), Path("run/best"), Path("run/last"), Path(toy) / "toy"):
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).write_bytes(trap)
    settings = settings_of("SASRec")
    with pytest.raises(ConfigError, match="already holds a run"):
        run("SASRec", config_dict=settings, run_dir="run")
    run("SASRec", config_dict={**settings, "save_dataset": False}, run_dir="other")
    for name in names:
        (tmp_path / "other" / "best" / name).write_bytes(trap)
        (Path(toy) / "toy" / name).unlink()
    load_run("other")
    run("SASRec", config_dict={**settings, "resume": True, "epochs": 3}, run_dir="other")
    assert not (tmp_path / "sprung").exists()


@pytest.fixture
def sent(settings_of, tmp_path, monkeypatch):
    """A run's folder that asks for the code of its Item LLM, and the file that this code would write."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    settings, marker, folder = settings_of("HLLM"), tmp_path / "marker", tmp_path / "run"
    llm = tmp_path / "llm"
    shutil.copytree(settings["item_pretrain_dir"], llm)
    run("HLLM", config_dict={**settings, "item_pretrain_dir": llm, "epochs": 1}, run_dir=folder)
    code = f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Own:\n    pass\n"
    (llm / "sent_code.py").write_text(code)
    config = json.loads((llm / "config.json").read_text())
    own = dict.fromkeys(("AutoConfig", "AutoModel"), "sent_code.Own")
    (llm / "config.json").write_text(json.dumps({**config, "auto_map": own}))
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert "trust_remote_code" not in saved
    asked = {"trust_remote_code": True, "HLLM.trust_remote_code": True}
    (folder / "config.yaml").write_text(yaml.safe_dump({**saved, **asked}))
    return folder, marker


def test_a_run_folder_cannot_allow_itself_to_run_code(sent):
    folder, marker = sent
    assert load_run(folder).config["trust_remote_code"] is False
    evaluate_run(folder)
    run(config_dict={"resume": True, "epochs": 2}, run_dir=folder)
    assert read_json(folder / "costs.json")["epochs"] == 2
    assert not marker.exists() and not any("trust_remote_code" in key for key in read_settings(folder))
    with pytest.raises(ModelError):  # the code is run, and is no model
        load_run(folder, {"trust_remote_code": True})
    assert marker.exists()
