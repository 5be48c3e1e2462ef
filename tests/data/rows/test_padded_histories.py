"""Ready-made histories that are filled up: the same data as without what fills them."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.data.rows.padded_histories import find_padding
from recbole_hllm.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # RecBole's

NAMES = ["train", "valid", "test"]
GIVEN = {"benchmark_filename": NAMES, "alias_of_item_id": ["item_id_list"], "MAX_ITEM_LIST_LENGTH": 6}
HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token\trating_list:float_seq\ttimestamp:float"
WIDTH = 7


def rows_of_users(first=0):
    """(file number, (user, history, target, ratings, time)): 60 users with 7 rows each, the first without a history."""
    rng = random.Random(3)
    for user in range(60):
        items = [f"{rng.randint(1, 20)}" for _ in range(7)]
        for end in range(first, 7):
            ratings = [str(1 + place % 5) for place in range(end)]
            yield max(end - 4, 0), (f"u{user}", items[:end], items[end], ratings, str(end))


def write(write_dataset, folder, fill=None, left=False, width=WIDTH, rows=None, items=None):
    parts = [[], [], []]
    for number, (user, history, target, ratings, time) in rows or rows_of_users():
        cells = []
        for values, filler in ((history, fill), (ratings, "0")):
            rest = [filler] * (width - len(values)) if fill else []
            cells.append(" ".join(rest + values if left else values + rest))
        parts[number].append((user, cells[0], target, cells[1], time))
    for name, part in zip(NAMES, parts, strict=True):
        write_dataset(folder, "toy", part, items, header=HEADER, suffix=f"{name}.inter")


def contents(built, model="SASRec"):
    whole, *parts = built(model, **GIVEN, load_col=None)
    tokens = whole.field2id_token["item_id"].tolist()
    rows = [{name: values.tolist() for name, values in part[slice(None)].interaction.items()} for part in parts]
    return tokens, rows


@pytest.mark.parametrize("model", ["SASRec", "HLLM", "Pop"])
@pytest.mark.parametrize("fill, left", [("0", False), ("0", True), ("[PAD]", False), ("[PAD]", True)])
def test_filled_histories_are_the_same_data(write_dataset, built, tmp_path, caplog, fill, left, model):
    write(write_dataset, tmp_path)
    plain = contents(built, model)
    caplog.clear()
    write(write_dataset, tmp_path, fill, left)
    assert contents(built, model) == plain
    assert plain[0] == ["[PAD]", *plain[0][1:]] and "0" not in plain[0]
    (said,) = [message for message in caplog.messages if "filled up" in message]
    assert said.startswith(f"toy: 420 of 420 histories are filled up with '{fill}', which is no target")


@pytest.mark.parametrize(
    "known", ["target", "row", "middle"], ids=["is a target", "has a row in .item", "stands between others"]
)
def test_an_item_called_0_stays_one(write_dataset, built, tmp_path, caplog, known):
    rows, items = list(rows_of_users()), None
    if known == "target":
        rows[3][1][1].append("0")
        rows.append((0, ("u0", ["1"], "0", ["1"], "9")))
    elif known == "row":
        items = ("item_id:token\ttitle:token_seq", [("0", "nought"), ("1", "one")])
    else:
        rows.append((0, ("u0", ["1", "0", "2"], "3", ["1", "1", "1"], "9")))
    write(write_dataset, tmp_path, "0", rows=rows, items=items)
    assert "0" in contents(built)[0]
    assert not [message for message in caplog.messages if "filled up" in message]


def test_an_item_0_that_opens_short_histories_stays_one(write_dataset, built, tmp_path):
    """It was clicked first by some and by nobody later; nothing is filled up to a length."""
    rows = [(number, (user, ["0", *history], *rest)) for number, (user, history, *rest) in rows_of_users()]
    write(write_dataset, tmp_path, rows=[(number, (u, h, t, ["1", *r], s)) for number, (u, h, t, r, s) in rows])
    assert "0" in contents(built)[0]


@pytest.mark.parametrize("history", [["0"], ["4", "5", "0"], ["0", *"1234567"]], ids=["alone", "last", "first of all"])
def test_an_item_0_of_one_history_stays_one_where_lengths_differ(write_dataset, built, tmp_path, caplog, history):
    """Nobody looks for it by chance; the log says so, for it might be padding."""
    rows = [*rows_of_users(first=1), (0, ("u0", history, "5", ["1"] * len(history), "9"))]
    write(write_dataset, tmp_path, rows=rows)
    tokens, (train, *_) = contents(built)
    assert "0" in tokens and len(train["item_id"]) == 241
    (said,) = [message for message in caplog.messages if "'0'" in message]
    assert said.startswith("toy: '0' in 1 histories is taken for an item, though it is no target and has no row")


TOKENS = st.lists(st.sampled_from(["1", "2", "3"]), max_size=5)


@given(st.lists(TOKENS, min_size=1, max_size=6), st.sampled_from(["0", "[PAD]"]), st.booleans(), st.integers(0, 2))
def test_the_rest_of_each_history(histories, fill, left, more):
    width = max(map(len, histories)) + more
    filled = []
    for history in histories:
        rest = [fill] * (width - len(history))
        filled.append(np.array(rest + history if left else history + rest, dtype=str))
    found = find_padding(filled, lambda token: False)
    if all(len(history) == width for history in histories):
        assert found is None
        return
    token, begin, end = found
    assert token == fill
    rest = [row[first:last].tolist() for row, first, last in zip(filled, begin, end, strict=True)]
    assert rest == histories
    assert find_padding(filled, lambda token: token == fill) is None


# ---- rows without a history ----


@pytest.mark.parametrize("fill", [None, "0"])
@pytest.mark.parametrize("model", ["SASRec", "HLLM", "Pop"])
def test_rows_with_an_empty_list_are_counted(write_dataset, built, tmp_path, caplog, fill, model):
    """60 of 420: the first of each user."""
    write(write_dataset, tmp_path, fill)
    _, train, valid, test = built(model, **GIVEN)
    assert (len(valid), len(test)) == (60, 60) and (model == "HLLM" or len(train) == 240)
    (said,) = [message for message in caplog.messages if "empty item_id_list" in message]
    assert said == (
        "data set 'toy': 60 of 420 rows have an empty item_id_list (train: 60); they are left out, neither trained on "
        "nor tested"
    )


def test_empty_lists_of_every_file_are_counted(write_dataset, built, tmp_path, caplog):
    rows = list(rows_of_users(first=1))
    rows += [(number, (f"u{number}", [], "5", [], "9")) for number in (1, 2, 2)]
    write(write_dataset, tmp_path, rows=rows)
    *_, valid, test = built("SASRec", **GIVEN)
    assert (len(valid), len(test)) == (60, 60)
    assert "3 of 363 rows have an empty item_id_list (valid: 1, test: 2)" in caplog.text
    with pytest.raises(DataError, match="^strict_data: data set 'toy': 3 of 363 rows have an empty item_id_list"):
        built("SASRec", **GIVEN, strict_data=True)
