"""Keys and folders given to a schedule of stages: which is the strongest, which may change, and bad input."""

import shutil

import pytest
import yaml

from recbole_hllm import Config, cli, load_run, run, run_stages
from recbole_hllm.errors import ConfigError, UserError
from recbole_hllm.runs import stages
from recbole_hllm.storage.files import read_json
from recbole_hllm.tables.side_by_side import compare


def test_the_keys_of_a_stage_are_the_strongest(keys_of, tmp_path, monkeypatch):
    """Stage 3 has those of stage 2."""
    seen = []
    monkeypatch.setattr(stages, "_run_stage", lambda stage, keys, folder: seen.append(Config(config_dict=keys)))
    given = {"HLLM.learning_rate": 0.2, "stage2.learning_rate": 0.3, "stage3.eval_batch_size": 7, "learning_rate": 0.1,
             "stage2.eval_batch_size": 6, "item_llm_tuning": "lora", "stage2.user_llm_tuning": "lora"}  # fmt: skip
    run_stages(config_dict=keys_of("HLLM", **given), run_dir=tmp_path)
    assert [config["learning_rate"] for config in seen] == [0.2, 0.3, 0.3]
    assert [config["eval_batch_size"] for config in seen] == [4096, 6, 7]
    assert [config["item_llm_tuning"] for config in seen] == ["lora", "frozen", "frozen"]
    assert [config["user_llm_tuning"] for config in seen] == ["full", "lora", "full"]
    exports = [None, *(str(tmp_path / f"stage-{number}" / "export") for number in (1, 2))]
    assert [config["pretrained_hllm"] for config in seen] == exports


def test_the_command_line(keys_of, tmp_path, capsys):
    """One file, one command; and going on, which takes all keys from the folder."""
    file, folder = tmp_path / "stages.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(keys_of("HLLM")))
    words = [f"--config_files={file}", f"--run_dir={folder}"]
    assert cli.main([*words, "--training_stage=1"]) == 0
    assert cli.main(["--resume", f"--run_dir={folder}", "--training_stage=1,2"]) == 0
    assert [row["stage"] for row in read_json(folder / "stages.json")] == [1, 2]
    assert "| stage |" in capsys.readouterr().out
    for more, said in (
        (["--training_stage=1"], "already holds a run"),
        (["--plan"], "--plan estimates one run"),
        (["--model=HLLM,SASRec"], "not a table of several"),
        (["--evaluate_only"], "PATH/stage-2"),
        (["--stage2.epoch=3"], "stage 2: unknown key 'epoch'; did you mean 'epochs'"),
        (["--training_stage=1,2", "--SASRec.n_layers=1"], "'SASRec' is not a model of this run (HLLM)"),
    ):
        assert cli.main([*words, *more]) == 2
        assert said in capsys.readouterr().err


def test_a_stage_alone_has_the_keys_of_the_schedule(scheduled, keys_of, tmp_path):
    """Whatever is given with it: the same model, history length and data, and nothing of keys.yaml is lost."""
    folder = tmp_path / "run"
    shutil.copytree(scheduled("HLLM")["run_dir"], folder)
    shutil.rmtree(folder / "stage-3")
    result = run_stages(config_dict={"training_stage": 3, "stage3.eval_batch_size": 5}, run_dir=folder)
    assert [row["history_length"] for row in result["stages"]] == [4, 8, 8]
    assert result["stages"][2]["test_result"] == pytest.approx(scheduled("HLLM")["stages"][2]["test_result"])
    assert load_run(folder / "stage-3").config["eval_batch_size"] == 5
    expected = keys_of("HLLM", training_stage=3, **{"stage3.eval_batch_size": 5})
    assert yaml.safe_load((folder / "keys.yaml").read_text()) == expected


def test_where_and_how_fast_may_change_and_what_is_not_finished(scheduled, keys_of, tmp_path, monkeypatch):
    folder, seen = tmp_path / "run", {}
    shutil.copytree(scheduled("HLLM")["run_dir"], folder)
    (folder / "stage-2" / "costs.json").unlink()
    shutil.rmtree(folder / "stage-2" / "export")
    shutil.rmtree(folder / "stage-3")
    monkeypatch.setattr(stages, "_run_stage", lambda stage, keys, folder: seen.update({stage: keys}))
    changed = {"stage2.epochs": 4, "cache_dir": str(tmp_path), "show_progress": False}
    run_stages(config_dict={"resume": True, **changed}, run_dir=folder)
    assert [seen[stage]["epochs"] for stage in (1, 2)] == [1, 4]
    assert yaml.safe_load((folder / "keys.yaml").read_text()) == keys_of("HLLM", **changed)


