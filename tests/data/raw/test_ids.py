"""Counts and distinct ids equal those of Python's Counter and set."""

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.data.raw import ids as module
from recbole_hllm.data.raw.ids import Counts, Distinct, hashes_of

IDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
BLOCKS = st.lists(st.lists(IDS | st.sampled_from("abc"), min_size=1, max_size=6), min_size=1, max_size=6)


@given(BLOCKS, st.sampled_from([1, 5, 100]))
def test_ids_and_how_often_each_occurs(blocks, waiting):
    counts, distinct = Counts(), Distinct()
    expected = Counter(item for block in blocks for item in block)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WAITING", waiting)
        for block in blocks:
            column = pa.array(["before", *block, "after"]).slice(1, len(block))
            counts.add(column)
            distinct.add(column)
        assert len(counts) == len(distinct) == len(expected)
        for least in (1, 2):
            assert set(counts.ids(least).to_pylist()) == {item for item, n in expected.items() if n >= least}
        assert counts.rows_of(counts.ids(2)) == sum(n for n in expected.values() if n >= 2)


def test_a_hash_does_not_depend_on_the_other_ids():
    texts = ["a", "b" * 8, "c" * 9, "d" * 200, "aa"]
    together = hashes_of(pa.array(texts)).tolist()
    assert together == [hashes_of(pa.array([text]))[0] for text in texts]
    assert len(set(together)) == 5


def test_every_number_of_up_to_8_digits_has_a_hash_of_its_own():
    distinct = Distinct()
    distinct.add(pa.array([f"u{number}" for number in range(0, 9_000_000, 37)]))
    assert len(distinct) == len(range(0, 9_000_000, 37))
