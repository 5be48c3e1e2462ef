"""Limits in optimizer steps: what is trained, when it is validated, why it ends, and how it goes on."""

import math

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.training.checkpoint import load_model

STILL = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "train_batch_size": 8}


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def fit(prepared, validated=True):
    return prepared.trainer.fit(prepared.train, prepared.valid if validated else None, show_progress=False)


def scripted(prepared, scores):
    """Validation gives these scores and notes the steps before each."""
    values, steps = iter(scores), []

    def evaluate(*args, **kwargs):
        steps.append(prepared.trainer.steps)
        prepared.model.eval()
        return {"mrr@10": next(values)}

    prepared.trainer.evaluate = evaluate
    return steps


def by_hand(prepared, steps, accumulation=1):
    """Weights after so many steps of plain batches, epoch after epoch."""
    model, trainer = prepared.model.train(), prepared.trainer
    while trainer.steps < steps:
        batches = list(prepared.train)
        for first in range(0, len(batches), accumulation):
            group = batches[first : first + accumulation]
            rows = sum(len(batch) for batch in group)
            for batch in group:
                (model.calculate_loss(batch) * len(batch) / rows).backward()
            trainer.optimizer.step()
            trainer.optimizer.zero_grad()
            trainer.steps += 1
            if trainer.steps == steps:
                return weights(model)
    return weights(model)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("steps", [1, 3, 11])
def test_so_many_steps_are_made(prepare, accumulation, steps):
    keys = {**STILL, "gradient_accumulation_steps": accumulation, "epochs": 50}
    limited, plain = prepare(max_steps=steps, **keys), prepare(folder="plain", **keys)
    batches = len(limited.train)
    assert 4 <= batches < 11, "the steps end inside the first epoch and in a later one"
    fit(limited, validated=False)
    torch.testing.assert_close(weights(limited.model), by_hand(plain, steps, accumulation), rtol=0, atol=1e-6)
    trainer, an_epoch = limited.trainer, math.ceil(batches / accumulation)
    assert (trainer.steps, trainer.epochs_run) == (steps, steps // an_epoch)
    assert trainer.epochs_begun == math.ceil(steps / an_epoch)
    assert (trainer.stop_reason, trainer.converged) == (f"limit of {steps} step{'s' * (steps > 1)}", False)
    assert trainer.batch == min(steps % an_epoch * accumulation, batches)


def test_the_last_weights_of_a_cut_epoch_are_validated_and_kept(prepare, tmp_path):
    prepared = prepare(max_steps=3, epochs=5, **STILL)
    steps = scripted(prepared, [0.4])
    assert fit(prepared)[0] == 0.4
    assert steps == [3] and prepared.trainer.best_epoch == 0
    state = load_model(tmp_path / "run" / "best", prepared.model)
    assert (state["epoch"], state["steps"]) == (0, 3)


def test_the_limit_that_comes_first_is_the_reason(prepare):
    prepared = prepare(max_steps=1000, epochs=2, **STILL)
    fit(prepared)
    assert prepared.trainer.stop_reason == "limit of 2 epochs"
    exact = prepare(max_steps=2 * len(prepared.train), epochs=2, folder="exact", **STILL)
    fit(exact)
    assert exact.trainer.stop_reason == "limit of 2 epochs" and exact.trainer.batch == 0


def test_the_schedule_is_of_the_steps_there_are(prepare):
    prepared = prepare(max_steps=7, epochs=5, scheduler="cosine", warmup_ratio=0.0, **STILL)
    rates, step = [], prepared.trainer._step
    prepared.trainer._step = lambda: (rates.append(prepared.trainer.optimizer.param_groups[0]["lr"]), step())
    fit(prepared)
    expected = [0.001 * 0.5 * (1 + math.cos(math.pi * done / 7)) for done in range(7)]
    assert rates == pytest.approx(expected)
    assert prepared.trainer.stop_reason == "end of the schedule (7 steps)"
    assert prepared.trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


# ---- validation after steps ----


def test_validations_come_after_so_many_steps(prepare, tmp_path):
    prepared = prepare(eval_every_steps=4, epochs=3, stopping_step=100, **STILL)
    scores = [0.1, 0.2, 0.3, 0.2, 0.1]
    steps = scripted(prepared, scores * 2)
    best = {}
    keep = prepared.trainer._keep_as_best

    def remember():
        keep()
        best.update(steps=prepared.trainer.steps, weights=weights(prepared.model))

    prepared.trainer._keep_as_best = remember
    modes = []
    calculate = prepared.model.calculate_loss
    prepared.model.calculate_loss = lambda rows: (modes.append(prepared.model.training), calculate(rows))[1]
    assert fit(prepared)[0] == 0.3
    total = 3 * len(prepared.train)
    assert steps == list(range(4, total + 1, 4)) and prepared.trainer.steps == total
    assert best["steps"] == 12 and torch.equal(weights(prepared.model), best["weights"])
    assert prepared.trainer.best_epoch == (12 - 1) // len(prepared.train)
    assert all(modes), "training goes on in training mode"
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("valid/mrr@10")] == steps
    assert [event.step for event in events.Scalars("train/epoch_loss")] == [0, 1, 2]
    assert [event.step for event in events.Scalars("train/loss")] == list(range(total))


