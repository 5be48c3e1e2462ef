"""HLLM with the losses and similarities of other next-item models."""

import pytest
import torch


def test_scores_are_products_where_they_are_wanted(build):
    model, loaders = build(similarity="dot", temperature=1.0)
    rows = next(iter(loaders[2]))[0]
    with torch.no_grad():
        scores = model.eval().full_sort_predict(rows)
        torch.testing.assert_close(scores, model.user_vectors(rows) @ model.item_vectors().T)
    assert model.similarity == "dot" and build()[0].similarity == "cosine"


def test_gbce(build):
    """t = 1 with as many negatives as there are others is binary cross-entropy; fewer make the positive count less."""
    losses = []
    for t in (0.0, 1.0):
        model, loaders = build(loss="gbce", gbce_t=t)
        rows = next(iter(loaders[0]))
        model.eval()  # without dropout
        losses.append(model.calculate_loss(rows).item())
        windows, drawn = rows["item_id_list"], rows["neg_item_id"][0]
        expected, n_targets = 0.0, 0
        table = torch.nn.functional.normalize(model.item_vectors(), dim=-1)
        for row in windows:
            for place in range(int((row != 0).sum()) - 1):
                read = {"item_id_list": row[None, : place + 1], "item_length": torch.tensor([place + 1])}
                user = torch.nn.functional.normalize(model.user_vectors(read)[0], dim=-1)
                logits = model.logit_scale.exp() * (table @ user)
                target = row[place + 1]
                others = drawn[(drawn != target) & (table[drawn] @ table[target] <= 0.99)]
                beta = 1 - t * (1 - len(drawn) / 11)
                both = -beta * logits[target].sigmoid().log() - (1 - logits[others].sigmoid()).log().sum()
                expected, n_targets = expected + both.item() / (len(drawn) + 1), n_targets + 1
        assert losses[-1] == pytest.approx(expected / n_targets, rel=1e-4)
    assert losses[1] < losses[0]
