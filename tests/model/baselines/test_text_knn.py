"""TextKNN against plain cosines of HLLM's vectors before training, and what it needs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import recbole_hllm  # noqa: F401

# isort: split
from recbole.data.interaction import Interaction

from recbole_hllm.config.config import Config
from recbole_hllm.data.loader import data_preparation
from recbole_hllm.data.rows.dataset import create_dataset
from recbole_hllm.errors import ConfigError, DataError, ModelError
from recbole_hllm.model.baselines import frozen_llm
from recbole_hllm.model.baselines.text_knn import TextKNN
from recbole_hllm.model.hllm.hllm import HLLM
from recbole_hllm.runs.run import load_run, run

# of the data set in conftest.py
N_ITEMS = 12
ROWS = [[3, 5, 3, 9], [2], [7, 4, 6], [12, 1, 1], []]
READING = ("item_pretrain_dir", "text_keys", "MAX_TEXT_LENGTH", "item_chunk_tokens", "precision")
SHARED = ("MAX_ITEM_LIST_LENGTH", "eval_batch_size", "use_gpu", "show_progress")


def histories(rows, items=None, width=4):
    padded = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    rows = {"item_id_list": padded, "item_length": torch.tensor([len(row) for row in rows])}
    return Interaction(rows if items is None else {**rows, "item_id": torch.tensor(items)})


@pytest.fixture
def settings(toy, tmp_path):
    """Keys of a TextKNN that reads items as the HLLM of conftest.py does."""
    config = toy()[0]
    return {"data_path": str(tmp_path)} | {key: config[key] for key in (*READING, *SHARED)}


@pytest.fixture
def knn(settings):
    """(**keys) -> TextKNN."""

    def make(**keys):
        config = Config("TextKNN", "toy", config_dict={**settings, **keys})
        return TextKNN(config, data_preparation(config, create_dataset(config))[0]._dataset)

    return make


@pytest.fixture
def hllms_vectors(toy):
    """(n_items, D) of an HLLM that pools the mean and has not been trained."""
    config, _, loaders = toy(item_emb_token_n=0)
    return HLLM(config, loaders[0]._dataset).eval().item_vectors()


def test_item_vectors_have_the_directions_of_an_untrained_hllm(knn, hllms_vectors):
    torch.testing.assert_close(knn().item_vectors(), F.normalize(hllms_vectors, dim=-1), rtol=0, atol=1e-6)
    assert knn().inference_parameters() == hllms_vectors.numel()


@pytest.mark.parametrize("last_n", [None, 1, 2, 9])
def test_scores_are_plain_cosines(knn, hllms_vectors, last_n):
    model = knn(knn_history=last_n)
    table = model.full_sort_predict(histories(ROWS))
    vectors = hllms_vectors.double().numpy()
    lengths = np.linalg.norm(vectors, axis=1)
    for row, history in enumerate(ROWS):
        read = history[-last_n:] if last_n else history
        user = sum((vectors[item] / lengths[item] for item in read), np.zeros(vectors.shape[1])) / max(len(read), 1)
        for item in range(1, N_ITEMS + 1):
            cosine = vectors[item] @ user / (lengths[item] * np.linalg.norm(user)) if history else 0.0
            assert table[row, item].item() == pytest.approx(cosine, abs=1e-5)
            single = model.predict(histories([history], [item]))
            assert single.item() == pytest.approx(cosine, abs=1e-5)


def test_the_nearest_item_of_a_single_one_is_itself(knn):
    scores = knn().full_sort_predict(histories([[item] for item in range(1, N_ITEMS + 1)]))
    torch.testing.assert_close(scores.diagonal(1), torch.ones(N_ITEMS), rtol=0, atol=1e-6)


def test_the_first_layers_give_other_vectors(knn):
    assert not torch.allclose(knn().item_vectors(), knn(item_llm_layers=1).item_vectors(), atol=1e-3)


def test_a_run_read_back_needs_no_language_model(settings, tmp_path, monkeypatch):
    keys = {**settings, "topk": [3], "valid_metric": "MRR@3"}
    result = run("TextKNN", "toy", config_dict=keys, run_dir=tmp_path / "r")

    def refuse(*arguments):
        raise AssertionError("read a language model")

    monkeypatch.setattr(frozen_llm, "load_backbone", refuse)
    loaded = load_run(tmp_path / "r")
    assert [name for name, _ in loaded.model.named_parameters()] == ["fake_loss"]
    assert loaded.model.item_vectors().shape == (N_ITEMS + 1, 16) and result["test_result"]["mrr@3"] >= 0
    assert loaded.model.full_sort_predict(histories(ROWS)).std() > 0


# ---- what it needs ----


def test_needs_are_met_by_texts_and_a_tokenizer(settings):
    TextKNN.check_files(Config("TextKNN", "toy", config_dict=settings))


@pytest.mark.parametrize(
    ("keys", "item_file", "error", "said"),
    [
        ({}, None, ConfigError, "there is no .*toy.item to read item texts from"),
        ({"text_keys": None}, "item_id:token\tprice:float\ni1\t3\n", ConfigError, "toy.item has no token_seq column"),
        ({"item_pretrain_dir": "package:no_such_package/model"}, ..., ModelError, "'no_such_package' is not installed"),
        ({"item_pretrain_dir": None}, ..., ConfigError, "item_pretrain_dir: name the Item LLM"),
    ],
)
def test_needs_that_are_not_met_are_named(settings, knn, tmp_path, keys, item_file, error, said):
    path = tmp_path / "toy" / "toy.item"
    if item_file is None:
        path.unlink()
    elif item_file is not ...:
        path.write_text(item_file)
    with pytest.raises(error, match=said):
        TextKNN.check_files(Config("TextKNN", "toy", config_dict={**settings, **keys}))
    with pytest.raises((ConfigError, DataError, ModelError)):
        knn(**keys)


@pytest.mark.parametrize("value", [0, -1, 1.5, "all", True])
def test_histories_of_no_length_are_refused(settings, value):
    with pytest.raises(ConfigError, match="knn_history"):
        Config("TextKNN", "toy", config_dict={**settings, "knn_history": value})
