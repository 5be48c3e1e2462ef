"""Parts of nested keys and empty values, as a user sees them: through Config, whatever they were written in."""

import pytest
import yaml

from recbole_hllm.config.config import Config
from recbole_hllm.errors import ConfigError


@pytest.fixture
def keys(write_dataset, tmp_path) -> dict:
    rows = [(f"u{user}", f"i{item}", item % 5 + 1, 10 * item + user) for user in range(4) for item in range(6)]
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    items = ("item_id:token\ttitle:token_seq\tprice:float", [(f"i{item}", "a b", item) for item in range(6)])
    write_dataset(tmp_path, "toy", rows, items, header=header)
    return {"data_path": str(tmp_path), "dataset": "toy", "model": "SASRec"}


def as_file(keys, given, tmp_path):
    file = tmp_path / "user.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in given.items()))
    return Config(config_file_list=[file], config_dict=keys)


def as_dict(keys, given, tmp_path):
    return Config(config_dict={**keys, **{key: yaml.safe_load(f"x: {value}")["x"] for key, value in given.items()}})


def as_words(keys, given, tmp_path):
    return Config(config_dict=keys, arguments=given)


SOURCES = pytest.mark.parametrize("source", [as_file, as_dict, as_words])


def in_turns(names, rows):
    """Each row from one of the sources, which take turns: they are read in different ways and checked in one."""
    sources = (as_file, as_dict, as_words)
    cases = [(*row, sources[number % 3]) for number, row in enumerate(rows)]
    return pytest.mark.parametrize(f"{names}, source", cases)


# ---- unknown parts ----


@in_turns(
    "key, value, said",
    [
        ("eval_args", "{'splt': {'LS': 'valid_only'}}", "eval_args.*: unknown key 'splt'; did you mean 'split'"),
        ("eval_args", "{'split': {'SL': 'valid_only'}}", "eval_args: split.*: unknown key 'SL'; there are LS, RS, TS"),
        ("eval_args", "{'mode': {'vaild': 'full'}}", "eval_args: mode.*: unknown key 'vaild'; did you mean 'valid'"),
        ("train_neg_sample_args", "{'distribtion': 'uniform'}", "unknown key 'distribtion'.* 'distribution'"),
        ("train_neg_sample_args", "{'qqqq': 1}", "unknown key 'qqqq'; there are distribution, sample_num, alpha"),
        ("train_neg_sample_args", "{'sample_num': 0}", "sample_num: 0 is not a whole number of at least 1"),
        ("train_neg_sample_args", "{'sample_num': 'two'}", "sample_num: 'two' is not a whole number"),
        ("train_neg_sample_args", "{'candidate_num': -1}", "candidate_num: -1 is not a whole number of at least 0"),
        ("train_neg_sample_args", "{'alpha': 'x'}", "alpha: 'x' is not a number"),
        ("train_neg_sample_args", "{'dynamic': 'maybe'}", "dynamic: 'maybe' is neither True nor False"),
        ("train_neg_sample_args", "{'dynamic': True}", "dynamic: True needs candidate_num"),
        ("transform", "mask_itemsq", "'mask_itemsq' is not one of .*; did you mean 'mask_itemseq'"),
        ("additional_feat_suffix", "5", "additional_feat_suffix.*: 5 is neither a name nor a list of names"),
        ("clip_grad_norm", "{'max_norm': -1}", "clip_grad_norm.*: max_norm: -1 must be above 0"),
        ("clip_grad_norm", "{'max_nrm': 5}", "clip_grad_norm.*: unknown key 'max_nrm'; did you mean 'max_norm'"),
        ("clip_grad_norm", "{'norm_type': 2}", "clip_grad_norm.*: max_norm must be given"),
        ("clip_grad_norm", "{'max_norm': 'five'}", "clip_grad_norm.*: max_norm: 'five' is not a number"),
        ("load_col", "{'itme': ['title']}", "load_col.*: unknown key 'itme'; did you mean 'item'"),
        ("load_col", "{'item': 5}", "load_col: item.*: 5 is neither a name nor a list of names"),
        ("unload_col", "['title']", "unload_col.* is not a dict such as"),
        ("unused_col", "{'int': ['rating']}", "unused_col.*: unknown key 'int'; did you mean 'inter'"),
        ("seq_len", "5", "seq_len.*: 5 is not a dict such as {'title': 10}"),
        ("seq_len", "{'title': 'ten'}", "seq_len.*: title: 'ten' is not a number of words"),
        ("val_interval", "'[4,inf)'", "val_interval.* is not a dict such as {'rating': "),
        ("discretization", "{'price': {'metod': 'LD'}}", "discretization.*: price: .* is not a dict such as"),
        ("discretization", "{'price': {'method': 'ED', 'bucket': 'x'}}", "price: bucket must be a whole number"),
        ("discretization", "{'price': {'method': 'ED', 'buckets': 3}}", "unknown key 'buckets'; did you mean 'bucket'"),
        ("alias_of_item_id", "{'a': 1}", "alias_of_item_id.* is neither a name nor a list of names"),
    ],
)  # fmt: skip
def test_a_part_that_is_none_of_the_keys(keys, tmp_path, source, key, value, said):
    with pytest.raises(ConfigError, match=said) as error:
        source(keys, {key: value}, tmp_path)
    assert (str(tmp_path / "user.yaml") in str(error.value)) is (source is as_file)


