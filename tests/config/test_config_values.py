"""Values of keys: unreadable files, unknown keys, and names, metrics, numbers and devices that are used or refused."""

import os

import pytest
import torch
from recbole.config import Config as StockConfig

from recbole_hllm.config.config import Config
from recbole_hllm.errors import ConfigError


def refused(message, *arguments, **keywords):
    with pytest.raises(ConfigError, match=message) as error:
        Config(*arguments, **keywords)
    return str(error.value)


# ---- what is empty ----


@pytest.mark.parametrize(
    "model, key, value, read",
    [("SASRec", "scheduler", None, None), ("SASRec", "scheduler", "constant", "constant"),
     ("SASRec", "reference", None, None), ("SASRec", "sanity_rows", None, None), ("SASRec", "state", None, None),
     ("TextKNN", "item_prompt", None, ""), ("TextKNN", "text_separator", None, "")],
)  # fmt: skip
def test_a_key_that_may_be_left_empty_is_read(toy, model, key, value, read):
    assert Config(model, "toy", config_dict={**toy, key: value}).settings[key] == read


# ---- unreadable files and unknown keys ----


def test_a_broken_file_is_named_with_its_line(toy, yaml_file):
    file = yaml_file("epochs: 1\nseed: [1\nstate: INFO\n")
    assert str(file) in refused("line 3", "SASRec", "toy", [file], toy)
    refused("No such file", "SASRec", "toy", ["nowhere.yaml"], toy)
    refused("found a list", "SASRec", "toy", [yaml_file("- epochs")], toy)
    refused("python/object", "SASRec", "toy", [yaml_file("epochs: !!python/object/apply:os.getcwd []")], toy)


@pytest.mark.parametrize(
    "key, nearest", [("lerning_rate", "learning_rate"), ("max_item_list_length", "MAX_ITEM_LIST_LENGTH"),
                     ("SASRec.n_layer", "n_layers"), ("GRU4Rec.hidden_sise", "hidden_size")]
)  # fmt: skip
def test_an_unknown_key_is_answered_with_the_nearest(toy, yaml_file, key, nearest):
    message = f"unknown key '{key}'.*did you mean '{nearest}'"
    file = yaml_file(f"{key}: 1")
    assert str(file) in refused(message, "SASRec", "toy", [file], toy)
    refused(message, "SASRec", "toy", config_dict=toy | {key: 1})
    refused(message, "SASRec", "toy", config_dict=toy, arguments={key: "1"})


def test_an_unknown_key_without_a_near_one(toy):
    refused("unknown key 'qqqqqqqq'$", "SASRec", "toy", config_dict=toy | {"qqqqqqqq": 1})


def test_the_model_of_a_key_must_be_one(toy):
    refused("'SASRek' is not a model; did you mean 'SASRec'", "SASRec", "toy", arguments={"SASRek.n_layers": "1"})
    refused("'eval_args' is not a model", "SASRec", "toy", arguments={"eval_args.mode": "full"})


@pytest.mark.parametrize(
    "key, value", [("neg_sampling", None), ("encoding", "utf-8"), ("double_tower", True), ("alias_of_tag", ["tags"]),
                   ("kg_reverse_r", False), ("loss_decimal_place", 2), ("nce_thres", 0.9)]
)  # fmt: skip
def test_known_keys(toy, key, value):
    assert Config("SASRec", "toy", config_dict=toy | {key: value})[key] == value


@pytest.mark.parametrize("key", ["device", "MODEL_TYPE", "eval_type", "local_rank", "SASRec.device"])
def test_keys_that_the_program_sets_are_refused(toy, key):
    refused(f"key '{key}' is set by the program itself", "SASRec", "toy", config_dict=toy | {key: 1})


@pytest.mark.parametrize("key", ["run_dir", "config_files", "config_file"])
def test_arguments_of_the_command_line_are_no_keys(toy, yaml_file, key):
    file = yaml_file(f"{key}: 1")
    assert str(file) in refused("is an argument of the command line", "SASRec", "toy", [file], toy)


# ---- model and data set ----


def test_model_and_data_set_come_from_arguments_or_keys(toy, yaml_file):
    config = Config(
        config_file_list=[yaml_file("model: GRU4Rec\ndataset: other")], config_dict=toy | {"dataset": "toy"}
    )
    assert (config["model"], config["dataset"], config.model, config.dataset) == ("GRU4Rec", "toy", "GRU4Rec", "toy")
    assert Config("SASRec", config_dict=toy, arguments={"model": "Pop", "dataset": "2018"}).dataset == "2018"
    assert Config("SASRec", "toy", config_dict=toy | {"model": "Pop"}).model == "SASRec"


