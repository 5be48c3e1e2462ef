"""What each model needs of a Config by default, the columns it reads, and the settings that make it again."""

from pathlib import Path

import pytest
import torch
import yaml
from recbole.utils import InputType

from recbole_hllm.config.config import Config
from recbole_hllm.config.parsing import fast_precision
from recbole_hllm.errors import ConfigError

SIX = ("SASRec", "GRU4Rec", "BERT4Rec", "FDSA", "SASRecF", "Pop")
FULL = {"LS": "valid_and_test"}
NO_NEGATIVES = {"distribution": "none", "sample_num": "none", "alpha": "none", "dynamic": False, "candidate_num": 0}


# ---- what each model needs ----

GENERAL = ("BPR", "NeuMF", "DMF", "FISM", "Random")
SEQUENTIAL = ("NARM", "Caser", "FPMC", "TransRec", "SINE", "RepeatNet", "GRU4RecF", "CORE")


@pytest.mark.parametrize("model", (*SIX, *GENERAL, *SEQUENTIAL, "HLLM"))
def test_every_model_starts_with_no_further_key(model, toy):
    fast = fast_precision(torch.device("cpu"))
    for config in (Config(model, "ml-100k"), Config(model, "toy", config_dict=toy)):
        assert config["eval_args"]["split"] == FULL and config["eval_args"]["order"] == "TO"
        assert config["eval_args"]["mode"] == {"valid": "full", "test": "full"}
        assert config["mask_history"] is False and config["precision"] == (fast if model == "HLLM" else "fp32")
        assert config.spec.model.__name__ == config["model"] == model


def test_incomplete_eval_args_keep_the_order_of_time(toy):
    sampled = Config("SASRec", "toy", config_dict=toy | {"eval_args": {"mode": "uni100"}})["eval_args"]
    mode = {"valid": "uni100", "test": "uni100"}
    assert sampled == {"split": FULL, "order": "TO", "group_by": "user", "mode": mode}
    # Where the order is given, the rest is RecBole's default.
    ordered = Config("SASRec", "toy", config_dict=toy | {"eval_args": {"order": "TO"}})["eval_args"]
    assert ordered["split"] == {"RS": [0.8, 0.1, 0.1]}


@pytest.mark.parametrize("model", (*SIX, "NARM", "SINE", "RepeatNet"))
def test_models_without_negatives_draw_none(model, toy):
    assert Config(model, "toy", config_dict=toy)["train_neg_sample_args"] == NO_NEGATIVES


@pytest.mark.parametrize("model", ["BPR", "NeuMF", "FPMC", "TransRec", "HLLM"])
def test_models_with_negatives_keep_recboles_default(model, toy):
    arguments = Config(model, "toy", config_dict=toy)["train_neg_sample_args"]
    assert (arguments["distribution"], arguments["sample_num"]) == ("uniform", 1)


def test_the_loss_decides(toy):
    config = Config("SASRec", "toy", config_dict=toy | {"loss_type": "BPR"})
    assert config["train_neg_sample_args"]["distribution"] == "uniform"
    assert config["MODEL_INPUT_TYPE"] == InputType.PAIRWISE
    # A key of other models does not take the negatives from one that needs them.
    assert Config("BPR", "toy", config_dict=toy | {"loss_type": "CE"})["train_neg_sample_args"]["sample_num"] == 1


# ---- item features ----


@pytest.mark.parametrize("model", ["FDSA", "SASRecF", "GRU4RecF"])
@pytest.mark.parametrize(
    "header, column",
    [
        ("item_id:token\ttitle:token_seq\tprice:float\tbrand:token\tgenre:token_seq", "genre"),
        ("item_id:token\tclass:token_seq\tcategories:token_seq", "class"),
        ("price:float\titem_id:token\tcolour:token", "colour"),
    ],
)
def test_a_feature_column_that_the_data_has(tmp_path, model, header, column, data_set):
    config = Config(model, "toy", config_dict=data_set(tmp_path, header))
    assert config["selected_features"] == [column]
    assert config["load_col"] == {"inter": ["user_id", "item_id"], "item": ["item_id", column]}


def test_recboles_own_column_where_the_data_has_it():
    config = Config("SASRecF", "ml-100k")
    assert config["selected_features"] == ["class"]
    assert config["load_col"]["item"] == ["item_id", "release_year", "class"]


def test_columns_asked_for_are_loaded_with_the_others(toy):
    given = toy | {"selected_features": ["price", "brand"], "load_col": {"inter": ["user_id"], "item": ["title"]}}
    given["numerical_features"] = ["price"]
    config = Config("FDSA", "toy", config_dict=given)
    assert config["selected_features"] == ["price", "brand"]
    assert config["load_col"] == {"inter": ["user_id"], "item": ["item_id", "title", "price", "brand"]}
    for load_col in (None, {"inter": "*", "item": "*"}):
        assert Config("FDSA", "toy", config_dict=toy | {"load_col": load_col})["load_col"] == load_col
    assert Config("FDSA", "toy", config_dict=toy | {"selected_features": "brand"})["selected_features"] == ["brand"]


