"""Blend: the sum of log-probabilities, its vectors, and its weights, which validation alone picks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_hllm import load_run, run
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.blend.blend import z_scores
from recbole_hllm.runs.plan import plan
from recbole_hllm.runs.run import evaluate_run
from recbole_hllm.runs.vectors import write_vectors
from recbole_hllm.tables.side_by_side import compare

N = 13  # items of the toy data, with the padding item


@torch.no_grad()
def logits_of(folder, rows=None):
    """(R, N) of all test rows of a run, by its own loaders, times what its softmax has them times."""
    loaded = load_run(folder)
    scores = [loaded.model.full_sort_predict(batch[0]).view(-1, N) for batch in loaded.test_data]
    return torch.cat(scores).double() * loaded.model.score_scale()


@torch.no_grad()
def scores_of(built, loader=None):
    return torch.cat([built.model.full_sort_predict(batch[0]) for batch in loader or built.test]).double()


@torch.no_grad()
def scores_of_rows(loaded, rows):
    return loaded.model.full_sort_predict(rows)


def log_softmax(scores):
    """Over the catalogue without the padding item."""
    return scores[:, 1:] - scores[:, 1:].exp().sum(1, keepdim=True).log()


def assert_equal_but_for_a_number_a_row(left, right):
    left, right = (table - table.mean(1, keepdim=True) for table in (left, right))
    torch.testing.assert_close(left, right, rtol=0, atol=5e-5)


def test_scores_are_weighted_log_probabilities(build, runs):
    built = build("SASRecNCE", "SASRec", "BPR", blend_weights=[0.5, 0.3, 0.2])
    parts = [log_softmax(logits_of(runs(name))) for name in ("SASRecNCE", "SASRec", "BPR")]
    expected = 0.5 * parts[0] + 0.3 * parts[1] + 0.2 * parts[2]
    assert_equal_but_for_a_number_a_row(scores_of(built)[:, 1:], expected)
    assert expected.std(1).min() > 0.01


def test_a_temperature_is_that_of_the_training(build, settings_of, tmp_path, runs):
    keys = {**settings_of("SASRecNCE"), "num_negatives": 8, "temperature": 0.25, "epochs": 1}
    warm = run("SASRecNCE", config_dict=keys, run_dir=tmp_path / "warm")["run_dir"]
    built = build("SASRec", of=[warm, runs("SASRec")], blend_weights=[1, 1])
    loaded = load_run(warm)
    assert loaded.model.score_scale() == pytest.approx(4)
    cosines = torch.cat([loaded.model.full_sort_predict(batch[0]) for batch in loaded.test_data]).detach().double()
    expected = log_softmax(cosines / 0.25) + log_softmax(logits_of(runs("SASRec")))
    assert_equal_but_for_a_number_a_row(scores_of(built)[:, 1:], expected)


def smoothed_markov(built, last, smoothing):
    """(R, N - 1) log of (c_ij + a q_j) / (c_i + a), from the training sequences themselves."""
    data = built.train._dataset.whole
    counts, seen = np.zeros((N, N)), np.zeros(N)
    for begin, length in zip(data.sequences.offsets[:-1], data.train_lengths, strict=True):
        items = data.sequences.items[begin : begin + length]
        np.add.at(seen, items, 1)
        np.add.at(counts, (items[:-1], items[1:]), 1)
    share = (seen[1:] + 1) / (seen[1:].sum() + N - 1)
    rows = counts[last][:, 1:]
    return np.log((rows + smoothing * share) / (rows.sum(1, keepdims=True) + smoothing))


def last_items(loader):
    rows = [batch[0] for batch in loader]
    return np.concatenate([r["item_id_list"].numpy()[np.arange(len(r)), r["item_length"].numpy() - 1] for r in rows])


@pytest.mark.parametrize("smoothing", [0.5, 3.0])
def test_markov_is_its_smoothed_counts(build, runs, smoothing):
    built = build("SASRec", "Markov", blend_weights=[0.25, 0.75], markov_smoothing=smoothing)
    markov = torch.from_numpy(smoothed_markov(built, last_items(built.test), smoothing))
    torch.testing.assert_close(markov.exp().sum(1), torch.ones(len(markov)).double())
    expected = 0.25 * log_softmax(logits_of(runs("SASRec"))) + 0.75 * markov
    assert_equal_but_for_a_number_a_row(scores_of(built)[:, 1:], expected)


def test_z_scores_by_hand(build, runs):
    built = build("SASRecNCE", "BPR", blend_weights=[2, 1], blend_scores="z_scores")
    expected = 0
    for weight, name in ((2, "SASRecNCE"), (1, "BPR")):
        scores = logits_of(runs(name))[:, 1:]
        expected += weight * (scores - scores.mean(1, keepdim=True)) / scores.var(1, correction=0, keepdim=True).sqrt()
    torch.testing.assert_close(scores_of(built)[:, 1:], expected, rtol=0, atol=1e-4)
    assert built.model.factors(next(iter(built.test))[0]) is None
    with pytest.raises(ModelError, match="no vectors"):
        built.model.item_vectors()


def test_z_scores_of_equal_scores_are_none():
    scores = torch.tensor([[9.0, 2, 2, 2], [0, 1, 2, 3]])
    expected = torch.tensor([-1.0, 0, 1]) * (3 / 2) ** 0.5
    torch.testing.assert_close(z_scores(scores)[:, 1:], torch.stack([torch.zeros(3), expected]))


def test_keys_that_nothing_reads_are_named(build, caplog):
    build("SASRec", "BPR", blend_weights=[1, 1], blend_step=0.5, markov_smoothing=2)
    assert "markov_smoothing without effect: no part is Markov" in caplog.text
    assert "blend_step without effect: blend_weights are given" in caplog.text


# ---- vectors ----


def test_parts_that_are_products_are_one_product(build):
    built = build("SASRecNCE", "SASRec", "BPR", blend_weights=[0.5, 0.3, 0.2])
    rows = next(iter(built.test))[0]
    users, items = built.model.factors(rows)
    assert users.shape == (len(rows), 24) and items.shape == (N, 24)
    torch.testing.assert_close(users @ items.T, built.model.full_sort_predict(rows))
    torch.testing.assert_close(built.model.user_vectors(rows), users)
    assert not built.model.item_vectors()[0].any() and torch.equal(built.model.item_vectors()[1:], items[1:])


def test_vectors_with_markovs_table_beside_them_give_the_scores(build, keys_of, tmp_path):
    result = run("Blend", config_dict=keys_of("SASRec", "Markov", blend_weights=[0.25, 0.75]), run_dir=tmp_path / "run")
    loaded = load_run(result["run_dir"])
    write_vectors(loaded, tmp_path / "vectors")
    items, users = (np.load(tmp_path / "vectors" / f"{kind}_vectors.npy") for kind in ("item", "user"))
    beside = np.load(tmp_path / "vectors" / "beside.npz")
    data = loaded.dataset
    rows = data.latest_rows(data.latest_sequences()[1])
    scores = users @ items.T
    last = rows["item_id_list"][torch.arange(len(rows)), rows["item_length"] - 1].numpy()
    for user, item in enumerate(last):
        pairs = beside["markov_pairs"][:, 0] == item
        following = beside["markov_pairs"][pairs][:, 1] - 1
        scores[user, following] += users[user, beside["markov_column"]] * beside["markov_values"][pairs]
    np.testing.assert_allclose(scores, scores_of_rows(loaded, rows)[:, 1:].numpy(), atol=1e-5)
    assert loaded.model.factors(rows) is None  # not the whole of the scores


def test_a_part_without_vectors(build):
    built = build("SASRec", "NeuMF", blend_weights=[0.5, 0.5])
    rows = next(iter(built.test))[0]
    assert built.model.factors(rows) is None and built.model.full_sort_predict(rows).isfinite().all()
    with pytest.raises(ModelError, match="NeuMF are no product"):
        built.model.user_vectors(rows)


# ---- weights ----


def mrr_at_10(scores, targets):
    """Mean reciprocal rank of the (R,) targets, 0 behind place 10; of equal scores the smaller id first."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = 1 + (order == targets[:, None]).argmax(1)
    return np.where(ranks <= 10, 1 / ranks, 0).mean()


