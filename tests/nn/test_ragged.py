import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.nn.ragged import similar_lengths


@given(st.lists(st.integers(0, 60), min_size=1))
def test_groups_hold_every_row_once_and_are_at_most_half_padding(lengths):
    groups = similar_lengths(torch.tensor(lengths))
    assert sorted(row for rows, _ in groups for row in rows.tolist()) == list(range(len(lengths)))
    for rows, longest in groups:
        own = [lengths[row] for row in rows]
        assert longest == max(*own, 1)
        assert all(2 * max(length, 1) > longest for length in own)
    longest_first = [longest for _, longest in groups]
    assert longest_first == sorted(longest_first, reverse=True)
    assert len(groups) <= 2 + max(lengths).bit_length()
