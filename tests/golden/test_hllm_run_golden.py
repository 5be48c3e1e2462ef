"""HLLM with `reference: True` gives the official code's numbers: scores, ranks, metrics, training and checkpoints.

Tolerances, for float32 on a CPU; the reference and an independent computation differ by less than a quarter of them.
Sizes and settings come from the golden files, and what they leave out is skipped.
"""

import os
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference_numbers import close, ids_filtered, negatives_near, nothing_filtered, numbers_of

from recbole_hllm.data.protocol import REFERENCE
from recbole_hllm.model.base import next_item
from recbole_hllm.nn import losses as losses_module

VECTORS = 2e-5  # absolute
SCORES = 3e-6  # absolute
METRICS = 1e-6  # absolute; the reference rounds to 7 places
RATES = 1e-7  # of learning, relative
TRAINED_LOSS = 2e-5  # of each of 30 steps, absolute
TRAINED_NORMS = 5e-6  # of each parameter after them, relative
TRAINED_WEIGHTS = 1e-4  # their elements, absolute
# BERT's attention does not depend on these: Adam makes weights of the rounding noise in their gradient.
OTHER_GOLDENS = bool(os.environ.get("HLLM_GOLDENS"))  # may leave out anything
# Scores that are closer may change places, and ranks and metrics with them; on our own data none do.
TIE = SCORES if OTHER_GOLDENS else 0.0
WITHOUT_GRADIENT = "self.key.bias"
only_here = pytest.mark.skipif(OTHER_GOLDENS, reason="other data need not show every difference")
PHASES = pytest.mark.parametrize("phase", ["valid", "test"])


# ---- evaluation ----


def check_histories(pipeline, phase):
    expected = pipeline.given("eval.npz", f"{phase}_item_seq")
    for rows, (interaction, *_) in pipeline.eval_batches(phase):
        theirs = pipeline.histories(expected[rows])
        lengths = interaction[pipeline.model.ITEM_SEQ_LEN]
        assert torch.equal(lengths, theirs[pipeline.model.ITEM_SEQ_LEN])
        width = int(lengths.max())
        assert torch.equal(*(each[pipeline.model.ITEM_SEQ][:, :width] for each in (interaction, theirs)))


def close_scores(pipeline, ours, expected):
    """(N, n_items) before masking; column 0, the padding item's, is never read."""
    close(ours[:, pipeline.items[1:]], expected[:, 1:], SCORES, pipeline.undefined())


def check_scores(pipeline, phase, file="eval.npz"):
    expected, model, seen = pipeline.given(file, f"{phase}_raw_scores"), pipeline.model.eval(), 0
    for rows, (interaction, *_) in pipeline.eval_batches(phase):
        with torch.no_grad():
            close_scores(pipeline, model.full_sort_predict(interaction), expected[rows])
        seen += len(rows)
    assert seen == len(expected)


def masked_scores(pipeline, phase):
    """(golden row numbers, scores, targets) of every batch, as the evaluator gets them."""
    pipeline.model.eval()
    pipeline.trainer.tot_item_num = pipeline.dataset.item_num
    for rows, batch in pipeline.eval_batches(phase):
        with torch.no_grad():
            _, scores, _, targets = pipeline.trainer._full_sort_batch_eval(batch)
        yield rows, scores.numpy(), targets.numpy()


def check_masks(pipeline, phase):
    """The whole history is masked, and the padding item."""
    expected = pipeline.given("eval.npz", f"{phase}_masked_scores_isinf")
    for rows, scores, _ in masked_scores(pipeline, phase):
        assert (np.isneginf(scores)[:, pipeline.items] == expected[rows]).all()


def check_masked_targets(pipeline, phase):
    """The target is masked where the user had it before."""
    expected = pipeline.given("eval.npz", f"{phase}_target_masked")
    for rows, scores, targets in masked_scores(pipeline, phase):
        assert (np.isneginf(scores[np.arange(len(rows)), targets]) == expected[rows]).all()