def validation(built, runs, names):
    """Log-probabilities of parts on the validation rows, targets as columns of them, and lengths of histories."""
    parts = [log_softmax(scores_of_run(runs(name), built)).numpy() for name in names]
    targets = np.concatenate([batch[3].numpy() for batch in built.valid]) - 1
    lengths = np.concatenate([batch[0]["item_length"].numpy() for batch in built.valid])
    return parts, targets, lengths


@torch.no_grad()
def scores_of_run(folder, built):
    loaded = load_run(folder)
    return torch.cat([loaded.model.full_sort_predict(batch[0]).view(-1, N) for batch in loaded.valid_data]).double()


def test_weights_are_those_of_the_best_validation(keys_of, build, runs, tmp_path):
    keys = keys_of("SASRec", "BPR", blend_step=0.25)
    result = run("Blend", config_dict=keys, run_dir=tmp_path / "run")
    picked = json.loads((tmp_path / "run" / "picked.json").read_text())
    built = build("SASRec", "BPR", blend_step=0.25)
    parts, targets, _ = validation(built, runs, ("SASRec", "BPR"))
    for tried in picked["tried"]:
        first, second = tried["weights"]
        assert tried["MRR@10"][-1] == pytest.approx(mrr_at_10(first * parts[0] + second * parts[1], targets), abs=1e-9)
    assert len(picked["tried"]) == 5 and picked["of"] == keys["of"]
    (only,) = picked["picked"]
    assert only["MRR@10"] == pytest.approx(max(tried["MRR@10"][-1] for tried in picked["tried"]))
    assert only["MRR@10"] == pytest.approx(result["best_valid_score"], abs=1e-6) and only["rows"] == len(targets)
    assert load_run(tmp_path / "run").model.mix.tolist() == [pytest.approx(only["weights"])]


