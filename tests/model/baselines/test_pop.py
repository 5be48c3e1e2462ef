"""Pop against a plain count."""

import numpy as np
import pytest
import torch

import recbole_hllm  # noqa: F401

# isort: split
from recbole.data.interaction import Interaction

from recbole_hllm.runs.run import load_run, run


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_every_training_interaction_counts_once_whatever_the_batch(tmp_path, write_dataset, batch):
    items = ["a", "a", "b", "a", "c", "b", "a", "d"]
    rows = [(f"u{user}", item, 10 * user + place) for user in range(5) for place, item in enumerate(items)]
    write_dataset(tmp_path, "toy", rows)
    keys = {"data_path": str(tmp_path), "train_batch_size": batch, "topk": [2], "valid_metric": "MRR@2",
            "show_progress": False}  # fmt: skip
    run("Pop", "toy", config_dict=keys, run_dir=tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    ids = loaded.dataset.token2id("item_id", ["a", "b", "c", "d"])
    assert loaded.model.item_cnt[torch.as_tensor(ids), 0].tolist() == [15, 10, 5, 0]
    assert loaded.model.inference_parameters() == 5  # padding and four items
    users = Interaction({"user_id": torch.ones(1, dtype=torch.long)})
    scores = loaded.model.full_sort_predict(users).numpy()
    assert np.argmax(scores[1:]) + 1 == ids[0]
