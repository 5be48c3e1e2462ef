"""Whole runs of HLLM whose language models are tuned with LoRA or frozen, and the settings and exports it refuses."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.runs.export import export_model
from recbole_hllm.runs.run import load_run, run
from recbole_hllm.training.trainer import Trainer


def change_weights(folder):
    """Of the language model in a folder."""
    file = Path(folder, "model.safetensors")
    save_file({name: 1.1 * weight for name, weight in load_file(file).items()}, file, metadata={"format": "pt"})


# ---- whole runs ----


@pytest.mark.parametrize("mode", ["lora", "frozen"])
def test_load_run_gives_the_trained_scores(finished, tmp_path, monkeypatch, mode):
    kept = {}
    fit = Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda self, *a, **k: (fit(self, *a, **k), kept.update(model=self.model))[0])
    folder = finished(item_llm_tuning=mode)
    loaded = load_run(folder)
    rows = next(iter(loaded.test_data))[0]
    with torch.no_grad():
        expected = kept["model"].eval().full_sort_predict(rows)
        torch.testing.assert_close(loaded.model.full_sort_predict(rows), expected, atol=1e-6, rtol=0)
        shutil.rmtree(tmp_path / "toy" / ".recbole_hllm_cache")  # the vectors of a frozen Item LLM can be made again
        torch.testing.assert_close(load_run(folder).model.full_sort_predict(rows), expected, atol=1e-6, rtol=0)


def test_a_killed_run_goes_on(settings, tmp_path, monkeypatch):
    keys = settings(item_llm_tuning="frozen", user_llm_tuning="lora", lora_dropout=0.2)
    whole = run(config_dict=keys, run_dir=tmp_path / "whole")
    real = Trainer._timed_epoch

    def killed(self, *arguments):
        if self.epochs_run == 1:
            raise KeyboardInterrupt
        real(self, *arguments)

    monkeypatch.setattr(Trainer, "_timed_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        run(config_dict=keys, run_dir=tmp_path / "part")
    monkeypatch.undo()
    resumed = run(config_dict={**keys, "resume": True}, run_dir=tmp_path / "part")
    assert resumed["test_result"] == whole["test_result"]
    assert resumed["best_valid_result"] == whole["best_valid_result"]


def test_a_frozen_run_refuses_vectors_of_other_weights(finished, tiny_llm, tmp_path):
    folder = finished(item_llm_tuning="frozen")
    change_weights(tiny_llm("llama"))
    with pytest.raises(ModelError, match="(?s)does not fit HLLM.*frozen language model of other weights"):
        load_run(folder)


def test_a_run_may_start_from_the_export_of_another(finished, tmp_path):
    first = finished(item_llm_tuning="lora")
    loaded = load_run(first)
    export_model(loaded.model, tmp_path / "stage1")
    keys = {"pretrained_hllm": str(tmp_path / "stage1"), "item_llm_tuning": "frozen", "epochs": 0}
    second = run(config_dict={**loaded.config.settings, **keys}, run_dir=tmp_path / "stage2")
    assert second["test_result"] == run(config_dict={"evaluate_only": True}, run_dir=first)["test_result"]
    again = run(config_dict={"evaluate_only": True}, run_dir=tmp_path / "stage2")
    assert again["test_result"] == second["test_result"]


# ---- bad settings ----


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"item_llm_tuning": "frozn"}, "item_llm_tuning: 'frozn' is not one of full, lora, frozen.*'frozen'"),
        ({"user_llm_tuning": 3}, "user_llm_tuning: 3 is not one of"),
        ({"item_llm_tuning": "frozen", "item_llm_init": False}, "item_llm_tuning: frozen.*item_llm_init: False"),
        ({"user_llm_tuning": "lora", "user_llm_init": False}, "user_llm_tuning: lora.*user_llm_init: False"),
        ({"item_llm_tuning": "frozen", "item_emb_token_n": 1}, "item_emb_token_n: 1.*pretrained_hllm"),
        ({"item_llm_tuning": "lora", "lora_target_modules": 3}, "lora_target_modules: 3 is not a list of names"),
        ({"lora_r": 0}, "lora_r: 0 must be at least 1"),
        ({"lora_alpha": -1}, "lora_alpha: -1 must be at least 0"),
        ({"lora_dropout": 1.5}, "lora_dropout: 1.5 must be at most 1"),
    ],
)
def test_bad_settings(build, keys, message):
    with pytest.raises(ConfigError, match=message):
        build(**keys)


def test_unknown_target_module(build):
    with pytest.raises(ModelError, match="no linear layer is called 'wq'"):
        build(user_llm_tuning="lora", lora_target_modules=["wq"])


def test_nothing_to_train(build):
    frozen = {"item_llm_tuning": "frozen", "user_llm_tuning": "frozen"}
    model, _ = build(**frozen)
    assert [len(group["params"]) for group in model.parameter_groups()] == [1]  # the temperature
    model, _ = build(**frozen, temperature=0.1)
    with pytest.raises(ConfigError, match="item_llm_tuning and user_llm_tuning.*nothing to train"):
        model.parameter_groups()


# ---- bad folders ----


def test_export_overwrites_nothing(build, tmp_path):
    model, _ = build()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(ConfigError, match="export: .*out is not empty"):
        export_model(model, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="export: cannot write"):
        export_model(model, tmp_path / "file")


def test_export_of_a_frozen_item_llm_that_has_changed(build, tmp_path, tiny_llm):
    model, _ = build(item_llm_tuning="frozen")
    change_weights(tiny_llm("llama"))
    with pytest.raises(ModelError, match="frozen Item LLM has changed"):
        export_model(model, tmp_path / "out")


def test_bad_exported_folders(build, tmp_path):
    model, _ = build()
    export_model(model, tmp_path / "out")
    with pytest.raises(ModelError, match="item_emb_token_n.*unknown.*item_emb_tokens"):
        build(pretrained_hllm=str(tmp_path / "out"), item_emb_token_n=0)
    (tmp_path / "out" / "training.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="training.safetensors is damaged"):
        build(pretrained_hllm=str(tmp_path / "out"))
    (tmp_path / "out" / "training.safetensors").unlink()
    with pytest.raises(ModelError, match="pretrained_hllm: the folder .* has no training.safetensors"):
        build(pretrained_hllm=str(tmp_path / "out"))