@in_turns(
    "model, key, value",
    [
        ("SASRec", "eval_args", "{'split': {'RS': [8, 1, 1]}, 'order': 'TO', 'group_by': 'user', 'mode': 'uni100'}"),
        ("SASRec", "eval_args", "{'mode': {'valid': 'uni100', 'test': 'full'}}"),
        ("BPR", "train_neg_sample_args",
         "{'distribution': 'popularity', 'sample_num': 2, 'alpha': 0.5, 'dynamic': False, 'candidate_num': 0}"),
        ("SASRec", "clip_grad_norm", "{'max_norm': 5, 'norm_type': 2}"),
        ("SASRec", "load_col", "{'inter': ['user_id', 'item_id'], 'item': '*', 'kg': ['head_id'], 'link': []}"),
        ("SASRec", "val_interval", "{'rating': '[3,inf)'}"),
        ("SASRec", "seq_len", "{'title': 10}"),
        ("DCN", "discretization", "{'price': {'method': 'ED', 'bucket': 10}}"),
        ("SASRec", "preload_weight", "{'ent_id': 'ent_emb'}"),
    ],
)  # fmt: skip
def test_documented_parts_are_taken_as_they_are(keys, tmp_path, source, model, key, value):
    made = source({**keys, "model": model}, {key: value}, tmp_path).settings[key]
    given = yaml.safe_load(value)
    assert made == given or (key == "eval_args" and given.items() <= made.items())


def test_files_of_additional_features_are_files(keys):
    further = {"additional_feat_suffix": ["ent"], "load_col": {"inter": ["user_id"], "ent": ["ent_id", "ent_emb"]}}
    assert Config(config_dict=keys | further)["load_col"]["ent"] == ["ent_id", "ent_emb"]
    with pytest.raises(ConfigError, match="unknown key 'ent'"):
        Config(config_dict=keys | {"load_col": further["load_col"]})


@pytest.mark.parametrize("key", ["numerical_features", "normalize_field", "alias_of_item_id", "alias_of_user_id"])
def test_one_column_needs_no_list(keys, key):
    assert Config(config_dict=keys | {key: "price"})[key] == ["price"]


def test_one_column_of_a_file_needs_no_list(keys):
    assert Config(config_dict=keys | {"load_col": {"item": "title"}})["load_col"] == {"item": ["title"]}


# ---- empty values ----

WORDS = ("None", "~", "null", "''")


NONE = (
    "seq_len", "alias_of_item_id", "val_interval", "load_col", "benchmark_filename", "rm_dup_inter",
    "user_inter_num_interval", "cache_dir", "clip_grad_norm", "encoding", "transform", "max_training_minutes",
    "preload_weight", "discretization",
)  # fmt: skip


