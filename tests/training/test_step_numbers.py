"""Numbers that are read late are handed on as if they had been read at once."""

import math
import weakref

import pytest
import torch

from recbole_hllm.training import step_numbers
from recbole_hllm.training.step_numbers import BatchPlace, StepNumbers


def batch(index):
    return BatchPlace(0, index, index, 0.1)


def kept(number, terms=None):
    """(record of a StepNumbers after each of so many batches, the StepNumbers)."""
    recorded, seen = [], []
    numbers = StepNumbers(lambda *arguments: recorded.append(arguments))
    for index in range(number):
        numbers.keep(batch(index), torch.tensor(float(index)), terms or {})
        seen.append(len(recorded))
    return recorded, seen, numbers


def test_the_first_is_read_at_once_and_others_together(monkeypatch):
    monkeypatch.setattr(step_numbers, "BATCHES_KEPT", 3)
    recorded, seen, numbers = kept(8)
    assert seen == [1, 1, 1, 4, 4, 4, 7, 7]
    numbers.read()
    assert [(place.index, loss) for place, loss, _ in recorded] == [(index, index) for index in range(8)]
    numbers.read()
    assert len(recorded) == 8


def test_slow_batches_are_read_each(monkeypatch):
    monkeypatch.setattr(step_numbers, "SECONDS_KEPT", 0)
    assert kept(4)[1] == [1, 2, 3, 4]


def test_each_number_keeps_its_value_and_its_place():
    """Of any kind and precision, in the order the model gives them, also where batches have different ones."""
    recorded = []
    weight = torch.nn.Parameter(torch.tensor([0.1]))
    terms = {
        "bf16": torch.tensor(0.1, dtype=torch.bfloat16), "plain": 0.1, "double": torch.tensor(0.1).double() / 3,
        "count": torch.tensor(2**53 - 1), "told": torch.tensor(True), "weight": weight, "whole": 7,
    }  # fmt: skip
    with torch.no_grad():
        expected = {name: float(term) for name, term in terms.items()}
    loss = (weight * 3).sum()
    with StepNumbers(lambda *arguments: recorded.append(arguments)) as numbers:
        numbers.keep(batch(0), torch.tensor(0.5), {})
        numbers.keep(batch(1), loss, terms)
        numbers.keep(batch(2), torch.ones(1) / 3, {"plain": 1.0})
        with torch.no_grad():
            weight.add_(1)  # an optimizer's step
    assert [loss for _, loss, _ in recorded] == [0.5, loss.item(), torch.tensor(1 / 3).item()]
    assert [terms for *_, terms in recorded] == [{}, expected, {"plain": 1.0}]
    assert list(recorded[1][2]) == list(terms)


def test_what_is_kept_holds_no_graph():
    """Which would hold all activations of its batch."""

    class Hook:
        def __call__(self, gradient):
            """The graph holds this as it holds activations."""

    numbers, activations, hook = StepNumbers(lambda *_: None), torch.ones(3, requires_grad=True) * 2, Hook()
    activations.register_hook(hook)
    alive, loss = weakref.ref(hook), activations.sum()
    numbers.keep(batch(0), torch.zeros(()), {})
    numbers.keep(batch(1), loss, {"term": loss})
    del hook, activations
    assert alive() is not None
    del loss
    assert alive() is None


def test_an_error_comes_after_what_the_numbers_say():
    def refuse(place, loss, terms):
        if math.isnan(loss):
            raise ValueError(f"{place} is not a number")

    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(ValueError, match="epoch 0, batch 1 is not a number") as caught:
            with StepNumbers(refuse) as numbers:
                numbers.keep(batch(0), torch.ones(()), {})
                numbers.keep(batch(1), torch.tensor(math.nan), {})
                numbers.keep(batch(2), torch.ones(()), {})
                raise error("follows from it")
        assert isinstance(caught.value.__context__, error)
    with pytest.raises(RuntimeError, match="of its own"):
        with StepNumbers(refuse) as numbers:
            numbers.keep(batch(0), torch.ones(()), {})
            raise RuntimeError("of its own")
