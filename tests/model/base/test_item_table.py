"""What SASRecNCE, HSTU and LLMIDRec have in common."""

import pytest
import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction

from recbole_hllm.errors import ConfigError

NAMES = ["SASRecNCE", "HSTU", "LLMIDRec"]
HISTORY = 4  # of the data set in conftest.py
WINDOWS = [[3, 5, 3, 9, 1], [2, 8, 0, 0, 0], [7, 4, 6, 0, 0]]
SHARED = torch.tensor([[5, 11, 2, 5, 10, 12]])


def windows(negatives):
    times = torch.tensor([[10.0, 500, 9e5, 1e6, 2e7], [3, 4, 0, 0, 0], [7, 7, 8e8, 0, 0]], dtype=torch.float64)
    rows = {"item_id_list": torch.tensor(WINDOWS), "neg_item_id": negatives, "event_time_list": times}
    return Interaction(rows)


def spread(model):
    """Weights far from 0, so that items differ and a wrong formula shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
        model.item_embedding.weight[0] = 0
    return model


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("nce_thres", [None, 0.2])
@pytest.mark.parametrize("negatives", ["shared", "per_position", "catalogue"])
def test_the_loss_is_that_of_every_position(id_model, name, nce_thres, negatives):
    model = spread(id_model(name, nce_thres=nce_thres, negatives=negatives)[0])
    own = torch.randint(1, 13, (3, HISTORY, 6), generator=torch.Generator().manual_seed(0))
    shared = {"shared": SHARED, "catalogue": torch.arange(1, 13)[None]}.get(negatives)
    rows = windows(own if shared is None else shared)
    loss = model.calculate_loss(rows)

    vectors, losses, kept = F.normalize(model.item_vectors(), dim=-1), [], []
    for row, items in enumerate(WINDOWS):
        for place in range(sum(item > 0 for item in items) - 1):
            read = Interaction(
                {
                    "item_id_list": torch.tensor([items[: place + 1]]),
                    "item_length": torch.tensor([place + 1]),
                    "event_time_list": rows["event_time_list"][row : row + 1, : place + 1],
                    "event_time": rows["event_time_list"][row : row + 1, place + 1],
                }
            )
            with torch.no_grad():
                output = F.normalize(model.user_vectors(read)[0], dim=-1)
            target, others = items[place + 1], own[row, place] if shared is None else shared[0]
            others = [item for item in others.tolist() if item != target]
            others = [item for item in others if nce_thres is None or vectors[item] @ vectors[target] <= nce_thres]
            logits = vectors[[target, *others]] @ output / 0.05
            losses.append(-logits.log_softmax(0)[0].item())
            kept.append(len(others))
    assert len(losses) == 7
    assert loss.item() == pytest.approx(sum(losses) / 7, abs=2e-5)
    assert model.loss_terms["surviving_negatives"] == pytest.approx(sum(kept) / 7, abs=1e-5)


def test_each_item_of_a_positions_own_negatives_is_read_once(id_model, monkeypatch):
    model, _ = id_model("SASRecNCE", negatives="per_position")
    read, vectors_of = [], model.vectors_of
    monkeypatch.setattr(model, "vectors_of", lambda ids: read.append(ids) or vectors_of(ids))
    own = torch.randint(1, 9, (3, HISTORY, 6), generator=torch.Generator().manual_seed(0))
    model.calculate_loss(windows(own))
    real = torch.tensor(WINDOWS)[:, 1:] != 0
    assert torch.equal(read[0], torch.cat([torch.tensor(WINDOWS).flatten(), own[real].unique()]))


@pytest.mark.parametrize("name", NAMES)
def test_the_default_temperature_is_fixed_and_an_empty_one_learned(id_model, name):
    fixed, learned = (id_model(name, **keys)[0] for keys in ({}, {"temperature": None}))
    assert fixed.logit_scale.exp().item() == pytest.approx(20)
    assert "logit_scale" not in dict(fixed.named_parameters()) and "logit_scale" in dict(learned.named_parameters())
    assert learned.logit_scale.exp().item() == pytest.approx(1 / 0.07)


@pytest.mark.parametrize("name", NAMES)
def test_the_padding_item_stays_zero(id_model, name):
    model, (train, *_) = id_model(name)
    optimizer = torch.optim.AdamW(model.parameter_groups(), lr=0.1)
    before = model.item_embedding.weight.detach().clone()
    for rows in train:
        model.calculate_loss(rows).backward()
        optimizer.step()
    assert (model.item_vectors()[0] == 0).all() and model.item_vectors()[1:].abs().min() > 0
    assert (model.item_embedding.weight != before)[1:].all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reference", [False, ["weight_decay"]])
def test_only_matrices_decay(id_model, name, reference):
    model, _ = id_model(name, temperature=None, reference=reference)
    groups = model.parameter_groups()
    counted = [parameter for group in groups for parameter in group["params"]]
    assert len(counted) == len({id(parameter) for parameter in counted}) == len(list(model.parameters()))
    still = [parameter for group in groups if group.get("weight_decay") == 0 for parameter in group["params"]]
    expected = [] if reference else [parameter for parameter in model.parameters() if parameter.dim() < 2]
    assert {id(parameter) for parameter in still} == {id(parameter) for parameter in expected}
    assert bool(still) is not bool(reference)


@pytest.mark.parametrize("name", ["SASRecNCE", "HSTU"])
def test_longer_histories_in_evaluation_have_no_learned_positions(id_model, name):
    with pytest.raises(ConfigError, match=rf"MAX_ITEM_LIST_LENGTH_TEST: {name} .*_LENGTH: 4 .* none for 5"):
        id_model(name, MAX_ITEM_LIST_LENGTH_TEST=5)
    for length in (2, HISTORY):
        model, (_, _, test) = id_model(name, MAX_ITEM_LIST_LENGTH_TEST=length)
        rows = next(iter(test))[0]
        assert rows["item_id_list"].shape[1] == length and model.eval().full_sort_predict(rows).isfinite().all()


def test_longer_histories_in_evaluation_of_rotary_positions(id_model):
    model, (_, _, test) = id_model("LLMIDRec", MAX_ITEM_LIST_LENGTH_TEST=6)
    spread(model).eval()
    rows = next(iter(test))[0]
    assert rows["item_length"].max() == 6
    outputs = model.full_sort_predict(rows)
    longest = rows["item_length"].argmax()
    first = rows["item_id_list"].clone()
    first[longest, 0] = first[longest, 0] % 12 + 1
    rows.interaction["item_id_list"] = first
    changed = model.full_sort_predict(rows)
    assert (outputs != changed).any(dim=1).nonzero().tolist() == [[longest]]


@pytest.mark.parametrize("name", ["SASRecNCE", "HSTU"])
def test_heads_that_do_not_divide_the_size(id_model, name):
    with pytest.raises(ConfigError, match="n_heads: hidden_size 8 cannot be shared equally by 3 heads"):
        id_model(name, n_heads=3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [({"n_layers": 1.5}, "n_layers: 1.5 is not a whole number"), ({"n_heads": 0}, "n_heads: 0 must be at least 1"),
     ({"hidden_size": -8}, "hidden_size: -8 must be"), ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob: 1.5 must"),
     ({"attn_dropout_prob": "much"}, "attn_dropout_prob: 'much' is not a number"),
     ({"temperature": 0}, "temperature: 0 must be at least"), ({"nce_thres": 2}, "nce_thres: 2 must be at most 1"),
     ({"min_surviving_negatives": -1}, "min_surviving_negatives: -1 must"),
     ({"item_embed_dim": 0}, "item_embed_dim: 0 must be at least 1")],
)  # fmt: skip
def test_numbers_out_of_bounds_are_refused(id_model, keys, message):
    with pytest.raises(ConfigError, match=message):
        id_model("LLMIDRec" if "item_embed_dim" in keys else "SASRecNCE", **keys)
