"""Ranks and lists in blocks are those of a plain sort by score, and then by id."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.errors import ModelError
from recbole_hllm.evaluation import ranking
from recbole_hllm.evaluation.ranking import ScoreProduct, ScoreTable, rank, rank_each


def slow(table, rows, items, masked, k):
    """One row after the other, with Python's sort."""
    table = table.double().clone()
    table[:, 0] = -np.inf
    table[masked] = -np.inf
    orders = [
        sorted(np.flatnonzero(np.array(row) > -np.inf).tolist(), key=lambda item, row=row: (-row[item], item))
        for row in table.tolist()
    ]
    places = [
        (orders[row].index(item) if item in orders[row] else len(orders[row])) + 1
        for row, item in zip(rows.tolist(), items.tolist(), strict=True)
    ]
    lists = [(order + [0] * k)[:k] for order in orders]
    return places, [item in orders[row] for row, item in zip(rows.tolist(), items.tolist(), strict=True)], lists


@st.composite
def cases(draw, whole_numbers=True):
    """users, items, targets, masked pairs and k. Small whole numbers make many ties, exactly."""
    n_rows, n_items, width = draw(st.integers(1, 7)), draw(st.integers(2, 60)), draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    most = draw(st.sampled_from([0, 1, 3]))
    users, items = (
        torch.randint(-most, most + 1, (count, width), generator=generator).float() for count in (n_rows, n_items)
    )
    counts = torch.randint(1, 4, (n_rows,), generator=generator)
    pairs = torch.arange(n_rows).repeat_interleave(counts) * n_items
    pairs = torch.unique(pairs + torch.randint(1, n_items, pairs.shape, generator=generator))
    n_masked = draw(st.integers(0, 2 * n_items))
    masked = tuple(torch.randint(0, size, (n_masked,), generator=generator) for size in (n_rows, n_items))
    if n_masked:  # the padding item is nobody's history
        masked = masked[0], masked[1].clamp(min=1)
    return users, items, pairs // n_items, pairs % n_items, masked, draw(st.integers(0, n_items - 1))


@settings(max_examples=150)
@given(cases(), st.integers(1, 200), st.integers(1, 8), st.sampled_from([torch.float32, torch.float64]))
def test_ranks_and_lists_of_any_block(case, cells, rows_at_once, dtype):
    users, vectors, rows, items, masked, k = case
    users, vectors = users.to(dtype), vectors.to(dtype)
    expected = slow(users @ vectors.T, rows, items, masked, k)
    before = ranking._BLOCK, ranking._ROWS
    ranking._BLOCK, ranking._ROWS = max(cells, rows_at_once), rows_at_once
    try:
        for scores in (ScoreProduct(users, vectors), ScoreTable(users @ vectors.T)):
            found = rank(scores, rows, items, masked, k)
            assert (found.ranks.tolist(), found.candidates.tolist(), found.lists.tolist()) == expected
    finally:
        ranking._BLOCK, ranking._ROWS = before


@settings(max_examples=40)
@given(cases(), st.integers(1, 200), st.integers(1, 8))
def test_several_masks_in_one_pass_are_a_pass_of_each(case, cells, rows_at_once):
    users, vectors, rows, items, masked, k = case
    few = tuple(pairs[::3] for pairs in masked)
    before = ranking._BLOCK, ranking._ROWS
    ranking._BLOCK, ranking._ROWS = max(cells, rows_at_once), rows_at_once
    try:
        for scores in (ScoreProduct(users, vectors), ScoreTable(users @ vectors.T)):
            together = rank_each(scores, rows, items, [None, masked, few], k)
            for found, mask in zip(together, [None, masked, few], strict=True):
                alone = rank(scores, rows, items, mask, k)
                assert torch.equal(found.ranks, alone.ranks) and torch.equal(found.lists, alone.lists)
                assert torch.equal(found.candidates, alone.candidates)
    finally:
        ranking._BLOCK, ranking._ROWS = before


def test_scores_of_several_masks_are_computed_once(monkeypatch):
    monkeypatch.setattr(ranking, "_BLOCK", 8)
    filled, fill = [], ScoreProduct.fill
    monkeypatch.setattr(ScoreProduct, "fill", lambda *given: filled.append(given[2:]) or fill(*given))
    scores = ScoreProduct(torch.randn(3, 2), torch.randn(9, 2))
    rows, items = torch.arange(3), torch.tensor([1, 2, 3])
    rank(scores, rows, items, (rows, items + 1), 2)
    once = filled.copy()
    rank_each(scores, rows, items, [None, (rows, items + 1)], 2)
    assert filled == 2 * once and len(once) > 1


@pytest.mark.parametrize("k", [0, 1, 10, 200])
def test_a_large_catalogue_in_several_blocks(k, monkeypatch):
    monkeypatch.setattr(ranking, "_BLOCK", 1 << 15)
    generator = torch.Generator().manual_seed(1)
    users, vectors = (torch.randn(count, 16, generator=generator, dtype=torch.float64) for count in (37, 5000))
    rows, items = torch.arange(37), torch.randint(1, 5000, (37,), generator=generator)
    masked = torch.arange(37).repeat_interleave(30), torch.randint(1, 5000, (37 * 30,), generator=generator)
    table = users @ vectors.T
    places, candidates, lists = slow(table, rows, items, masked, k)
    for scores in (ScoreProduct(users, vectors), ScoreTable(table)):
        found = rank(scores, rows, items, masked, k)
        assert found.ranks.tolist() == places and found.candidates.tolist() == candidates
        assert found.lists.tolist() == lists and found.lists.shape == (37, k)


