"""ENMF against the sum over all pairs."""

import pytest
import torch


def test_enmf_is_the_loss_over_all_pairs(on_toy):
    """Against the sum over every item, which the model does not make (Chen et al., equation 8)."""
    made = on_toy("ENMF", dropout_prob=0.0, negative_weight=0.2, reg_weight=0.0)
    model, rows, known = made.model, made.rows, made.known
    x = known[rows["user_id"]]
    scores = (model.user_embedding.weight[rows["user_id"]] * model.H_i.weight) @ model.item_embedding.weight.T
    expected = (x * (scores - 1) ** 2 - x + (1 - x) * 0.2 * scores**2).sum()  # less a constant
    assert model.calculate_loss(rows).item() == pytest.approx(expected.item(), rel=1e-4)
    torch.testing.assert_close(model.full_sort_predict(rows), scores)
    assert not model.item_embedding.weight[0].any()