def test_validating_inside_an_epoch_changes_no_weight(prepare):
    keys = {**STILL, "epochs": 3, "stopping_step": 100}
    often, never = prepare(eval_every_steps=2, **keys), prepare(folder="never", **keys)
    fit(often)
    fit(never, validated=False)
    ends = [load_model(prepared.trainer.run_dir / "last", prepared.model) for prepared in (often, never)]
    assert ends[0]["epoch"] == ends[1]["epoch"] == 2
    assert torch.equal(weights(often.model), weights(never.model))


def test_early_stopping_counts_these_validations(prepare):
    prepared = prepare(eval_every_steps=3, epochs=30, stopping_step=1, **STILL)
    steps = scripted(prepared, [0.3, 0.4, 0.2, 0.1, 0.9])
    assert fit(prepared)[0] == 0.4
    trainer = prepared.trainer
    assert steps == [3, 6, 9, 12] and trainer.steps == 12
    assert (trainer.stop_reason, trainer.converged) == ("early stopping", True)
    assert trainer.batch == 12 % len(prepared.train)


def test_steps_are_counted_with_accumulation(prepare):
    prepared = prepare(eval_every_steps=2, max_steps=5, epochs=30, gradient_accumulation_steps=2, **STILL)
    steps = scripted(prepared, [0.3, 0.4])
    fit(prepared)
    assert steps == [2, 4] and prepared.trainer.steps == 5


def test_fewer_steps_than_to_the_first_validation_are_validated_at_the_end(prepare):
    prepared = prepare(eval_every_steps=100, epochs=1, **STILL)
    steps = scripted(prepared, [0.3])
    assert fit(prepared)[0] == 0.3 and steps == [len(prepared.train)]


def test_the_time_limit_is_looked_at_after_each_validation(prepare):
    prepared = prepare(eval_every_steps=2, epochs=30, max_training_minutes=1, **STILL)
    steps = scripted(prepared, [0.1, 0.2, 0.3])
    validate = prepared.trainer._validate

    def slow(*args):
        prepared.trainer.training_seconds += 40
        validate(*args)

    prepared.trainer._validate = slow
    fit(prepared)
    assert steps == [2, 4]
    assert (prepared.trainer.stop_reason, prepared.trainer.converged) == ("time limit of 1 minute", False)


def test_time_of_validation_is_none_of_training(prepare, monkeypatch):
    prepared = prepare(eval_every_steps=2, max_steps=4, **STILL)
    clock = [0.0]
    monkeypatch.setattr("recbole_hllm.training.trainer.time.perf_counter", lambda: clock[0])
    scripted(prepared, [0.1, 0.2])
    validate, step = prepared.trainer._validate, prepared.trainer._step
    prepared.trainer._validate = lambda *args: (validate(*args), clock.__setitem__(0, clock[0] + 1000))
    prepared.trainer._step = lambda: (step(), clock.__setitem__(0, clock[0] + 1))
    fit(prepared)
    assert prepared.trainer.training_seconds == 4


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_found_before_the_validation(prepare, tmp_path, value):
    prepared = prepare(eval_every_steps=3, epochs=5, **STILL)
    calculate, count = prepared.model.calculate_loss, iter(range(100))
    prepared.model.calculate_loss = lambda rows: calculate(rows) * (value if next(count) == 1 else 1)
    with pytest.raises(ModelError, match="training loss of epoch 0"):
        fit(prepared)
    assert not (tmp_path / "run" / "best").exists()


@pytest.mark.parametrize("eval_step", [0, 2])
def test_validation_after_steps_and_after_epochs_contradict_each_other(prepare, eval_step):
    with pytest.raises(ConfigError, match=f"eval_every_steps: 5 and eval_step: {eval_step} contradict"):
        prepare(eval_every_steps=5, eval_step=eval_step)


@pytest.mark.parametrize("key", ["max_steps", "eval_every_steps"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "x"])
def test_wrong_values_name_their_key(prepare, key, value):
    with pytest.raises(ConfigError, match=key):
        prepare(**{key: value})


