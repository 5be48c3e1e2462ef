"""SASRec with stronger losses: losses and scores against plain formulas over the encoder's outputs."""

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_hllm.errors import ConfigError

WINDOWS = [[3, 5, 3, 9, 1], [2, 8, 0, 0, 0], [7, 4, 6, 0, 0]]
N_ITEMS = 12


@pytest.fixture
def spread(id_model):
    """(name, **keys) -> a model with weights far from 0."""

    def make(name, **keys):
        model = id_model(name, **keys)[0]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.5)
            model.item_embedding.weight[0] = 0
        return model

    return make


def logits_of(model):
    """(7, 13) products of every position's output and all items, in float64; (7,) targets."""
    logits, targets = [], []
    for items in WINDOWS:
        for place in range(sum(item > 0 for item in items) - 1):
            read = {"item_id_list": torch.tensor([items[: place + 1]]), "item_length": torch.tensor([place + 1])}
            with torch.no_grad():
                logits.append((model.item_vectors() @ model.user_vectors(Interaction(read))[0]).double())
            targets.append(items[place + 1])
    return torch.stack(logits), torch.tensor(targets)


def rows(negatives):
    return Interaction({"item_id_list": torch.tensor(WINDOWS), "neg_item_id": torch.tensor([negatives])})


def test_whole_catalogue(spread):
    model = spread("SASRecCE")
    logits, targets = logits_of(model)
    expected = torch.nn.functional.cross_entropy(logits[:, 1:], targets - 1)
    assert model.calculate_loss(rows(list(range(1, 13)))).item() == pytest.approx(expected.item(), rel=1e-5)


def test_sampled_softmax(spread):
    model, drawn = spread("SASRecSS"), [5, 11, 2, 5, 10, 12]
    logits, targets = logits_of(model)
    losses = []
    for of_position, target in zip(logits, targets, strict=True):
        compared = [target.item(), *(item for item in drawn if item != target)]
        losses.append(-of_position[compared].log_softmax(0)[0])
    assert model.calculate_loss(rows(drawn)).item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


@pytest.mark.parametrize("t", [0.0, 0.75])
def test_generalised_binary_cross_entropy(spread, t):
    model, drawn = spread("gSASRec", gbce_t=t), [5, 11, 2, 5, 10, 12]
    logits, targets = logits_of(model)
    rate = len(drawn) / (N_ITEMS - 1)
    beta = rate * (t * (1 - 1 / rate) + 1 / rate)
    losses = []
    for of_position, target in zip(logits.sigmoid(), targets, strict=True):
        others = of_position[[item for item in drawn if item != target]]
        losses.append(-(beta * of_position[target].log() + (1 - others).log().sum()) / (len(drawn) + 1))
    assert model.calculate_loss(rows(drawn)).item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


@pytest.mark.parametrize("name", ["SASRecCE", "SASRecSS", "gSASRec"])
def test_scores_are_products(spread, name):
    model = spread(name).eval()
    read = Interaction({"item_id_list": torch.tensor([[3, 5, 3, 9]]), "item_length": torch.tensor([4])})
    expected = model.item_embedding.weight @ model.user_vectors(read)[0]
    torch.testing.assert_close(model.full_sort_predict(read)[0], expected)
    assert expected.abs().max() > 1  # no cosines
    read.interaction["item_id"] = torch.tensor([7])
    torch.testing.assert_close(model.predict(read), expected[[7]])


def test_every_loss_has_cosines_too(spread):
    model = spread("SASRecCE", similarity="cosine").eval()
    read = Interaction({"item_id_list": torch.tensor([[3, 5, 3, 9]]), "item_length": torch.tensor([4])})
    cosines = torch.cosine_similarity(model.item_embedding.weight[1:], model.user_vectors(read))
    torch.testing.assert_close(model.full_sort_predict(read)[0, 1:], cosines)


@pytest.mark.parametrize("keys", [{"in_batch_negatives": True}, {"cross_batch_negatives": 5}])
def test_gbce_refuses_negatives_that_are_not_drawn_uniformly(id_model, keys):
    with pytest.raises(ConfigError, match="loss: gbce corrects for negatives drawn from all items alike"):
        id_model("gSASRec", **keys)


def test_a_calibration_without_its_loss_is_told(id_model, caplog):
    id_model("SASRecSS", gbce_t=0.2)
    assert "gbce_t without effect: loss is softmax" in caplog.text


def test_mixed_negatives(id_model):
    """Drawn ones and the batch's targets, corrected by how often they are bought."""
    model, (train, *_) = id_model("SASRecSS", in_batch_negatives=True)
    batch = next(iter(train))
    model.calculate_loss(batch)
    targets = int((batch["item_id_list"][:, 1:] != 0).sum())
    assert 6 < model.loss_terms["surviving_negatives"] < 6 + targets


@pytest.mark.parametrize(("key", "value"), [("loss", "bce"), ("similarity", "euclid"), ("gbce_t", 1.5)])
def test_wrong_values(id_model, key, value):
    with pytest.raises(ConfigError, match=f"{key}: "):
        id_model("gSASRec", **{key: value})
