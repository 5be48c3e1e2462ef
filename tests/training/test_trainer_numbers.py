"""The trainer reads the numbers of many batches together: what it records, and that failures are found all the same."""

import math
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils._python_dispatch import TorchDispatchMode

from recbole_hllm.errors import ModelError
from recbole_hllm.model.base import next_item
from recbole_hllm.training import step_numbers
from recbole_hllm.training.checkpoint import load_model
from recbole_hllm.training.step_numbers import StepNumbers

MEASURED = "/s"  # how tags of rates end: of time, so never the same


def fit(prepared):
    return prepared.trainer.fit(prepared.train, prepared.valid, show_progress=False)


def recorded(folder):
    """Tag -> (step, value) of all that a run's tensorboard holds."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in sorted(events.Tags()["scalars"])
    }


class Reads(TorchDispatchMode):
    """Counts numbers that are read from tensors, and masks that are counted: for each a GPU would be waited for."""

    def __init__(self):
        super().__init__()
        self.numbers = self.masks = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.numbers += func is torch.ops.aten._local_scalar_dense.default
        self.masks += func is torch.ops.aten.nonzero.default
        if func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put):
            self.masks += any(index is not None and index.dtype == torch.bool for index in args[1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name, masks", [("SASRec", 0), ("BPR", 0), ("SASRecNCE", 1), ("HSTU", 1)])
def test_no_number_is_read_between_two_reads_of_all(prepare, monkeypatch, name, masks):
    """SGD, since Adam counts its steps in tensors, on the CPU."""
    prepared = prepare(name, train_batch_size=4, learner="sgd")
    read, reads = StepNumbers.read, []
    monkeypatch.setattr(step_numbers, "BATCHES_KEPT", 5)
    monkeypatch.setattr(StepNumbers, "read", lambda numbers: (reads.append(len(numbers._kept)), read(numbers)))
    prepared.trainer._prepare(prepared.train)
    batches = (list(prepared.train) * 3)[:13]  # made before: loaders read numbers too, of the CPU
    with Reads() as spy:
        prepared.trainer._train_epoch(batches, 0)
    assert spy.numbers == 0 and reads == [1, 5, 5, 2]
    assert spy.masks == masks * len(batches)  # how many targets a batch has


@pytest.mark.parametrize("name, accumulation", [("SASRec", 1), ("HLLM", 3)])
def test_what_is_recorded_is_what_would_be_read_at_once(prepare, monkeypatch, tmp_path, name, accumulation):
    runs = {}
    for number in (1, 50):
        monkeypatch.setattr(step_numbers, "BATCHES_KEPT", number)
        keys = {"train_batch_size": 4, "epochs": 2, "gradient_accumulation_steps": accumulation}
        prepared = prepare(name, folder=f"{number}", **keys)
        score = fit(prepared)
        runs[number] = score, recorded(tmp_path / f"{number}")
    (score, at_once), (other_score, together) = runs.values()
    assert score == other_score and at_once.keys() == together.keys()
    for tag, events in at_once.items():
        steps = [step for step, _ in events]
        assert events == together[tag] or tag.endswith(MEASURED) and steps == [step for step, _ in together[tag]]
    epochs = [value for _, value in together["train/epoch_loss"]]
    losses = torch.tensor([value for _, value in together["train/loss"]], dtype=torch.float64).view(2, -1)
    assert epochs == pytest.approx(losses.mean(1).tolist(), rel=1e-6)


# ---- failures ----


def spoiled(prepared, number, value=math.nan):
    """The loss of the training batch with this number, counted from 0 over all epochs, is multiplied by ``value``."""
    calculate, seen = prepared.model.calculate_loss, []

    def calculate_loss(rows):
        seen.append(rows)
        return calculate(rows) * (value if len(seen) == number + 1 else 1)

    prepared.model.calculate_loss = calculate_loss
    return seen


@pytest.mark.parametrize(
    "keys",
    [{}, {"precision": "fp16"}, {"clip_grad_norm": {"max_norm": 1.0, "error_if_nonfinite": True}}],
    ids=["plain", "scaled", "clipped"],
)
def test_a_loss_that_is_not_a_number_reaches_no_checkpoint(prepare, tmp_path, keys):
    """It is found at the end of its epoch at the latest; what was kept before stays, as does what was recorded."""
    prepared = prepare(train_batch_size=8, epochs=5, **keys)
    batches, weights = len(prepared.train), {}
    assert batches > 4
    save = prepared.trainer._save_last

    def remember(train_data):
        save(train_data)
        weights.update({name: value.clone() for name, value in prepared.model.state_dict().items()})

    prepared.trainer._save_last = remember
    spoiled(prepared, 2 * batches + 1)
    with pytest.raises(ModelError, match="epoch 2, batch 1 is not a number; try a smaller learning_rate"):
        fit(prepared)
    state = load_model(tmp_path / "run" / "last", prepared.model)
    assert state["epoch"] == 1
    saved = prepared.model.state_dict()
    assert all(torch.equal(saved[name], value) and value.isfinite().all() for name, value in weights.items())
    prepared.trainer.tensorboard.close()
    steps = [step for step, _ in recorded(tmp_path / "run")["train/loss"]]
    assert steps == list(range(2 * batches + 1))


def test_a_first_loss_that_is_not_a_number_is_found_at_once(prepare, tmp_path):
    prepared = prepare(train_batch_size=8)
    seen = spoiled(prepared, 0)
    with pytest.raises(ModelError, match="epoch 0, batch 0 is not a number; no weight has changed yet"):
        fit(prepared)
    assert len(seen) == 1 and not (tmp_path / "run" / "last").exists()


def test_gradients_that_are_not_finite_are_torchs_to_refuse(prepare):
    """The loss is a number in all batches, so nothing is said of it."""
    prepared = prepare(train_batch_size=8, clip_grad_norm={"max_norm": 1.0, "error_if_nonfinite": True})
    parameter = next(prepared.model.parameters())
    seen = spoiled(prepared, -1)
    parameter.register_hook(lambda gradient: gradient * (math.inf if len(seen) == 3 else 1))
    with pytest.raises(RuntimeError, match="non-finite"):
        fit(prepared)


def test_what_was_computed_before_an_interruption_is_recorded(prepare, tmp_path):
    prepared = prepare(train_batch_size=8)
    step, steps = prepared.trainer._step, iter(range(100))

    def interrupted():
        step()
        if next(steps) == 2:
            raise KeyboardInterrupt

    prepared.trainer._step = interrupted
    with pytest.raises(KeyboardInterrupt):
        fit(prepared)
    prepared.trainer.tensorboard.close()
    assert [step for step, _ in recorded(tmp_path / "run")["train/loss"]] == [0, 1, 2]


@pytest.mark.parametrize("first", [0, 3])
def test_a_collapse_is_found_in_its_tenth_batch_whenever_it_is_read(prepare, tmp_path, monkeypatch, first):
    """Counted over epochs; one batch with negatives in between begins the count anew."""
    monkeypatch.setattr(next_item, "info_nce", with_surviving(next_item.info_nce, first))
    prepared = prepare("SASRecNCE", train_batch_size=8, epochs=9)
    batches, last = len(prepared.train), first + 9
    assert last > batches
    place = f"epoch {last // batches}, batch {last % batches}"
    with pytest.raises(ModelError, match=f"^{place}: collapse: for 10 batches fewer than 1.0 negatives"):
        fit(prepared)
    assert load_model(tmp_path / "run" / "last", prepared.model)["epoch"] == last // batches - 1
    prepared.trainer.tensorboard.close()
    losses = recorded(tmp_path / "run")["train/surviving_negatives"]
    assert losses == [(step, 5.0 if step == first - 1 else 0.0) for step in range(last)]


def with_surviving(info_nce, first):
    """The loss, with no surviving negative in any batch but the one before ``first``."""
    calls = iter(range(1000))

    def changed(*arguments, **further):
        result = info_nce(*arguments, **further)
        surviving = torch.tensor(5.0 if next(calls) == first - 1 else 0.0)
        return replace(result, surviving=surviving)

    return changed