def test_weights_by_length_of_the_history(keys_of, build, runs, tmp_path):
    keys = keys_of("SASRec", "BPR", blend_step=0.25, blend_lengths=[5, 6], MAX_ITEM_LIST_LENGTH=6)
    run("Blend", config_dict=keys, run_dir=tmp_path / "run")
    picked = json.loads((tmp_path / "run" / "picked.json").read_text())["picked"]
    built = build("SASRec", "BPR", blend_step=0.25, blend_lengths=[5, 6], MAX_ITEM_LIST_LENGTH=6)
    parts, targets, lengths = validation(built, runs, ("SASRec", "BPR"))
    assert [group["length"] for group in picked] == ["0 to 4", "5", "6 or more"]
    groups = [lengths < 5, lengths == 5, lengths >= 6]
    assert [group["rows"] for group in picked] == [int(those.sum()) for those in groups] and min(map(np.sum, groups))
    for group, those in zip(picked, groups, strict=True):
        mixed = [w / 4 * parts[0][those] + (1 - w / 4) * parts[1][those] for w in range(5)]
        assert group["MRR@10"] == pytest.approx(max(mrr_at_10(scores, targets[those]) for scores in mixed), abs=1e-9)
    model = load_run(tmp_path / "run").model
    rows = next(iter(built.test))[0]
    places = np.searchsorted([5, 6], rows["item_length"].numpy(), "right")
    expected = torch.tensor([group["weights"] for group in picked])[places]
    torch.testing.assert_close(model.mix[model.group_of(rows)], expected)


def test_picking_never_sees_the_test(keys_of, tmp_path, monkeypatch):
    """Whatever the test's targets are: with others the same weights are picked, of the same values."""
    from recbole_hllm.data.rows.part import EvaluationPart

    def picked(name):
        run("Blend", config_dict=keys_of("SASRec", "Markov", blend_step=0.25), run_dir=tmp_path / name)
        return json.loads((tmp_path / name / "picked.json").read_text())

    plain, results = picked("plain"), []
    true = EvaluationPart.positives

    def other(part, index):
        rows, targets = true(part, index)
        if any(part is one for one in parts[1::2]):
            results.append(len(targets))
            targets = targets % (N - 1) + 1
        return rows, targets

    parts = []
    init = EvaluationPart.__init__
    monkeypatch.setattr(EvaluationPart, "__init__", lambda part, *a: (parts.append(part), init(part, *a))[1])
    monkeypatch.setattr(EvaluationPart, "positives", other)
    assert picked("other") == plain and results


