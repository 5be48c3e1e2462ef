"""Shares of the batches of an optimizer step."""

import pytest

from recbole_hllm.training.shares import shares


def test_shares_of_a_step_add_up_to_one():
    class Loader:
        sample_size, step = 23, 5

        def __len__(self):
            return 5

    assert shares(Loader(), 1) == [1] * 5
    assert shares(Loader(), 2) == [0.5, 0.5, 0.5, 0.5, 1.0]
    assert shares(Loader(), 3) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 5 / 8, 3 / 8])


def test_a_row_that_joined_a_batch_has_its_share():
    class Loader:
        sample_size, step = 23, 11

        def __len__(self):
            return 2

    assert shares(Loader(), 2) == pytest.approx([11 / 23, 12 / 23])
