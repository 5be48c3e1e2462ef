"""LightGCN, NGCF, SpectralCF and GCMC against dense matrices."""

import torch
from torch.nn import functional as F


def first_vectors(model):
    return torch.cat([model.user_embedding.weight, model.item_embedding.weight])


def assert_scores(made, vectors):
    model, rows = made.model.eval(), made.rows
    users, items = vectors.split([model.n_users, model.n_items])
    found = model.full_sort_predict(rows).view(len(rows), -1)
    torch.testing.assert_close(found, users[rows["user_id"]] @ items.T, rtol=1e-4, atol=1e-6)


def test_lightgcn_is_the_mean_over_steps_of_propagation(on_toy, propagation):
    made = on_toy("LightGCN", n_layers=3)
    model = made.model.eval()
    step, layers = propagation(made.known), [first_vectors(model)]
    for _ in range(3):
        layers.append(step @ layers[-1])
    assert_scores(made, torch.stack(layers).mean(0))


def test_ngcf_has_weights_for_each_step(on_toy, propagation):
    made = on_toy("NGCF", hidden_size_list=[6], message_dropout=0.5, node_dropout=0.5)
    model = made.model.eval()
    step, first = propagation(made.known), first_vectors(model)
    layer, neighbours = model.GNNlayers[0], step @ first
    own = (step + torch.eye(len(step))) @ first
    second = layer.linear(own) + layer.interActTransform(neighbours * first)
    second = F.normalize(F.leaky_relu(second, 0.2), dim=1)
    assert_scores(made, torch.cat([first, second], dim=1))


def test_spectralcf_convolves_with_twice_the_identity_less_the_walk(on_toy, propagation):
    made = on_toy("SpectralCF", n_layers=2)
    model = made.model.eval()
    graph = (propagation(made.known) > 0).float()
    walk = graph / graph.sum(1, keepdim=True).clamp(min=1)
    layers = [first_vectors(model)]
    for filters in model.filters:
        layers.append(torch.sigmoid((2 * torch.eye(len(walk)) - walk) @ layers[-1] @ filters))
    assert_scores(made, torch.cat(layers, dim=1))


def test_gcmc_encodes_with_the_normalised_graph(on_toy, propagation):
    made = on_toy("GCMC", gcn_output_dim=6)
    model = made.model.eval()
    encoder, decoder = model.GcEncoder, model.BiDecoder
    users, items = encoder.dense_layer_u(F.relu(propagation(made.known) @ encoder.weights_u[0])).split(
        [model.n_users, model.n_items]
    )
    rows = made.rows
    basis = torch.stack([users[rows["user_id"]] @ weights @ items.T for weights in decoder.weights], dim=-1)
    found = model.full_sort_predict(rows).view(len(rows), -1)
    torch.testing.assert_close(found, decoder.dense_layer(basis)[..., 1], rtol=1e-4, atol=1e-6)
