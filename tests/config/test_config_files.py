"""Config: merge order, the command line, RecBole's YAML unchanged, and nothing that two of them share."""

import os
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from recbole.config import Config as StockConfig

from recbole_hllm.config import config as config_module
from recbole_hllm.config.config import Config
from recbole_hllm.errors import ConfigError
from recbole_hllm.verbs.line import parse_arguments


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


def test_pixel_files_mask_the_history_for_every_model(tmp_path, data_set):
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
from recbole_hllm.config.config import Config
Config("SASRec", "ml-100k")
print(*[name for name in sys.modules if name.split(".")[0] == "ray" or name.startswith("recbole.quick_start")])
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(config_module.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
