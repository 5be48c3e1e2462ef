from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.model.next_item import _halving


@given(st.lists(st.integers(0, 60), min_size=1).map(lambda lengths: sorted(lengths, reverse=True)))
def test_slices_hold_every_row_once_and_are_at_most_half_padding(lengths):
    slices = list(_halving(lengths))
    assert [row for first, last, _ in slices for row in range(first, last)] == list(range(len(lengths)))
    for first, last, longest in slices:
        assert longest == max(lengths[first], 1)
        assert all(2 * length > longest or length == lengths[first] for length in lengths[first:last])
    assert len(slices) <= 2 + max(lengths).bit_length()