# ---- bad input ----


@pytest.mark.parametrize("value", [-1, 4, "x", [0, 2], [2, 1], [1, 1], [1, 3], [], True, [1, "2"], 1.0, None, {"a": 1}])
def test_stages_that_there_are_not(keys_of, tmp_path, value):
    with pytest.raises(ConfigError, match="^training_stage(: .* is not one of the stages 0, 1, 2 and 3| is not set)"):
        run_stages(config_dict=keys_of("HLLM", training_stage=value), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "model, keys, said",
    [
        ("HLLM", {"stage4.epochs": 1}, "'stage4.epochs': there is no stage '4'"),
        ("HLLM", {"stage.epochs": 1}, "there is no stage ''"),
        ("HLLM", {"stage0.epochs": 1}, "'stage0.epochs': stage 0 is not run"),
        ("HLLM", {"stage0.item_llm_tuning": "lora"}, "in stage 0 the schedule itself sets 'item_llm_tuning'"),
        ("HLLM", {"training_stage": [0, 1, 2, 3], "stage1.pretrained_hllm": "x"}, "in stage 1 the schedule itself"),
        ("HLLM", {"stage1.epoch": 1}, "stage 1: unknown key 'epoch'; did you mean 'epochs'"),
        ("HLLM", {"stage2.epochs": -1}, "stage 2: epochs: -1 must be at least 0"),
        ("HLLM", {"stage2.MAX_ITEM_LIST_LENGTH": "long"}, "stage 2: MAX_ITEM_LIST_LENGTH: 'long'"),
        ("HLLM", {"stage2.item_llm_tuning": "full"}, "in stage 2 the schedule itself sets 'item_llm_tuning'"),
        ("HLLM", {"stage2.pretrained_hllm": "there"}, "in stage 2 the schedule itself sets 'pretrained_hllm'"),
        ("HLLM", {"stage3.epochs": 1}, "in stage 3 the schedule itself sets 'epochs'"),
        ("HLLM", {"stage2.dataset": "other"}, "'dataset' cannot be of one stage"),
        ("HLLM", {"stage2.HLLM.epochs": 1}, "'HLLM.epochs' cannot be of one stage"),
        ("HLLM", {"stage2.topk": [3]}, "'topk' cannot be of one stage; write topk"),
        ("HLLM", {"stage2.reference": ["mask_target"]}, "reference: mask_target would be of stage 1 or stage 2 alone"),
        ("HLLM", {"stage2.mask_history": True}, "'mask_history' cannot be of one stage"),
        ("HLLM", {"stage3.eval_args": {"mode": "uni5"}}, "'eval_args' cannot be of one stage"),
        ("HLLM", {"stage2.user_llm_tuning": "fulll"}, "stage 2: user_llm_tuning: 'fulll' is not one of full, lora"),
        ("HLLM", {"stage2.negatives": "sharedd"}, "stage 2: negatives: 'sharedd' is not one of shared, per_position"),
        ("HLLM", {"stage2.negatives": "per_position", "stage2.num_negatives": None}, "stage 2: num_negatives: "),
        ("HLLM", {"stage2.scheduler": "linear"}, "stage 2: scheduler: 'linear' is not one of none, constant, cosine"),
        ("HLLM", {"stage2.warmup_ratio": 1}, "stage 2: warmup_ratio: 1.* must be at least 0 and below 1"),
        ("HLLM", {"stage2.clip_grad_norm": 5}, "stage 2: clip_grad_norm: 5 is not a dict"),
        ("HLLM", {"stage2.time_of": "last"}, "stage 2: time_of: 'last' is not one of item, next"),
        ("HLLM", {"stage2.time_num": 9}, "stage 2: time_num: 9 must be at most 6"),
        ("HLLM", {"stage2.lora_target_modules": [1]}, "stage 2: lora_target_modules: "),
        ("HLLMRanker", {"stage2.head_input": "sum"}, "stage 2: head_input: 'sum' is not one of"),
        ("HLLMRanker", {"stage2.negatives": "per_position"}, "stage 2: negatives: 'per_position'"),
        ("HLLMRanker", {"stage2.user_llm_tuning": "fulll"}, "stage 2: user_llm_tuning: 'fulll'"),
        ("HLLM", {"item_llm_tuning": "frozen"}, "stage 1 trains both LLMs"),
        ("HLLM", {"training_stage": [1, 2], "stage3.eval_batch_size": 5}, "stage 3 is not run; training_stage is"),
        ("HLLM", {"training_stage": 1, "stage3.eval_batch_size": 5}, "is not run; training_stage is 1"),
        ("HLLM", {"evaluate_only": True}, "evaluate_only: .*PATH/stage-2"),
        ("HLLM", {"dataset": None}, "dataset is not set"),
        ("HLLM", {"model": "HLLM,Pop"}, "not a table of several"),
        ("HLLM", {"model": ["HLLM", "Pop"]}, "not a table of several"),
        ("HLLMRanker", {"fusion": "early"}, "fusion: early .* no user vectors"),
        ("SASRec", {}, "training_stage: SASRec is not trained in stages; HLLM and HLLMRanker are"),
        ("E4SRec", {}, "training_stage: E4SRec is not trained in stages; HLLM and HLLMRanker are"),
    ],
)
def test_bad_keys_are_refused_before_anything_runs(keys_of, tmp_path, model, keys, said):
    with pytest.raises(ConfigError, match=said):
        run_stages(config_dict=keys_of(model, **keys), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"stage2.MAX_ITEM_LIST_LENGTH": 9}, "^stage 2: MAX_ITEM_LIST_LENGTH: 9 items do not fit into the 8 positions"),
        (
            {"stage2.user_llm_tuning": "lora", "stage2.lora_target_modules": ["q_proj"]},
            "^stage 2: lora_target_modules: no linear layer is called 'q_proj'; its linear layers are c_attn",
        ),
    ],
)
def test_later_stages_are_fit_for_the_llms_of_the_first(keys_of, tmp_path, keys, said):
    few = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8, "vocab_size": 8}
    with pytest.raises(UserError, match=said):
        run_stages(config_dict=keys_of("HLLM", user_llm_config=few, **keys), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_early_fusion_has_two_stages(keys_of, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "_run_stage", lambda *arguments: None)
    keys = keys_of("HLLMRanker", fusion="early", training_stage=[1, 2])
    assert run_stages(config_dict=keys, run_dir=tmp_path)["stages"] == []


def test_folders_that_hold_something_else(keys_of, scheduled, tmp_path):
    with pytest.raises(ConfigError, match=r"stage-1 already holds a run \(config.yaml, export\)"):
        run_stages(config_dict=keys_of("HLLM"), run_dir=scheduled("HLLM")["run_dir"])
    for name, content in (("keys.yaml", "dataset: toy\n"), ("config.yaml", "model: HLLM\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(content)
        with pytest.raises(ConfigError, match=rf"already holds a run \({name}\)"):
            run_stages(config_dict=keys_of("HLLM"), run_dir=tmp_path / name)
        with pytest.raises(ConfigError, match="there are no stages in .*: no keys.yaml with training_stage"):
            run_stages(config_dict={"resume": True}, run_dir=tmp_path / name)
    with pytest.raises(ConfigError, match="resume: name the folder of the unfinished stages"):
        run_stages(config_dict={"resume": True})


def test_a_run_alone_does_not_go_into_the_folder_of_stages(keys_without_stages, scheduled):
    with pytest.raises(ConfigError, match=r"already holds a run \(keys.yaml\)"):
        run(config_dict={**keys_without_stages("HLLM"), "training_stage": None}, run_dir=scheduled("HLLM")["run_dir"])


def test_stages_are_no_single_run_and_no_table(keys_without_stages, tmp_path):
    keys = keys_without_stages("HLLM")
    for start in (lambda: run(config_dict=keys, run_dir=tmp_path / "run"), lambda: Config(config_dict=keys)):
        with pytest.raises(ConfigError, match="training_stage: .* several runs of one model"):
            start()
    with pytest.raises(ConfigError, match="training_stage: .* several runs of one model"):
        compare(["HLLM", "Pop"], config_dict=keys, run_dir=tmp_path / "table")
    with pytest.raises(ConfigError, match="'stage2.epochs' is for one stage of training_stage, and this is one run"):
        run("HLLM", config_dict={**keys, "training_stage": None, "stage2.epochs": 3}, run_dir=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
