"""Config: merge order, unknown keys, RecBole's YAML unchanged, and what each model needs by default."""

import os
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml
from recbole.config import Config as StockConfig
from recbole.utils import InputType

from recbole_hllm import config as config_module
from recbole_hllm.cli import parse_arguments
from recbole_hllm.config import Config
from recbole_hllm.errors import ConfigError

SIX = ("SASRec", "GRU4Rec", "BERT4Rec", "FDSA", "SASRecF", "Pop")
INTER = "user_id:token\titem_id:token\ttimestamp:float\nu1\ti1\t1\n"
FULL = {"LS": "valid_and_test"}
NO_NEGATIVES = {"distribution": "none", "sample_num": "none", "alpha": "none", "dynamic": False, "candidate_num": 0}


def data_set(folder: Path, item: str | None, name="toy") -> dict:
    """A data set whose .item has this header; the keys that name its folder."""
    (folder / name).mkdir()
    (folder / name / f"{name}.inter").write_text(INTER)
    if item is not None:
        (folder / name / f"{name}.item").write_text(item + "\n")
    return {"data_path": str(folder)}


@pytest.fixture
def toy(tmp_path) -> dict:
    return data_set(tmp_path, "item_id:token\ttitle:token_seq\tprice:float\tbrand:token\tgenre:token_seq")


