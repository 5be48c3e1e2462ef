"""NCL: the loss of its clusters by hand, and when there are new ones."""

import pytest
import torch
from torch.nn import functional as F

from recbole_hllm.errors import ConfigError

CLUSTERS = {"num_clusters": 3, "warm_up_step": 2, "m_step": 2, "proto_reg": 0.5}


def test_ncl_has_clusters_after_its_first_epochs(on_toy, propagation):
    made = on_toy("NCL", n_layers=2, **CLUSTERS)
    model, rows = made.model, made.rows
    model.begin_epoch(1)
    assert model.user_centroids is None and len(model.calculate_loss(rows)) == 2
    model.begin_epoch(2)
    ranking, neighbours, clusters = model.calculate_loss(rows)
    step, layers = propagation(made.known), [torch.cat([model.user_embedding.weight, model.item_embedding.weight])]
    layers += [step @ layers[0], step @ step @ layers[0]]
    torch.testing.assert_close(torch.cat(model.forward()[:2]), torch.stack(layers).mean(0), rtol=1e-4, atol=1e-6)
    expected = 0
    users, items = layers[0].split([model.n_users, model.n_items])
    for vectors, ids, kind in ((users, rows["user_id"], "user"), (items, rows["item_id"], "item")):
        centres, of = getattr(model, f"{kind}_centroids"), getattr(model, f"{kind}_2cluster")
        assert centres.shape == (3, 8) and len(of) == len(vectors)
        groups = [F.normalize(vectors[of == cluster].mean(0), dim=0) for cluster in range(3)]
        torch.testing.assert_close(centres, torch.stack(groups), rtol=1e-3, atol=1e-4)
        logits = F.normalize(vectors[ids], dim=1) @ centres.T / model.ssl_temp
        expected = expected + 0.5 * F.cross_entropy(logits, of[ids], reduction="sum")
    torch.testing.assert_close(clusters, expected, rtol=1e-3, atol=1e-4)


def test_clusters_are_found_anew_every_m_step_epochs(on_toy):
    model = on_toy("NCL", **CLUSTERS).model
    calls = []
    model.e_step = lambda: calls.append(len(calls)) or setattr(model, "user_centroids", torch.zeros(1))
    seen = []
    for epoch in range(6):
        model.begin_epoch(epoch)
        seen.append(len(calls))
    assert seen == [0, 0, 1, 1, 2, 2]


def test_there_are_at_most_as_many_clusters_as_users(on_toy):
    model = on_toy("NCL", **{**CLUSTERS, "num_clusters": 1000}).model
    model.begin_epoch(2)
    assert len(model.user_centroids) == model.n_users and len(model.item_centroids) == model.n_items


@pytest.mark.parametrize("key", ["m_step", "num_clusters"])
def test_numbers_of_ncl_that_cannot_be_used(on_toy, key):
    with pytest.raises(ConfigError, match=f"{key}: 0 must be a whole number"):
        on_toy("NCL", **{key: 0})
