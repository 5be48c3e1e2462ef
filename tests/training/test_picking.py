"""What is picked by the validation: values of options as an evaluation has them, of one process and of several."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recbole.model.abstract_recommender import GeneralRecommender

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.model.base.contract import Picked
from recbole_hllm.processes import Processes
from recbole_hllm.training import picking
from recbole_hllm.training.trainer import Trainer

SEEDS = (3, 4, 5)
BY_TIME = {"order": "TO", "group_by": "user"}


class ByShift(GeneralRecommender, Picked):
    """Scores that are random numbers, of one of three seeds; groups are even and odd users."""

    Keys = RunKeys

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seed, self.seen = SEEDS[0], None

    def _of(self, seed, rows):
        table = np.random.default_rng(seed).normal(size=(self.n_users, self.n_items)).astype(np.float32)
        return torch.from_numpy(table)[rows[self.USER_ID]]

    def full_sort_predict(self, interaction):
        return self._of(self.seed, interaction)

    def options(self):
        return len(SEEDS)

    def groups(self):
        return 2

    def group_of(self, interaction):
        return interaction[self.USER_ID] % 2

    def scores_of_options(self, interaction):
        yield from (self._of(seed, interaction) for seed in SEEDS)

    def pick(self, values, rows):
        self.seen = values, rows
        return {"values": values.tolist()}


@pytest.fixture
def build(settings_of, tmp_path):
    """(**keys) -> model, Trainer and validation loader."""

    def make(**keys):
        asked = {"eval_batch_size": 5, "topk": [3], "valid_metric": "NDCG@3", "metrics": ["NDCG"], **keys}
        config = Config("BPR", config_dict={**settings_of("BPR"), **asked})
        train, valid, _ = data_preparation(config, create_dataset(config))
        model = ByShift(config, train._dataset)
        (tmp_path / "run").mkdir(exist_ok=True)
        trainer = Trainer(config, model, tmp_path / "run")
        trainer.eval_collector.data_collect(train)
        return SimpleNamespace(model=model, trainer=trainer, valid=valid)

    return make


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"mask_history": True},
        {"metrics": ["MAP"], "valid_metric": "MAP@3"},
        {"metrics": ["Hit"], "valid_metric": "hit@3"},
        {"eval_args": {"split": {"LS": "valid_and_test"}, **BY_TIME, "mode": "uni3"}},
        {"eval_targets": "together", "eval_args": {"split": {"RS": [0.5, 0.4, 0.1]}, **BY_TIME}},
    ],
)
def test_values_are_those_of_an_evaluation(build, tmp_path, keys):
    built = build(**keys)
    built.trainer.pick(built.valid)
    values, rows = built.model.seen
    users = np.concatenate([batch[0]["user_id"].numpy() for batch in built.valid])
    assert rows.tolist() == [(users % 2 == group).sum() for group in (0, 1)] and rows.min() > 2
    for option, seed in enumerate(SEEDS):
        built.model.seed = seed
        (expected,) = built.trainer.evaluate(built.valid).values()
        assert values[-1, option] == pytest.approx(expected, abs=1e-9) and 0 < expected < 1
    np.testing.assert_allclose((values[:2] * rows[:, None]).sum(0) / rows.sum(), values[2])
    assert abs(values[0] - values[1]).max() > 0.01
    assert (tmp_path / "run" / "picked.json").is_file()


@pytest.mark.parametrize("metric", ["NDCG@3", "NDCG@3-masked"])
def test_with_both_columns_the_history_counts_as_valid_metric_says(build, metric):
    built = build(mask_history="both", valid_metric=metric)
    built.trainer.pick(built.valid)
    for option, seed in enumerate(SEEDS):
        built.model.seed = seed
        found = built.trainer.evaluate(built.valid)
        assert found["ndcg@3"] != found["ndcg@3-masked"]
        assert built.model.seen[0][-1, option] == pytest.approx(found[metric.lower()], abs=1e-9)


def test_rows_are_looked_at_in_any_number(build, monkeypatch):
    first, second = build(), build()
    first.trainer.pick(first.valid)
    monkeypatch.setattr("recbole_hllm.training.evaluation._SCORES_TO_PICK_BY", 26)  # two rows
    second.trainer.pick(second.valid)
    np.testing.assert_allclose(second.model.seen[0], first.model.seen[0], atol=1e-12)


def test_processes_share_the_rows(build, monkeypatch):
    """Two of them, one after the other: each has some batches, and together they have the values of one."""
    alone = build()
    alone.trainer.pick(alone.valid)
    parts = []

    def gather(arrays):
        parts.append(arrays)
        return parts

    for rank in (0, 1):
        kept = SimpleNamespace(share=Processes(rank, 2).share, is_first=rank == 0, gather_lists=gather)
        monkeypatch.setattr(picking, "current", lambda kept=kept: kept)
        monkeypatch.setattr("recbole_hllm.training.evaluation.current", lambda kept=kept: kept)
        built = build()
        built.trainer.pick(built.valid)
    assert [part[1].sum() for part in parts] == [5, 9]
    np.testing.assert_allclose(built.model.seen[0], alone.model.seen[0], atol=1e-12)
    assert built.model.seen[1].tolist() == alone.model.seen[1].tolist()