@pytest.mark.parametrize(
    "model, dataset, key", [(None, "toy", "model"), ("", "toy", "model"), ("Pop", None, "dataset")]
)
def test_a_missing_model_or_data_set_says_how_to_give_it(model, dataset, key):
    refused(f"^{key} is not set: give --{key}=NAME", model, dataset)


def test_a_model_that_is_no_name(toy):
    refused("model: Config is not a RecBole recommender", StockConfig, "toy")
    refused("no model named 'SASRek'; did you mean 'SASRec'", "SASRek", "toy")
    refused("'RaCT' of RecBole does not run", "RaCT", "toy")


def test_negatives_asked_for_are_not_dropped(toy):
    given = toy | {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
    refused(r"train_neg_sample_args \[.*should be None when the loss_type is CE", "SASRec", "toy", config_dict=given)
    given["train_neg_sample_args"] = {"distribution": "popularity", "alpha": 0.5}
    assert Config("HLLM", "toy", config_dict=given)["train_neg_sample_args"]["alpha"] == 0.5


def test_no_feature_column_is_an_error(tmp_path, toy, data_set):
    refused(r"toy.item, which has no genres, wrong; token columns there: title, brand, genre", "FDSA", "toy",
            config_dict=toy | {"selected_features": ["genres", "wrong"]})  # fmt: skip
    bare = data_set(tmp_path, "item_id:token\tprice:float", "bare")
    refused(r"bare.item, which has no such column; token columns there: none", "FDSA", "bare", config_dict=bare)
    none = data_set(tmp_path, None, "none")
    refused(r"none.item, which is missing", "SASRecF", "none", config_dict=none)


# ---- metrics and evaluation ----


@pytest.mark.parametrize(
    "keys",
    [
        {"topk": [5]},
        {"metrics": ["NDCG"]},
        {"valid_metric": "Recall"},
        {"valid_metric": "Recall@5"},
        {"valid_metric": "gauc"},
        {"valid_metric": 5},
    ],
)
def test_a_valid_metric_that_is_not_computed(toy, keys):
    refused(r"valid_metric: '.*' is not computed; metrics and topk give \w+@", "SASRec", "toy", config_dict=toy | keys)


@pytest.mark.parametrize(
    "keys",
    [
        {"topk": 5, "valid_metric": "mrr@5"},
        {"metrics": "NDCG", "valid_metric": "NDCG@10"},
        {"metrics": ["GAUC"], "valid_metric": "GAUC"},
        {"metrics": ["GiniIndex"], "valid_metric": "GiniIndex@10"},
    ],
)
def test_a_valid_metric_that_is(toy, keys):
    config = Config("SASRec", "toy", config_dict=toy | keys)
    assert config["valid_metric"] == keys["valid_metric"]
    assert config["valid_metric_bigger"] is ("Gini" not in keys["valid_metric"])


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"metrics": ["Recal"]}, "^metrics: there is no metric named 'Recal'; did you mean 'Recall'"),
        ({"metrics": ["coverag"]}, "^metrics: there is no metric named 'coverag'; did you mean 'Coverage'"),
        ({"metrics": [10]}, "^metrics: there is no metric named '10'"),
        ({"metrics": ["AUC", "NDCG"]}, r"^metrics: \['AUC'\] need labels; .* can not be used at the same time"),
        ({"metrics": ["UAUC", "NDCG"]}, r"metrics: \['UAUC'\] need labels; rankings have Recall"),
        ({"metrics": ["wuauc"], "valid_metric": "WUAUC"}, r"metrics: \['wuauc'\] need labels"),
        ({"eval_targets": "all"}, "eval_targets: 'all' is not one of each, together"),
        ({"eval_targets": None}, "eval_targets must not be empty"),
        ({"eval_targets": ["each"]}, r"eval_targets: \['each'\] is not one of"),
        ({"metrics": ["AUC"]}, r"^metrics: \['AUC'\] need labels; rankings have Recall"),
        ({"metrics": "LogLoss"}, r"^metrics: \['LogLoss'\] need labels; rankings have Recall"),
        ({"metrics": ["AUC"], "valid_metric": "AUC", "eval_args": {"mode": "uni100"}}, "metrics: .* need labels"),
        ({"topk": [10, 0]}, "topk: 0 must be at least 1"),
        ({"topk": "ten"}, "topk: 'ten' is not a number"),
        ({"topk": ["a"]}, "topk: 'a' is not a number"),
        ({"topk": [[5]]}, r"topk: \[5\] is not a number"),
        ({"train_batch_size": 0}, "train_batch_size: 0 must be at least 1"),
        ({"train_batch_size": 2048.5}, "train_batch_size: 2048.5 is not a whole number"),
        ({"eval_batch_size": 0}, "eval_batch_size: 0 must be at least 1"),
        ({"seed": 1.5}, "seed: 1.5 is not a whole number"),
        ({"seed": -1}, "seed: -1 must be at least 0"),
        ({"seed": 2**32}, "seed: 4294967296 must be at most 4294967295"),
        ({"seed": None}, "seed must not be empty"),
        ({"worker": 2.5}, "worker: 2.5 is not a whole number"),
        ({"epochs": 2.5}, "epochs: 2.5 is not a whole number"),
        ({"stopping_step": None}, "stopping_step must not be empty"),
        ({"max_training_minutes": "x"}, "max_training_minutes: 'x' is not a number"),
        ({"learning_rate": -0.1}, "learning_rate: -0.1 must be at least 0"),
        ({"learning_rate": float("nan")}, "learning_rate: nan is not a number"),
        ({"num_negatives": 2.5, "model": "HLLM"}, "num_negatives: 2.5 is not a whole number"),
        ({"MAX_TEXT_LENGTH": None, "model": "HLLM"}, "MAX_TEXT_LENGTH must not be empty"),
        ({"MAX_TEXT_LENGTH": None, "model": "HLLM"}, "MAX_TEXT_LENGTH must not be empty"),
        ({"user_llm_layers": "two", "model": "HLLM"}, "user_llm_layers: 'two' is not a number"),
        ({"item_llm_dropout": 1.5, "model": "HLLM"}, "item_llm_dropout: 1.5 must be at most 1"),
        ({"text_keys": 5, "model": "HLLM"}, "text_keys: 5 is neither the name of a column nor a list"),
        ({"text_keys": ["title", 5], "model": "HLLM"}, "text_keys: .* nor a list of names"),
        ({"reference": 1}, "reference: 1 is neither True, False nor a list"),
        ({"reference": ["chunk"]}, r"reference: \['chunk'\] unknown"),
        ({"SASRec.MAX_ITEM_LIST_LENGTH_TEST": 20}, "MAX_ITEM_LIST_LENGTH_TEST: SASRec is evaluated with MAX_ITEM"),
        ({"MAX_ITEM_LIST_LENGTH_TEST": 20, "model": "Pop"}, "MAX_ITEM_LIST_LENGTH_TEST: Pop is evaluated"),
        ({"repeatable": False}, "please set `repeatable` as `True`"),
        ({"eval_args": "full"}, "eval_args: 'full' is not a dict"),
        ({"eval_args": {"mode": "uni"}}, "eval_args: mode 'uni' is not one of full, uniN, popN"),
        ({"eval_args": {"mode": {"valid": "full", "test": "uniform"}}}, "eval_args: mode 'uniform'"),
        ({"eval_args": {"mode": 100}}, "eval_args: mode"),
        ({"loss_type": "BPR", "train_neg_sample_args": 1}, "train_neg_sample_args: 1 is not a dict"),
        ({"loss_type": "BPR", "train_neg_sample_args": {"distribution": "normal"}}, r"distribution \[normal\]"),
        ({"metrics": None}, "metrics must not be empty"),
        ({"valid_metric": None}, "valid_metric must not be empty"),
        ({"mask_history": None}, "mask_history must not be empty"),
        ({"mask_history": "yes"}, "mask_history: 'yes' is neither True, False nor both"),
        ({"epochs": "ten"}, "epochs: 'ten' is not a number"),
        ({"hidden_size": [64]}, "hidden_size: .* is not a number"),
        ({"precision": "fp64"}, "precision: 'fp64' is not one of auto, fp32, bf16, fp16"),
        ({"metrics": {"Recall"}}, "metrics: .* is a set"),
        ({"load_col": ["item_id"], "model": "FDSA"}, r"^load_col: \['item_id'\] is not a dict such as"),
    ],
)
def test_a_wrong_value_is_a_config_error_in_recboles_words_or_ours(toy, keys, words):
    refused(words, keys.get("model", "SASRec"), "toy", config_dict=toy | keys)