def evaluate(pipeline, phase):
    """Metrics, and every user's target and rank in the order of the golden rows."""
    result = pipeline.trainer.evaluate(pipeline.loaders[phase])
    ranks = pipeline.trainer.eval_collector.take_ranks()
    row_of = {user: row for row, user in enumerate(ranks["user"])}
    rows = [row_of[pipeline.users[user]] for user, _ in pipeline.goldens.given("splits.json", "user_seq")]
    return result, ranks["target"][rows], ranks["rank"][rows]


def rank_bounds(pipeline, phase):
    """Best and worst rank of every target when scores closer than TIE change places."""
    best = np.zeros(len(pipeline.goldens.given("splits.json", "user_seq")), dtype=int)
    worst = best.copy()
    for rows, scores, targets in masked_scores(pipeline, phase):
        own = scores[np.arange(len(rows)), targets][:, None]
        best[rows] = 1 + (scores > own + TIE).sum(1)
        worst[rows] = np.where(np.isneginf(own[:, 0]), best[rows], (scores >= own - TIE).sum(1))
    return best, worst


def mean_gain(metric, ranks):
    name, k = metric.split("@")
    gain = {"ndcg": 1 / np.log2(ranks + 1), "mrr": 1 / ranks, "map": 1 / ranks}.get(name, 1.0)
    return ((ranks <= int(k)) * gain).mean()


def check_targets(pipeline, phase, file="eval.npz"):
    expected = pipeline.given(file, f"{phase}_target")
    _, targets, _ = evaluate(pipeline, phase)
    assert (targets == pipeline.items[expected]).all()


def check_ranks(pipeline, phase, file="eval.npz"):
    expected = pipeline.given(file, f"{phase}_rank")
    if pipeline.undefined():
        pytest.skip("the reference ranks among NaN")
    _, _, ours = evaluate(pipeline, phase)
    best, worst = rank_bounds(pipeline, phase)
    for ranks in (ours, expected):
        assert ((best <= ranks) & (ranks <= worst)).all()


def check_metrics(pipeline, phase, *place):
    expected = pipeline.given(*(place or ("eval.json", phase)))
    if pipeline.undefined():
        pytest.skip("the reference ranks among NaN")
    result, *_ = evaluate(pipeline, phase)
    best, worst = rank_bounds(pipeline, phase)
    for name, value in expected.items():
        slack = mean_gain(name, best) - mean_gain(name, worst)
        assert result[name] == pytest.approx(value, abs=METRICS + slack), name


EVALUATION = [
    check_histories,
    check_scores,
    check_masks,
    check_masked_targets,
    check_targets,
    check_ranks,
    check_metrics,
]


@PHASES
@pytest.mark.parametrize("check", EVALUATION)
def test_evaluation(pipeline, phase, check):
    check(pipeline, phase)


@PHASES
def test_metrics_with_mean_pooling(mean_pooling, phase):
    check_metrics(mean_pooling, phase, "eval.json", f"mean_pool_{phase}")


def test_scores_of_given_histories(pipeline):
    """A row of padding alone depends on the attention implementation there; here its scores are finite."""
    item_seq, model = pipeline.given("eval.npz", "predict8_item_seq"), pipeline.model.eval()
    with_history = item_seq.any(1)
    with torch.no_grad():
        scores = model.full_sort_predict(pipeline.histories(item_seq))
    assert scores.isfinite().all()
    expected = pipeline.given("eval.npz", "predict8_scores")
    close_scores(pipeline, scores[with_history], expected[with_history])


# ---- training ----


def train(pipeline, steps):
    """(losses, learning rates) of our Trainer over the steps' batches.

    One negative that rounding puts on the other side of the filter's threshold changes a loss, and through the weights
    all later ones: such a negative is where it is in the reference, as the recorded loss tells.
    """
    trainer, losses, rates = pipeline.trainer, [], []
    trainer._prepare(range(pipeline.goldens.schedule["total_steps"]))
    for number, step in enumerate(steps):
        rate, *others = {group["lr"] for group in trainer.optimizer.param_groups}
        assert not others
        rates.append(rate)
        with negatives_near(step.get("loss")):
            losses.append(trainer._train_epoch([pipeline.batch_of(step)], number))
    return losses, rates


