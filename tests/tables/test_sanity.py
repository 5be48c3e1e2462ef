"""Which sanity rows a table gets, with which keys, and why one is left out."""

import json

import pytest

from recbole_hllm import Config
from recbole_hllm.errors import ConfigError
from recbole_hllm.tables.sanity import with_sanity_rows
from recbole_hllm.tables.side_by_side import compare


@pytest.fixture
def keys(settings_of):
    """Of a table on the toy data, whose items have texts."""
    shared = settings_of("SASRec")
    hllm, knn = settings_of("HLLM"), settings_of("TextKNN")
    own = {f"HLLM.{key}": value for key, value in hllm.items() if key not in shared}
    return {**shared, **own, "TextKNN.item_pretrain_dir": knn["item_pretrain_dir"]}


@pytest.mark.parametrize(
    "asked, models, expected",
    [
        (None, ["SASRec"], ["SASRec", "Pop", "Markov", "TextKNN"]),
        (True, ["SASRec", "BPR"], ["SASRec", "BPR", "Pop", "Markov", "TextKNN"]),
        (True, ["Markov", "SASRec", "Pop"], ["Markov", "SASRec", "Pop", "TextKNN"]),
        (True, ["TextKNN", "Markov", "Pop"], ["TextKNN", "Markov", "Pop"]),
        (False, ["SASRec", "Pop"], ["SASRec", "Pop"]),
        (["Markov"], ["SASRec"], ["SASRec", "Markov"]),
        ("Markov", ["SASRec"], ["SASRec", "Markov"]),
        ("TextKNN, Pop", ["SASRec"], ["SASRec", "Pop", "TextKNN"]),
        ([], ["SASRec"], ["SASRec"]),
    ],
)
def test_rows_come_behind_and_none_twice(keys, asked, models, expected):
    if asked is not None:
        keys["sanity_rows"] = asked
    rows, _, left_out = with_sanity_rows(models, keys)
    assert (rows, left_out) == (expected, {})


@pytest.mark.parametrize(
    "value, said",
    [
        ("Markow", "'Markow' is not one of .*did you mean 'Markov'"),
        (["Pop", "SASRec"], "'SASRec' is not one of"),
        ([None], "'None' is not one of"),
        ({"Pop": 1}, "is neither True, False nor a list"),
        (3, "neither True"),
    ],
)
def test_other_names_are_refused(keys, value, said):
    with pytest.raises(ConfigError, match=f"sanity_rows: .*{said}"):
        with_sanity_rows(["SASRec"], {**keys, "sanity_rows": value})


def test_textknn_takes_over_how_hllm_reads_items_but_not_what_it_is_given(keys):
    given = {**keys, "HLLM.text_field": "{value}", "HLLM.MAX_TEXT_LENGTH": 9, "TextKNN.MAX_TEXT_LENGTH": 7}
    _, with_hllm, _ = with_sanity_rows(["HLLM"], given)
    assert with_hllm["TextKNN.text_field"] == "{value}" and with_hllm["TextKNN.MAX_TEXT_LENGTH"] == 7
    assert with_hllm["TextKNN.text_keys"] == ["title"] and "TextKNN.precision" not in with_hllm
    _, without, _ = with_sanity_rows(["SASRec"], {key: value for key, value in given.items() if "HLLM" not in key})
    assert without.keys() & {"TextKNN.text_field", "TextKNN.text_keys"} == set()


def test_pop_counts_no_negatives_of_other_models(keys):
    given = {**keys, "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
    assert with_sanity_rows(["BPR"], given)[1]["Pop.train_neg_sample_args"] is None
    assert "Pop.train_neg_sample_args" not in with_sanity_rows(["BPR", "Pop"], given)[1]


def test_without_a_language_model_textknn_is_left_out(keys):
    given = {**keys, "TextKNN.item_pretrain_dir": "package:no_such_package/model"}
    models, _, left_out = with_sanity_rows(["SASRec"], given)
    assert models == ["SASRec", "Pop", "Markov"] and "'no_such_package' is not installed" in left_out["TextKNN"]
    assert with_sanity_rows(["SASRec", "TextKNN"], given)[0] == ["SASRec", "TextKNN", "Pop", "Markov"]


def test_a_table_without_texts_says_why_textknn_is_not_there(tmp_path, write_dataset, settings_of, started, capsys):
    rows = [(f"u{user}", f"i{(user + place) % 7}", place) for user in range(6) for place in range(6)]
    write_dataset(tmp_path, "bare", rows)
    shared = {**settings_of("Pop"), "data_path": str(tmp_path), "dataset": "bare", "topk": [3], "valid_metric": "MRR@3"}
    done = compare(["BPR"], config_dict={**shared, "TextKNN.knn_history": 2}, run_dir=tmp_path / "table")
    assert [row["model"] for row in done["rows"]] == ["BPR", "Pop", "Markov"] and done["failed"] == []
    said = f"left out: TextKNN (there is no {tmp_path}/bare/bare.item to read item texts from)"
    assert said in capsys.readouterr().out and said in (tmp_path / "table" / "table.md").read_text()
    assert json.loads((tmp_path / "table" / "table.json").read_text())["header"]["left_out"]
    # the next item follows from the last one: what is not learned is counted
    results = {row["model"]: row["test_result"]["recall@3"] for row in done["rows"]}
    assert results["Markov"] == 1.0 > results["Pop"]


def test_a_history_length_of_evaluation_is_for_the_models_named(keys):
    keys |= {"MAX_ITEM_LIST_LENGTH_TEST": 4}
    rows, added, _ = with_sanity_rows(["HLLM"], keys)
    assert rows == ["HLLM", "Pop", "Markov", "TextKNN"]
    for name in rows[1:]:
        assert Config(name, config_dict=added)["MAX_ITEM_LIST_LENGTH_TEST"] is None
    assert Config("HLLM", config_dict=added)["MAX_ITEM_LIST_LENGTH_TEST"] == 4


def test_variants_of_hllm_alone_tell_textknn_how_to_read(keys):
    _, added, _ = with_sanity_rows(["HLLM@a", "HLLM@b"], keys | {"HLLM.text_field": "{value}"})
    assert added["TextKNN.text_field"] == "{value}"