def test_without_a_validation_weights_must_be_given(keys_of, tmp_path):
    split = {"eval_args": {"split": {"LS": "test_only"}, "order": "TO", "mode": "full", "group_by": "user"}}
    with pytest.raises(ConfigError, match="trained on other data"):
        run("Blend", config_dict=keys_of("SASRec", "BPR", **split), run_dir=tmp_path / "other")
    with pytest.raises(ConfigError, match="picks its weights on the validation, and there is none"):
        run("Blend", config_dict=keys_of("SASRec", "BPR", eval_step=0), run_dir=tmp_path / "none")
    given = keys_of("SASRec", "BPR", eval_step=0, blend_weights=[1, 2])
    run("Blend", config_dict=given, run_dir=tmp_path / "given")
    assert not (tmp_path / "given" / "picked.json").exists()


# ---- runs and tables ----


def test_a_finished_blend_is_evaluated_again(keys_of, runs, tmp_path):
    result = run("Blend", config_dict=keys_of("SASRec", "BPR"), run_dir=tmp_path / "run")
    again = evaluate_run(tmp_path / "run")
    assert again["test_result"] == result["test_result"] and again["valid_result"] == result["best_valid_result"]
    masked = evaluate_run(tmp_path / "run", {"mask_history": True})
    assert masked["test_result"] != result["test_result"]


