"""Explanations: each item left out of the history by hand."""

import pytest
import torch
from small_served import blend, hstu, recommender, sasrec, slow_scores, z_scores

from recbole_hllm.errors import DataError
from recbole_hllm.serving.explain import explain
from recbole_hllm.serving.requests import Request


def reasons_of(served, request, item):
    return explain(recommender(served), request, item)


def without(history, place):
    return history[:place] + history[place + 1 :]


@pytest.mark.parametrize(
    "served", [sasrec(), blend(), z_scores()], ids=["vectors", "blend with Markov", "z-scores with a table"]
)
@pytest.mark.parametrize("item", [4, 10])
def test_contributions_are_scores_less_those_without_each_item(served, item):
    history = [9, 2, 2, 3]
    reasons = reasons_of(served, Request([f"i{number}" for number in history]), f"i{item}")
    assert [reason.id for reason in reasons] == ["i9", "i2", "i2", "i3"]
    whole = slow_scores(served, history)[item]
    wanted = [whole - slow_scores(served, without(history, place))[item] for place in range(4)]
    assert [reason.contribution for reason in reasons] == pytest.approx(wanted, abs=1e-5)
    similar = served.similarities(torch.tensor(history), item).tolist()
    assert [reason.similarity for reason in reasons] == pytest.approx(similar)


def test_of_a_very_long_history_the_last_items_are_explained_and_all_are_read(monkeypatch):
    monkeypatch.setattr("recbole_hllm.serving.explain.MOST_EXPLAINED", 3)
    served, history = z_scores(), [5, 6, 7, 8, 9, 2]
    reasons = reasons_of(served, Request([f"i{number}" for number in history]), "i1")
    assert [reason.id for reason in reasons] == ["i8", "i9", "i2"]
    wanted = slow_scores(served, history)[1] - slow_scores(served, without(history, 4))[1]
    assert reasons[1].contribution == pytest.approx(wanted, abs=1e-5)


def test_of_a_long_history_what_is_read_is_explained():
    served = sasrec(length=3)
    reasons = reasons_of(served, Request([f"i{number}" for number in (5, 6, 7, 8, 9)]), "i1")
    assert [reason.id for reason in reasons] == ["i7", "i8", "i9"]
    wanted = slow_scores(served, [7, 8, 9])[1] - slow_scores(served, [7, 9])[1]
    assert reasons[1].contribution == pytest.approx(wanted, abs=1e-5)


def test_times_stay_those_of_the_items():
    served = hstu()
    request = Request(["i1", "i2", "i3"], times=[0, 50, 4000], at=9000)
    reasons = reasons_of(served, request, "i7")
    whole = slow_scores(served, [1, 2, 3], [0.0, 50.0, 4000.0], 9000.0)[7]
    less = slow_scores(served, [1, 3], [0.0, 4000.0], 9000.0)[7]
    assert reasons[1].contribution == pytest.approx(whole - less, abs=1e-5)


def test_one_item_has_nothing_to_be_compared_with():
    reasons = reasons_of(sasrec(), Request(["i4"]), "i4")
    assert [(reason.id, reason.contribution) for reason in reasons] == [("i4", None)]
    assert reasons[0].similarity == pytest.approx(1.0)


def test_an_unknown_item_is_named():
    with pytest.raises(DataError, match="item: not in the catalogue: 'x'"):
        reasons_of(sasrec(), Request(["i4"]), "x")


def test_a_history_longer_than_what_is_read_at_once():
    served, history = sasrec(length=70), [1 + place % 9 for place in range(70)]
    reasons = reasons_of(served, Request([f"i{number}" for number in history]), "i10")
    wanted = slow_scores(served, history)[10] - slow_scores(served, without(history, 69))[10]
    assert len(reasons) == 70 and reasons[69].contribution == pytest.approx(wanted, abs=1e-5)
