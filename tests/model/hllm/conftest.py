"""What tests of HLLM share."""

import pytest

from recbole_hllm.nn.item_encoder import ItemEncoder


@pytest.fixture
def encoded(monkeypatch):
    """Numbers of items of each pass through an Item LLM."""
    counts, pooled = [], ItemEncoder.pooled

    def counting(self, tokens, lengths):
        counts.append(len(lengths))
        return pooled(self, tokens, lengths)

    monkeypatch.setattr(ItemEncoder, "pooled", counting)
    return counts
