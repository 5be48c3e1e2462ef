"""Filters on arrays leave out what RecBole's own methods leave out, and ids are RecBole's."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recbole.data.dataset import Dataset
from recbole.utils import FeatureSource, FeatureType

from recbole_hllm.data.files import filters
from recbole_hllm.data.files.blocks import number_texts, renumbered
from recbole_hllm.data.files.interactions import Choice, filtered
from recbole_hllm.data.files.table import Table
from recbole_hllm.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # RecBole's

ROWS = st.lists(
    st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abcdefg"), st.integers(0, 9), st.sampled_from([1.0, 2.5, 4])),
    min_size=1, max_size=60,
)  # fmt: skip
INTERVALS = st.sampled_from(
    [None, "[0,inf)", "[2,inf)", "[3,inf)", "(1,4]", "[2,3];(4,9)", "[0,2]", "(0,1);[5,inf)", "(2.5,7.5)"]
)
KINDS = {"user": "token", "item": "token", "time": "float", "rating": "float"}


def table_of(rows):
    users, items, times, ratings = map(list, zip(*rows, strict=True))
    columns, tokens = {}, {}
    for name, words in (("user", users), ("item", items)):
        columns[name], tokens[name] = number_texts(words)
    columns |= {"time": np.array(times, np.int32), "rating": np.array(ratings, np.float64)}
    return Table(columns, tokens, lambda row: f"line {row + 2}")


def texts_of(table):
    """The rows as they were written."""
    words = [table.tokens[name][table.columns[name]].tolist() for name in ("user", "item")]
    return list(zip(*words, table.columns["time"].tolist(), table.columns["rating"].tolist(), strict=True))


def recboles(rows, **config):
    """RecBole's data set of the same rows, with nothing done yet."""
    data = object.__new__(Dataset)
    data.inter_feat = pd.DataFrame(rows, columns=["user", "item", "time", "rating"])
    data.config = dict.fromkeys(("rm_dup_inter", "val_interval", "user_inter_num_interval", "item_inter_num_interval"))
    data.config |= config
    quiet = lambda *words: None  # noqa: E731
    data.logger = SimpleNamespace(debug=quiet, info=quiet, warning=quiet)
    data.uid_field, data.iid_field, data.time_field = "user", "item", "time"
    data.user_feat = data.item_feat = None
    data.field2type = {name: FeatureType(kind) for name, kind in KINDS.items()}
    data.field2source = dict.fromkeys(KINDS, FeatureSource.INTERACTION)
    data.field2id_token, data.field2token_id = {}, {}
    return data


def rows_of(data):
    return list(data.inter_feat.itertuples(index=False, name=None))


@given(ROWS, INTERVALS, INTERVALS)
def test_interaction_counts(rows, of_users, of_items):
    table, data = table_of(rows), recboles(rows, user_inter_num_interval=of_users, item_inter_num_interval=of_items)
    filters.keep_counts(table, "user", "item", *map(filters.parse_intervals, (of_users, of_items)))
    data._filter_by_inter_num()
    assert texts_of(table) == rows_of(data)


@given(ROWS, st.sampled_from(["first", "last"]))
def test_repeated_interactions(rows, keep):
    table = table_of(rows)
    filters.keep_once(table, "user", "item", "time", keep)
    data = recboles(sorted(rows, key=lambda row: row[2]), rm_dup_inter=keep)  # RecBole's sort is not stable
    data.inter_feat = data.inter_feat.drop_duplicates(["user", "item"], keep=keep)
    assert texts_of(table) == rows_of(data)


@given(
    ROWS,
    st.dictionaries(st.sampled_from(["rating", "time"]), INTERVALS.filter(bool)),
    st.none() | st.lists(st.sampled_from("abcdefgh")),
)
def test_values(rows, intervals, items):
    allowed = {**intervals, **({} if items is None else {"item": items})}
    table, data = table_of(rows), recboles(rows, val_interval=allowed)
    for field, values in allowed.items():
        filters.keep_values(table, field, values)
    data._filter_by_field_value()
    assert texts_of(table) == rows_of(data)


@given(ROWS, st.sampled_from([None, "first", "last"]), INTERVALS, INTERVALS, INTERVALS)
def test_all_filters_and_ids(rows, once, ratings, of_users, of_items):
    """In RecBole's order, with RecBole's numbers at the end."""
    values = {"rating": ratings} if ratings else {}
    of = [filters.parse_intervals(interval) for interval in (of_users, of_items)]
    table, choice = table_of(rows), Choice("toy", "user", "item", "time", once, values, [], *of)
    rows = sorted(rows, key=lambda row: row[2]) if once else rows
    data = recboles(
        rows, val_interval=values, user_inter_num_interval=of_users, item_inter_num_interval=of_items
    )  # fmt: skip
    if once:
        data.inter_feat = data.inter_feat.drop_duplicates(["user", "item"], keep=once)
    data._filter_by_field_value()
    data._filter_by_inter_num()
    if data.inter_feat.empty:
        with pytest.raises(DataError, match="no interaction is left after filtering"):
            filtered(table, choice)
        return
    filtered(table, choice)
    assert texts_of(table) == rows_of(data)
    for name in ("user", "item"):
        data._remap([(data.inter_feat, name, FeatureType.TOKEN)])
        assert table.tokens[name].tolist() == data.field2id_token[name].tolist()
        assert table.columns[name].tolist() == data.inter_feat[name].tolist()
        assert table.columns[name].dtype == np.int32


def test_nan_and_missing_words_pass_no_filter():
    table = table_of([("u", "a", 1, np.nan), ("u", "b", 2, 3.0)])
    filters.keep_values(table, "rating", "[0,inf)")
    assert texts_of(table) == [("u", "b", 2, 3.0)]
    table = table_of([("u", None, 1, 1.0), ("u", "b", 2, 3.0)])
    filters.keep_values(table, "item", ["b", "[PAD]"])
    assert texts_of(table) == [("u", "b", 2, 3.0)]


def test_rows_without_user_or_item_are_said_by_line():
    table = table_of([("u", "a", 1, 1.0), (None, "b", 2, 1.0), ("v", None, 3, 1.0), ("u", "c", 4, 1.0)])
    said = filtered(table, Choice("toy", "user", "item", "time", None, {}, [], None, None))
    assert [text for _, text in said] == [
        "toy.inter: 1 rows without user are left out, the first in line 3",
        "toy.inter: 1 rows without item are left out, the first in line 4",
    ]
    assert table.tokens["item"].tolist() == ["[PAD]", "a", "c"] and table.columns["item"].tolist() == [1, 2]


@pytest.mark.parametrize("text", ["5", "[5,1]", "[a,b]", "[1,2", "", "[1,2];x", "[1;2]"])
def test_what_is_no_interval(text):
    with pytest.raises(ConfigError, match="is not an interval such as"):
        filters.parse_intervals(text)


@given(st.lists(st.integers(0, 6), max_size=40))
def test_numbers_follow_first_appearance(numbers):
    """With a step smaller than the rows, so that blocks are looked at from the last to the first."""
    words = [None, *"abcdef"]
    _, tokens = number_texts(words[1:])
    new, texts = renumbered(np.array(numbers, np.int32), tokens)
    codes, uniques = pd.factorize(np.array([words[number] for number in numbers], dtype=object))
    assert new.tolist() == (codes + 1).tolist() and texts.tolist() == ["[PAD]", *uniques]