def check_training(pipeline, run, steps=None):
    """Loss and learning rate of our Trainer's steps over the golden batches, and the norms of the trained weights."""
    recorded = run["steps"][:steps]
    losses, rates = train(pipeline, recorded)
    with_loss = [number for number, step in enumerate(recorded) if "loss" in step]
    expected = [recorded[number]["loss"] for number in with_loss]
    close([losses[number] for number in with_loss], expected, TRAINED_LOSS, pipeline.undefined())
    if steps is None:
        check_norms(pipeline, run)
    with_rate = {number: step["lr"] for number, step in enumerate(recorded) if "lr" in step}
    assert {number: rates[number] for number in with_rate} == pytest.approx(with_rate, rel=RATES, abs=1e-12)


def check_norms(pipeline, run):
    expected = run.get("param_norms_after", {})
    norms = {name: parameter.detach().norm().item() for name, parameter in pipeline.official_names().items()}
    assert norms.keys() <= expected.keys() or OTHER_GOLDENS  # heads and poolers are there only
    compared = [name for name in norms.keys() & expected.keys() if not name.endswith(WITHOUT_GRADIENT)]
    theirs = numbers_of(norms, {name: expected[name] for name in compared}, pipeline.undefined())
    assert {name: norms[name] for name in theirs} == pytest.approx(theirs, rel=TRAINED_NORMS, abs=1e-9)


def check_trained_weights(pipeline, run):
    """Element by element, after the run whose weights are in the checkpoint."""
    saved = official_weights(pipeline)
    after = run.get("logit_scale_after", run.get("param_norms_after", {}).get("logit_scale"))
    if saved is None or after != saved["logit_scale"].item():
        return
    for name, parameter in pipeline.official_names().items():
        if not name.endswith(WITHOUT_GRADIENT):
            close(parameter.detach(), saved[name], TRAINED_WEIGHTS)


def official_weights(pipeline):
    path = pipeline.goldens.root / pipeline.kind / "pytorch_model.bin"
    return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None


def test_training_steps(goldens, new_pipeline, kind, rate):
    """At each learning rate of the files; a name such as lr1e-3 holds it."""
    goldens.given(f"{kind}/train30.json", rate, "steps")
    run = goldens.given(f"{kind}/train30.json", rate)
    pipeline = new_pipeline(learning_rate=float(rate.removeprefix("lr")))
    check_training(pipeline, run)
    check_trained_weights(pipeline, run)


# ---- a negative on the other side of the filter's threshold ----

ROUNDING = 3e-7  # of a cosine


def hard_cosine(pipeline, batch):
    """Of a batch's negatives that are most like their targets, the cosine of the one that its user likes best."""
    seen = []

    def look(outputs, targets, negatives, target_ids, negative_ids, *_, places, cosine, calibration):
        assert cosine and places is None and calibration is None
        outputs, targets, negatives = (F.normalize(vectors, dim=-1) for vectors in (outputs, targets, negatives))
        cosines = (targets @ negatives.T).masked_fill(target_ids[:, None] == negative_ids, -1)
        alike = cosines >= cosines.unique()[-10]
        seen.append(cosines.flatten()[(outputs @ negatives.T).masked_fill(~alike, -2).argmax()].item())
        return losses_module.info_nce(outputs, targets, negatives, target_ids, negative_ids, pipeline.model.logit_scale)

    with torch.no_grad(), patch.object(next_item, "info_nce", look):
        pipeline.model.calculate_loss(batch)
    return seen[0]


@pytest.fixture
def crossed(goldens, kind, new_pipeline):
    """(steps as another computation would record them, ** changes of the config -> ours to compare with them).

    Its rounding removes a negative at the second step, which ours keeps.
    """
    steps = [{"batch": step["batch"]} for step in goldens.given(f"{kind}/train30.json", "lr1e-3", "steps")[:6]]
    start = new_pipeline(learning_rate=1e-3)
    cosine = hard_cosine(start, start.batch_of(steps[1]))  # the first learning rate is 0
    start.model.nce_thres = cosine - ROUNDING
    losses, rates = train(start, steps)
    steps = [{**step, "loss": loss, "lr": rate} for step, loss, rate in zip(steps, losses, rates, strict=True)]
    return steps, lambda **changes: new_pipeline(**{"learning_rate": 1e-3, "nce_thres": cosine + ROUNDING, **changes})