def test_a_blend_that_was_killed_goes_on(keys_of, runs, tmp_path, monkeypatch):
    from recbole_hllm.training.picking import Values

    keys = keys_of("SASRec", "Markov", "BPR", blend_step=0.5)
    plain = run("Blend", config_dict=keys, run_dir=tmp_path / "plain")
    picked = [(tmp_path / "plain" / "picked.json").read_text()]
    places = {"picking": (Values, "of_all_processes"), "testing": ("recbole_hllm.runs.run.write_results",)}
    for name, where in places.items():
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(*where, lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
            run("Blend", config_dict=keys, run_dir=tmp_path / name)
        again = run(config_dict={"resume": True}, run_dir=tmp_path / name)
        assert again["test_result"] == plain["test_result"] and again["best_valid_score"] == plain["best_valid_score"]
        picked.append((tmp_path / name / "picked.json").read_text())
    assert len(set(picked)) == 1


def test_parts_that_are_gone_or_were_made_again_are_named(keys_of, runs, tmp_path):
    part = Path(shutil.copytree(runs("SASRec"), tmp_path / "part"))
    run("Blend", config_dict=keys_of(of=[str(part), runs("BPR")]), run_dir=tmp_path / "run")
    shutil.rmtree(part / "best")
    shutil.copytree(Path(runs("SASRec")) / "last", part / "best")
    with pytest.raises(ModelError, match="part changed after the weights"):
        evaluate_run(tmp_path / "run")
    shutil.rmtree(part / "best")  # as in a copy of what is small
    with pytest.raises(ConfigError, match="of: .*part has no weights, .*best; make this run again, or its whole table"):
        evaluate_run(tmp_path / "run")
    shutil.rmtree(part)
    with pytest.raises(ConfigError, match="of: there is no finished run"):
        evaluate_run(tmp_path / "run")
    moved = evaluate_run(tmp_path / "run", {"of": [runs("SASRec"), runs("BPR")]})
    assert moved["test_result"]


def test_a_plan_waits_for_no_row(keys_of):
    planned = plan("Blend", config_dict=keys_of(of=["row:SASRec", "row:Markov"]))
    assert planned["first"] == [] and planned["batches"] == 1 and planned["seconds"]["epochs"] == 1


def test_a_row_of_a_table_sums_earlier_rows(settings_of, tmp_path, started):
    shared = {name: value for name, value in settings_of("BPR").items() if name != "epochs"}
    keys = {**shared, "Blend.of": "[row:BPR, row:Markov]", "BPR.epochs": 1, "sanity_rows": False}
    table = compare("BPR,Markov,Blend", "toy", config_dict=keys, run_dir=tmp_path / "table")
    assert not table["failed"] and [row["model"] for row in table["rows"]] == ["BPR", "Markov", "Blend"]
    picked = json.loads((tmp_path / "table" / "Blend" / "picked.json").read_text())
    assert picked["of"] == [str(tmp_path / "table" / name) for name in ("BPR", "Markov")]
    rows = {row["model"]: row for row in table["rows"]}
    assert rows["Blend"]["best_valid_score"] >= max(rows[name]["best_valid_score"] for name in ("BPR", "Markov"))
    costs = {name: row["costs"] for name, row in rows.items()}
    assert costs["Blend"]["parameters_inference"] > costs["BPR"]["parameters_inference"]
    seconds = [cost["seconds_to_best"] for cost in (costs["Blend"]["alone"], costs["BPR"], costs["Markov"])]
    assert costs["Blend"]["seconds_to_best"] == pytest.approx(sum(seconds))
    assert costs["Blend"]["disk_bytes"] > costs["BPR"]["disk_bytes"] and not costs["Blend"]["converged"]


@pytest.mark.parametrize(
    ("models", "keys", "message"),
    [
        ("Blend,SASRec", {"Blend.of": ["row:SASRec", "row:Markov"]}, "no row SASRec before it"),
        ("SASRec,Blend", {"Blend.of": ["row:SASRec", "row:Markov"]}, "no row Markov before it"),
        ("SASRec,Pop,Blend", {"Blend.of": ["row:SASRec", "row:Pop"], "SASRec.MAX_ITEM_LIST_LENGTH": 9},
         "SASRec reads histories of 9 items"),
    ],
)  # fmt: skip
def test_a_table_refuses_rows_that_cannot_be_parts(settings_of, tmp_path, models, keys, message):
    with pytest.raises(ConfigError, match=message):
        compare(models, "toy", config_dict={**settings_of("SASRec"), **keys, "sanity_rows": False}, run_dir=tmp_path)


WRONG = [
    ({"of": None}, "name two or more"),
    ({"of": ["one"]}, "name two or more"),
    ({"of": "one"}, "name two or more"),
    ({"of": ["one", "one"]}, "twice"),
    ({"of": ["one", "two"], "blend_weights": [1]}, "must be 2 numbers"),
    ({"of": ["one", "two"], "blend_weights": [0, 0]}, "not all 0"),
    ({"of": ["one", "two"], "blend_step": 0.3}, "no part of 1"),
    ({"of": [str(number) for number in range(9)]}, "43,758 weights of 9 parts"),
    ({"of": ["one", "two"], "blend_lengths": [4, 3]}, "must rise"),
    ({"of": ["one", "two"], "blend_lengths": 6}, "MAX_ITEM_LIST_LENGTH: 5 at most"),
    ({"of": ["one", "two"], "blend_lengths": 3, "blend_weights": [1, 1]}, "leave blend_weights or blend_lengths"),
    ({"of": ["one", "two"], "metrics": ["GAUC"], "valid_metric": "GAUC"}, "weights are picked by where targets rank"),
    ({"of": ["one", "two"]}, "there is no finished run of a model in"),
    ({"of": ["row:one", "row:two"]}, "row:one"),
]


@pytest.mark.parametrize(("keys", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_keys_say_what_to_do(settings_of, tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message):
        run("Blend", config_dict={**settings_of("Blend"), **keys}, run_dir=tmp_path / "run")


def test_a_part_of_other_data_or_other_rows_is_refused(keys_of, settings_of, runs, tmp_path):
    keys = {**settings_of("Pop"), "eval_args": {"split": {"LS": "test_only"}, "order": "TO", "group_by": "user"}}
    other = run("Pop", config_dict=keys, run_dir=tmp_path / "other")["run_dir"]
    with pytest.raises(ConfigError, match="other was trained on other data than this run: its training differ"):
        run("Blend", config_dict=keys_of(of=[runs("SASRec"), other]), run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="reads histories of 5 items; give the blend the longest"):
        run("Blend", config_dict=keys_of("SASRec", "BPR", MAX_ITEM_LIST_LENGTH=4), run_dir=tmp_path / "run")
