import pytest
import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction

from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.base import next_item
from recbole_hllm.model.base.next_item import History
from recbole_hllm.nn.chunked import encode_items

# of the data set in conftest.py
N_ITEMS = 12
HISTORY = 4
LONGEST_TEST_HISTORY = 7


def batch(windows, negatives):
    return Interaction({"item_id_list": torch.tensor(windows), "neg_item_id": torch.tensor([negatives])})


def histories(rows, width=HISTORY):
    padded = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return Interaction({"item_id_list": padded, "item_length": torch.tensor([len(row) for row in rows])})


WINDOWS = batch([[3, 5, 3, 9, 1], [2, 8, 0, 0, 0], [7, 4, 6, 0, 0]], [5, 11, 2, 5, 10, 12])
ROWS = [[3, 5, 3, 9], [2], [7, 4, 6], [12, 1, 1]]


# ---- loss ----


@pytest.mark.parametrize(("nce_thres", "filtered"), [(0.5, True), (None, False)])
def test_loss_is_the_formula_of_the_paper(build, nce_thres, filtered):
    model, _ = build(nce_thres=nce_thres)
    loss = model.calculate_loss(WINDOWS)

    model.eval()
    vectors, negatives = F.normalize(model.item_vectors(), dim=-1), WINDOWS["neg_item_id"][0].tolist()
    losses, survivors, others = [], [], []
    for window in WINDOWS["item_id_list"].tolist():
        items = [item for item in window if item]
        for place in range(len(items) - 1):
            with torch.no_grad():
                output = model.user_encoder(model.item_vectors()[items[: place + 1]][None])[0, -1]
            target = items[place + 1]
            kept = [
                item
                for item in negatives
                if item != target and (nce_thres is None or vectors[item] @ vectors[target] <= nce_thres)
            ]
            logits = vectors[[target, *kept]] @ F.normalize(output, dim=-1) / 0.07
            losses.append(-logits.log_softmax(0)[0].item())
            survivors.append(len(kept))
            others.append(len(negatives) - negatives.count(target))
    assert loss.item() == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert (survivors != others) == filtered
    assert model.loss_terms["surviving_negatives"] == pytest.approx(sum(survivors) / len(survivors), abs=1e-5)


def test_padding_on_the_right_changes_nothing(build):
    model, _ = build()
    windows = WINDOWS["item_id_list"].tolist()
    wider = batch([row + [0, 0, 0] for row in windows], WINDOWS["neg_item_id"][0].tolist())
    assert model.calculate_loss(wider).item() == pytest.approx(model.calculate_loss(WINDOWS).item(), abs=1e-6)

    model.eval()
    assert torch.allclose(model.full_sort_predict(histories(ROWS)), model.full_sort_predict(histories(ROWS, 9)))


def test_a_row_without_a_target_changes_nothing(build):
    model, _ = build()
    windows, negatives = WINDOWS["item_id_list"].tolist(), WINDOWS["neg_item_id"][0].tolist()
    with_more = batch([*windows, [0] * 5], negatives)
    assert model.calculate_loss(with_more).item() == pytest.approx(model.calculate_loss(WINDOWS).item(), abs=1e-6)


def test_input_dropout_is_of_what_the_user_llm_reads_in_training(build):
    model, _ = build(input_dropout=0.5)
    items = WINDOWS["item_id_list"][:, :-1]
    vectors, history = torch.randn(*items.shape, 16), History(items, None, None, None)
    torch.manual_seed(3)
    expected = model.user_encoder(F.dropout(vectors, 0.5))
    torch.manual_seed(3)
    assert torch.equal(model.train().read_history(vectors, history), expected)
    assert torch.equal(model.eval().read_history(vectors, history), model.user_encoder(vectors))


def encoded_items(model, monkeypatch):
    """Counts of items in each call of the Item LLM from now on."""
    counts, forward = [], model.item_encoder.forward
    monkeypatch.setattr(
        model.item_encoder, "forward", lambda tokens, lengths: counts.append(len(lengths)) or forward(tokens, lengths)
    )
    return counts


def test_each_distinct_item_is_encoded_once(build, monkeypatch):
    model, _ = build()
    counts = encoded_items(model, monkeypatch)
    model.calculate_loss(WINDOWS)
    distinct = {*WINDOWS["item_id_list"].flatten().tolist(), *WINDOWS["neg_item_id"][0].tolist()} - {0}
    assert sum(counts) == len(distinct) == model.loss_terms["distinct_items"]
    assert len(counts) > 1  # item_chunk_tokens is small