@pytest.mark.parametrize(
    "key, value, kept",
    [
        ("epochs", 0, 0), ("eval_step", 0, 0), ("eval_step", -1, -1), ("train_batch_size", 512.0, 512),
        ("topk", 10.0, [10]), ("topk", [5.0, 10], [5, 10]), ("num_negatives", None, None), ("num_negatives", 8.0, 8),
        ("max_training_minutes", 0.5, 0.5), ("max_training_minutes", None, None), ("text_keys", "title", "title"),
        ("stopping_step", float("inf"), float("inf")), ("item_emb_token_n", 1.0, 1), ("reference", False, False),
        ("MAX_ITEM_LIST_LENGTH_TEST", 20, 20),
    ],
)  # fmt: skip
def test_numbers_and_names_that_can_be_used(toy, key, value, kept):
    made = Config("HLLM", "toy", config_dict=toy | {key: value})[key]
    assert made == kept and type(made) is type(kept)


def test_a_history_length_of_evaluation_for_one_row_of_a_table(toy):
    given = toy | {"HLLM.MAX_ITEM_LIST_LENGTH_TEST": 20}
    assert Config("HLLM", "toy", config_dict=given)["MAX_ITEM_LIST_LENGTH_TEST"] == 20
    assert "MAX_ITEM_LIST_LENGTH_TEST" not in Config("SASRec", "toy", config_dict=given)
    Config("SASRec", "toy", config_dict=toy | {"MAX_ITEM_LIST_LENGTH_TEST": None})


