"""One optimizer step against torch's own, and when and how training ends."""

import copy
import math

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recbole_hllm.errors import ConfigError, ModelError

STILL = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}  # SASRec without dropout


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def fit(prepared, validated=True):
    return prepared.trainer.fit(prepared.train, prepared.valid if validated else None, show_progress=False)


# ---- optimizer ----


def test_groups_of_hllm_have_their_own_rates_and_decay(prepare):
    prepared = prepare("HLLM", learning_rate=0.01, item_learning_rate=0.002, weight_decay=0.3)
    optimizer, names = prepared.trainer.optimizer, {id(p): name for name, p in prepared.model.named_parameters()}
    assert isinstance(optimizer, torch.optim.AdamW)
    seen = set()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.add(name)
            assert group["lr"] == (0.002 if name.startswith("item_encoder") else 0.01)
            assert group["weight_decay"] == (0.3 if parameter.dim() > 1 else 0.0)
    assert seen == set(names.values())  # each parameter is trained, in one group (torch refuses two)


def test_groups_of_the_official_code_all_decay(prepare):
    prepared = prepare("HLLM", reference=["weight_decay"], item_learning_rate=None, weight_decay=0.3)
    assert {group["weight_decay"] for group in prepared.trainer.optimizer.param_groups} == {0.3}
    assert {group["lr"] for group in prepared.trainer.optimizer.param_groups} == {0.001}


def test_warm_up_of_the_official_code_is_switched_on_by_reference(prepare):
    for reference, first in (([], 0.001 / 4), (["warmup"], 0.0)):
        keys = {"scheduler": "cosine", "warmup_ratio": 0.2, "epochs": 4, "train_batch_size": 16}
        prepared = prepare(reference=reference, **keys)
        prepared.trainer._prepare(prepared.train)
        total = 4 * len(prepared.train)
        assert prepared.trainer.optimizer.param_groups[0]["lr"] == pytest.approx(first * 4 / (0.2 * total))


@pytest.mark.parametrize("batch_size, accumulation", [(8, 2), (4, 4), (8, 100), (5, 3)])
def test_accumulated_batches_equal_one_large_batch(prepare, batch_size, accumulation):
    """SGD with rate 1 shows the gradient; the last group has fewer batches and the last batch fewer rows."""
    keys = {"learner": "sgd", "learning_rate": 1.0, "shuffle": False, "epochs": 1, **STILL}
    small = prepare(train_batch_size=batch_size, gradient_accumulation_steps=accumulation, **keys)
    large = prepare(train_batch_size=batch_size * accumulation, folder="large", **keys)
    rows = small.train.sample_size
    assert rows % batch_size and rows % (batch_size * accumulation)
    for prepared in (small, large):
        fit(prepared, validated=False)
    torch.testing.assert_close(weights(small.model), weights(large.model), rtol=0, atol=1e-6)
    assert small.trainer.steps == large.trainer.steps == math.ceil(rows / (batch_size * accumulation))


@pytest.mark.parametrize("model", ["SASRecCE", "HLLM"])
def test_accumulated_batches_count_by_their_targets(prepare, model):
    """Losses are means over targets: rows of one batch have more of them than those of the other."""
    keys = {"learner": "sgd", "learning_rate": 1.0, "shuffle": False, "epochs": 1, **STILL}
    keys |= {"HLLM": {"negatives": "catalogue", "nce_thres": None, "scheduler": "none"}}.get(model, {})
    found = []
    for folder, further in (("small", {"gradient_accumulation_steps": 2}), ("large", {})):
        prepared = prepare(model, train_batch_size=14 if folder == "large" else 7, folder=folder, **keys, **further)
        torch.manual_seed(0)
        fit(prepared, validated=False)
        found.append(weights(prepared.model))
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