def test_items_in_any_order_of_quality(monkeypatch):
    """Each block better than all before, or worse, or all equal: lists are cut in time."""
    monkeypatch.setattr(ranking, "_BLOCK", 1 << 10)
    monkeypatch.setattr(ranking, "_ROWS", 4)
    rising = torch.arange(3000.0)
    table = torch.stack([rising, -rising, torch.zeros(3000), rising // 500])
    rows, items = torch.arange(4), torch.tensor([2990, 11, 2000, 100])
    found = rank(ScoreTable(table), rows, items, k=50)
    expected = slow(table, rows, items, (rows[:0], rows[:0]), 50)
    assert (found.ranks.tolist(), found.candidates.tolist(), found.lists.tolist()) == expected
    assert found.ranks.tolist() == [10, 11, 2000, 2600]


def test_items_with_equal_vectors_have_equal_scores_to_the_last_bit(monkeypatch):
    """A product of another shape rounds otherwise; each target has 299 copies, before and after it."""
    monkeypatch.setattr(ranking, "_BLOCK", 1 << 12)
    generator = torch.Generator().manual_seed(0)
    for width in (5, 64, 333):
        users, ten = (torch.randn(count, width, generator=generator) for count in (9, 10))
        vectors = ten[torch.arange(3001) % 10]
        rows, items = torch.arange(9), torch.arange(9) * 301 + 100
        found = rank(ScoreProduct(users, vectors), rows, items, k=5)
        better = (users.double() @ ten.double().T > (users.double() @ ten.double().T)[rows, items % 10, None]).sum(1)
        copies_before = (items - 1) // 10
        assert found.ranks.tolist() == (300 * better + copies_before + 1).tolist()


def test_a_target_that_is_masked_and_a_row_of_no_candidates():
    table = torch.tensor([[9.0, 3, 2, 1], [9, 3, 2, 1], [9, 3, 2, 1]])
    rows, items = torch.tensor([0, 1, 2, 2]), torch.tensor([1, 3, 2, 3])
    masked = torch.tensor([0, 2, 2, 2]), torch.tensor([1, 1, 2, 3])
    found = rank(ScoreTable(table), rows, items, masked, 2)
    assert found.ranks.tolist() == [3, 3, 1, 1]
    assert found.candidates.tolist() == [False, True, False, False]
    assert found.lists.tolist() == [[2, 3], [1, 2], [0, 0]]


def test_nobody_to_rank():
    nothing = torch.empty(0, dtype=torch.long)
    found = rank(ScoreProduct(torch.empty(0, 4), torch.randn(9, 4)), nothing, nothing, k=3)
    assert found.ranks.shape == (0,) and found.lists.shape == (0, 3)
    lists = rank(ScoreTable(torch.tensor([[0.0, 1, 3, 2]])), nothing, nothing, k=3).lists
    assert lists.tolist() == [[2, 3, 1]], "lists without targets"


def test_scores_that_are_no_numbers_are_refused():
    table, row = torch.tensor([[0.0, 1, np.nan, 2]]), torch.tensor([0])
    for target, k in ((2, 0), (1, 2), (1, 0), (3, 0)):
        with pytest.raises(ModelError, match="scores are not numbers; training has failed"):
            rank(ScoreTable(table), row, torch.tensor([target]), k=k)
    table[0, 0] = np.nan  # the padding item's may be anything
    table[0, 2] = 0.5
    assert rank(ScoreTable(table), row, torch.tensor([1]), k=2).lists.tolist() == [[3, 1]]


def test_the_scores_of_a_table_stay_as_they_are():
    table = torch.randn(5, 40)
    before = table.clone()
    rank(ScoreTable(table), torch.arange(5), torch.arange(5) + 1, (torch.arange(5), torch.arange(5) + 7), 3)
    assert torch.equal(table, before)


def test_a_product_never_stands_in_one_table(monkeypatch):
    """No tensor that is made is larger than a block, apart from the vectors of the items."""
    from torch.utils._python_dispatch import TorchDispatchMode

    monkeypatch.setattr(ranking, "_BLOCK", 1 << 17)
    sizes, users, vectors = [], torch.randn(600, 8), torch.randn(30_000, 8)
    given = {users.untyped_storage().data_ptr(), vectors.untyped_storage().data_ptr()}

    class RecordSizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            outputs = result if isinstance(result, tuple | list) else [result]
            made = (out for out in outputs if isinstance(out, torch.Tensor))
            sizes.extend(out.numel() for out in made if out.untyped_storage().data_ptr() not in given)
            return result

    with RecordSizes():
        rank(ScoreProduct(users, vectors), torch.arange(600), torch.arange(600) + 1, k=20)
    assert max(sizes) <= 1.2 * ranking._BLOCK < 600 * 30_000 / 20
