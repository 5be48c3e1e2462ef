"""The collector without a label matrix gives RecBole's Evaluator the stock collector's values."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import recbole_hllm  # noqa: F401  (NumPy names before RecBole)

# isort: split
from recbole.evaluator import Evaluator
from recbole.evaluator.collector import Collector

from recbole_hllm.errors import ConfigError
from recbole_hllm.evaluation import ranking
from recbole_hllm.evaluation.topk import TopKCollector

ACCURACY = ["Recall", "MRR", "NDCG", "Hit", "Precision", "MAP"]
BEYOND_ACCURACY = ["ItemCoverage", "AveragePopularity", "GiniIndex", "ShannonEntropy", "TailPercentage"]
KEPT = ("rec.topk", "rec.items", "rec.meanrank")
METRIC_SETS = [ACCURACY, BEYOND_ACCURACY, ACCURACY + BEYOND_ACCURACY, ["GAUC", *ACCURACY]]


def make_config(metrics, topk, **other):
    return {
        "metrics": metrics,
        "topk": topk,
        "eval_args": {"mode": {"valid": "full", "test": "full"}},
        "device": torch.device("cpu"),
        "metric_decimal_place": 12,
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "LABEL_FIELD": "label",
        "tail_ratio": 0.4,
        **other,
    }


@st.composite
def passes(draw):
    """Batches (scores, interaction, positive_u, positive_i) with ties, -inf rows, one or many positives."""
    n_items = draw(st.integers(3, 12))
    values = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 0.5, 2.0])
    batches = []
    for batch in range(draw(st.integers(1, 3))):
        n_rows = draw(st.integers(1, 4))
        row = st.lists(values, min_size=n_items, max_size=n_items)
        scores = torch.tensor(draw(st.lists(row, min_size=n_rows, max_size=n_rows)))
        scores[:, 0] = -np.inf
        some_items = st.lists(st.integers(1, n_items - 1), min_size=1, max_size=4)
        positives = [draw(some_items) for _ in range(n_rows)]
        positive_u = torch.tensor([r for r, items in enumerate(positives) for _ in items])
        positive_i = torch.tensor([item for items in positives for item in items])
        interaction = {"user_id": torch.arange(n_rows) + 10 * batch + 1}
        batches.append((scores, interaction, positive_u, positive_i))
    topk = draw(st.lists(st.integers(1, n_items), min_size=1, max_size=3, unique=True))
    return n_items, topk, batches


def without_ties(scores):
    """The same order with a score of its own for every item: of equal ones the smaller id is first."""
    places = torch.sort(scores, dim=1, descending=True, stable=True).indices.argsort(dim=1)
    return torch.where(torch.isneginf(scores), scores, -places.float())


def collect(collector, batches):
    for scores, *rest in batches:
        collector.eval_batch_collect(scores.clone(), *rest)


def set_catalogue(struct, n_items):
    struct.set("data.num_items", n_items)
    struct.set("data.count_items", Counter({item: 1 + item * 7 % 5 for item in range(1, n_items)}))


@settings(max_examples=150)
@given(passes(), st.sampled_from(METRIC_SETS))
def test_every_ranking_metric_equals_the_stock_collectors(case, metrics):
    """Where scores are equal, those of the stock collector for the same order without ties."""
    n_items, topk, batches = case
    config = make_config(metrics, topk)
    stock, ours = Collector(config), TopKCollector(config)
    collect(ours, batches)
    ties_allowed = "GAUC" in metrics
    collect(stock, batches if ties_allowed else [(without_ties(scores), *rest) for scores, *rest in batches])
    set_catalogue(stock.data_struct, n_items)
    set_catalogue(ours.data_struct, n_items)
    # (The stock collector's own get_data_struct() fails on the catalogue's plain numbers.)
    expected, got = stock.data_struct, ours.get_data_struct()
    assert [name in got for name in KEPT] == [name in expected for name in KEPT]
    full = all((scores[:, 1:] > -np.inf).sum(1).min() >= max(topk) for scores, *_ in batches)
    if full and not ties_allowed:
        for name in ("rec.topk", "rec.items"):
            if name in expected:
                assert torch.equal(expected.get(name).long(), got.get(name).long())
        np.testing.assert_equal(dict(Evaluator(config).evaluate(got)), dict(Evaluator(config).evaluate(expected)))
    if ties_allowed:
        assert torch.equal(expected.get("rec.meanrank"), got.get("rec.meanrank"))
        gauc = make_config(["GAUC"], topk)  # NaN in both where no user has a negative left
        np.testing.assert_equal(dict(Evaluator(gauc).evaluate(got)), dict(Evaluator(gauc).evaluate(expected)))


@settings(max_examples=150)
@given(passes())
def test_ranks_and_hits_are_those_of_a_plain_sort(case):
    n_items, topk, batches = case
    collector = TopKCollector(make_config(["Hit"], topk))
    collect(collector, batches)
    rec_topk = collector.get_data_struct().get("rec.topk").numpy()
    ranks, expected, hits = collector.take_ranks(), [], []
    for scores, interaction, positive_u, positive_i in batches:
        pairs = sorted(set(zip(positive_u.tolist(), positive_i.tolist(), strict=True)))
        hits += [[0] * max(topk) + [sum(row == own for own, _ in pairs)] for row in range(len(scores))]
        for row, item in pairs:
            before = [(-score, other) for other, score in enumerate(scores[row].tolist()) if score > -np.inf]
            score = scores[row, item].item()
            place = 1 + sum(one < (-score, item) for one in before)
            expected.append((interaction["user_id"][row].item(), item, place))
            if score > -np.inf and place <= max(topk):
                hits[row - len(scores)][place - 1] = 1
    assert list(zip(*(ranks[name].tolist() for name in ("user", "target", "rank")), strict=True)) == expected
    assert rec_topk.tolist() == hits


def test_ranks_by_hand():
    inf = np.inf
    scores = torch.tensor(
        [
            [-inf, 0.1, 0.9, 0.5, 0.3, 0.2],  # item 3: second
            [-inf, 0.9, 0.8, 0.7, 0.6, 0.5],  # item 5: four scores above
            [-inf, 0.5, 0.5, 0.5, 0.5, 0.5],  # all equal: in the order of their ids
            [-inf, 0.9, 0.8, -inf, 0.7, 0.6],  # item 3 masked: behind four candidates
        ]
    )
    collector = TopKCollector(make_config(["Recall"], [2]))
    positive_u, positive_i = torch.tensor([0, 1, 2, 2, 2, 2, 2, 3]), torch.tensor([3, 5, 1, 2, 3, 4, 5, 3])
    collector.eval_batch_collect(scores, {"user_id": torch.tensor([7, 3, 9, 1])}, positive_u, positive_i)
    collector.get_data_struct()
    ranks = collector.take_ranks()
    assert ranks["user"].tolist() == [7, 3, 9, 9, 9, 9, 9, 1]
    assert ranks["rank"].tolist() == [2, 5, 1, 2, 3, 4, 5, 5]


def test_each_pass_stands_alone_and_ranks_are_handed_over_once():
    collector = TopKCollector(make_config(["Recall"], [1]))
    set_catalogue(collector.data_struct, 3)

    def one_pass(user, scores):
        batch = {"user_id": torch.tensor([user])}
        collector.eval_batch_collect(torch.tensor([scores]), batch, torch.tensor([0]), torch.tensor([2]))
        return collector.get_data_struct()

    assert one_pass(4, [-9.0, 1.0, 2.0]).get("rec.topk").tolist() == [[1, 1]]
    struct = one_pass(5, [-9.0, 2.0, 1.0])
    assert struct.get("rec.topk").tolist() == [[0, 1]]
    assert struct.get("data.num_items") == 3  # what belongs to the data stays
    ranks = collector.take_ranks()
    assert {name: values.item() for name, values in ranks.items()} == {"user": 5, "target": 2, "rank": 2}
    assert all(values.dtype == np.int64 for values in ranks.values())
    assert all(values.size == 0 for values in collector.take_ranks().values())


def test_recboles_sampled_batches_name_each_user_once_per_row():
    collector = TopKCollector(make_config(["Recall"], [1]))
    interaction = {"user_id": torch.tensor([8, 8, 8, 2, 2, 2])}  # three candidates for each of two rows
    scores = torch.tensor([[-np.inf, 1.0, 2.0, 3.0], [-np.inf, 3.0, 2.0, 1.0]])
    collector.eval_batch_collect(scores, interaction, torch.tensor([0, 1]), torch.tensor([3, 3]))
    collector.get_data_struct()
    ranks = collector.take_ranks()
    assert ranks["user"].tolist() == [8, 2]
    assert ranks["rank"].tolist() == [1, 3]


def test_topk_beyond_the_catalogue_names_key_and_size():
    """Ten ids are nine items and the padding."""
    train_data = SimpleNamespace(_dataset=SimpleNamespace(item_num=10))
    for topk in ([5, 20], [10]):
        with pytest.raises(ConfigError, match=rf"topk: {topk[-1]} is more than the 9 items"):
            TopKCollector(make_config(["Recall"], topk)).data_collect(train_data)
    TopKCollector(make_config(["Recall"], [5, 9])).data_collect(train_data)
    TopKCollector(make_config(["GAUC"], [20])).data_collect(train_data)


def test_no_matrix_of_all_users_and_items_is_allocated(monkeypatch):
    """Largest tensor made while collecting: bounded by the top-k lists, far below rows x items."""
    from torch.utils._python_dispatch import TorchDispatchMode

    monkeypatch.setattr(ranking, "_BLOCK", 1 << 17)
    sizes = []

    class RecordSizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            outputs = result if isinstance(result, tuple | list) else [result]
            tensors = [out for out in outputs if isinstance(out, torch.Tensor)]
            sizes.extend(out.numel() for out in tensors if out.untyped_storage().data_ptr() != given)
            return result

    n_rows, n_items = 512, 20_000
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(n_rows, n_items, generator=generator)
    given = scores.untyped_storage().data_ptr()
    targets = torch.randint(1, n_items, (n_rows,), generator=generator)
    collector = TopKCollector(make_config(["Recall", "NDCG", "ItemCoverage"], [10]))
    with RecordSizes():
        collector.eval_batch_collect(scores, {"user_id": torch.arange(n_rows)}, torch.arange(n_rows), targets)
    assert max(sizes) <= 1.2 * ranking._BLOCK < n_rows * n_items / 10
