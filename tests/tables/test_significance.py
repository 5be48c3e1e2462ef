"""Tests of rows against a row: scipy on constructed cases, Holm against its definition, verdicts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recbole_hllm.tables import significance
from recbole_hllm.tables.significance import add_tests, holm, mean_by_user, paired_tests, verdict


def plain_holm(p):
    """Step by step: the smallest is multiplied by all, the next by one fewer, ..."""
    corrected, largest = [0.0] * len(p), 0.0
    for step, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        largest = max(largest, min(1.0, p[index] * (len(p) - step)))
        corrected[index] = largest
    return corrected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_its_definition(p):
    assert holm(np.array(p)).tolist() == pytest.approx(plain_holm(p))


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.fixture(scope="module")
def differences():
    """(300, 4) of users: clearly better, slightly worse, noise, and none at all."""
    random = np.random.default_rng(5)
    noise = random.normal(size=(300, 3))
    return np.column_stack([noise[:, 0] + 0.5, noise[:, 1] - 0.1, noise[:, 2], np.zeros(300)])


def test_the_t_test_is_scipys_of_pairs(differences):
    other = np.random.default_rng(1).normal(size=differences.shape)
    found = paired_tests(differences, "t-test", seed=0)
    expected = [*stats.ttest_rel((other + differences)[:, :3], other[:, :3]).pvalue, 1.0]
    assert [test["p"] for test in found] == pytest.approx(expected)
    assert [test["p_holm"] for test in found] == pytest.approx(plain_holm(expected))


def test_wilcoxon_is_scipys(differences):
    found = paired_tests(differences, "wilcoxon", seed=0)
    assert [test["p"] for test in found] == pytest.approx(
        [*(stats.wilcoxon(column).pvalue for column in differences.T[:3]), 1.0]
    )


def test_difference_effect_and_interval(differences):
    found = paired_tests(differences, "t-test", seed=3)
    for test, column in zip(found[:3], differences.T, strict=False):
        assert test["difference"] == pytest.approx(column.mean()) and test["users"] == 300
        assert test["effect"] == pytest.approx(column.mean() / column.std(ddof=1))
        low, high = stats.bootstrap((column,), np.mean, method="percentile", rng=1).confidence_interval
        assert (test["low"], test["high"]) == pytest.approx((low, high), abs=0.015)
    assert found[3] == {"difference": 0, "low": 0, "high": 0, "effect": None, "p": 1, "p_holm": 1, "users": 300}


def test_the_interval_is_that_of_a_plain_loop_and_of_its_seed(differences, monkeypatch):
    monkeypatch.setattr(significance, "_SAMPLES", 60)  # not a multiple of what is drawn at a time
    test = paired_tests(differences, "t-test", seed=7)[0]
    random, means = np.random.default_rng(7), []
    for size in (50, 10):
        for drawn in random.integers(0, 300, (size, 300)):
            means.append(differences[drawn, 0].mean())
    assert (test["low"], test["high"]) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    assert paired_tests(differences, "t-test", seed=7)[0] == test != paired_tests(differences, "t-test", seed=8)[0]


@pytest.mark.parametrize(
    "difference, effect, p, converged, said",
    [
        (0.1, 0.2, 0.04, True, "better"),
        (-0.1, -0.2, 0.04, True, "worse"),
        (0.1, None, 0.04, True, "better"),
        (0.1, -0.2, 0.04, True, "worse"),  # of ranks
        (0.1, 0.2, 0.05, True, "no difference found"),
        (-0.1, -0.2, 0.6, True, "no difference found"),
        (0.1, 0.2, 0.001, False, "not converged"),
    ],
)
def test_verdicts(difference, effect, p, converged, said):
    assert verdict({"difference": difference, "effect": effect, "p_holm": p}, converged) == said


def test_the_direction_of_wilcoxon_is_that_of_ranks():
    """Many small losses and a few large gains: the mean is above 0, signed ranks are below."""
    differences = np.concatenate([-0.01 - 1e-5 * np.arange(900), 0.9 + 1e-5 * np.arange(100)])[:, None]
    (test,) = paired_tests(differences, "wilcoxon", seed=0)
    ranks = stats.rankdata(np.abs(differences[:, 0])) * np.sign(differences[:, 0])
    assert test["difference"] > 0 > test["effect"] == pytest.approx(ranks.sum() / (1000 * 1001 / 2))
    assert verdict(test, True) == "worse"
    (mean,) = paired_tests(differences, "t-test", seed=0)
    assert mean["effect"] > 0 and verdict(mean, True) == "better"


@pytest.mark.parametrize("how", ["t-test", "wilcoxon"])
def test_users_who_differ_by_the_same_are_counted_by_their_signs(how, recwarn):
    """Of two users with equal signs chance is 1 in 2, and a spread of rounding alone is none."""
    (two,) = paired_tests(np.full((2, 1), 0.1), how, seed=0)
    assert two["p"] == 0.5 and verdict(two, True) == "no difference found"
    (seven,) = paired_tests(np.full((7, 1), 0.1), how, seed=0)
    assert seven["p"] == 2.0**-6 and seven["effect"] == (None if how == "t-test" else 1) and not recwarn
    assert verdict(seven, True) == "better"


@pytest.fixture
def runs(tmp_path):
    """(name, ranks of users 1 to n, targets of each) -> the folder of a run that kept them."""

    def make(name, ranks, users=None):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text("eval_targets: each\n")
        users = np.arange(len(ranks)) + 1 if users is None else np.array(users)
        zeros = np.zeros(len(ranks), int)
        np.savez(folder / "ranks-test.npz", user=users, target=zeros + 1, rank=np.array(ranks), history_length=zeros,
                 popularity=zeros, rank_masked=np.ones(len(ranks), int))  # fmt: skip
        return folder

    return make


def test_a_user_has_the_mean_over_targets_and_runs(runs):
    """mrr@2 of user 1 with two targets: (1 + 1/2) / 2 and (0 + 1) / 2."""
    one, two = runs("one", [1, 2, 1], [1, 1, 2]), runs("two", [3, 1, 2], [1, 1, 2])
    sums, counts = mean_by_user([one, two], "mrr@2")
    assert (sums / counts).tolist() == pytest.approx([(0.75 + 0.5) / 2, 0.75])
    assert mean_by_user([one], "mrr@2-masked")[0].tolist() == [2, 1]
    assert mean_by_user([one], "gauc") is None


def test_rows_get_tests_in_every_metric_of_users_and_no_verdict_before_they_converge(runs):
    random = np.random.default_rng(0)
    ranks = random.integers(1, 12, 200)
    folders = {
        "Base": [runs("base", ranks)],
        "Good": [runs(f"good-{seed}", np.maximum(ranks - 3 + random.integers(0, 2, 200), 1)) for seed in (1, 2)],
        "Short": [runs("short", np.maximum(ranks - 3, 1))],
        "Same": [runs("same", ranks)],
        "Failed": [],
    }
    results = {"mrr@10": 0.1, "hit@10": 0.2, "itemcoverage@10": 0.3}
    rows = [{"model": name, "test_result": results, "costs": {"converged": name != "Short"}} for name in folders]
    rows[-1] = {"model": "Failed", "error": "no memory"}
    add_tests(rows, "Base", folders)
    base, good, short, same, failed = rows
    assert "tests" not in base and "tests" not in failed
    assert [list(row["tests"]) for row in (good, short, same)] == 3 * [["mrr@10", "hit@10"]]
    assert good["tests"]["mrr@10"]["verdict"] == "better" and short["tests"]["mrr@10"]["verdict"] == "not converged"
    assert same["tests"]["mrr@10"]["verdict"] == "no difference found"
    values = [mean_by_user(folders[name], "mrr@10")[0] for name in ("Good", "Base")]
    assert good["tests"]["mrr@10"]["p"] == pytest.approx(stats.ttest_rel(*values).pvalue)
    corrected = plain_holm([test["p"] for row in (good, short, same) for test in row["tests"].values()])
    assert [row["tests"]["mrr@10"]["p_holm"] for row in (good, short, same)] == pytest.approx(corrected[::2])
    rows[0]["costs"]["converged"] = False
    assert add_tests(rows, "Base", folders) == ""
    assert {test["verdict"] for row in (good, short, same) for test in row["tests"].values()} == {"not converged"}


def test_nothing_to_test(runs):
    rows = [{"model": "A", "test_result": {"mrr@10": 0.1}, "costs": {}}, {"model": "B", "error": "failed"}]
    folders = {"A": [runs("a", [1])], "B": []}
    assert add_tests(rows, "A", folders) == "no metric of A and of another row is kept user by user"
    assert add_tests(rows, "B", folders) == "B has no result to test the others against"
    rows[1] = {"model": "B", "test_result": {"mrr@10": 0.1}, "costs": {}}
    assert add_tests(rows, "A", {**folders, "B": [runs("b", [2])]}) == "the test has 1 user"
    assert not any("tests" in row for row in rows)
