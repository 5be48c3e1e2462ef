"""HLLM with `reference: True` gives the official code's numbers: scores, ranks, metrics, training and checkpoints.

Tolerances, for float32 on a CPU; the reference and an independent computation differ by less than a quarter of them.
Sizes and settings come from the golden files, and what they leave out is skipped.
"""

import os

import numpy as np
import pytest
import torch

from recbole_hllm.data.protocol import REFERENCE

VECTORS = 2e-5  # absolute
SCORES = 3e-6  # absolute
METRICS = 1e-6  # absolute; the reference rounds to 7 places
RATES = 1e-7  # of learning, relative
TRAINED_LOSS = 2e-5  # of each of 30 steps, absolute
TRAINED_NORMS = 5e-6  # of each parameter after them, relative
TRAINED_WEIGHTS = 1e-4  # their elements, absolute
# BERT's attention does not depend on these: Adam makes weights of the rounding noise in their gradient.
WITHOUT_GRADIENT = "self.key.bias"
PHASES = pytest.mark.parametrize("phase", ["valid", "test"])


def close(ours, expected, tolerance):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(expected), atol=tolerance, rtol=0)


# ---- evaluation ----


def check_histories(pipeline, expected, phase):
    for rows, (interaction, *_) in pipeline.eval_batches(phase):
        theirs = pipeline.histories(expected[rows])
        lengths = interaction[pipeline.model.ITEM_SEQ_LEN]
        assert torch.equal(lengths, theirs[pipeline.model.ITEM_SEQ_LEN])
        width = int(lengths.max())
        assert torch.equal(*(each[pipeline.model.ITEM_SEQ][:, :width] for each in (interaction, theirs)))


def check_scores(pipeline, expected, phase):
    """(U, n_items) before masking; column 0, the padding item's, is never read."""
    model, seen = pipeline.model.eval(), 0
    for rows, (interaction, *_) in pipeline.eval_batches(phase):
        with torch.no_grad():
            scores = model.full_sort_predict(interaction)
        close(scores[:, pipeline.items[1:]], expected[rows][:, 1:], SCORES)
        seen += len(rows)
    assert seen == len(expected)


def check_masks(pipeline, arrays, phase):
    """The whole history is masked, the padding item too, and the target where the user had it before."""
    pipeline.trainer.tot_item_num = pipeline.dataset.item_num
    everything = arrays.get(f"{phase}_masked_scores_isinf")
    targets_only = arrays.get(f"{phase}_target_masked")
    for rows, batch in pipeline.eval_batches(phase):
        with torch.no_grad():
            _, scores, _, targets = pipeline.trainer._full_sort_batch_eval(batch)
        masked = torch.isneginf(scores).numpy()
        if everything is not None:
            assert (masked[:, pipeline.items] == everything[rows]).all()
        if targets_only is not None:
            assert (masked[np.arange(len(rows)), targets.numpy()] == targets_only[rows]).all()


def check_ranks_and_metrics(pipeline, phase, arrays, metrics):
    result = pipeline.trainer.evaluate(pipeline.loaders[phase])
    ranks = pipeline.trainer.eval_collector.take_ranks()
    row_of = {user: row for row, user in enumerate(ranks["user"])}
    rows = [row_of[pipeline.users[user]] for user, _ in pipeline.goldens.splits["user_seq"]]
    if arrays.get(f"{phase}_target") is not None:
        assert (ranks["target"][rows] == pipeline.items[arrays[f"{phase}_target"]]).all()
    if arrays.get(f"{phase}_rank") is not None:
        assert (ranks["rank"][rows] == arrays[f"{phase}_rank"]).all()
    expected = {name: value for name, value in metrics.items() if value is not None}
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=METRICS)


def check_evaluation(pipeline, phase):
    arrays = pipeline.npz("eval")
    check_histories(pipeline, arrays[f"{phase}_item_seq"], phase)
    check_scores(pipeline, arrays[f"{phase}_raw_scores"], phase)
    check_masks(pipeline, arrays, phase)
    check_ranks_and_metrics(pipeline, phase, arrays, pipeline.json("eval").get(phase) or {})


@PHASES
def test_evaluation(pipeline, phase):
    check_evaluation(pipeline, phase)


@PHASES
def test_metrics_with_mean_pooling(mean_pooling, phase):
    if np.isnan(mean_pooling.given("item_embeddings", "mean_pool")[1:]).any():
        pytest.skip("the reference's scores of texts without any token are NaN")
    check_ranks_and_metrics(mean_pooling, phase, {}, mean_pooling.given("eval", f"mean_pool_{phase}"))


