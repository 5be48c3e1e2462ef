"""Users of whom one row finds the target better than another."""

import numpy as np
import pytest

from recbole_hllm.report.content import read_content
from recbole_hllm.report.wins import Users, extremes, leader, users_of, wins


def users(values, ranks=None, ids=None):
    values = np.array(values, float)
    ranks = np.ones(len(values), np.int64) if ranks is None else np.array(ranks)
    ids = np.arange(1, len(values) + 1) if ids is None else np.array(ids)
    return Users(ids, values, ranks, np.stack([values, np.ones(len(values))]))


def test_wins_losses_and_the_mean_difference():
    found = wins({"A": users([1, 0, 0.5, 0]), "B": users([0, 1, 0.5, 0.25]), "C": users([0, 0, 0, 0])}, "A")
    assert [(one.other, one.better, one.worse, one.equal) for one in found] == [("B", 1, 2, 1), ("C", 2, 0, 2)]
    assert [one.difference for one in found] == pytest.approx([-0.0625, 0.375])


def test_rows_of_other_users_are_not_compared():
    assert wins({"A": users([1, 0]), "B": users([0, 1], ids=[1, 3])}, "A") == []


def test_the_extremes_by_difference_then_by_ratio_then_by_id():
    own, theirs = users([1, 1, 1, 0, 0, 0.5], [1, 1, 1, 30, 20, 3]), users([0, 0, 0, 1, 1, 0.5], [20, 40, 40, 1, 1, 3])
    ahead, behind = extremes(own, theirs, 2)
    assert ahead.tolist() == [2, 3] and behind.tolist() == [4, 5]
    assert extremes(own, theirs, 9)[0].tolist() == [2, 3, 1] and extremes(own, own, 9)[0].tolist() == []


def test_users_of_a_run_are_those_of_its_ranks(write_table):
    folder = write_table()
    found = users_of([folder / "SASRec"], "ndcg@10")
    ranks = np.load(folder / "SASRec" / "ranks-test.npz")["rank"]
    assert found.ranks.tolist() == ranks.tolist()
    assert found.values == pytest.approx(np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0))
    assert found.values.mean() == pytest.approx(read_content(folder).row("SASRec")["test_result"]["ndcg@10"], abs=1e-4)


def test_values_of_seeds_are_averaged(write_table):
    folder = write_table()
    both = users_of([folder / "SASRec", folder / "Pop"], "recall@10")
    one, two = (users_of([folder / name], "recall@10") for name in ("SASRec", "Pop"))
    assert both.values == pytest.approx((one.values + two.values) / 2)
    assert both.sums == pytest.approx((one.sums + two.sums) / 2) and both.ranks.tolist() == one.ranks.tolist()


def test_ranks_are_those_that_the_metric_is_of(write_table):
    folder = write_table() / "Pop"
    with np.load(folder / "ranks-test.npz") as arrays:
        kept = dict(arrays)
    np.savez(folder / "ranks-test.npz", **kept, rank_masked=np.ones_like(kept["rank"]))
    assert users_of([folder], "ndcg@10-masked").ranks.tolist() == [1] * len(kept["rank"])
    assert users_of([folder], "ndcg@10").ranks.tolist() == kept["rank"].tolist()


def test_of_several_targets_the_best_rank_counts(write_table):
    folder = write_table()
    ones = dict.fromkeys(("target", "history_length", "popularity"), np.ones(3))
    np.savez(folder / "Pop" / "ranks-test.npz", user=[2, 1, 2], rank=[9, 4, 3], **ones)
    found = users_of([folder / "Pop"], "recall@5")
    assert found.ids.tolist() == [1, 2] and found.ranks.tolist() == [4, 3] and found.values.tolist() == [1.0, 0.5]


def test_where_nothing_is_kept_there_are_no_users(write_table):
    folder = write_table()
    assert users_of([], "ndcg@10") is None and users_of([folder / "Pop"], "auc") is None
    (folder / "Pop" / "ranks-test.npz").write_bytes(b"damaged")
    assert users_of([folder / "Pop"], "ndcg@10") is None
    assert users_of([folder / "SASRec", folder / "Pop"], "ndcg@10") is None


def test_the_leader_has_the_best_value(write_table):
    content = read_content(write_table())
    values = {row["model"]: row["test_result"]["ndcg@10"] for row in content.rows}
    assert leader(content, list(values)) == max(values, key=values.get)
    assert leader(content, ["Pop"]) == "Pop" and leader(content, []) is None