def test_evaluation_encodes_the_catalogue_once(build, monkeypatch):
    model, (_, valid, test) = build()
    counts = encoded_items(model.eval(), monkeypatch)
    for loader in (valid, test):
        for rows, *_ in loader:
            model.full_sort_predict(rows)
            model.predict(rows)
    assert sum(counts) == N_ITEMS


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_recomputing_items_gives_the_same_loss_and_gradients(build, tiny_llm, kind):
    results = []
    for recompute in (False, True):
        keys = {"item_pretrain_dir": tiny_llm(kind), "item_llm_dropout": 0.3, "recompute_items": recompute}
        model, _ = build(**keys)
        torch.manual_seed(1)  # the same dropout
        loss = model.train().calculate_loss(WINDOWS)
        loss.backward()
        results.append((loss, {name: parameter.grad for name, parameter in model.named_parameters()}))
    (plain, gradients), (again, recomputed) = results
    assert again.item() == plain.item()
    assert gradients.keys() == recomputed.keys()
    for name, gradient in gradients.items():
        assert (gradient is None) == (recomputed[name] is None), name
        if gradient is not None:
            torch.testing.assert_close(recomputed[name], gradient, atol=1e-6, rtol=1e-5)


def trained(model, rows):
    """What the trainer does with a batch's numbers, once it has read them."""
    model.calculate_loss(rows)
    terms = {name: float(term) for name, term in model.loss_terms.items()}
    model.watch(terms)
    return terms


def test_collapse_stops_after_patience_with_its_reason(build):
    model, _ = build()
    for parameter in model.item_encoder.backbone.parameters():
        parameter.data.zero_()
    model.item_encoder.backbone.norm.weight.data.fill_(1)
    model.item_encoder.item_emb_tokens.data.fill_(1)  # every item has the same vector now
    for _ in range(next_item._COLLAPSE_PATIENCE - 1):
        assert trained(model, WINDOWS)["surviving_negatives"] == 0
    with pytest.raises(ModelError, match="collapse.*nearly parallel.*item_learning_rate"):
        trained(model, WINDOWS)


def test_starved_batches_are_counted_in_a_row(build):
    model, _ = build(min_surviving_negatives=3)
    none_left = batch(WINDOWS["item_id_list"].tolist(), [5, 5])
    for _ in range(2):
        for _ in range(next_item._COLLAPSE_PATIENCE - 1):
            trained(model, none_left)
        trained(model, WINDOWS)


def test_collapse_check_can_be_left_out(build):
    model, _ = build(min_surviving_negatives=None, nce_thres=-1.0)
    for _ in range(next_item._COLLAPSE_PATIENCE + 1):
        trained(model, WINDOWS)


@pytest.mark.parametrize(("num_negatives", "expected"), [(7, 7), (None, 4 * (HISTORY + 1))])
def test_number_of_negatives(build, num_negatives, expected):
    model, (train, *_) = build(num_negatives=num_negatives)
    rows = next(iter(train))
    assert rows["neg_item_id"].shape == (1, expected)
    assert model.calculate_loss(rows).isfinite()
    assert 0 < model.loss_terms["surviving_negatives"] < expected


@pytest.mark.parametrize("limit", [N_ITEMS - 1, N_ITEMS])
def test_a_trained_item_llm_compares_with_a_small_catalogue_only(build, limit):
    keys = {"negatives": "catalogue", "catalogue_limit": limit}
    if limit < N_ITEMS:
        with pytest.raises(ConfigError, match=f"negatives: catalogue: .* {N_ITEMS} items .* catalogue_limit: {limit}"):
            build(**keys)
        assert build(**keys, item_llm_tuning="frozen")[0].item_llm_is_frozen
        return
    model, (train, *_) = build(**keys)
    assert model.calculate_loss(next(iter(train))).isfinite()
    assert model.loss_terms["distinct_items"] == N_ITEMS


# ---- scores ----


def test_predict_is_the_column_of_full_sort_predict(build):
    model, _ = build()
    rows, model = histories(ROWS), model.eval()
    every = model.full_sort_predict(rows)
    assert every.shape == (len(ROWS), N_ITEMS + 1)
    for item in range(1, N_ITEMS + 1):
        rows.update(Interaction({"item_id": torch.full((len(ROWS),), item)}))
        torch.testing.assert_close(model.predict(rows), every[:, item], atol=1e-6, rtol=0)


