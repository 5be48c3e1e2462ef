"""Texts of ids as bytes read like NumPy's array of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.data.files import tokens as tokens_module
from recbole_hllm.data.files.table import merged
from recbole_hllm.data.files.tokens import TokenIds, Tokens

WORDS = ["[PAD]", "u1", "", "名前", "x" * 200, "a b", "007"]
TOKENS = Tokens.of(WORDS)


@pytest.mark.parametrize(
    "index",
    [
        0, -1, np.int64(3), torch.tensor(2), slice(1, None), slice(None, None, 2), [1, 1, 4],
        np.array([[1, 2], [3, -1]]),
        torch.tensor([2, 0]), np.zeros((0,), int), np.array([True, False] * 3 + [True]), np.array([1, 2], np.int32),
    ],
    ids=str,
)  # fmt: skip
def test_indexing_is_numpys(index):
    expected, found = np.array(WORDS)[index], TOKENS[index]
    assert np.shape(found) == np.shape(expected) and np.array_equal(found, expected)


@pytest.mark.parametrize("index", [7, -8, [0, 7], np.array([-8])])
def test_an_id_that_is_not_there(index):
    with pytest.raises(IndexError):
        TOKENS[index]


def test_length_iteration_and_arrays():
    assert len(TOKENS) == 7 and list(TOKENS) == TOKENS.tolist() == np.asarray(TOKENS).tolist() == WORDS
    assert list(Tokens(TOKENS.texts[2:])) == WORDS[2:]


@pytest.mark.parametrize("begin", [0, 3])
def test_buffers_and_back(begin):
    text, offsets = Tokens(TOKENS.texts[begin:]).buffers()
    assert (text.dtype, offsets.dtype) == (np.uint8, np.int64) and len(offsets) == len(WORDS) - begin + 1
    assert list(Tokens.from_buffers(text, offsets)) == WORDS[begin:]
    assert list(Tokens.from_buffers(*Tokens.of([]).buffers())) == []


def test_ids_of_texts():
    assert TOKENS.ids_of(Tokens.of(["007", "8", "u1"]).texts).tolist() == [6, 0, 1]
    assert TOKENS.ids_of(Tokens.of(["[PAD]"]).texts).tolist() == [0]


@pytest.mark.parametrize("scans", [0, 2, 16])
def test_ids_by_text(monkeypatch, scans):
    monkeypatch.setattr(tokens_module, "_SCANS", scans)
    ids = TokenIds(TOKENS)
    assert dict(ids) == {word: number for number, word in enumerate(WORDS)}
    for number, word in enumerate(WORDS):
        assert ids[word] == number and word in ids and np.str_(word) in ids
    assert "u2" not in ids and ids.get("u2") is None and len(ids) == 7
    with pytest.raises(KeyError):
        ids["u2"]


def test_an_id_that_is_called_as_padding_is():
    ids = TokenIds(Tokens.of(["[PAD]", "a", "[PAD]"]))
    assert ids["[PAD]"] == 2 and ids.tokens.ids_of(Tokens.of(["[PAD]"]).texts).tolist() == [2]


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.lists(st.sampled_from("abcdef"), unique=True))
def test_merged_texts_stand_in_the_order_in_which_they_come(first, second):
    known, places = merged(Tokens.of(["[PAD]", *first]), Tokens.of(["[PAD]", *second]))
    assert list(known) == ["[PAD]", *dict.fromkeys(first + second)]
    assert known[places].tolist() == ["[PAD]", *second]