def test_repeatable_of_a_general_model_is_the_history_mask(toy):
    assert Config("BPR", "toy", config_dict=toy)["mask_history"] is False
    assert Config("BPR", "toy", config_dict=toy | {"repeatable": False})["mask_history"] is True
    refused("contradict", "BPR", "toy", config_dict=toy | {"repeatable": False, "mask_history": False})


def test_evaluating_again_needs_no_valid_metric(toy):
    config = Config("SASRec", "toy", config_dict=toy | {"topk": [5], "evaluate_only": True})
    assert (config["topk"], config["valid_metric"]) == ([5], "MRR@10")


# ---- device ----


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize(
    "gpu_id, device",
    [("0", "cuda:0"), (0, "cuda:0"), ("1", "cuda:1"), ((0, 1), "cuda:0"), ([1, 0], "cuda:1"), ("0,1", "cuda:0"),
     ("1, 0", "cuda:1"), ("", "cpu"), (None, "cpu"), ("-1", "cpu"), (-1, "cpu")],
)  # fmt: skip
def test_gpu_id(toy, two_gpus, gpu_id, device):
    assert Config("SASRec", "toy", config_dict=toy | {"gpu_id": gpu_id})["device"] == torch.device(device)


def test_gpu_id_of_the_command_line(toy, two_gpus):
    for word in ("0,1", "(0,1)", "0"):
        assert Config("SASRec", "toy", config_dict=toy, arguments={"gpu_id": word})["device"] == torch.device("cuda:0")


def test_no_gpu(toy, two_gpus, monkeypatch):
    assert Config("SASRec", "toy", config_dict=toy | {"use_gpu": False})["device"] == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = Config("SASRec", "toy", config_dict=toy | {"gpu_id": "3"})
    assert config["device"] == torch.device("cpu")
    assert (config["single_spec"], config["local_rank"], config["world_size"]) == (True, 0, 1)


def test_a_gpu_that_is_not_there(toy, two_gpus):
    refused("gpu_id: 2 of 2 visible GPUs", "SASRec", "toy", config_dict=toy | {"gpu_id": "2"})
    refused("gpu_id: 'first' is not a number", "SASRec", "toy", config_dict=toy | {"gpu_id": "first"})


@pytest.mark.parametrize("value", [None, "", "3", "GPU-8932f937"])
def test_cuda_visible_devices_is_left_alone(toy, two_gpus, monkeypatch, value):
    if value is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    Config("SASRec", "toy", config_dict=toy | {"gpu_id": "1"})
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == value


@pytest.mark.parametrize("number", ["LOCAL_WORLD_SIZE", "LOCAL_SIZE"], ids=["torchrun", "deepspeed"])
@pytest.mark.parametrize("gpu_id, rank, device", [("0", 1, 1), ("1,0", 1, 0), ("0", 2, None), ("1,0,2", 2, None)])
def test_each_process_has_a_gpu_of_its_own(toy, two_gpus, monkeypatch, gpu_id, rank, device, number):
    for name, value in (("WORLD_SIZE", 4), (number, 2 if device is not None else 3), ("LOCAL_RANK", rank)):
        monkeypatch.setenv(name, str(value))
    keys = toy | {"gpu_id": gpu_id}
    if device is None:
        refused("2 of 2 visible GPUs, counted from 0 for 3 processes on this node", "SASRec", "toy", config_dict=keys)
    else:
        assert Config("SASRec", "toy", config_dict=keys)["device"] == torch.device("cuda", device)
