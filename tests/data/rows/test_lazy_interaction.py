"""A table answers as RecBole's Interaction does, and keeps its columns as they came."""

import copy

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_hllm.data.rows import lazy_interaction as module
from recbole_hllm.data.rows.lazy_interaction import Column, LazyInteraction, everything
from recbole_hllm.data.rows.positions import Positions


@pytest.fixture
def columns(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 3)
    ids = np.arange(10, 20, dtype=np.int32)
    ids.flags.writeable = False  # as a memory-mapped array is
    return {
        "id": Column(ids, np.int64),
        "time": Column(np.arange(10) + 1 / 3, np.float32),
        "pair": Column(np.arange(20).reshape(10, 2), np.float32),
    }


def plain(columns, rows):
    return {name: torch.from_numpy(column.values[rows].astype(column.dtype)) for name, column in columns.items()}


@pytest.mark.parametrize("rows", [Positions(np.array([1, 6]), np.array([3, 2])), np.array([9, 0, 0, 4])])
def test_columns_and_rows(columns, rows):
    table, expected = LazyInteraction(columns, rows), plain(columns, np.asarray(rows))
    assert len(table) == len(rows) and list(table) == table.columns == list(expected)
    for name, values in expected.items():
        assert torch.equal(table[name], values) and table[name].dtype == values.dtype
        assert torch.equal(getattr(table, name), values)
        for index in ([3, 0], slice(1, 3), torch.tensor([2]), np.arange(len(rows)) % 2 == 0):
            assert torch.equal(table[index][name], values[index])
    assert "id" in table and "other" not in table
    assert {name: values.tolist() for name, values in table.numpy().items()} == {
        name: values.tolist() for name, values in expected.items()
    }


def test_other_rows_share_the_columns(columns):
    table = LazyInteraction(columns, everything(10))
    some = table.of(np.array([5]))
    assert some.kept["id"].values is columns["id"].values and some["id"].tolist() == [15]
    table.drop("id")
    assert "id" not in table and "id" in some


def test_a_deep_copy_can_be_changed(columns):
    table = LazyInteraction(columns, everything(10))
    other = copy.deepcopy(table)
    assert type(other) is Interaction
    torch.manual_seed(0)
    other.shuffle()
    assert sorted(other["id"].tolist()) == table["id"].tolist() == list(range(10, 20)) != other["id"].tolist()
    assert torch.equal(other["time"], table["time"][other["id"] - 10])
    with pytest.raises(AttributeError, match="__setitem__"):
        table.shuffle()
