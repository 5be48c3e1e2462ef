"""Ids that are a prefix and a number: the same numbering as that of any texts, and the table that makes it."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.data.files import digits
from recbole_hllm.data.files.blocks import Numbering
from recbole_hllm.data.files.digits import DigitIds

KINDS = {"string": pa.string(), "large_string": pa.large_string(), "dictionary": None}
LOOKALIKES = [
    "0", "00", "5", "05", "-5", "+5", "5.0", "5e1", " 5", "5 ", "0x1F", "0xFFFFF", "٣", "u", "u5", "U5", "u05", "u5u5",
    "5u", "é5", "", None, "999999999999999999", "9999999999999999999", "u\n5",
]  # fmt: skip


def plainly(blocks):
    seen = {}
    return [seen.setdefault(text, len(seen) + 1) if text else 0 for block in blocks for text in block], list(seen)


def numbered(blocks, kind):
    numbering = Numbering()
    for block in blocks:
        texts = pa.array(block, KINDS[kind] or pa.string())
        numbering.add(texts if KINDS[kind] else texts.dictionary_encode())
    numbers, tokens = numbering.finish()
    return numbers.tolist(), tokens.tolist()[1:]


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.lists(st.sampled_from(LOOKALIKES) | st.integers(0, 40).map("u{}".format), max_size=8), max_size=4))
def test_texts_are_numbered_as_they_first_appear(kind, blocks):
    assert numbered(blocks, kind) == plainly(blocks)


@pytest.mark.parametrize("kind", KINDS)
@given(st.sampled_from(["", "u", "item ", "é1_"]), st.lists(st.lists(st.integers(0, 10**6)), max_size=4))
def test_prefixed_numbers_are_numbered_as_they_first_appear(kind, prefix, blocks):
    blocks = [[f"{prefix}{number}" for number in block] for block in blocks]
    assert numbered(blocks, kind) == plainly(blocks)


@pytest.mark.parametrize("text", [text for text in LOOKALIKES if text not in ("0", "5", None, "999999999999999999")])
def test_what_is_no_number_is_refused_and_changes_nothing(text):
    ids = DigitIds()
    assert ids.add(pa.array(["7", "5", "7"])).tolist() == [1, 2, 1]
    assert ids.add(pa.array(["8", text])) is None
    assert ids.texts().to_pylist() == ["7", "5"]
    assert ids.add(pa.array([None, "5", "8"])).tolist() == [0, 2, 3]


def test_a_slice_of_texts_is_read_where_it_lies():
    assert DigitIds().add(pa.array(["u1", "u22", None, "u3", "u22"])[1:]).tolist() == [1, 0, 2, 1]


def test_numbers_far_above_the_number_of_rows_have_no_table(monkeypatch):
    monkeypatch.setattr(digits, "_ENTRIES", 10)
    ids = DigitIds()
    assert ids.add(pa.array(["15"])) is None
    assert ids.add(pa.array(["15", "9"])).tolist() == [1, 2]  # 3 rows so far: 24 entries
    assert ids.add(pa.array(["40"])) is None
    numbers = [str(number) for number in np.arange(1000)[::-1]]
    assert DigitIds().add(pa.array(numbers)).tolist() == list(range(1, 1001))
