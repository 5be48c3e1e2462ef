"""FMLPRec: what it reads, its loss and its scores."""

import pytest
import torch
from recbole.data.interaction import Interaction

ROWS = [[3, 5, 3, 9], [2, 8, 0, 0], [7, 0, 0, 0]]
LENGTHS = [4, 2, 1]


def rows(**columns):
    read = {"item_id_list": torch.tensor(ROWS), "item_length": torch.tensor(LENGTHS)}
    return Interaction({**read, **{name: torch.tensor(values) for name, values in columns.items()}})


def by_hand(model):
    """(3, 8) predictions: rows padded on the left."""
    outputs = []
    for items, length in zip(ROWS, LENGTHS, strict=True):
        padded = torch.tensor([0] * (4 - length) + items[:length])
        x = model.input(model.item_embedding.weight[padded] + model.positions.weight)
        outputs.append(model.blocks(x[None])[0, -1])
    return torch.stack(outputs)


def test_the_last_item_is_at_the_last_place(id_model):
    model = id_model("FMLPRec")[0].eval()
    torch.testing.assert_close(model.user_vectors(rows()), by_hand(model))


def test_of_a_longer_history_the_last_items_are_read(id_model):
    model = id_model("FMLPRec")[0].eval()
    longer = {"item_id_list": torch.tensor([[1, 2, 3, 5, 3, 9]]), "item_length": torch.tensor([6])}
    torch.testing.assert_close(model.user_vectors(Interaction(longer)), by_hand(model)[:1])


def test_the_loss_is_over_the_whole_catalogue(id_model):
    model = id_model("FMLPRec")[0]
    logits = by_hand(model) @ model.item_embedding.weight[1:].T
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 11, 7]))
    assert model.calculate_loss(rows(item_id=[1, 12, 8])).item() == pytest.approx(expected.item(), rel=1e-5)
    right = (logits.argmax(1) == torch.tensor([0, 11, 7])).float().mean()
    assert model.loss_terms["top1_accuracy"] == pytest.approx(right.item())


def test_scores_are_products(id_model):
    model = id_model("FMLPRec")[0].eval()
    expected = by_hand(model) @ model.item_embedding.weight.T
    torch.testing.assert_close(model.full_sort_predict(rows()), expected)
    torch.testing.assert_close(model.predict(rows(item_id=[4, 5, 6])), expected[[0, 1, 2], [4, 5, 6]])


def test_an_empty_history_has_scores(id_model):
    model = id_model("FMLPRec")[0].eval()
    empty = Interaction({"item_id_list": torch.zeros(1, 4).long(), "item_length": torch.tensor([0])})
    assert model.full_sort_predict(empty).isfinite().all()
