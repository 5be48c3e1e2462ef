import pickle

import pytest
import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction

from recbole_hllm.config import Config
from recbole_hllm.data.dataset import create_dataset
from recbole_hllm.data.loader import data_preparation
from recbole_hllm.data.texts import ItemTexts
from recbole_hllm.errors import ConfigError, DataError, ModelError
from recbole_hllm.model import hllm as module
from recbole_hllm.model.hllm import HLLM, load_pretrained_hllm
from recbole_hllm.nn.chunked import encode_items

N_ITEMS = 12
HISTORY = 4
# every user's items, in time order
SEQUENCES = [[(3 * user + step * (user + 2)) % N_ITEMS for step in range(4 + user % 5)] for user in range(10)]
TEXT_HEADER = "item_id:token\ttitle:token_seq\tbrand:token_seq\tprice:float"


def text_rows():
    return [(f"i{item}", f"w{item} w{2 * item} " * (item % 4), f"w{item + 5}", item) for item in range(N_ITEMS)]


@pytest.fixture
def toy(tmp_path, write_dataset, tiny_llm):
    """(**keys of the config) -> config, dataset, loaders of a toy data set with two tiny language models."""
    rows = [(f"u{user}", f"i{item}", time) for user, items in enumerate(SEQUENCES) for time, item in enumerate(items)]
    write_dataset(tmp_path, "toy", rows, items=(TEXT_HEADER, text_rows()))

    def make(**keys):
        settings = {
            "data_path": str(tmp_path),
            "item_pretrain_dir": keys.get("item_pretrain_dir") or tiny_llm("llama"),
            "user_pretrain_dir": tiny_llm("llama"),
            "user_llm_init": True,
            "text_keys": ["title", "brand"],
            "MAX_TEXT_LENGTH": 10,
            "MAX_ITEM_LIST_LENGTH": HISTORY,
            "num_negatives": 6,
            "item_chunk_tokens": 30,
            "train_batch_size": 4,
            "eval_batch_size": 4,
            "precision": "fp32",
            "use_gpu": False,
            "show_progress": False,
        }
        config = Config("HLLM", "toy", config_dict={**settings, **keys})
        dataset = create_dataset(config)
        return config, dataset, data_preparation(config, dataset)

    return make


@pytest.fixture
def build(toy):
    """(**keys) -> HLLM and its loaders."""

    def make(**keys):
        config, _, loaders = toy(**keys)
        torch.manual_seed(0)
        return HLLM(config, loaders[0]._dataset), loaders

    return make


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


def test_collapse_stops_after_patience_with_its_reason(build):
    model, _ = build()
    for parameter in model.item_encoder.backbone.parameters():
        parameter.data.zero_()
    model.item_encoder.backbone.norm.weight.data.fill_(1)
    model.item_encoder.item_emb_tokens.data.fill_(1)  # every item has the same vector now
    for _ in range(module._COLLAPSE_PATIENCE - 1):
        model.calculate_loss(WINDOWS)
        assert model.loss_terms["surviving_negatives"] == 0
    with pytest.raises(ModelError, match="collapse.*nearly parallel.*item_learning_rate"):
        model.calculate_loss(WINDOWS)


def test_starved_batches_are_counted_in_a_row(build):
    model, _ = build(min_surviving_negatives=3)
    none_left = batch(WINDOWS["item_id_list"].tolist(), [5, 5])
    for _ in range(2):
        for _ in range(module._COLLAPSE_PATIENCE - 1):
            model.calculate_loss(none_left)
        model.calculate_loss(WINDOWS)


def test_collapse_check_can_be_left_out(build):
    model, _ = build(min_surviving_negatives=None, nce_thres=-1.0)
    for _ in range(module._COLLAPSE_PATIENCE + 1):
        model.calculate_loss(WINDOWS)


@pytest.mark.parametrize(("num_negatives", "expected"), [(7, 7), (None, 4 * (HISTORY + 1))])
def test_number_of_negatives(build, num_negatives, expected):
    model, (train, *_) = build(num_negatives=num_negatives)
    rows = next(iter(train))
    assert rows["neg_item_id"].shape == (1, expected)
    assert model.calculate_loss(rows).isfinite()
    assert 0 < model.loss_terms["surviving_negatives"] < expected


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
    assert lengths.max() == min(expected, max(map(len, SEQUENCES)) - 1)
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


# ---- what can be wrong with the language models ----


def test_pretrained_user_llm_needs_a_folder(build):
    with pytest.raises(ConfigError, match="user_llm_init.*user_pretrain_dir"):
        build(user_pretrain_dir=None)


def test_item_llm_must_be_named(toy):
    config, _, loaders = toy()
    config["item_pretrain_dir"] = None
    with pytest.raises(ConfigError, match="item_pretrain_dir"):
        HLLM(config, loaders[0]._dataset)


def test_config_of_pretrained_weights_cannot_change(build):
    with pytest.raises(ConfigError, match="item_llm_config.*item_llm_init: False"):
        build(item_llm_config={"num_hidden_layers": 1})


def test_item_llm_from_scratch_with_other_sizes(build):
    model, _ = build(item_llm_init=False, item_llm_config={"num_hidden_layers": 1})
    assert len(model.item_encoder.backbone.layers) == 1


