"""The same weights give RecBole's own pipeline the same metrics, to the last digit."""

import sys

import pytest
import torch

from recbole_hllm import load_run, run

# isort: split
import recbole.config
import recbole.data.dataset
import recbole.trainer
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.model.sequential_recommender import GRU4Rec, SASRec
from recbole.utils import init_seed

METRICS = ["Recall", "MRR", "NDCG", "Hit", "Precision", "MAP"]


@pytest.fixture
def shop(write_dataset, tmp_path):
    """data_path of 40 users of 3 to 20 items of 60, some of them twice; hours between two events, file order random."""
    generator = torch.Generator().manual_seed(4)
    draw = lambda *size: torch.randint(60, size, generator=generator).tolist()  # noqa: E731
    rows = [
        (f"u{user}", f"i{item}", 100_000 * (37 * user + step))
        for user in range(40)
        for step, item in enumerate(draw(3 + user % 18))
    ]
    order = torch.randperm(len(rows), generator=generator).tolist()
    write_dataset(tmp_path / "data", "shop", [rows[index] for index in order])
    return str(tmp_path / "data")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # RecBole's own
@pytest.mark.parametrize("model, cls", [("SASRec", SASRec), ("GRU4Rec", GRU4Rec)])
def test_metrics_equal_stock_recboles(shop, tmp_path, monkeypatch, model, cls):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    # It asks NumPy 2 for names that are gone; everything else here is RecBole as it is.
    monkeypatch.setattr(recbole.config.Config, "compatibility_settings", lambda config: None)
    settings = {
        "data_path": shop, "dataset": "shop", "epochs": 2, "MAX_ITEM_LIST_LENGTH": 6, "topk": [1, 5, 20],
        "metrics": METRICS, "valid_metric": "MRR@20", "metric_decimal_place": 15, "show_progress": False,
        "hidden_size": 16, "inner_size": 16, "train_batch_size": 64, "eval_batch_size": 7, "use_gpu": False,
        "state": "error", "learning_rate": 0.01,
    }  # fmt: skip
    ours = run(model, config_dict=settings, run_dir="run")
    loaded = load_run("run")

    protocol = {
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
        "train_neg_sample_args": None, "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "checkpoint_dir": str(tmp_path / "saved"),
    }  # fmt: skip
    config = recbole.config.Config(cls, "shop", config_dict={**settings, **protocol})
    init_seed(config["seed"], True)
    dataset = recbole.data.dataset.SequentialDataset(config)
    parts = dataset.build()
    assert list(dataset.field2id_token["item_id"]) == list(loaded.dataset.field2id_token["item_id"])
    stock = cls(config, parts[0])
    stock.load_state_dict(loaded.model.state_dict())
    trainer = recbole.trainer.Trainer(config, stock)
    results = [
        trainer.evaluate(FullSortEvalDataLoader(config, part, None), load_best_model=False) for part in parts[1:]
    ]
    assert dict(results[0]) == ours["best_valid_result"]
    assert dict(results[1]) == ours["test_result"]
    assert len(set(ours["test_result"].values())) > 6  # they tell something