@pytest.fixture
def yaml_file(tmp_path):
    def write(text: str, name="user.yaml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def properties(tmp_path, monkeypatch):
    """Writes a property file of ours, for this test only."""
    folder = tmp_path / "properties"
    folder.mkdir()
    overall = config_module.properties_folder() / "overall.yaml"
    (folder / "overall.yaml").write_text(overall.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(config_module, "properties_folder", lambda: folder)

    def write(name: str, text: str):
        (folder / name).parent.mkdir(exist_ok=True)
        with open(folder / name, "a", encoding="utf-8") as file:
            file.write(text)

    return write


def refused(message, *arguments, **keywords):
    with pytest.raises(ConfigError, match=message) as error:
        Config(*arguments, **keywords)
    return str(error.value)


# ---- merge order ----


def test_each_source_is_stronger_than_the_one_before(toy, yaml_file, properties):
    keys = ("seed", "eval_step", "stopping_step", "loss_decimal_place", "metric_decimal_place", "epochs", "worker",
            "eval_batch_size")  # fmt: skip
    sources = [
        lambda text: properties("overall.yaml", text),
        lambda text: properties("model/SASRec.yaml", text),
        lambda text: properties("dataset/toy.yaml", text),
        lambda text: yaml_file(text, "first.yaml"),
        lambda text: yaml_file(text, "second.yaml"),
    ]
    # The n-th source sets all keys but the first n to n + 1, so that each key shows the last source that has it.
    for number, write in enumerate(sources, start=1):
        write("\n" + "".join(f"{key}: {number}\n" for key in keys[number:]))
    given = {key: 6 for key in keys[6:]}
    arguments = {key: "7" for key in keys[7:]}
    files = [Path(toy["data_path"], name) for name in ("first.yaml", "second.yaml")]
    config = Config("SASRec", "toy", files, given | toy, arguments)
    assert config["seed"] == 2020, "RecBole's"
    assert [config[key] for key in keys[1:]] == [1, 2, 3, 4, 5, 6, 7]


def test_ours_is_stronger_than_recboles_last_file(toy, properties):
    """RecBole applies sequential.yaml after the model's and the data set's files; ours still come later."""
    properties("model/SASRec.yaml", "eval_args: {split: {RS: [8, 1, 1]}, order: TO, group_by: user, mode: uni100}\n")
    assert Config("SASRec", "toy", config_dict=toy)["eval_args"]["split"] == {"RS": [8, 1, 1]}


def test_pixel_files_mask_the_history_for_every_model(tmp_path):
    folder = data_set(tmp_path, None, "pixel200k")
    for model in ("SASRec", "Pop"):
        config = Config(model, "pixel200k", config_dict=folder)
        assert config["mask_history"] is True and config["MAX_ITEM_LIST_LENGTH"] == 10
        assert (config["topk"], config["valid_metric"]) == ([5, 10, 50, 200], "NDCG@200")
    assert Config("SASRec", "ml-100k")["mask_history"] is False


def test_a_key_for_one_model_is_for_that_model_only(toy, yaml_file):
    file = yaml_file("n_layers: 3\nSASRec.n_layers: 1\nBERT4Rec.hidden_size: 32\nHLLM.text_keys: [title]\n")
    sasrec, bert4rec = Config("SASRec", "toy", [file], toy), Config("BERT4Rec", "toy", [file], toy)
    assert (sasrec["n_layers"], sasrec["hidden_size"], sasrec["text_keys"]) == (1, 64, None)
    assert (bert4rec["n_layers"], bert4rec["hidden_size"]) == (3, 32)
    assert "SASRec.n_layers" not in sasrec and "SASRec.n_layers" not in sasrec.settings


def test_a_variant_has_the_keys_of_its_model_and_its_own_on_top(toy):
    keys = toy | {"SASRec.n_layers": 3, "SASRec.n_heads": 1, "SASRec@wide.hidden_size": 128, "SASRec@wide.n_layers": 4}
    plain, wide = Config("SASRec", "toy", config_dict=keys), Config("SASRec@wide", "toy", config_dict=keys)
    sizes = ("n_layers", "n_heads", "hidden_size")
    assert [[config[size] for size in sizes] for config in (plain, wide)] == [[3, 1, 64], [4, 1, 128]]
    assert wide["model"] == "SASRec" and not [key for key in wide.settings if "." in key]


@pytest.mark.parametrize(
    "model, keys, said",
    [
        ("SASRec@", {}, "'SASRec@' is neither a name nor NAME@VARIANT"),
        ("SASRec@a.b", {}, "neither a name nor NAME@VARIANT"),
        ("SASRek@wide", {}, "did you mean 'SASRec'"),
        ("SASRec", {"SASRek@wide.n_layers": 1}, "'SASRek@wide' is not a model"),
        ("SASRec", {"SASRec@wide.n_layer": 1}, "did you mean 'n_layers'"),
    ],
)
def test_wrong_variants(toy, model, keys, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        Config(model, "toy", config_dict=toy | keys)


def test_a_key_for_one_model_is_the_stronger_one(toy):
    config = Config("SASRec", "toy", config_dict=toy | {"SASRec.n_layers": 1}, arguments={"n_layers": "3"})
    assert config["n_layers"] == 1


# ---- the command line ----


def test_values_of_the_command_line(toy):
    arguments = parse_arguments(
        ["--learning_rate=1e-4", "--topk=[5, 10]", "--item_prompt=a=b: ", "--eval_args={'mode': 'uni100'}"]
        + ["--load_col", "None", "--user_inter_num_interval=[5,100]", "--SASRec.n_layers=1", "--scheduler=none"]
    )
    config = Config("SASRec", "toy", config_dict=toy, arguments=arguments)
    assert (config["learning_rate"], config["topk"], config["item_prompt"]) == (1e-4, [5, 10], "a=b: ")
    assert (config["load_col"], config["user_inter_num_interval"]) == (None, "[5,100]")
    assert (config["n_layers"], config["scheduler"]) == (1, "none")
    assert config["eval_args"]["mode"] == {"valid": "uni100", "test": "uni100"}


def test_sys_argv_is_never_read(toy, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", "--epochs=7", "--nonsense=1", "word"])
    assert Config("SASRec", "toy", config_dict=toy)["epochs"] == 300


def test_strings_of_a_dict_are_read_as_recbole_reads_them(toy):
    config = Config("NARM", "toy", config_dict=toy | {"dropout_probs": "[0.1, 0.2]", "epochs": "3"})
    assert (config["dropout_probs"], config["epochs"]) == ([0.1, 0.2], 3)


def test_values_are_never_evaluated(toy, tmp_path):
    word = f"__import__('pathlib').Path({str(tmp_path / 'touched')!r}).touch()"
    config = Config("SASRec", "toy", config_dict=toy | {"wandb_project": word}, arguments={"dataset_save_path": word})
    assert config["wandb_project"] == config["dataset_save_path"] == word
    assert not (tmp_path / "touched").exists()


# ---- a user's RecBole YAML ----

PLAIN_YAML = {
    "general": (
        "BPR",
        """
        USER_ID_FIELD: user_id
        ITEM_ID_FIELD: item_id
        load_col:
            inter: [user_id, item_id]
        epochs: 500
        train_batch_size: 4096
        eval_batch_size: 4096
        train_neg_sample_args:
            distribution: uniform
            sample_num: 1
            alpha: 1.0
            dynamic: False
            candidate_num: 0
        eval_args:
            group_by: user
            order: RO
            split: {'RS':[0.8,0.1,0.1]}
            mode: full
        metrics: ['Recall', 'MRR', 'NDCG', 'Hit', 'Precision']
        topk: 10
        valid_metric: MRR@10
        metric_decimal_place: 4
        """,
    ),
    "sequential": (
        "GRU4Rec",
        """
        field_separator: "\\t"
        seq_separator: " "
        USER_ID_FIELD: user_id
        ITEM_ID_FIELD: item_id
        TIME_FIELD: timestamp
        LIST_SUFFIX: _list
        ITEM_LIST_LENGTH_FIELD: item_length
        MAX_ITEM_LIST_LENGTH: 20
        load_col:
          inter: [user_id, item_id, timestamp]
        user_inter_num_interval: "[5,inf)"
        item_inter_num_interval: "[5,inf)"
        val_interval:
          rating: "[3,inf)"
        learning_rate: 1e-4
        weight_decay: 1e-06
        clip_grad_norm: {'max_norm': 5, 'norm_type': 2}
        train_neg_sample_args: ~
        loss_type: 'CE'
        metrics: Recall
        topk: [10, 20]
        valid_metric: Recall@20
        """,
    ),
    "session": (
        "SASRec",
        """
        USER_ID_FIELD: session_id
        load_col:
          inter: [session_id, item_id_list, item_id]
        alias_of_item_id: [item_id_list]
        alias_of_tag: [tag_list]
        benchmark_filename: ['train', 'test']
        eval_args:
          split: {'LS': "valid_and_test"}
          mode: full
          order: TO
        train_neg_sample_args: ~
        n_layers: 1
        """,
    ),
    "sampled": (
        "SASRec",
        """
        loss_type: BPR
        train_neg_sample_args: {distribution: popularity, sample_num: 2}
        eval_args: {split: {LS: valid_and_test}, order: TO, mode: {valid: uni100, test: pop100}}
        repeatable: True
        metrics: [NDCG, Hit, AveragePopularity, ItemCoverage, GAUC]
        valid_metric: gauc
        neg_sampling: ~
        encoding: utf-8
        """,
    ),
}


class RecBolesOwn(StockConfig):
    """The stock Config on a NumPy that lacks names it wants to rename, without a command line."""

    def compatibility_settings(self):
        pass

    def _load_cmd_line(self):
        return {}


@pytest.mark.parametrize("name", PLAIN_YAML)
def test_a_yaml_of_recboles_documentation_works_unchanged(name, toy, yaml_file, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # the stock Config overwrites it
    model, text = PLAIN_YAML[name]
    file = yaml_file(text)
    ours = Config(model, "toy", [file], toy).final_config_dict
    stock = RecBolesOwn(model, "toy", [str(file)], toy).final_config_dict
    differing = {key for key in stock if stock[key] != ours[key]}
    assert differing == {"filter_inter_by_user_or_item"} | ({"repeatable"} if model == "BPR" else set())


@pytest.mark.parametrize("as_path", [str, Path])
def test_one_file_needs_no_list(toy, yaml_file, as_path):
    assert Config("SASRec", "toy", as_path(yaml_file("epochs: 2")), toy)["epochs"] == 2


def test_incomplete_eval_args_keep_the_order_of_time(toy):
    sampled = Config("SASRec", "toy", config_dict=toy | {"eval_args": {"mode": "uni100"}})["eval_args"]
    mode = {"valid": "uni100", "test": "uni100"}
    assert sampled == {"split": FULL, "order": "TO", "group_by": "user", "mode": mode}
    # Where the order is given, the rest is RecBole's default.
    ordered = Config("SASRec", "toy", config_dict=toy | {"eval_args": {"order": "TO"}})["eval_args"]
    assert ordered["split"] == {"RS": [0.8, 0.1, 0.1]}


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
                   ("kg_reverse_r", False), ("loss_decimal_place", 2), ("config_file", "x.yaml"), ("nce_thres", 0.9)]
)  # fmt: skip
def test_known_keys(toy, key, value):
    assert Config("SASRec", "toy", config_dict=toy | {key: value})[key] == value


@pytest.mark.parametrize("key", ["device", "MODEL_TYPE", "eval_type", "local_rank", "SASRec.device"])
def test_keys_that_the_program_sets_are_refused(toy, key):
    refused(f"key '{key}' is set by the program itself", "SASRec", "toy", config_dict=toy | {key: 1})


@pytest.mark.parametrize("key", ["run_dir", "config_files"])
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
    refused("model: .* is not a name", StockConfig, "toy")
    refused("no model named 'SASRek'; did you mean 'SASRec'", "SASRek", "toy")
    refused("'S3Rec' of RecBole does not run", "S3Rec", "toy")


# ---- what each model needs ----

GENERAL = ("BPR", "NeuMF", "DMF", "FISM", "Random")
SEQUENTIAL = ("NARM", "Caser", "FPMC", "TransRec", "SINE", "RepeatNet", "GRU4RecF", "CORE")


@pytest.mark.parametrize("model", (*SIX, *GENERAL, *SEQUENTIAL, "HLLM"))
def test_every_model_starts_with_no_further_key(model, toy):
    for config in (Config(model, "ml-100k"), Config(model, "toy", config_dict=toy)):
        assert config["eval_args"]["split"] == FULL and config["eval_args"]["order"] == "TO"
        assert config["eval_args"]["mode"] == {"valid": "full", "test": "full"}
        assert config["mask_history"] is False and config["precision"] == ("bf16" if model == "HLLM" else "fp32")
        assert config.spec.model.__name__ == config["model"] == model


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


def test_negatives_asked_for_are_not_dropped(toy):
    given = toy | {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
    refused(r"train_neg_sample_args \[.*should be None when the loss_type is CE", "SASRec", "toy", config_dict=given)
    given["train_neg_sample_args"] = {"distribution": "popularity", "alpha": 0.5}
    assert Config("HLLM", "toy", config_dict=given)["train_neg_sample_args"]["alpha"] == 0.5


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
def test_a_feature_column_that_the_data_has(tmp_path, model, header, column):
    config = Config(model, "toy", config_dict=data_set(tmp_path, header))
    assert config["selected_features"] == [column]
    assert config["load_col"] == {"inter": ["user_id", "item_id"], "item": ["item_id", column]}


def test_recboles_own_column_where_the_data_has_it():
    config = Config("SASRecF", "ml-100k")
    assert config["selected_features"] == ["class"]
    assert config["load_col"]["item"] == ["item_id", "release_year", "class"]


def test_columns_asked_for_are_loaded_with_the_others(toy):
    given = toy | {"selected_features": ["price", "brand"], "load_col": {"inter": ["user_id"], "item": ["title"]}}
    config = Config("FDSA", "toy", config_dict=given)
    assert config["selected_features"] == ["price", "brand"]
    assert config["load_col"] == {"inter": ["user_id"], "item": ["item_id", "title", "price", "brand"]}
    for load_col in (None, {"inter": "*", "item": "*"}):
        assert Config("FDSA", "toy", config_dict=toy | {"load_col": load_col})["load_col"] == load_col
    assert Config("FDSA", "toy", config_dict=toy | {"selected_features": "brand"})["selected_features"] == ["brand"]


def test_other_names_and_separators(tmp_path):
    keys = data_set(tmp_path, "asin:token,colour:token") | {"ITEM_ID_FIELD": "asin", "field_separator": ","}
    config = Config("SASRecF", "toy", config_dict=keys)
    assert config["selected_features"] == ["colour"] and config["load_col"]["item"] == ["asin", "colour"]


def test_models_without_features_do_not_ask_for_any(tmp_path):
    keys = data_set(tmp_path, None) | {"selected_features": ["class"]}
    config = Config("SASRec", "toy", config_dict=keys)
    assert "item" not in config["load_col"]


def test_no_feature_column_is_an_error(tmp_path, toy):
    refused(r"toy.item, which has no genres, wrong; token columns there: title, brand, genre", "FDSA", "toy",
            config_dict=toy | {"selected_features": ["genres", "wrong"]})  # fmt: skip
    bare = data_set(tmp_path, "item_id:token\tprice:float", "bare")
    refused(r"bare.item, which has no such column; token columns there: none", "FDSA", "bare", config_dict=bare)
    none = data_set(tmp_path, None, "none")
    refused(r"none.item, which is missing", "SASRecF", "none", config_dict=none)


def test_a_missing_data_set_is_left_to_its_own_error(tmp_path):
    Config("SASRecF", "nowhere", config_dict={"data_path": str(tmp_path)})


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
        ({"metrics": ["Recal"]}, "no metric named 'Recal'"),
        ({"metrics": ["AUC", "NDCG"]}, "can not be used at the same time"),
        ({"metrics": ["UAUC", "NDCG"]}, r"metrics: \['UAUC'\] need labels; rankings have Recall"),
        ({"metrics": ["wuauc"], "valid_metric": "WUAUC"}, r"metrics: \['wuauc'\] need labels"),
        ({"eval_targets": "all"}, "eval_targets: 'all' is neither each nor together"),
        ({"eval_targets": None}, "eval_targets: None is neither each nor together"),
        ({"eval_targets": ["each"]}, r"eval_targets: \['each'\] is neither"),
        ({"metrics": ["AUC"]}, "Full sort evaluation do not match value-based metrics"),
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
        ({"learning_rate": float("nan")}, "learning_rate: nan must be at least 0"),
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
        ({"eval_args": "full"}, "eval_args:.* should be a dict"),
        ({"eval_args": {"mode": "uni"}}, "eval_args: mode 'uni' is not one of full, uniN, popN"),
        ({"eval_args": {"mode": {"valid": "full", "test": "uniform"}}}, "eval_args: mode 'uniform'"),
        ({"eval_args": {"mode": 100}}, "eval_args: mode"),
        ({"loss_type": "BPR", "train_neg_sample_args": 1}, "train_neg_sample_args:.*should be a dict"),
        ({"loss_type": "BPR", "train_neg_sample_args": {"distribution": "normal"}}, r"distribution \[normal\]"),
        ({"metrics": None}, "metrics must not be empty"),
        ({"valid_metric": None}, "valid_metric must not be empty"),
        ({"mask_history": None}, "mask_history must not be empty"),
        ({"mask_history": "yes"}, "mask_history: 'yes' is neither True nor False"),
        ({"epochs": "ten"}, "epochs: 'ten' is not a number"),
        ({"hidden_size": [64]}, "hidden_size: .* is not a number"),
        ({"precision": "fp64"}, "precision: 'fp64' is not one of fp32, bf16, fp16"),
        ({"metrics": {"Recall"}}, "metrics: .* is a set"),
        ({"load_col": ["item_id"], "model": "FDSA"}, "config: "),
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
        ("HLLM", {}, "bf16"),
        ("HLLM", {"enable_amp": True, "enable_scaler": True}, "fp16"),
        ("HLLM", {"enable_amp": False}, "fp32"),
        ("HLLM", {"precision": "fp16"}, "fp16"),
    ],
)
def test_precision(toy, model, keys, precision):
    assert Config(model, "toy", config_dict=toy | keys)["precision"] == precision


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


def test_several_processes_are_refused(toy, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused("WORLD_SIZE is above 1", "SASRec", "toy", config_dict=toy)
    monkeypatch.setenv("WORLD_SIZE", "1")
    Config("SASRec", "toy", config_dict=toy)


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


# ---- nothing is shared ----


def mutable_parts(value):
    yield id(value)
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(part, (dict, list)):
            yield from mutable_parts(part)


def test_two_configs_share_no_mutable_value(toy):
    given = toy | {"load_col": {"inter": ["user_id"]}, "train_neg_sample_args": {"distribution": "popularity"}}
    before = deepcopy(given)
    arguments = {"topk": [5, 10], "eval_args": {"mode": "full"}}
    first = Config("BPR", "toy", config_dict=given, arguments=arguments)
    second = Config("BPR", "toy", config_dict=given, arguments=arguments)
    assert given == before and arguments == {"topk": [5, 10], "eval_args": {"mode": "full"}}
    for config in (first, second):
        config["load_col"]["inter"].append("x")
        config["topk"].append(20)
    assert given == before and arguments["topk"] == [5, 10] and first.settings["topk"] == [5, 10]
    holders = [first.final_config_dict, second.final_config_dict, first.settings, second.settings, given, arguments]
    parts = [set(mutable_parts(holder)) for holder in holders]
    for number, one in enumerate(parts):
        for other in parts[number + 1 :]:
            assert not one & other


def test_recboles_global_lists_are_not_touched(toy):
    from recbole.utils import dataset_arguments, evaluation_arguments, general_arguments, training_arguments

    lists = (dataset_arguments, evaluation_arguments, general_arguments, training_arguments)
    before = deepcopy(lists)
    resolvers = deepcopy(list(yaml.FullLoader.yaml_implicit_resolvers))
    config = Config("FDSA", "ml-100k")
    assert lists == before and list(yaml.FullLoader.yaml_implicit_resolvers) == resolvers
    assert all(config.parameters[name] is not part for name, part in zip(config.parameters, lists, strict=False))


# ---- imports ----


def test_neither_ray_nor_quick_start_is_imported():
    code = """
import importlib, pkgutil, sys
import recbole_hllm
for module in pkgutil.walk_packages(recbole_hllm.__path__, "recbole_hllm."):
    importlib.import_module(module.name)
from recbole_hllm.config import Config
Config("SASRec", "ml-100k")
print(*[name for name in sys.modules if name.split(".")[0] == "ray" or name.startswith("recbole.quick_start")])
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(config_module.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