@SOURCES
@pytest.mark.parametrize("word", WORDS)
def test_words_for_nothing_are_nothing(keys, tmp_path, source, word):
    word = "" if source is as_words and word == "''" else word
    made = source(keys, dict.fromkeys([*NONE, "numerical_features"], word), tmp_path)
    assert {key: made[key] for key in NONE} == dict.fromkeys(NONE) and made["numerical_features"] == []


@SOURCES
@pytest.mark.parametrize("word", WORDS)
def test_no_negatives(keys, tmp_path, source, word):
    """RecBole's own words for a loss over all items."""
    word = "" if source is as_words and word == "''" else word
    assert source(keys, {"train_neg_sample_args": word}, tmp_path)["train_neg_sample_args"]["distribution"] == "none"


@SOURCES
@pytest.mark.parametrize(
    "model, key, value, left",
    [
        ("SASRec", "seq_len", "{'title': None}", {}),
        ("SASRec", "val_interval", "{'rating': 'None', 'timestamp': '[1,inf)'}", {"timestamp": "[1,inf)"}),
        ("SASRec", "load_col", "{'inter': None, 'item': ['title']}", {"item": ["title"]}),
        ("SASRec", "clip_grad_norm", "{'max_norm': 5, 'norm_type': None}", {"max_norm": 5}),
        ("BPR", "train_neg_sample_args", "{'distribution': 'uniform', 'sample_num': None}",
         {"distribution": "uniform"}),
    ],
)  # fmt: skip
def test_an_empty_part_counts_as_not_given(keys, tmp_path, source, model, key, value, left):
    made = source({**keys, "model": model}, {key: value}, tmp_path)
    assert made.settings[key] == left


@SOURCES
@pytest.mark.parametrize("part", ["split", "order", "mode"])
def test_the_split_must_not_be_empty(keys, tmp_path, source, part):
    with pytest.raises(ConfigError, match=f"eval_args.*: {part} must not be empty; leave it out for the default"):
        source(keys, {"eval_args": f"{{'{part}': 'None'}}"}, tmp_path)


def test_groups_of_the_split_may_be(keys):
    assert Config(config_dict=keys | {"eval_args": {"group_by": "None"}})["eval_args"]["group_by"] is None


@in_turns(
    "model, key",
    [
        ("SASRec", "hidden_act"), ("SASRec", "initializer_range"), ("SASRec", "loss_type"), ("DCN", "dropout_prob"),
        ("DCN", "mlp_hidden_size"), ("BERT4Rec", "transform"), ("SASRec", "MAX_ITEM_LIST_LENGTH"),
        ("SASRec", "field_separator"), ("SASRec", "LIST_SUFFIX"), ("SASRec", "NEG_PREFIX"), ("SASRec", "learner"),
        ("SASRec", "ITEM_ID_FIELD"), ("SASRec", "ITEM_LIST_LENGTH_FIELD"), ("DCN", "LABEL_FIELD"),
    ],
)  # fmt: skip
def test_what_a_model_cannot_do_without(keys, tmp_path, source, model, key):
    with pytest.raises(ConfigError, match=f"^{key} must not be empty$"):
        source({**keys, "model": model}, {key: "None"}, tmp_path)


def test_text_that_holds_such_words_stays(keys, tmp_path):
    texts = {"item_prompt": "None of these: ", "text_separator": "~", "text_field": ""}
    for given in ({"config_dict": keys | texts}, {"config_dict": keys, "arguments": texts}):
        made = Config("HLLM", **given)
        assert {key: made[key] for key in texts} == texts
    file = tmp_path / "texts.yaml"
    file.write_text(yaml.safe_dump(texts))
    assert {key: Config("HLLM", config_file_list=[file], config_dict=keys)[key] for key in texts} == texts


def test_an_item_may_be_called_none(keys):
    """Words in lists are names of something."""
    given = {"val_interval": {"brand": ["None", "~"]}}
    assert Config(config_dict=keys | given)["val_interval"] == given["val_interval"]
