"""Models that read a user's row of the catalogue, against plain formulas."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.errors import ConfigError


@pytest.fixture
def built(settings_of):
    """(model, keys) -> a model, the training rows, and the (n_users, n_items) matrix of 0 and 1."""

    def make(name, **keys):
        config = Config(name, config_dict={**settings_of("SASRec"), "state": "critical", **keys})
        train, *_ = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        model = config.spec.build(config, train._dataset)
        known = torch.from_numpy((train._dataset.inter_matrix("csr").toarray() > 0).astype(np.float32))
        return model, next(iter(train)), known

    return make


def test_multivae(built):
    model, rows, known = built("MultiVAE", dropout_prob=0.0, total_anneal_steps=4, anneal_cap=0.3)
    x = known[rows["user_id"]]
    code = model.encoder(F.normalize(x))
    mean, log_variance = code.chunk(2, dim=1)
    model.eval()
    torch.testing.assert_close(model.full_sort_predict(rows).view(len(rows), -1), model.decoder(mean))
    kl = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(1).mean()
    nll = -(F.log_softmax(model.decoder(mean), dim=1) * x).sum(1).mean()
    for weight in (0.25, 0.3, 0.3):
        assert model.calculate_loss(rows).item() == pytest.approx((nll + weight * kl).item(), rel=1e-5)
    assert model.update == 3 and model.COUNTERS == ("update",)


def test_multidae(built):
    model, rows, known = built("MultiDAE", dropout_prob=0.0)
    x = known[rows["user_id"]]
    logits = model.decoder(model.encoder(F.normalize(x)))
    loss = -(F.log_softmax(logits, dim=1) * x).sum(1).mean()
    assert model.calculate_loss(rows).item() == pytest.approx(loss.item(), rel=1e-5)


def test_cdae_has_a_vector_for_each_user(built):
    model, rows, known = built("CDAE", corruption_ratio=0.0, reg_weight_2=0.0)
    users = rows["user_id"]
    hidden = torch.relu(model.h_user.weight[users] + model.h_item(known[users]))
    logits = model.out_layer(hidden)
    loss = F.binary_cross_entropy_with_logits(logits, known[users], reduction="sum")
    assert model.calculate_loss(rows).item() == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(model.full_sort_predict(rows).view(len(rows), -1), torch.sigmoid(logits))


def test_enmf_is_the_loss_over_all_pairs(built):
    """Against the sum over every item, which the model does not make (Chen et al., equation 8)."""
    model, rows, known = built("ENMF", dropout_prob=0.0, negative_weight=0.2, reg_weight=0.0)
    x = known[rows["user_id"]]
    scores = (model.user_embedding.weight[rows["user_id"]] * model.H_i.weight) @ model.item_embedding.weight.T
    expected = (x * (scores - 1) ** 2 - x + (1 - x) * 0.2 * scores**2).sum()  # less a constant
    assert model.calculate_loss(rows).item() == pytest.approx(expected.item(), rel=1e-4)
    torch.testing.assert_close(model.full_sort_predict(rows), scores)
    assert not model.item_embedding.weight[0].any()


# ---- RecVAE ----

SMALL = {"hidden_dimension": 8, "latent_dimension": 4, "n_enc_epochs": 2, "n_dec_epochs": 1}


def test_encoder_and_decoder_take_turns(built):
    model, rows, _ = built("RecVAE", **SMALL)
    turns, priors = [], []
    for epoch in range(6):
        with torch.no_grad():
            model.encoder.fc1.weight.add_(1)
        model.begin_epoch(epoch)
        model.zero_grad(set_to_none=True)
        model.calculate_loss(rows).backward()
        parts = (model.encoder.fc1.weight, model.decoder.weight, model.prior.encoder_old.fc1.weight)
        turns.append([part.grad is not None for part in parts])
        priors.append(torch.equal(model.prior.encoder_old.fc1.weight, model.encoder.fc1.weight))
    assert turns == 2 * [[True, False, False], [True, False, False], [False, True, False]]
    assert priors == 2 * [False, False, True]


def test_the_encoders_turn_has_dropout_and_the_decoders_none(built):
    model, rows, _ = built("RecVAE", dropout_prob=0.9, **SMALL)
    seen = []
    forward = model.forward
    model.forward = lambda matrix, dropout_prob: seen.append(dropout_prob) or forward(matrix, dropout_prob)
    for epoch in (0, 2):
        model.begin_epoch(epoch)
        assert model.calculate_loss(rows).isfinite()
    assert seen == [0.9, 0]


@pytest.mark.parametrize("key", ["n_enc_epochs", "n_dec_epochs"])
def test_both_have_turns(built, key):
    with pytest.raises(ConfigError, match="n_enc_epochs, n_dec_epochs: .* 1 at least"):
        built("RecVAE", **{**SMALL, key: 0})


# ---- diffusion ----


@pytest.mark.parametrize("name", ["DiffRec", "LDiffRec"])
def test_with_time_a_users_last_items_weigh_more(built, name):
    keys = {"time-aware": True, "w_min": 0.1, "w_max": 0.9}
    model, rows, known = built(name, **keys)
    weights = model.get_rating_matrix(rows["user_id"])
    assert torch.equal(weights > 0, known[rows["user_id"]] > 0)
    for row in weights:
        kept = row[row > 0].sort().values
        torch.testing.assert_close(kept, torch.linspace(0.1, 0.9, len(kept)))
    plain, *_ = built(name)
    assert torch.equal(plain.get_rating_matrix(rows["user_id"]), known[rows["user_id"]])


def test_of_repeated_items_the_last_counts(built, tmp_path, write_dataset):
    items = ["a", "b", "a", "c", "d", "e"]  # the last two are held out
    write_dataset(tmp_path, "again", [(f"u{user}", item, n) for user in range(3) for n, item in enumerate(items)])
    keys = {"data_path": str(tmp_path), "dataset": "again", "time-aware": True, "w_min": 0.1, "w_max": 0.4}
    model, _, _ = built("DiffRec", topk=[2], valid_metric="MRR@2", **keys)
    row = model.get_rating_matrix(torch.tensor([2]))[0]
    assert sorted(row[row > 0].tolist()) == pytest.approx([0.2, 0.3, 0.4])


def test_groups_of_items_would_be_a_pickle(built):
    with pytest.raises(ConfigError, match="n_cate: 2: groups of items would be read from item_emb.npy as a pickle"):
        built("LDiffRec", n_cate=2)
