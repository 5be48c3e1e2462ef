"""Values as users write them, and the keys anybody reads."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.config.parsing import (
    as_default,
    keys_read_by_recbole,
    listed_keys,
    parse_value,
    plain,
    read_yaml,
    recbole_folder,
)
from recbole_hllm.config.places import properties_folder
from recbole_hllm.errors import ConfigError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=6,
)


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "user.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


# ---- words of the command line ----


@pytest.mark.parametrize(
    "word, value",
    [
        ("1", 1), ("-2", -2), ("1e-4", 1e-4), ("0.5", 0.5), ("[64, 32]", [64, 32]), ("5,10", (5, 10)),
        ("True", True), ("true", True), ("FALSE", False), ("None", None), ("null", None), ("~", None),
        ("{'LS': 'valid_and_test'}", {"LS": "valid_and_test"}), ("'quoted'", "quoted"),
        ("none", "none"), ("adam", "adam"), ("", ""), ("a=b=c", "a=b=c"), ("NDCG@10", "NDCG@10"), ("01", "01"),
        ("...", "..."), ("{1, 2}", "{1, 2}"), ("1j", "1j"), ("b'x'", "b'x'"), ("[0,inf)", "[0,inf)"),
    ],
)  # fmt: skip
def test_a_word_is_the_literal_it_spells_or_itself(word, value):
    parsed = parse_value(word)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    "key, word",
    [
        ("user_inter_num_interval", "(5,10)"), ("item_prompt", "3"), ("text_separator", "~"), ("dataset", "2018"),
        ("gpu_id", "0,1"), ("HLLM.item_prompt", "'quoted'"), ("item_pretrain_dir", "True"),
    ],
)  # fmt: skip
def test_text_stays_text_whatever_it_looks_like(key, word):
    assert parse_value(word, key) == word


def test_a_list_of_words_needs_no_quotes_where_the_key_is_one():
    words = "[row:HLLM, runs/first,row:Markov]"
    assert parse_value(words, "Blend.of") == ["row:HLLM", "runs/first", "row:Markov"]
    assert parse_value("['row:HLLM', 'a, b']", "of") == ["row:HLLM", "a, b"]
    for key in ("", "topk", "dataset"):
        assert parse_value(words, key) == words
    assert parse_value("row:HLLM", "of") == "row:HLLM"


def test_a_key_of_text_can_be_emptied():
    assert parse_value("None", "user_pretrain_dir") is None


@given(PLAIN)
def test_what_python_writes_is_read_back(value):
    if not isinstance(value, str):
        assert parse_value(repr(value)) == value


@given(st.text())
def test_any_word_gives_a_plain_value(word):
    assert parse_value(word) is None or isinstance(parse_value(word), (str, bool, int, float, list, tuple, dict))


@pytest.mark.parametrize(
    "word",
    [
        "__import__('pathlib').Path({path!r}).touch()",
        "[__import__('pathlib').Path({path!r}).touch()]",
        "open({path!r}, 'w')",
        "(lambda: open({path!r}, 'w'))()",
    ],
)
def test_code_is_text(word, tmp_path):
    word = word.format(path=str(tmp_path / "touched"))
    assert parse_value(word) == word
    assert not (tmp_path / "touched").exists()


def test_a_word_nested_too_deep_is_text():
    word = "[" * 100_000
    assert parse_value(word) == word


# ---- YAML ----


@pytest.mark.parametrize(
    "text, value",
    [
        ("1e-4", 1e-4), ("1E5", 1e5), ("-2e+3", -2000.0), ("1.5e-3", 1.5e-3), (".5e1", 5.0), ("5e-05", 5e-05),
        ("0.001", 0.001), ("10", 10), (".inf", float("inf")), ("1e", "1e"), ("e5", "e5"), ("'1e-4'", "1e-4"),
        ("12e3x", "12e3x"), ("~", None), ("[1e-3, 2]", [0.001, 2]), ("True", True),
    ],
)  # fmt: skip
def test_numbers_of_yaml(tmp_path, text, value):
    read = read_yaml(written(tmp_path, f"key: {text}"))["key"]
    assert read == value and type(read) is type(value)


def test_numbers_are_those_of_recboles_own_loader(tmp_path):
    import yaml
    from recbole.config import Config

    recboles = Config._build_yaml_loader(None)
    for file in recbole_folder().glob("properties/**/*.yaml"):
        assert read_yaml(file) == (yaml.load(file.read_text(encoding="utf-8"), Loader=recboles) or {}), file


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!!python/name:os.mkdir"]
)
def test_yaml_builds_no_python_objects(tmp_path, tag):
    target = tmp_path / "made"
    file = written(tmp_path, f"seed: 1\nkey: {tag} ['{target}']")
    with pytest.raises(ConfigError, match="line 2") as error:
        read_yaml(file)
    assert str(file) in str(error.value)
    assert not target.exists()


@pytest.mark.parametrize(
    "text, reason",
    [
        ("seed: 1\nepochs: [1, 2\nlearner: adam\n", "line 3"),
        ("seed: 1\nepochs: 2\n\tlearner: adam\n", "line 3"),
        ("- seed\n- epochs\n", "found a list"),
        ("seed=1", "found a str"),
        (b"seed: 1\nstate: \xff\xfe\n", "utf-8"),
        ("seed: 2024-02-31", "day"),
        ("[" * 5000, "readable"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, reason):
    file = written(tmp_path, text)
    with pytest.raises(ConfigError, match=reason) as error:
        read_yaml(file)
    assert str(file) in str(error.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "no.yaml", tmp_path):
        with pytest.raises(ConfigError, match="No such file|Is a directory") as error:
            read_yaml(path)
        assert str(path) in str(error.value)


def test_an_empty_file_is_an_empty_mapping(tmp_path):
    assert read_yaml(written(tmp_path, "")) == {}
    assert read_yaml(written(tmp_path, "# only a comment\n")) == {}


def test_byte_order_mark_and_other_scripts(tmp_path):
    file = written(tmp_path, b"\xef\xbb\xbf" + "item_prompt: 推荐 🎬".encode())
    assert read_yaml(file) == {"item_prompt": "推荐 🎬"}


# ---- plain values and their types ----


@given(PLAIN)
def test_plain_values_are_copied_unchanged(value):
    copied = plain(value, "key")
    assert copied == value
    assert copied is not value or not isinstance(value, (list, dict))


def test_other_types_become_plain():
    given = {"a": (1, 2), "b": Path("x"), "c": np.float32(0.5), "d": np.int64(3), "e": {"f": (np.bool_(True),)}}
    made = plain(given, "key")
    assert made == {"a": [1, 2], "b": "x", "c": 0.5, "d": 3, "e": {"f": [True]}}
    assert [type(made[key]) for key in "abcd"] == [list, str, float, int]


def test_an_interval_keeps_its_brackets():
    assert plain((5, 10), "user_inter_num_interval") == "(5, 10)"


def test_objects_are_refused_by_key():
    with pytest.raises(ConfigError, match="metrics: .* is a set"):
        plain({"Recall"}, "metrics")


@pytest.mark.parametrize(
    "value, default, result",
    [(1, True, True), (0, False, False), (10.0, 3, 10), (1e3, 128, 1000), (0.5, 3, 0.5), (1, 0.5, 1), (None, 3, None),
     (None, True, None), ("x", None, "x"), ("adam", "sgd", "adam"), (float("inf"), 3, float("inf"))],
)  # fmt: skip
def test_a_value_takes_the_type_of_its_default(value, default, result):
    made = as_default("key", value, default)
    assert made == result and type(made) is type(result)


@pytest.mark.parametrize(
    "value, default, message",
    [("ten", 10, "'ten' is not a number"), (True, 0.5, "True is not a number"), ([1], 1, "is not a number"),
     ("yes", True, "neither True nor False"), (2, True, "neither True nor False")],
)  # fmt: skip
def test_a_value_of_another_type_is_refused_by_key(value, default, message):
    with pytest.raises(ConfigError, match=f"^mlp_size: .*{message}"):
        as_default("mlp_size", value, default)


# ---- keys ----


def test_keys_are_those_of_files_and_argument_lists():
    keys = listed_keys()
    assert {"MAX_ITEM_LIST_LENGTH", "n_layers", "mask_ratio", "kg_reverse_r", "loss_decimal_place"} <= keys  # RecBole's
    assert {"mask_history", "nce_thres", "text_keys", "max_training_minutes"} <= keys  # ours
    assert not any("." in key for key in keys)
    assert "ml-1m" not in keys, "the list of download addresses holds data set names"


def test_keys_that_only_recboles_code_names():
    keys = keys_read_by_recbole()
    assert {"neg_sampling", "training_neg_sample_num", "encoding", "double_tower", "contrast", "sim"} <= keys


def test_overall_repeats_no_key_of_recbole():
    ours = read_yaml(properties_folder() / "overall.yaml")
    for name in ("overall.yaml", "dataset/sample.yaml"):
        assert not ours.keys() & read_yaml(recbole_folder() / "properties" / name).keys()


@pytest.mark.parametrize("file", sorted(properties_folder().glob("**/*.yaml")), ids=lambda file: file.stem)
def test_every_key_of_ours_has_a_comment_with_its_type(file):
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line and line[0] not in "# "]
    assert lines
    for line in lines:
        assert any(f"# ({kind}" in line for kind in ("str", "int", "float", "bool", "list", "dict")), line
    assert len(lines) == len(read_yaml(file)), "a key is there twice"


@pytest.mark.parametrize("file", sorted(properties_folder().rglob("*.yaml")), ids=lambda file: file.stem)
def test_no_comment_is_part_of_a_value(file):
    """YAML takes a # without a blank before it as text."""
    assert [key for key, value in read_yaml(file).items() if isinstance(value, str) and "#" in value] == []