def test_other_names_and_separators(tmp_path, data_set):
    keys = data_set(tmp_path, "asin:token,colour:token") | {"ITEM_ID_FIELD": "asin", "field_separator": ","}
    config = Config("SASRecF", "toy", config_dict=keys)
    assert config["selected_features"] == ["colour"] and config["load_col"]["item"] == ["asin", "colour"]


def test_models_without_features_do_not_ask_for_any(tmp_path, data_set):
    keys = data_set(tmp_path, None) | {"selected_features": ["class"]}
    config = Config("SASRec", "toy", config_dict=keys)
    assert "item" not in config["load_col"]


def test_a_missing_data_set_is_left_to_its_own_error(tmp_path):
    Config("SASRecF", "nowhere", config_dict={"data_path": str(tmp_path)})


# ---- precision ----


@pytest.mark.parametrize(
    "model, keys, precision",
    [
        ("SASRec", {}, "fp32"),
        ("SASRec", {"enable_amp": True}, "bf16"),
        ("SASRec", {"enable_amp": True, "enable_scaler": True}, "fp16"),
        ("SASRec", {"enable_scaler": True}, "fp32"),
        ("SASRec", {"enable_amp": True, "precision": "fp32"}, "fp32"),
        ("SASRec", {"precision": "bf16"}, "bf16"),
        ("HLLM", {}, "fast"),
        ("HLLM", {"enable_amp": True}, "bf16"),
        ("SASRec", {"precision": "auto"}, "fast"),
        ("HLLM", {"enable_amp": True, "enable_scaler": True}, "fp16"),
        ("HLLM", {"enable_amp": False}, "fp32"),
        ("HLLM", {"precision": "fp16"}, "fp16"),
        ("LightGCN", {"precision": "auto"}, "fp32"),
        ("SGL", {"precision": "fp32"}, "fp32"),
    ],
)
def test_precision(toy, monkeypatch, model, keys, precision):
    monkeypatch.setattr("recbole_hllm.config.parsing.fast_precision", lambda device: "fast")
    config = Config(model, "toy", config_dict=toy | keys)
    assert config["precision"] == config.settings["precision"] == precision


@pytest.mark.parametrize("keys", [{"precision": "bf16"}, {"enable_amp": True}])
def test_sparse_products_are_of_fp32_alone(toy, keys):
    with pytest.raises(ConfigError, match="precision: NCL has products or sums that torch does not do in bf16; give"):
        Config("NCL", "toy", config_dict=toy | keys)


@pytest.mark.parametrize(
    "device, capable, precision",
    [
        ("cpu", {"avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ("cpu", {"amx_bf16": True}, "bf16"),
        ("cpu", {"bf16": True, "neon": True}, "bf16"),
        ("cpu", {"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, "fp32"),
        ("cpu", {"neon": True, "bf16": False}, "fp32"),
        ("cuda", True, "bf16"),
        ("cuda", False, "fp32"),
    ],
)
def test_bf16_where_there_are_instructions_for_it(monkeypatch, device, capable, precision):
    if device == "cpu":
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable, raising=False)
    else:
        native = {False: capable, True: True}
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native[including_emulation])
    assert fast_precision(torch.device(device)) == precision


def test_a_torch_that_does_not_tell_what_the_cpu_can(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert fast_precision(torch.device("cpu")) == "fp32"


# ---- the settings that a run keeps ----


@pytest.mark.parametrize("model", (*SIX, "BPR", "HLLM"))
@pytest.mark.parametrize("as_file", [False, True])
def test_settings_make_an_equal_config(toy, yaml_file, model, as_file):
    keys = {"user_inter_num_interval": (5, 10), "seed": 7, "eval_args": {"mode": "uni100"}, "item_prompt": "[1]"}
    keys |= {"enable_amp": True, "reference": ["warmup"], "gpu_id": 0, "topk": (5, 10), "cache_dir": Path("2024")}
    config = Config(model, "toy", config_dict=toy | keys)
    file = yaml_file(yaml.safe_dump(config.settings), "settings.yaml")
    assert yaml.safe_load(file.read_text()) == config.settings
    again = Config(config_file_list=[file]) if as_file else Config(config_dict=config.settings)
    assert again.final_config_dict == config.final_config_dict
    assert again.settings == config.settings
    assert config["user_inter_num_interval"] == "(5, 10)" and config["item_prompt"] == "[1]"


def test_settings_hold_no_derived_value(toy):
    settings = Config("SASRec", "toy", config_dict=toy | {"model": "Pop", "dataset": "other"}).settings
    assert settings["model"] == "SASRec" and settings["dataset"] == "toy"
    assert settings["data_path"] == toy["data_path"] and settings["topk"] == [10]
    assert not settings.keys() & {"device", "MODEL_TYPE", "eval_type", "run_dir"}


def test_interactions_do_not_depend_on_the_files_a_model_reads(toy):
    """Default and repeated run alike keep interactions without a row in .item; the user may ask for RecBole's way."""
    config = Config("SASRec", "toy", config_dict=toy)
    assert config["filter_inter_by_user_or_item"] is False
    assert Config(config_dict=config.settings).external_config_dict["filter_inter_by_user_or_item"] is False
    asked = Config("SASRec", "toy", config_dict=toy | {"filter_inter_by_user_or_item": True})
    assert asked["filter_inter_by_user_or_item"] is True
