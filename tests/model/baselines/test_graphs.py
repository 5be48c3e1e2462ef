"""LightGCN, NGCF, SpectralCF, GCMC and NCL against dense matrices."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.errors import ConfigError


@pytest.fixture
def built(settings_of):
    """(model, keys) -> a model in evaluation mode, its loader, and the dense matrix of the graph."""

    def make(name, **keys):
        config = Config(name, config_dict={**settings_of("SASRec"), "state": "critical", **keys})
        train, *_ = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        model = config.spec.build(config, train._dataset).eval()
        edges = (train._dataset.inter_matrix("csr").toarray() > 0).astype(np.float32)
        n_users, n_items = edges.shape
        graph = np.block([[np.zeros((n_users,) * 2), edges], [edges.T, np.zeros((n_items,) * 2)]])
        return model, train, torch.from_numpy(graph).float()

    return make


def normalised(graph):
    roots = graph.sum(1).clamp(min=1) ** -0.5
    return roots[:, None] * graph * roots


def first_vectors(model):
    return torch.cat([model.user_embedding.weight, model.item_embedding.weight])


def assert_scores(model, train, vectors):
    users, items = vectors.split([model.n_users, model.n_items])
    rows = next(iter(train))
    found = model.full_sort_predict(rows).view(len(rows), -1)
    torch.testing.assert_close(found, users[rows["user_id"]] @ items.T, rtol=1e-4, atol=1e-6)


def test_lightgcn_is_the_mean_over_steps_of_propagation(built):
    model, train, graph = built("LightGCN", n_layers=3)
    step, layers = normalised(graph), [first_vectors(model)]
    for _ in range(3):
        layers.append(step @ layers[-1])
    assert_scores(model, train, torch.stack(layers).mean(0))


def test_ngcf_has_weights_for_each_step(built):
    model, train, graph = built("NGCF", hidden_size_list=[6], message_dropout=0.5, node_dropout=0.5)
    step, first = normalised(graph), first_vectors(model)
    layer, neighbours = model.GNNlayers[0], step @ first
    own = (step + torch.eye(len(step))) @ first
    second = layer.linear(own) + layer.interActTransform(neighbours * first)
    second = F.normalize(F.leaky_relu(second, 0.2), dim=1)
    assert_scores(model, train, torch.cat([first, second], dim=1))


def test_spectralcf_convolves_with_twice_the_identity_less_the_walk(built):
    model, train, graph = built("SpectralCF", n_layers=2)
    walk = graph / graph.sum(1, keepdim=True).clamp(min=1)
    layers = [first_vectors(model)]
    for filters in model.filters:
        layers.append(torch.sigmoid((2 * torch.eye(len(walk)) - walk) @ layers[-1] @ filters))
    assert_scores(model, train, torch.cat(layers, dim=1))


def test_gcmc_encodes_with_the_normalised_graph(built):
    model, train, graph = built("GCMC", gcn_output_dim=6)
    encoder, decoder = model.GcEncoder, model.BiDecoder
    users, items = encoder.dense_layer_u(F.relu(normalised(graph) @ encoder.weights_u[0])).split(
        [model.n_users, model.n_items]
    )
    rows = next(iter(train))
    basis = torch.stack([users[rows["user_id"]] @ weights @ items.T for weights in decoder.weights], dim=-1)
    found = model.full_sort_predict(rows).view(len(rows), -1)
    torch.testing.assert_close(found, decoder.dense_layer(basis)[..., 1], rtol=1e-4, atol=1e-6)


# ---- NCL ----

CLUSTERS = {"num_clusters": 3, "warm_up_step": 2, "m_step": 2, "proto_reg": 0.5}


def test_ncl_has_clusters_after_its_first_epochs(built):
    model, train, graph = built("NCL", n_layers=2, **CLUSTERS)
    rows = next(iter(train))
    model.begin_epoch(1)
    assert model.user_centroids is None and len(model.calculate_loss(rows)) == 2
    model.begin_epoch(2)
    ranking, neighbours, clusters = model.calculate_loss(rows)
    step, layers = normalised(graph), [first_vectors(model)]
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


def test_clusters_are_found_anew_every_m_step_epochs(built):
    model, _, _ = built("NCL", **CLUSTERS)
    calls = []
    model.e_step = lambda: calls.append(len(calls)) or setattr(model, "user_centroids", torch.zeros(1))
    seen = []
    for epoch in range(6):
        model.begin_epoch(epoch)
        seen.append(len(calls))
    assert seen == [0, 0, 1, 1, 2, 2]


def test_there_are_at_most_as_many_clusters_as_users(built):
    model, _, _ = built("NCL", **{**CLUSTERS, "num_clusters": 1000})
    model.begin_epoch(2)
    assert len(model.user_centroids) == model.n_users and len(model.item_centroids) == model.n_items


@pytest.mark.parametrize("key", ["m_step", "num_clusters"])
def test_numbers_of_ncl_that_cannot_be_used(built, key):
    with pytest.raises(ConfigError, match=f"{key}: 0 must be a whole number"):
        built("NCL", **{key: 0})
