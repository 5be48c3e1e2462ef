"""Keys and columns without effect are told in one line for each reason; those that have one are not."""

import pytest

from recbole_hllm.config.config import Config
from recbole_hllm.config.parsing import read_yaml
from recbole_hllm.config.places import properties_folder, recbole_folder
from recbole_hllm.errors import ConfigError, UserError
from recbole_hllm.registry import get_spec, model_names
from recbole_hllm.runs.effect import tell_of_run, tell_of_table, unread_columns, without_effect
from recbole_hllm.runs.run import run
from recbole_hllm.tables.side_by_side import prepare


@pytest.fixture(scope="module")
def data(write_dataset, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("effect")
    rows = [(f"u{user}", f"i{item}", (user * item) % 5 + 1, 10 * item + user) for user in range(6) for item in range(8)]
    items = ("item_id:token\tclass:token_seq\tprice:float\tvector:float_seq",
             [(f"i{item}", "a b", item, "1 2") for item in range(8)])  # fmt: skip
    users = ("user_id:token\tincome:float", [(f"u{user}", user) for user in range(6)])
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    write_dataset(folder, "toy", rows, items, users, header=header)
    return {"data_path": str(folder), "dataset": "toy", "use_gpu": False}


SHORT = {"show_progress": False, "epochs": 1, "topk": [5], "valid_metric": "MRR@5"}


def runs(name) -> bool:
    try:
        return bool(get_spec(name))
    except UserError:
        return False


# ---- keys ----


@pytest.mark.parametrize(
    "model, given, key, why",
    [
        ("SASRec", {"embedding_size": 3}, "embedding_size", "SASRec reads no such key"),
        ("GRU4Rec", {"n_layers": 3}, "n_layers", "GRU4Rec reads no such key"),
        ("SASRec", {"item_llm_tuning": "lora"}, "item_llm_tuning", "SASRec reads no such key"),
        ("SASRec", {"threshold": {"rating": 4}}, "threshold", "val_interval: {'rating': '[4,inf)'}"),
        ("BPR", {"threshold": {"rating": 4}}, "threshold", "BPR reads no labels"),
        ("SASRec", {"history_filter": "all"}, "history_filter", "SASRec reads no such key"),
        ("DCN", {"topk": [5]}, "topk", "DCN scores labelled rows and ranks nothing"),
        ("BPR", {"MAX_ITEM_LIST_LENGTH": 5}, "MAX_ITEM_LIST_LENGTH", "BPR reads no histories"),
        ("EASE", {"MAX_ITEM_LIST_LENGTH": 5, "score_from": "history"}, "MAX_ITEM_LIST_LENGTH", "reads histories whole"),
        ("LightGCN", {"score_from": "history"}, "score_from", "LightGCN reads no such key"),
        ("CDAE", {"score_from": "history"}, "score_from", "CDAE reads no such key"),
        ("Pop", {"learning_rate": 0.1}, "learning_rate", "Pop counts and is not trained"),
        ("Pop", {"max_steps": 10}, "max_steps", "Pop counts and is not trained"),
        ("Pop", {"eval_every_steps": 10}, "eval_every_steps", "Pop counts and is not trained"),
        ("SASRec", {"numerical_features": ["price"]}, "numerical_features", "SASRec reads no numbers"),
        ("SASRec", {"warmup_ratio": 0.2}, "warmup_ratio", "scheduler is none"),
        ("SASRec", {"wandb_project": "mine"}, "wandb_project", "log_wandb is off"),
        ("SASRec", {"enable_scaler": True}, "enable_scaler", "enable_amp is off"),
        ("SASRec", {"valid_metric_bigger": False}, "valid_metric_bigger", "known of MRR@10"),
        ("SASRec", {"kg_reverse_r": True}, "kg_reverse_r", "SASRec reads no such key"),
        ("SASRec", {"preload_weight": {"item_id": "vector"}}, "preload_weight", "SASRec reads no such key"),
        ("SASRec", {"alias_of_tag": ["tags"]}, "alias_of_tag", "SASRec reads no such key"),
        ("SASRec", {"neg_sampling": {"uniform": 1}}, "neg_sampling", "SASRec reads no such key"),
        ("SASRec", {"ratios_to": "Pop"}, "ratios_to", "SASRec reads no such key"),
        ("SASRec", {"SASRec.embedding_size": 3}, "embedding_size", "SASRec reads no such key"),
    ],
)  # fmt: skip
def test_a_key_that_nothing_reads(data, model, given, key, why):
    told = without_effect(Config(model, config_dict=data | given))
    assert list(told) == [key] and why in told[key]


@pytest.mark.parametrize(
    "model, given",
    [
        ("SASRec", {"n_layers": 1, "encoding": "utf-8", "val_interval": {"rating": "[2,inf)"}, "learner": "sgd"}),
        ("SASRec", {"GRU4Rec.num_layers": 3, "GRU4Rec.dropout_prob": 0.5}),
        ("SASRec", {"scheduler": "cosine", "warmup_ratio": 0.2, "valid_metric_bigger": True}),
        ("SASRec", {"trust_remote_code": False, "item_llm_layers": None}),
        ("DCN", {"threshold": {"rating": 3}, "history_filter": "all", "numerical_features": ["price"],
                 "load_col": {"item": ["item_id", "price"]}, "normalize_all": True}),
        ("BPR", {"train_neg_sample_args": {"distribution": "popularity", "alpha": 0.5}, "embedding_size": 8}),
        ("SASRecF", {"selected_features": ["class"], "pooling_mode": "sum"}),
        ("LightSANs", {"k_interests": 3}),
        ("LEARNRanker", {"ranker": "AutoInt", "n_layers": 2, "text_keys": ["class"]}),
        ("DMF", {"RATING_FIELD": "rating"}), ("SimpleX", {"require_pow": True}),
    ],
)  # fmt: skip
def test_a_key_that_is_read(data, model, given):
    assert without_effect(Config(model, config_dict=data | given)) == {}


@pytest.mark.parametrize("model", filter(runs, model_names()))
def test_every_key_of_a_models_property_files_has_an_effect(data, model):
    config = Config(model, config_dict=data | {"selected_features": ["class"]})
    for folder in (recbole_folder() / "properties", properties_folder()):
        file = folder / "model" / f"{model}.yaml"
        keys = read_yaml(file) if file.is_file() else {}
        config.external_config_dict = dict.fromkeys(keys.keys() - {"warmup_ratio"}, "another value")
        assert without_effect(config) == {}


def test_a_run_says_it_once_in_its_log(data, tmp_path):
    given = data | SHORT | {"n_layers": 1, "embedding_size": 3, "mlp_hidden_size": [4], "threshold": {"nothing": 4}}
    run("SASRec", config_dict=given, run_dir=tmp_path / "run")
    log = (tmp_path / "run" / "run.log").read_text()
    assert log.count("without effect") == 2
    assert "W embedding_size, mlp_hidden_size without effect: SASRec reads no such key" in log
    assert "W threshold without effect: SASRec reads no labels" in log


def test_a_table_tells_what_no_row_reads(data, tmp_path, caplog):
    shared = {"n_layers": 1, "num_layers": 1, "mlp_hidden_size": [4]}
    own = {"SASRec.embedding_size": 3, "GRU4Rec.hidden_size": 8}
    given = {**data, **shared, **own, "sanity_rows": False, "ratios_to": "SASRec"}
    prepare("SASRec,GRU4Rec", None, given, tmp_path / "table")
    assert sorted(caplog.messages) == [
        "SASRec.embedding_size without effect: SASRec reads no such key",
        "mlp_hidden_size without effect: no model of this table reads it",
    ]


def test_a_row_repeats_nothing_of_its_table(data, tmp_path):
    file = tmp_path / "keys.yaml"
    file.write_text("model: [SASRec, GRU4Rec]\nnum_layers: 2\nmlp_hidden_size: [4]\n")
    run("SASRec", None, [file], data | SHORT, tmp_path / "row")
    assert "without effect" not in (tmp_path / "row" / "run.log").read_text()


@pytest.mark.parametrize("file", sorted((properties_folder() / "benchmark").glob("*.yaml")), ids=lambda file: file.stem)
def test_our_own_tables_have_no_such_key(data, file, caplog):
    given = {key: value for key, value in read_yaml(file).items() if not key.startswith("stage")}
    dotted = [key.split(".")[0] for key in given if "." in key]
    models = given.pop("model", None) or list(dict.fromkeys(dotted)) or ["HLLM"]
    models = models.split(",") if isinstance(models, str) else models
    given = {**given, **data, "trials": None, "seeds": None, "training_stage": None, "seq_len": None}
    tell_of_table({model: Config(model, config_dict=given) for model in map(str.strip, models)}, given)
    assert [line for line in caplog.messages if "without effect" in line] == []


# ---- columns ----


@pytest.mark.parametrize(
    "model, given, lines",
    [
        ("SASRec", {"load_col": {"item": ["clas"]}},
         ["load_col: item: there is no column 'clas'; did you mean 'class'?"]),
        ("SASRec", {"unused_col": {"inter": ["ratings"]}},
         ["unused_col: inter: there is no column 'ratings'; did you mean 'rating'?"]),
        ("SASRec", {"seq_len": {"clas": 3}}, ["seq_len: there is no column 'clas'; did you mean 'class'?"]),
        ("SASRec", {"alias_of_item_id": ["itemlist"]}, ["alias_of_item_id: there is no column 'itemlist'"]),
        ("SASRec", {"load_col": {"item": "*", "link": ["a"]}, "seq_len": {"class": 3}}, []),
        ("DCN", {"load_col": {"item": ["price", "class"], "user": ["income"]}},
         ["income, price: these numbers are loaded and not read by DCN; name them in numerical_features, or load "
          "others only"]),
        ("DIN", {"load_col": None, "numerical_features": ["income", "vector"]},
         ["price: these numbers are loaded and not read by DIN; name them in numerical_features, or load others only"]),
        ("DIEN", {"load_col": None, "numerical_features": ["income", "vector"]},
         ["price: these numbers are loaded and not read by DIEN; name them in numerical_features, or load others "
          "only"]),
        ("DCN", {"load_col": None, "numerical_features": ["income", "vector", "price"]}, []),
        ("DCN", {"load_col": None, "unload_col": {"item": ["price", "vector"], "user": ["income"]}}, []),
        ("DCN", {}, []), ("SASRec", {"load_col": None}, []), ("HLLMRanker", {"load_col": None}, []),
    ],
)  # fmt: skip
def test_columns_that_no_file_has_and_numbers_that_no_model_reads(data, model, given, lines):
    found = unread_columns(Config(model, config_dict=data | given))
    assert [line if line in lines else line.partition("; did")[0] for line in found] == lines


def test_columns_are_told_with_the_run(data, caplog):
    tell_of_run(Config("DCN", config_dict=data | {"load_col": {"item": ["price"]}}))
    assert caplog.messages == [
        "price: these numbers are loaded and not read by DCN; name them in numerical_features, or load others only"
    ]


@pytest.mark.parametrize(
    "model, given, said",
    [
        ("SASRec", {"alias_of_item_id": ["class"]}, "alias_of_item_id: no column 'class' is loaded"),
        ("SASRec", {"alias_of_item_id": "rating", "load_col": None}, "alias_of_item_id: 'rating' is a float column"),
        ("DCN", {"numerical_features": ["class"], "load_col": None}, "numerical_features: .*class"),
    ],
)
def test_columns_of_another_kind(data, tmp_path, model, given, said):
    with pytest.raises(ConfigError, match=said):
        run(model, config_dict=data | given, run_dir=tmp_path / "run")


def test_files_of_another_folder_than_recboles_ml_100k(tmp_path):
    assert without_effect(Config("SASRec", "ml-100k", config_dict={"data_path": str(tmp_path)})) == {}
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "README.md").touch()  # as in this repository, whose folder a run that goes on names
    assert without_effect(Config("SASRec", "ml-100k", config_dict={"data_path": str(tmp_path)})) == {}
    (tmp_path / "ml-100k" / "ml-100k.inter").touch()
    told = without_effect(Config("SASRec", "ml-100k", config_dict={"data_path": str(tmp_path)}))
    assert list(told) == ["data_path"] and "ml-100k comes with RecBole" in told["data_path"]


@pytest.mark.parametrize("model", ["SASRecSS", "HLLM"])
def test_parts_of_negatives_that_models_of_windows_pass_over(settings_of, caplog, model):
    negatives = {"sample_num": 3, "dynamic": True, "candidate_num": 5}
    tell_of_run(Config(model, config_dict={**settings_of(model), "train_neg_sample_args": negatives}))
    said = f"train_neg_sample_args: sample_num without effect: {model} reads the number of its negatives from"
    assert said in caplog.text and "train_neg_sample_args: dynamic without effect" in caplog.text
    caplog.clear()
    tell_of_run(Config(model, config_dict={**settings_of(model), "train_neg_sample_args": {"sample_num": 1}}))
    assert "train_neg_sample_args" not in caplog.text