def test_a_model_that_counts_has_no_steps_to_limit(prepare):
    prepared = prepare("Pop", max_steps=1, eval_every_steps=1, train_batch_size=8)
    steps = scripted(prepared, [0.2])
    fit(prepared)
    assert steps == [len(prepared.train)] and len(prepared.train) > 1
    assert (prepared.trainer.stop_reason, prepared.trainer.converged) == ("counted once", True)


# ---- going on ----


def test_a_limited_run_goes_on_with_a_higher_limit(prepare):
    """Where the limit came at the end of an epoch, as if it had been higher from the beginning."""
    keys = {**STILL, "epochs": 50, "scheduler": "none"}
    batches = len(prepare(folder="unused", **keys).train)
    whole = prepare(folder="whole", max_steps=2 * batches + 1, **keys)
    fit(whole)
    fit(prepare(max_steps=batches, **keys))
    resumed = prepare(max_steps=2 * batches + 1, resume=True, **keys)
    fit(resumed)
    assert resumed.trainer.steps == whole.trainer.steps == 2 * batches + 1
    assert resumed.trainer.stop_reason == f"limit of {2 * batches + 1} steps"
    assert torch.equal(weights(resumed.model), weights(whole.model))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_epoch_that_was_cut_goes_on_inside(prepare, monkeypatch, accumulation):
    """Whatever cut it how often, the weights are those of a run that nothing cut."""
    keys = {"epochs": 3, "train_batch_size": 8, "hidden_dropout_prob": 0.4, "gradient_accumulation_steps": accumulation}
    whole = prepare(folder="whole", **keys)
    fit(whole, validated=False)
    an_epoch, loops = whole.trainer.steps // 3, []
    for limit in (1, 2, an_epoch + 1, None):
        part = prepare(max_steps=limit, resume=bool(loops), **keys)
        told = []
        monkeypatch.setattr(part.trainer.logger, "info", told.append)
        fit(part, validated=False)
        loops.append([told[0], part.trainer.steps, part.trainer.epochs_run, part.trainer.epochs_begun])
    assert loops[1][0] == f"resuming with epoch 0, batch {accumulation}, after step 1"
    assert loops[3][0] == f"resuming with epoch 1, batch {accumulation}, after step {an_epoch + 1}"
    assert [loop[1:] for loop in loops] == [[1, 0, 1], [2, 0, 1], [an_epoch + 1, 1, 2], [3 * an_epoch, 3, 3]]
    assert torch.equal(weights(part.model), weights(whole.model))
    again = prepare(resume=True, **keys)
    fit(again, validated=False)
    assert again.trainer.steps == 3 * an_epoch, "nothing is left to do"


def test_a_model_hears_of_each_epoch_once(prepare):
    """Where it begins, in training mode, and not where it goes on inside."""
    heard = []
    for limit, resume in ((1, False), (None, True)):
        part = prepare(max_steps=limit, resume=resume, epochs=3, train_batch_size=16)
        part.model.begin_epoch = lambda epoch, part=part: heard.append((epoch, part.trainer.steps, part.model.training))
        fit(part)
    batches = len(part.train)
    assert batches > 1 and heard == [(0, 0, True), (1, batches, True), (2, 2 * batches, True)]


def test_an_epoch_of_other_batches_begins_again(prepare, caplog):
    keys = {**STILL, "epochs": 1}
    fit(prepare(max_steps=3, **keys))
    other = prepare(resume=True, **{**keys, "train_batch_size": 16})
    fit(other)
    assert "epochs have other batches, or steps have, than in the checkpoint: the epoch begins again" in caplog.text
    assert (other.trainer.steps, other.trainer.epochs_run) == (3 + len(other.train), 1)


def test_a_schedule_goes_on_where_a_higher_limit_has_it(prepare):
    keys = {**STILL, "epochs": 50, "scheduler": "cosine", "warmup_ratio": 0.0}
    fit(prepare(max_steps=4, **keys))
    resumed = prepare(max_steps=8, resume=True, **keys)
    rates, step = [], resumed.trainer._step
    resumed.trainer._step = lambda: (rates.append(resumed.trainer.optimizer.param_groups[0]["lr"]), step())
    fit(resumed)
    assert rates == pytest.approx([0.001 * 0.5 * (1 + math.cos(math.pi * done / 8)) for done in range(4, 8)])


@pytest.mark.parametrize("steps, batches", [(0, 10), (8, 10), (17, 6), (20, 0)])
def test_an_epoch_has_the_batches_that_are_left(prepare, steps, batches):
    prepared = prepare(max_steps=20, gradient_accumulation_steps=2, **STILL)
    assert prepared.trainer.stopping.batches_of_epoch(10, steps) == batches
    assert prepare(folder="free", **STILL).trainer.stopping.batches_of_epoch(10, steps) == 10