@only_here
def test_a_negative_that_rounding_moves_over_the_threshold_is_followed(crossed):
    steps, ours = crossed
    check_training(ours(), {"steps": steps}, len(steps))
    alone, _ = train(ours(), [{"batch": step["batch"]} for step in steps])
    apart = np.abs(np.array(alone) - [step["loss"] for step in steps])
    assert apart[0] < TRAINED_LOSS and apart[1] > 10 * TRAINED_LOSS and apart[2:].max() > TRAINED_LOSS


@only_here
@pytest.mark.parametrize(
    ("module", "function", "wrong", "changes"),
    [
        (losses_module, "_false_negatives", nothing_filtered, {}),
        (losses_module, "_false_negatives", ids_filtered, {}),
        (next_item, "clamp_logit_scale", lambda scale: scale * 1.0001, {}),
        (None, None, None, {"item_learning_rate": 1.01e-3}),
        (None, None, None, {"learning_rate": 1.01e-3}),
    ],
    ids=["no filter", "filter of ids only", "another temperature", "two learning rates", "another learning rate"],
)
def test_beside_such_a_negative_each_formula_counts(
    goldens, kind, crossed, monkeypatch, module, function, wrong, changes
):
    if kind != goldens.kinds[0]:
        pytest.skip("shown once")
    steps, ours = crossed
    if module:
        monkeypatch.setattr(module, function, wrong)
    with pytest.raises(AssertionError):
        check_training(ours(**changes), {"steps": steps}, len(steps))


# ---- checkpoints of the official code ----


def test_official_checkpoint_is_loaded_to_the_last_bit(checkpoint):
    saved, names = official_weights(checkpoint), checkpoint.official_names()
    assert names.keys() <= saved.keys()
    assert all(torch.equal(parameter, saved[name]) for name, parameter in names.items())


def test_item_vectors_of_official_checkpoint(checkpoint):
    expected = checkpoint.given("checkpoint_eval.npz", "item_embeddings")[1:]
    ours = checkpoint.model.eval().item_vectors()[checkpoint.items[1:]]
    close(ours, expected, VECTORS, checkpoint.undefined())


@PHASES
@pytest.mark.parametrize("check", [check_scores, check_targets, check_ranks])
def test_official_checkpoint(checkpoint, check, phase):
    check(checkpoint, phase, "checkpoint_eval.npz")


@PHASES
def test_metrics_of_official_checkpoint(checkpoint, phase):
    check_metrics(checkpoint, phase, "checkpoint.json", "metrics", phase)


# ---- the tolerances are tight: a formula that is a little wrong fails ----


def check_both_phases(pipeline):
    for phase in ("valid", "test"):
        for check in EVALUATION:
            check(pipeline, phase)


@only_here
@pytest.mark.parametrize(
    "change",
    [
        {"reference": [name for name in REFERENCE if name != "mask_target"]},
        {"mask_history": False},
        {"MAX_ITEM_LIST_LENGTH_TEST": 9},
        {"MAX_ITEM_LIST_LENGTH_TEST": 11},
    ],
)
def test_each_setting_of_the_evaluation_counts(new_pipeline, change):
    with pytest.raises(AssertionError):
        check_both_phases(new_pipeline(**change))


@only_here
@pytest.mark.parametrize(
    ("change", "steps"),
    [
        ({"reference": [name for name in REFERENCE if name != "weight_decay"]}, None),  # on norms, biases, scale
        ({"weight_decay": 0.0}, None),
        ({"reference": [name for name in REFERENCE if name != "warmup"]}, 5),
        ({"warmup_ratio": 0.0}, 5),
        ({"scheduler": "none"}, 5),
    ],
)
def test_each_setting_of_the_training_counts(goldens, kind, new_pipeline, change, steps):
    if kind != goldens.kinds[0]:
        pytest.skip("shown once")
    run = goldens.given(f"{kind}/train30.json", "lr1e-3")
    with pytest.raises(AssertionError):
        check_training(new_pipeline(learning_rate=1e-3, **change), run, steps)