def test_user_llm_must_be_causal(build, tiny_llm):
    with pytest.raises(ModelError, match="bidirectional"):
        build(user_pretrain_dir=tiny_llm("bert"))


# ---- texts ----


def text_of(model, token, dataset):
    return model.catalogue.texts[dataset.field2token_id["item_id"][token]]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (None, "title: w3 w6 w3 w6 w3 w6. brand: w8"),
        (["title", "brand"], "title: w3 w6 w3 w6 w3 w6. brand: w8"),
        (["brand", "price"], "brand: w8. price: 3"),
        ("brand", "brand: w8"),
    ],
)
def test_text_keys(build, keys, expected):
    model, (train, *_) = build(text_keys=keys)
    assert text_of(model, "i3", train._dataset) == expected


def test_prompt_and_separator(build):
    model, (train, *_) = build(item_prompt="w1 ", text_separator=" ")
    assert text_of(model, "i3", train._dataset) == "w1 title: w3 w6 w3 w6 w3 w6 brand: w8"


def test_unknown_text_key(build):
    with pytest.raises(DataError, match="toy.item.*'titel'.*text_keys.*Did you mean 'title'"):
        build(text_keys=["titel"])


@pytest.mark.parametrize("keys", [None, ["title"]])
def test_missing_item_file(build, tmp_path, keys):
    (tmp_path / "toy" / "toy.item").unlink()
    with pytest.raises((ConfigError, DataError), match="toy.item"):
        build(text_keys=keys)


def test_item_file_without_text_column(build, tmp_path):
    (tmp_path / "toy" / "toy.item").write_text("item_id:token\tprice:float\ni0\t1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="text_keys.*no token_seq column.*price"):
        build(text_keys=None)


def test_texts_can_be_given(toy):
    config, dataset, loaders = toy()
    fields = [(f"w{item}\tw{item}",) for item in range(N_ITEMS + 1)]
    texts = ItemTexts(("name",), fields, has_row=torch.ones(N_ITEMS + 1, dtype=torch.bool).numpy())
    model = HLLM(config, loaders[0]._dataset, texts)
    assert model.catalogue.texts[3] == "name: w3 w3"


# ---- checkpoints of the official code ----


def official_weights(model):
    """The state of a model of two Llamas under the official code's names, with what HLLM does not use."""
    prefixes = {"item_encoder.backbone": "item_llm.model", "user_encoder.backbone": "user_llm.model"}
    weights = {}
    for name, weight in model.state_dict().items():
        for ours, theirs in prefixes.items():
            name = name.replace(ours, theirs)
        weights[name.removeprefix("item_encoder.")] = weight + 0.5
    unused = {"item_llm.lm_head.weight": (43, 16), "user_llm.lm_head.weight": (43, 16)}
    unused["user_llm.model.embed_tokens.weight"] = (43, 16)
    return weights | {name: torch.zeros(shape) for name, shape in unused.items()}


def test_official_checkpoint_through_the_config(build, tmp_path):
    model, _ = build()
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    path = tmp_path / "pytorch_model.bin"
    torch.save(official_weights(model), path)
    loaded, _ = build(pretrained_hllm=str(path))
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, start[name] + 0.5), name


def test_loading_forgets_the_item_vectors(build, tmp_path):
    model, _ = build()
    before = model.eval().item_vectors()
    torch.save(official_weights(model), tmp_path / "pytorch_model.bin")
    load_pretrained_hllm(model, tmp_path / "pytorch_model.bin")
    assert not torch.allclose(model.item_vectors(), before, atol=1e-2)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def write_trap(path):
    torch.save({"logit_scale": Trap(path.with_name("trap"))}, path)


def write_plain_pickle(path):
    path.write_bytes(pickle.dumps({"logit_scale": Trap(path.with_name("trap"))}))


@pytest.mark.parametrize("write", [write_trap, write_plain_pickle])
def test_code_in_a_checkpoint_does_not_run(build, tmp_path, write):
    model, _ = build()
    write(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="damaged or holds more than weights") as error:
        load_pretrained_hllm(model, tmp_path / "pytorch_model.bin")
    assert not (tmp_path / "trap").exists()
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "pytorch_model.bin"),
        (lambda path: path.write_bytes(b"no checkpoint"), "damaged"),
        (lambda path: torch.save(torch.zeros(2), path), "no flat list of named weights"),
        (lambda path: torch.save({"logit_scale": 2.0}, path), "no flat list of named weights"),
        (lambda path: torch.save({1: torch.zeros(2)}, path), "no flat list of named weights"),
        (lambda path: torch.save({"state_dict": {"a": torch.zeros(2)}}, path), "no flat list of named weights"),
    ],
)
def test_bad_checkpoint_files(build, tmp_path, write, message):
    model, _ = build()
    write(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=message):
        load_pretrained_hllm(model, tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("logit_scale"), r"missing \['logit_scale'\]"),
        (lambda weights: weights.update(item_emb_tokens=torch.zeros(1, 1, 8)), "other shape.*item_emb_tokens"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "unknown"),
    ],
)
def test_weights_that_do_not_fit(build, tmp_path, change, message):
    model, _ = build()
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    weights = official_weights(model)
    change(weights)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=message):
        load_pretrained_hllm(model, tmp_path / "pytorch_model.bin")
    assert all(torch.equal(weight, start[name]) for name, weight in model.state_dict().items())
