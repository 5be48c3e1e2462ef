"""The Trainer ranks products of vectors in blocks: the same ranks, lists and metrics as from tables of scores."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recbole_hllm import Config, create_dataset, data_preparation

# isort: split
from recbole.utils import init_seed

from recbole_hllm.evaluation import ranking
from recbole_hllm.evaluation.products import ProductFinder
from recbole_hllm.training import evaluation
from recbole_hllm.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

# Model of RecBole's -> whether its scores are a product of vectors.
FOUND = {
    "SASRec": True, "GRU4Rec": True, "NARM": True, "STAMP": True, "Caser": True, "SRGNN": True, "BPR": True,
    "LINE": True, "SimpleX": True, "BERT4Rec": False, "CORE": False, "FPMC": False, "DMF": False, "TransRec": False,
    "Pop": False, "NeuMF": False,
}  # fmt: skip
OURS = {"HLLM": True, "SASRecNCE": True, "TextKNN": True, "Markov": False}
PROTOCOLS = {
    "whole": {},
    "masked": {"mask_history": True, "eval_targets": "together", "eval_args": {"split": {"RS": [0.4, 0.3, 0.3]}}},
    "drawn": {"eval_args": {"mode": "uni4"}},
}
CASES = [
    *((name, "whole") for name in (FOUND | OURS)),
    *((name, protocol) for name in ("SASRec", "HLLM", "Pop", "BPR") for protocol in ("masked", "drawn")),
]


@pytest.fixture(scope="module")
def data(write_dataset, tmp_path_factory):
    """data_path of a data set of 23 users and 30 items with titles."""
    folder, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    lengths = draw.integers(4, 12, 23)
    times = draw.permutation(int(lengths.sum()))
    users = np.repeat(np.arange(23), lengths)
    rows = [(f"u{user}", f"i{draw.integers(30)}", int(time)) for user, time in zip(users, times, strict=True)]
    titles = [(f"i{item}", f"{item} {'red blue green'.split()[item % 3]}") for item in range(30)]
    write_dataset(folder, "toy", rows, ("item_id:token\ttitle:token_seq", titles))
    return str(folder)


@pytest.fixture
def ready(settings_of, data, tmp_path):
    """(model, keys) -> an untrained model, its loaders and a trainer."""

    def make(name, **keys):
        keys = {"metrics": ["Recall", "NDCG", "ItemCoverage"], "valid_metric": "NDCG@3", "topk": [1, 3], **keys}
        keys = {"data_path": data, **keys}
        config = Config(name, config_dict={**settings_of(name), "eval_batch_size": 5, **keys})
        train, valid, test = data_preparation(config, create_dataset(config))
        init_seed(3, True)
        model = config.spec.build(config, train._dataset)
        if config.spec.model.type.name == "TRADITIONAL":
            for rows in train:
                model.calculate_loss(rows)
        trainer = Trainer(config, model, tmp_path)
        trainer.eval_collector.data_collect(train)
        return SimpleNamespace(trainer=trainer, model=model, valid=valid, test=test, config=config)

    return make


def evaluated(ready):
    """Result and ranks of the test."""
    result = ready.trainer.evaluate(ready.test)
    return result, {name: values.tolist() for name, values in ready.trainer.eval_collector.take_ranks().items()}


def from_tables(ready, monkeypatch):
    """The same with a table of the scores of each batch, three rows at a time."""
    monkeypatch.setattr(ProductFinder, "find", lambda *_: None)
    if OURS.get(ready.config["model"]):
        kind, factors = type(ready.model), type(ready.model).factors

        def table(model, rows):
            users, items = factors(model, rows)
            return users @ items.T

        monkeypatch.setattr(kind, "full_sort_predict", table)
        monkeypatch.setattr(kind, "factors", lambda *_: None)
    monkeypatch.setattr(evaluation, "_SCORES_AT_ONCE", 3 * ready.test._dataset.item_num)
    return evaluated(ready)


before = Trainer._full_sort_batch_eval


@pytest.mark.parametrize("name, protocol", CASES)
def test_blocks_give_the_numbers_of_tables(ready, monkeypatch, name, protocol):
    monkeypatch.setattr(ranking, "_ROWS", 2)
    monkeypatch.setattr(ranking, "_BLOCK", 10)
    done, tables = ready(name, **PROTOCOLS[protocol]), []
    monkeypatch.setattr(Trainer, "_full_sort_batch_eval", lambda *of: tables.append(of) or before(*of))
    result, ranks = evaluated(done)
    assert bool(tables) != ((FOUND | OURS)[name] and protocol != "drawn")
    assert (result, ranks) == from_tables(done, monkeypatch)
    assert 0 <= result["recall@3"] < 1 and max(ranks["rank"]) > 3


@pytest.mark.parametrize("name", [name for name, found in FOUND.items() if found])
def test_vectors_give_the_models_own_scores_to_the_last_bit(ready, name):
    done = ready(name)
    done.model.eval()
    rows = next(iter(done.test))[0]
    with torch.no_grad():
        users, items = ProductFinder(done.model.full_sort_predict, done.model.n_items).find(rows)
        assert torch.equal(users @ items.T, done.model.full_sort_predict(rows).view(len(rows), -1))


def test_metrics_of_whole_rows_have_their_table(ready, monkeypatch):
    done = ready("SASRec", metrics=["GAUC", "Recall"], valid_metric="GAUC")
    assert evaluated(done) == from_tables(done, monkeypatch)


TOGETHER = {"eval_targets": "together", "eval_args": {"split": {"RS": [0.4, 0.3, 0.3]}}}


@pytest.mark.parametrize(
    "name, keys",
    [
        ("SASRec", {}),  # a product of vectors
        ("SASRec", TOGETHER),
        ("BPR", {"eval_args": {"mode": "uni10"}}),
        ("Markov", {}),  # a table of scores, with many ties
        ("Markov", TOGETHER),
        ("SASRec", {"metrics": ["GAUC", "NDCG"]}),  # of whole rows
    ],
    ids=str,
)
def test_both_masks_in_one_pass_are_two_passes(ready, monkeypatch, name, keys):
    monkeypatch.setattr(ranking, "_ROWS", 2)
    monkeypatch.setattr(ranking, "_BLOCK", 10)
    of = {mask: evaluated(ready(name, mask_history=mask, **keys)) for mask in (False, True, "both")}
    (plain, ranks), (masked, ranks_masked), (both, all_ranks) = of.values()
    assert both == {**plain, **{f"{metric}-masked": value for metric, value in masked.items()}}
    assert list(both) == [*plain, *(f"{metric}-masked" for metric in plain)]
    assert all_ranks == {**ranks, "rank_masked": ranks_masked["rank"]}
    assert (ranks["rank"] != ranks_masked["rank"]) == ("mode" not in keys.get("eval_args", {})), "a mask changes ranks"


def test_no_score_is_computed_twice_for_both_masks(ready, monkeypatch):
    tables = []
    monkeypatch.setattr(Trainer, "_full_sort_batch_eval", lambda *of: tables.append(of) or before(*of))
    evaluated(ready("Markov"))
    once = len(tables)
    evaluated(ready("Markov", mask_history="both"))
    assert len(tables) == 2 * once > 0


def test_the_time_of_scoring_is_part_of_that_of_the_evaluation(ready):
    done = ready("BPR")
    evaluated(done)
    assert 0 < done.trainer.scoring_seconds < done.trainer.evaluation_seconds


def test_scores_of_some_rows_are_a_table(ready):
    done = ready("SASRec", mask_history=True)
    scores = done.trainer.scores(done.test, np.array([2, 0]))
    assert scores.shape == (2, done.model.n_items) and torch.isneginf(scores[:, 0]).all()
    assert torch.isneginf(scores).sum() > 4