def test_scores_are_cosines(build):
    model, _ = build()
    users, items = model.eval().user_vectors(histories(ROWS)), model.item_vectors()
    expected = F.cosine_similarity(users[:, None], items[None, 1:], dim=-1)
    torch.testing.assert_close(model.full_sort_predict(histories(ROWS))[:, 1:], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_batch_equals_its_rows_one_by_one(build, tiny_llm, kind):
    model, _ = build(item_pretrain_dir=tiny_llm(kind))
    together = model.eval().full_sort_predict(histories(ROWS))
    alone = torch.cat([model.full_sort_predict(histories([row])) for row in ROWS])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_chunking_does_not_change_item_vectors(build):
    model, _ = build()
    plain = encode_items(model.item_encoder.eval(), *model.catalogue.lookup(range(1, 13)), token_budget=10**6)
    torch.testing.assert_close(model.eval().item_vectors()[1:], plain, atol=1e-6, rtol=0)
    assert not model.item_vectors()[0].any()


def test_empty_histories_have_finite_scores(build):
    model, _ = build()
    scores = model.eval().full_sort_predict(histories([[], [3]]))
    assert scores.isfinite().all()
    torch.testing.assert_close(scores[1:], model.full_sort_predict(histories([[3]])))
    assert model.full_sort_predict(histories([[]])).isfinite().all()


def test_item_vectors_follow_the_weights(build):
    """The table of the catalogue lives through evaluation and is forgotten with training or new weights."""
    model, _ = build()
    before = model.eval().item_vectors()
    assert model.item_vectors() is before
    state = {name: weight + 0.1 * torch.randn_like(weight) for name, weight in model.state_dict().items()}
    model.load_state_dict(state)
    loaded = model.item_vectors()
    assert not torch.allclose(loaded, before, atol=1e-2)

    with torch.no_grad():
        model.train().item_encoder.item_emb_tokens.add_(1)
    assert not torch.allclose(model.item_vectors(), loaded, atol=1e-2)  # training goes on: never from the table
    assert model.training
    assert not torch.allclose(model.eval().item_vectors(), loaded, atol=1e-2)


@pytest.mark.parametrize(("length", "expected"), [(None, HISTORY), (2, 2), (7, 7)])
def test_history_length_of_the_evaluation(build, length, expected):
    model, (train, valid, test) = build(MAX_ITEM_LIST_LENGTH_TEST=length)
    assert next(iter(train))["item_id_list"].shape[1] == HISTORY + 1
    lengths = torch.cat([rows["item_length"] for rows, *_ in test])
    assert lengths.max() == min(expected, LONGEST_TEST_HISTORY)
    rows = next(iter(valid))[0]
    assert model.eval().full_sort_predict(rows).shape == (len(rows), N_ITEMS + 1)


# ---- parameters ----


def groups_by_name(model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [(names[id(p)], group) for group in model.parameter_groups() for p in group["params"]]
    assert sorted(name for name, _ in found) == sorted(names.values())
    return dict(found)


def test_parameter_groups(build):
    model, _ = build(item_learning_rate=2e-5)
    for name, group in groups_by_name(model).items():
        decays = "norm" not in name and name != "logit_scale"
        assert group.get("weight_decay") == (None if decays else 0.0), name
        assert group.get("lr") == (2e-5 if name.startswith("item_encoder.") else None), name


def test_parameter_groups_with_one_rate_and_the_decay_of_the_reference(build):
    model, _ = build(item_learning_rate=None, reference=["weight_decay"])
    assert {tuple(sorted(group)) for group in groups_by_name(model).values()} == {("params",)}


def test_unequal_widths_are_joined_by_a_linear_layer(build, tiny_llm):
    model, _ = build(item_pretrain_dir=tiny_llm("bert", hidden_size=24))
    assert model.eval().item_vectors().shape == (N_ITEMS + 1, 16)
    model.train().calculate_loss(WINDOWS).backward()
    assert model.item_encoder.projection.weight.shape == (16, 24)
    assert model.item_encoder.projection.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("kind", "asked", "token"), [("llama", None, True), ("bert", None, False), ("llama", 0, False), ("bert", 1, True)]
)
def test_item_token_or_mean(build, tiny_llm, kind, asked, token):
    model, _ = build(item_pretrain_dir=tiny_llm(kind), item_emb_token_n=asked)
    assert (model.item_encoder.item_emb_tokens is not None) == token


def test_dropout_of_the_item_llm(build, tiny_llm):
    def two_losses(dropout):
        folder = tiny_llm("bert", hidden_dropout_prob=0.4)
        model, _ = build(item_pretrain_dir=folder, item_llm_dropout=dropout)
        model.train()
        return model.calculate_loss(WINDOWS).item(), model.calculate_loss(WINDOWS).item()

    first, second = two_losses(0.0)
    assert first == second
    first, second = two_losses(None)  # the model's own
    assert first != second