def test_scores_of_given_histories(pipeline):
    """A row of padding alone depends on the attention implementation there; here its scores are finite."""
    arrays, model = pipeline.npz("eval"), pipeline.model.eval()
    if arrays.get("predict8_item_seq") is None:
        pytest.skip("these goldens have no given histories")
    item_seq = arrays["predict8_item_seq"]
    with_history = item_seq.any(1)
    with torch.no_grad():
        scores = model.full_sort_predict(pipeline.histories(item_seq))
    assert scores.isfinite().all()
    close(scores[with_history][:, pipeline.items[1:]], arrays["predict8_scores"][with_history][:, 1:], SCORES)


# ---- training ----


def runs(goldens, kind):
    """The recorded runs: (learning rate, run)."""
    recorded = goldens.json(kind, "train30")
    return [(float(name.removeprefix("lr")), run) for name, run in recorded.items() if name.startswith("lr") and run]


def check_training(pipeline, run, steps=None):
    """Loss and learning rate of our Trainer's steps over the golden batches, and the norms of the trained weights."""
    recorded, trainer = run["steps"][:steps], pipeline.trainer
    trainer._prepare(range(pipeline.goldens.setting("scheduler", {}).get("total_steps") or len(run["steps"])))
    rates, losses = [], []
    for number, step in enumerate(recorded):
        (rate,) = {group["lr"] for group in trainer.optimizer.param_groups}
        rates.append(rate)
        losses.append(trainer._train_epoch([pipeline.batch_of(step)], number))
    close(losses, [step["loss"] for step in recorded], TRAINED_LOSS)
    if steps is None:
        check_norms(pipeline, run)
    assert rates == pytest.approx([step["lr"] for step in recorded], rel=RATES, abs=1e-12)


def check_norms(pipeline, run):
    expected = run.get("param_norms_after") or {}
    norms = {name: parameter.detach().norm().item() for name, parameter in pipeline.official_names().items()}
    compared = [name for name in norms if expected and not name.endswith(WITHOUT_GRADIENT)]
    theirs = {name: expected[name] for name in compared}
    assert {name: norms[name] for name in compared} == pytest.approx(theirs, rel=TRAINED_NORMS, abs=1e-9)


def check_trained_weights(pipeline, run):
    """Element by element, after the run whose weights are in the checkpoint."""
    saved = official_weights(pipeline)
    if saved is None or run.get("logit_scale_after") != saved["logit_scale"].item():
        return
    for name, parameter in pipeline.official_names().items():
        if not name.endswith(WITHOUT_GRADIENT):
            close(parameter.detach(), saved[name], TRAINED_WEIGHTS)


def official_weights(pipeline):
    path = pipeline.goldens.root / pipeline.kind / "pytorch_model.bin"
    return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None


@pytest.mark.parametrize("place", range(4))
def test_training_steps(goldens, kind, new_pipeline, place):
    """At each learning rate of the files."""
    if place >= len(runs(goldens, kind)):
        pytest.skip("these goldens have fewer learning rates")
    rate, run = runs(goldens, kind)[place]
    pipeline = new_pipeline(learning_rate=rate)
    check_training(pipeline, run)
    check_trained_weights(pipeline, run)


# ---- checkpoints of the official code ----


def test_official_checkpoint_is_loaded_to_the_last_bit(checkpoint):
    saved, names = official_weights(checkpoint), checkpoint.official_names()
    assert names.keys() <= saved.keys()
    assert all(torch.equal(parameter, saved[name]) for name, parameter in names.items())


def test_official_checkpoint(checkpoint):
    arrays, metrics = checkpoint.npz("checkpoint_eval"), checkpoint.json("checkpoint").get("metrics") or {}
    vectors = checkpoint.model.eval().item_vectors()
    close(vectors[checkpoint.items[1:]], arrays["item_embeddings"][1:], VECTORS)
    check_scores(checkpoint, arrays["test_raw_scores"], "test")
    for phase in ("valid", "test"):
        check_ranks_and_metrics(checkpoint, phase, arrays, metrics.get(phase) or {})


# ---- the tolerances are tight: a formula that is a little wrong fails ----

only_here = pytest.mark.skipif(bool(os.environ.get("HLLM_GOLDENS")), reason="other data need not show every difference")


def check_both_phases(pipeline):
    for phase in ("valid", "test"):
        check_evaluation(pipeline, phase)


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
    rate, run = runs(goldens, kind)[-1]
    with pytest.raises(AssertionError):
        check_training(new_pipeline(learning_rate=rate, **change), run, steps)
