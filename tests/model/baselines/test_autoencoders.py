"""Models that read a user's row of the catalogue, against plain formulas."""

import pytest
import torch
from torch.nn import functional as F

from recbole_hllm.errors import ConfigError


def test_multivae(on_toy):
    made = on_toy("MultiVAE", dropout_prob=0.0, total_anneal_steps=4, anneal_cap=0.3)
    model, rows, known = made.model, made.rows, made.known
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


def test_multidae(on_toy):
    made = on_toy("MultiDAE", dropout_prob=0.0)
    model, rows, known = made.model, made.rows, made.known
    x = known[rows["user_id"]]
    logits = model.decoder(model.encoder(F.normalize(x)))
    loss = -(F.log_softmax(logits, dim=1) * x).sum(1).mean()
    assert model.calculate_loss(rows).item() == pytest.approx(loss.item(), rel=1e-5)


def test_cdae_has_a_vector_for_each_user(on_toy):
    made = on_toy("CDAE", corruption_ratio=0.0, reg_weight_2=0.0)
    model, rows, known = made.model, made.rows, made.known
    users = rows["user_id"]
    hidden = torch.relu(model.h_user.weight[users] + model.h_item(known[users]))
    logits = model.out_layer(hidden)
    loss = F.binary_cross_entropy_with_logits(logits, known[users], reduction="sum")
    assert model.calculate_loss(rows).item() == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(model.full_sort_predict(rows).view(len(rows), -1), torch.sigmoid(logits))


# ---- RecVAE ----

SMALL = {"hidden_dimension": 8, "latent_dimension": 4, "n_enc_epochs": 2, "n_dec_epochs": 1}


def test_encoder_and_decoder_take_turns(on_toy):
    made = on_toy("RecVAE", **SMALL)
    model, rows = made.model, made.rows
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


def test_the_encoders_turn_has_dropout_and_the_decoders_none(on_toy):
    made = on_toy("RecVAE", dropout_prob=0.9, **SMALL)
    model, rows = made.model, made.rows
    seen = []
    forward = model.forward
    model.forward = lambda matrix, dropout_prob: seen.append(dropout_prob) or forward(matrix, dropout_prob)
    for epoch in (0, 2):
        model.begin_epoch(epoch)
        assert model.calculate_loss(rows).isfinite()
    assert seen == [0.9, 0]


@pytest.mark.parametrize("key", ["n_enc_epochs", "n_dec_epochs"])
def test_both_have_turns(on_toy, key):
    with pytest.raises(ConfigError, match="n_enc_epochs, n_dec_epochs: .* 1 at least"):
        on_toy("RecVAE", **{**SMALL, key: 0})


# ---- scored from the history ----


@torch.no_grad()
def test_multivae_of_a_history(tested):
    made = tested("MultiVAE", score_from="history")
    model, had = made.model, torch.from_numpy(made.had > 0).float()  # an item counts once
    mean, _ = model.encoder(F.normalize(had)).chunk(2, dim=1)
    expected = model.decoder(mean)
    torch.testing.assert_close(model.full_sort_predict(made.rows).view(len(had), -1), expected)
    own = expected.gather(1, made.rows["item_id"][:, None])[:, 0]
    torch.testing.assert_close(model.predict(made.rows), own)
    by_default = tested("MultiVAE")
    assert (by_default.model.full_sort_predict(by_default.rows).view(len(had), -1) - expected).abs().max() > 1e-4


@torch.no_grad()
def test_multidae_of_a_history(tested):
    made = tested("MultiDAE", score_from="history")
    model, had = made.model, torch.from_numpy(made.had > 0).float()
    expected = model.decoder(model.encoder(F.normalize(had)))
    torch.testing.assert_close(model.full_sort_predict(made.rows).view(len(had), -1), expected)


def test_losses_are_of_the_training(on_toy):
    losses = []
    for source in ("training", "history"):
        made = on_toy("MultiVAE", score_from=source)
        torch.manual_seed(1)
        losses.append(made.model.calculate_loss(made.rows).item())
    assert losses[0] == losses[1] > 0


@torch.no_grad()
def test_cdae_scores_the_training_alone(tested):
    """It also has a vector for each user, which knows nothing but the training."""
    both = tested("CDAE"), tested("CDAE", score_from="history")
    assert torch.equal(*(made.model.full_sort_predict(made.rows) for made in both))