def test_gradients_are_clipped_to_the_norm(prepare):
    keys = {"learner": "sgd", "learning_rate": 1.0, "train_batch_size": 1000, "epochs": 1, **STILL}
    free, clipped = prepare(**keys), prepare(clip_grad_norm={"max_norm": 1e-3}, folder="clipped", **keys)
    start = weights(free.model)
    for prepared in (free, clipped):
        fit(prepared, validated=False)
    assert (weights(free.model) - start).norm() > 0.1
    assert (weights(clipped.model) - start).norm() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("precision, kind", [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_autocast_is_on_in_the_forward_pass_only(prepare, precision, kind):
    prepared = prepare(precision=precision, epochs=1)
    seen = {True: set(), False: set()}
    layer = prepared.model.trm_encoder.layer[0].feed_forward.dense_1
    layer.register_forward_hook(lambda module, inputs, output: seen[module.training].add(output.dtype))
    fit(prepared)
    assert seen == {True: {kind}, False: {torch.float32}}
    assert all(parameter.dtype == torch.float32 for parameter in prepared.model.parameters())


def test_the_model_learns(prepare):
    prepared = prepare(epochs=12, learning_rate=0.02, stopping_step=100)
    score, result = fit(prepared)
    assert score > 0.5 and result["mrr@10"] == score


@pytest.mark.parametrize(
    "keys",
    [{"gradient_accumulation_steps": 0}, {"clip_grad_norm": 5}, {"scheduler": "linear"}],
    ids=lambda keys: next(iter(keys)),
)
def test_wrong_values_name_their_key(prepare, keys):
    with pytest.raises(ConfigError, match=next(iter(keys))):
        fit(prepare(**keys))


# ---- the end of training ----


def scripted(prepared, scores, seconds=0.0):
    """Validation gives these scores, whatever the weights; each epoch takes so many seconds."""
    values = iter(scores)

    def evaluate(*args, **kwargs):
        return {"mrr@10": next(values), "recall@10": 0.5}

    prepared.trainer.evaluate = evaluate
    train_epoch = prepared.trainer._train_epoch

    def timed(*args, **kwargs):
        loss = train_epoch(*args, **kwargs)
        prepared.trainer.training_seconds += seconds
        return loss

    prepared.trainer._train_epoch = timed


def test_early_stopping_keeps_the_best_epoch(prepare):
    prepared = prepare(epochs=20, stopping_step=2)
    scripted(prepared, [0.1, 0.4, 0.2, 0.3, 0.1, 0.9])
    best = {}
    keep = prepared.trainer._keep_as_best

    def remember():
        keep()
        best["weights"] = weights(prepared.model)

    prepared.trainer._keep_as_best = remember
    score, result = fit(prepared)
    trainer = prepared.trainer
    assert (score, result["mrr@10"], trainer.best_epoch, trainer.epochs_run) == (0.4, 0.4, 1, 5)
    assert (trainer.stop_reason, trainer.converged) == ("early stopping", True)
    assert torch.equal(weights(prepared.model), best["weights"])


def test_a_smaller_metric_can_be_better(prepare):
    prepared = prepare(epochs=20, stopping_step=1, valid_metric="AveragePopularity@10", metrics=["AveragePopularity"])
    assert prepared.trainer.valid_metric_bigger is False
    values = iter([0.5, 0.3, 0.4, 0.6])
    prepared.trainer.evaluate = lambda *args, **kwargs: {"averagepopularity@10": next(values)}
    score, _ = fit(prepared)
    assert (score, prepared.trainer.best_epoch, prepared.trainer.epochs_run) == (0.3, 1, 4)


def test_validation_every_second_epoch(prepare):
    prepared = prepare(epochs=5, eval_step=2)
    scripted(prepared, [0.3, 0.2])
    assert fit(prepared)[0] == 0.3
    assert (prepared.trainer.best_epoch, prepared.trainer.epochs_run) == (1, 5)
    assert (prepared.trainer.stop_reason, prepared.trainer.converged) == ("limit of 5 epochs", False)


def test_the_time_limit_ends_after_the_epoch_that_passes_it(prepare):
    prepared = prepare(epochs=20, max_training_minutes=1)
    scripted(prepared, [0.1, 0.2, 0.3, 0.4], seconds=25)
    fit(prepared)
    assert prepared.trainer.epochs_run == 3
    assert (prepared.trainer.stop_reason, prepared.trainer.converged) == ("time limit of 1 minute", False)


def test_what_the_time_limit_stops_before_its_first_validation_is_validated(prepare):
    prepared = prepare(epochs=20, eval_step=10, max_training_minutes=0.5)
    scripted(prepared, [0.1], seconds=100)
    assert fit(prepared)[0] == 0.1
    assert prepared.trainer.best_epoch == 0
    assert prepared.trainer.stop_reason == "time limit of 0.5 minutes"


@pytest.mark.parametrize("keys", [{"epochs": 1}, {"epochs": 1, "eval_step": 0}, {"epochs": 1, "eval_step": 7}])
def test_one_epoch(prepare, keys):
    prepared = prepare(**keys)
    score, _ = fit(prepared)
    assert (score is None) == (keys.get("eval_step") == 0)
    assert (prepared.trainer.stop_reason, prepared.trainer.converged) == ("limit of 1 epoch", False)


@pytest.mark.parametrize("epochs, shown", [(1, "1 epoch"), (2, "2 epochs")])
def test_a_schedule_that_came_to_its_end_is_the_reason(prepare, epochs, shown):
    prepared = prepare(scheduler="cosine", epochs=epochs)
    fit(prepared)
    trainer = prepared.trainer
    assert (trainer.stop_reason, trainer.converged) == (f"end of the schedule ({shown})", False)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_no_epoch_evaluates_the_weights_as_they_are(prepare, monkeypatch):
    prepared = prepare(epochs=0)
    told = []
    monkeypatch.setattr(prepared.trainer.logger, "info", told.append)
    before = weights(prepared.model)
    score, result = fit(prepared)
    assert result == prepared.trainer.evaluate(prepared.valid) and score == result["mrr@10"]
    assert torch.equal(weights(prepared.model), before)
    assert (prepared.trainer.best_epoch, prepared.trainer.epochs_run) == (-1, 0)
    assert any(line.startswith("before any epoch: validation [") for line in told)


def test_a_model_that_counts_sees_the_data_once(prepare):
    prepared = prepare("Pop", epochs=300, precision="fp16")
    fit(prepared)
    trainer, data = prepared.trainer, prepared.train._dataset
    assert (trainer.epochs_run, trainer.stop_reason, trainer.converged) == (1, "counted once", True)
    assert np.array_equal(prepared.model.item_cnt[:, 0].numpy(), data.training_counts())


def test_a_loss_that_is_not_a_number_says_where(prepare):
    prepared = prepare()
    calculate, count = prepared.model.calculate_loss, iter(range(100))
    prepared.model.calculate_loss = lambda rows: calculate(rows) * (math.nan if next(count) == 2 else 1)
    with pytest.raises(ModelError, match="epoch 0, batch 2 is not a number; try a smaller learning_rate"):
        fit(prepared)


def test_an_infinite_loss_is_refused(prepare):
    prepared = prepare()
    calculate = prepared.model.calculate_loss
    prepared.model.calculate_loss = lambda rows: calculate(rows) + math.inf
    with pytest.raises(ModelError, match="epoch 0 is inf"):
        fit(prepared)


# ---- what it tells ----


def test_tensorboard_has_every_step(prepare, tmp_path):
    prepared = prepare("HLLM", scheduler="cosine", epochs=2)
    rates = []
    step = prepared.trainer._step
    prepared.trainer._step = lambda: (rates.append(prepared.trainer.optimizer.param_groups[-1]["lr"]), step())
    fit(prepared)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    steps = list(range(2 * len(prepared.train)))
    for tag in ("train/loss", "train/surviving_negatives", "train/items/s"):
        assert [event.step for event in scalars[tag]] == steps
    assert [event.value for event in scalars["train/learning_rate"]] == pytest.approx(rates, rel=1e-5)
    for tag in ("train/epoch_loss", "valid/mrr@10"):
        assert [event.step for event in scalars[tag]] == [0, 1]


@pytest.mark.parametrize("shown", [True, False])
def test_the_bar_shows_loss_and_negatives_or_nothing(prepare, capfd, shown):
    prepared = prepare("HLLM", epochs=1)
    prepared.trainer.fit(prepared.train, prepared.valid, show_progress=shown)
    printed = "".join(capfd.readouterr())
    for word in ("loss=", "items/s=", "surviving_negatives=", "Evaluate"):
        assert (word in printed) == shown


def test_tensorboard_that_cannot_be_written_is_named(prepare, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("a file")
    with pytest.raises(ConfigError, match="cannot write .*tensorboard"):
        fit(prepare(epochs=1))


def test_evaluation_takes_the_best_weights_if_asked(prepare, tmp_path):
    prepared = prepare(epochs=1)
    fit(prepared)
    best = prepared.trainer.evaluate(prepared.test)
    kept = copy.deepcopy(prepared.model.state_dict())
    with torch.no_grad():
        for parameter in prepared.model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    assert prepared.trainer.evaluate(prepared.test) != best
    assert prepared.trainer.evaluate(prepared.test, load_best_model=True) == best
    assert all(torch.equal(value, kept[name]) for name, value in prepared.model.state_dict().items())
    assert prepared.trainer.evaluate(None) is None
    with pytest.raises(ModelError, match="resume=True"):
        prepared.trainer.resume_checkpoint("saved/SASRec.pth")


def test_an_evaluation_alone_writes_nothing(prepare, tmp_path):
    prepared = prepare()
    prepared.trainer.evaluate(prepared.test)
    assert list(tmp_path.iterdir()) == []
