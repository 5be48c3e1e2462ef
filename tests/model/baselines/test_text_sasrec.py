"""WhitenRec and UniSRec: item vectors against the frozen language model's, losses, checkpoints, what they need."""

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_hllm.config.config import Config
from recbole_hllm.data.loader import data_preparation
from recbole_hllm.data.rows.dataset import create_dataset
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.baselines.text_knn import TextKNN
from recbole_hllm.runs.run import load_run, run

NAMES = ["WhitenRec", "UniSRec"]
WINDOWS = torch.tensor([[3, 5, 3, 9, 1], [2, 8, 0, 0, 0]])
READING = ("item_pretrain_dir", "text_keys", "MAX_TEXT_LENGTH", "item_chunk_tokens", "MAX_ITEM_LIST_LENGTH",
           "eval_batch_size", "train_batch_size", "use_gpu", "show_progress")  # fmt: skip
FP32 = {"precision": "fp32"}
SIZES = {"hidden_size": 8, "inner_size": 16, "n_heads": 2, "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}


@pytest.fixture
def settings(toy, tmp_path):
    config = toy()[0]
    return {"data_path": str(tmp_path), **SIZES} | {key: config[key] for key in READING}


@pytest.fixture
def build(settings):
    """(name, weights, **keys) -> a model."""

    def make(name, weights=Weights.FRESH, **keys):
        config = Config(name, "toy", config_dict={**settings, **keys})
        torch.manual_seed(0)
        return config.spec.build(config, data_preparation(config, create_dataset(config))[0]._dataset, weights)

    return make


@pytest.fixture
def texts(settings):
    """(13, 16) directions of the frozen language model's vectors, float64."""
    config = Config("TextKNN", "toy", config_dict={key: settings[key] for key in ("data_path", *READING)} | FP32)
    model = TextKNN(config, data_preparation(config, create_dataset(config))[0]._dataset)
    return model.item_vectors().double().numpy()


def test_the_frozen_vectors_are_those_of_text_knn(build, texts):
    vectors = np.array(build("UniSRec").items.vectors, dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors / np.maximum(lengths, 1e-12), texts, atol=1e-6)


@pytest.mark.parametrize("groups", [[1], [1, 4]])
def test_whitened_vectors(build, groups):
    vectors = np.array(build("UniSRec").items.vectors, dtype=np.float64)[1:]
    model = build("WhitenRec", whitening_groups=groups)
    white = model.items.vectors.astype(np.float64)
    assert white.shape == (13, 16 * len(groups)) and not white[0].any()
    for place, number in enumerate(groups):
        for part in np.split(np.arange(16), number):
            covariance = np.cov(vectors[:, part].T, bias=True)
            floor = 1e-5 * np.trace(covariance) / len(part)
            values, directions = np.linalg.eigh(covariance + floor * np.eye(len(part)))
            root = directions @ np.diag(values**-0.5) @ directions.T
            expected = (vectors[:, part] - vectors[:, part].mean(0)) @ root
            np.testing.assert_allclose(white[1:, 16 * place + part], expected, rtol=1e-3, atol=1e-3)
    first, _, second = model.items.projection.layers
    forms = torch.from_numpy(model.items.vectors).unflatten(-1, (len(groups), 16))
    expected = second(first(forms).relu()).sum(1)
    expected[0] = 0
    torch.testing.assert_close(model.eval().item_vectors(), expected)


def test_unisrec_adds_ids_where_they_are_wanted(build):
    plain, both = build("UniSRec").eval(), build("UniSRec", with_item_ids=True).eval()
    torch.testing.assert_close(both.item_vectors() - both.ids.weight, plain.item_vectors())
    assert plain.ids is None and both.ids.weight[1:].std() > 0.01


def test_the_loss_of_whitenrec_is_over_the_catalogue_of_products(build):
    model = build("WhitenRec")
    rows = Interaction({"item_id_list": WINDOWS, "neg_item_id": torch.arange(1, 13)[None]})
    assert model.calculate_loss(rows).item() == pytest.approx(_by_hand(model, torch.mv), rel=1e-4)


def test_the_loss_of_unisrec_is_over_the_catalogue_of_cosines(build):
    model = build("UniSRec").eval()  # no noise
    rows = Interaction({"item_id_list": WINDOWS, "neg_item_id": torch.arange(1, 13)[None]})
    expected = _by_hand(model, lambda items, user: torch.cosine_similarity(items, user[None]) / 0.07)
    assert model.calculate_loss(rows).item() == pytest.approx(expected, rel=1e-4)


def _by_hand(model, score):
    model.eval()
    losses = []
    for items in WINDOWS.tolist():
        for place in range(sum(item > 0 for item in items) - 1):
            read = {"item_id_list": torch.tensor([items[: place + 1]]), "item_length": torch.tensor([place + 1])}
            logits = score(model.item_vectors()[1:], model.user_vectors(Interaction(read))[0])
            losses.append(-logits.log_softmax(0)[items[place + 1] - 1])
    return torch.stack(losses).mean().item()


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_read_back(settings, tmp_path, name):
    keys = {**settings, "epochs": 1, "topk": [3], "valid_metric": "MRR@3"}
    run(name, "toy", config_dict=keys, run_dir=tmp_path / "r")
    loaded = load_run(tmp_path / "r").model.eval()
    assert not any("vectors" in key for key in loaded.state_dict())
    read = Interaction({"item_id_list": WINDOWS[:, :4], "item_length": torch.tensor([4, 2])})
    scores = loaded.full_sort_predict(read)
    assert scores.shape == (2, 13) and scores.std() > 0


@pytest.mark.parametrize("name", NAMES)
def test_an_outline_computes_nothing(build, name):
    with torch.device("meta"):
        model = build(name, Weights.OUTLINE)
    sizes = {key: weight.shape for key, weight in build(name).named_parameters()}
    assert {key: weight.shape for key, weight in model.named_parameters()} == sizes


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_is_named(settings, tmp_path, name):
    config = Config(name, "toy", config_dict={**settings, "item_pretrain_dir": None})
    with pytest.raises(ConfigError, match="item_pretrain_dir: name the language model that reads item texts"):
        config.spec.model.check_keys(config)
    (tmp_path / "toy" / "toy.item").unlink()
    config = Config(name, "toy", config_dict=settings)
    with pytest.raises(ConfigError, match="there is no .*toy.item to read item texts from"):
        config.spec.model.check_files(config)


def test_groups_that_do_not_divide_the_vectors(build):
    with pytest.raises(ConfigError, match="whitening_groups: the language model's 16 numbers .* by 5 groups"):
        build("WhitenRec", whitening_groups=[1, 5])
    with pytest.raises(ConfigError, match="whitening_groups must not be empty"):
        build("WhitenRec", whitening_groups=[])


def test_texts_that_do_not_fit_the_language_model(build, tiny_llm):
    with pytest.raises(ModelError, match="MAX_TEXT_LENGTH"):
        build("WhitenRec", item_pretrain_dir=tiny_llm("bert"), MAX_TEXT_LENGTH=10**6)
