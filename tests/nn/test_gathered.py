"""Items dealt out to processes; what is gathered is tested where processes are."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.nn.gathered import deal


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 5))
def test_all_items_are_dealt_alike(lengths, hands):
    dealt = deal(torch.tensor(lengths), hands)
    assert dealt.shape == (-(-len(lengths) // hands), hands)
    assert set(dealt.flatten().tolist()) == set(range(len(lengths)))
    sums = torch.tensor(lengths)[dealt].sum(0)
    assert int(sums.max() - sums.min()) <= max(lengths)
