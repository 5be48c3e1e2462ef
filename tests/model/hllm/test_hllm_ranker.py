"""HLLMRanker on a toy data set with two tiny language models."""

import pytest
import torch
import torch.nn.functional as F

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.hllm.hllm_ranker import Histories, HLLMRanker
from recbole_hllm.runs.export import export_model

N_ITEMS, HISTORY = 12, 4
HEADER = "user_id:token\titem_id:token\tlabel:float\ttimestamp:float"
FUSIONS = ("late", "early")


@pytest.fixture
def build(tmp_path, write_dataset, tiny_llm):
    """(**keys) -> HLLMRanker with the weights of a seed, and its loaders."""
    texts = [(f"i{item}", f"w{item} w{2 * item} " * (item % 4)) for item in range(N_ITEMS)]

    def make(start=0, **keys):
        events = [(f"u{user}", f"i{(3 * user + step * (user + 2)) % N_ITEMS}", (user + step) % 2, start + 10 * step)
                  for step in range(9) for user in range(10)]  # fmt: skip
        write_dataset(tmp_path, "liked", events, items=("item_id:token\ttitle:token_seq", texts), header=HEADER)
        settings = {
            "data_path": str(tmp_path), "item_pretrain_dir": tiny_llm("llama"), "user_pretrain_dir": tiny_llm("llama"),
            "user_llm_init": True, "item_llm_tuning": "full", "MAX_ITEM_LIST_LENGTH": HISTORY, "num_negatives": 6,
            "history_filter": "all", "head_hidden": [8], "train_batch_size": 16, "eval_batch_size": 16,
            "precision": "fp32", "use_gpu": False, "show_progress": False,
        }  # fmt: skip
        config = Config("HLLMRanker", "liked", config_dict={**settings, **keys})
        loaders = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        model = HLLMRanker(config, loaders[0]._dataset)
        if model.target_ids is not None and "pretrained_hllm" not in keys:  # so large that a wrong formula shows
            model.target_ids.weight.data *= 30
        return model, loaders

    return make


@pytest.fixture(params=FUSIONS)
def ready(request, build):
    """A model of each fusion in evaluation mode, and rows to score, some of them without a history."""
    model, loaders = build(fusion=request.param)
    rows = loaders[0]._dataset[list(range(0, 70, 3))]
    assert (rows["item_length"] == 0).any() and (rows["item_length"] == HISTORY).any()
    return model.eval(), rows


def target_vector(model, table, item):
    """What is known of a candidate: its text and its id."""
    return table[item] + (0 if model.target_ids is None else model.target_ids.weight[item])


def plain_pass(model, table, row):
    """One row on its own, without padding: outputs of the User LLM and the logit."""
    items = row["item_id_list"][0, : int(row["item_length"])]
    candidate = target_vector(model, table, int(row["item_id"]))
    last = model.user_token if model.late else candidate
    outputs = model.user_encoder.backbone(inputs_embeds=torch.cat([table[items], last[None]])[None])
    outputs = outputs.last_hidden_state[0]
    state = outputs[-1]
    read = torch.cat([state, candidate, state * candidate]) if model.late else state
    first, second = model.head.layers[0], model.head.layers[2]
    logit = second.weight @ (first.weight @ read + first.bias).clamp(min=0) + second.bias
    return items, outputs, logit[0]


def plain_loss(model, rows, loss_lambda):
    """Cross-entropy of the logits and InfoNCE of the histories, one row and position after the other.

    Late fusion reads equal histories once.
    """
    table = model.vectors_of(torch.arange(N_ITEMS + 1))
    classification, generative, seen = [], [], []
    for index in range(len(rows)):
        row = rows[index : index + 1]
        items, outputs, logit = plain_pass(model, table, row)
        probability = 1 / (1 + torch.exp(-logit))
        classification.append(-torch.log(probability if row["label"] == 1 else 1 - probability))
        if model.late and items.tolist() in seen:
            continue
        seen.append(items.tolist())
        for place in range(1, len(items)):
            kept = [n for n in rows["neg_item_id"][0] if n != items[place]]
            compared = torch.stack([table[items[place]], *(table[n] for n in kept)])
            similar = F.cosine_similarity(compared, table[items[place]], dim=-1)
            scores = model.logit_scale.exp() * F.cosine_similarity(outputs[place - 1], compared, dim=-1)
            scores = scores[(similar <= model.nce_thres) | (torch.arange(len(compared)) == 0)]
            generative.append(-scores[0] + scores.exp().sum().log())
    return torch.stack(classification).mean(), torch.stack(generative).mean()


@pytest.mark.parametrize("loss_lambda", [0.0, 0.7])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_loss_by_a_plain_formula(build, fusion, loss_lambda):
    model, loaders = build(fusion=fusion, loss_lambda=loss_lambda)
    rows = next(iter(loaders[0]))
    assert ("neg_item_id" in rows) == (loss_lambda > 0)
    loss = model.calculate_loss(rows)
    if not loss_lambda:
        rows["neg_item_id"] = torch.tensor([[1, 2]])
    classification, generative = plain_loss(model, rows, loss_lambda)
    torch.testing.assert_close(loss, classification + loss_lambda * generative, rtol=1e-5, atol=1e-5)
    assert model.loss_terms["classification_loss"] == pytest.approx(classification.item(), abs=1e-5)
    assert ("generative_loss" in model.loss_terms) == (loss_lambda > 0)
    if loss_lambda:
        assert model.loss_terms["generative_loss"] == pytest.approx(generative.item(), abs=1e-5)


def test_probabilities_by_a_plain_pass(ready):
    model, rows = ready
    with torch.no_grad():
        scores, table = model.predict(rows), model.item_vectors()
        expected = [plain_pass(model, table, rows[index : index + 1])[2].sigmoid() for index in range(len(rows))]
    torch.testing.assert_close(scores, torch.stack(expected), rtol=1e-5, atol=1e-6)
    assert scores.std() > 1e-3


@torch.no_grad()
def test_an_empty_history_is_read_all_the_same(ready):
    model, rows = ready
    empty = rows[rows["item_length"] == 0]
    table = model.item_vectors()
    targets = target_vector(model, table, empty["item_id"])
    last = model.user_token.expand(len(empty), -1) if model.late else targets
    states = model.user_encoder.backbone(inputs_embeds=last[:, None]).last_hidden_state[:, 0]
    logits = model.head(states, targets) if model.late else model.head(states)
    torch.testing.assert_close(model.predict(empty), logits.sigmoid())
    torch.testing.assert_close(model.predict(rows)[rows["item_length"] == 0], logits.sigmoid())


@torch.no_grad()
def test_outputs_depend_on_what_was_before_only(ready):
    model, rows = ready
    rows = rows[rows["item_length"] == HISTORY]
    table, length = model.item_vectors(), rows["item_length"]

    def read(items, candidates):
        histories = Histories.of_rows(items, length, {})
        return model._read(histories, table[items], candidates, table[candidates])[0]

    items, candidates = rows["item_id_list"], rows["item_id"]
    outputs = read(items, candidates)
    changed = items.clone()
    changed[:, 2] = changed[:, 2] % N_ITEMS + 1
    others = read(changed, candidates)
    torch.testing.assert_close(others[:, :2], outputs[:, :2])
    assert ((others - outputs)[:, 2:].abs().amax(-1) > 1e-4).all()
    others = read(items, candidates % N_ITEMS + 1)
    torch.testing.assert_close(others[:, :-1], outputs[:, :-1])
    assert torch.equal(others[:, -1], outputs[:, -1]) == model.late


@torch.no_grad()
@pytest.mark.parametrize("at_once", [1, 30, 10_000])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_whole_catalogue_in_batches_of_candidates(build, fusion, at_once):
    model, loaders = build(fusion=fusion, candidates_per_batch=at_once)
    rows = next(iter(loaders[2]))[0][:5]
    calls, items = [], []
    model.user_encoder.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    model.item_encoder.register_forward_hook(lambda *arguments: items.append(1))
    table = model.eval().full_sort_predict(rows)
    assert table.shape == (5, N_ITEMS + 1)
    if fusion == "late":
        assert calls == [5]  # each history once
    else:
        assert sum(calls) == 5 * (N_ITEMS + 1) and max(calls) <= max(at_once, 5)
    encoded = len(items)
    for item in range(1, N_ITEMS + 1):
        rows["item_id"][:] = item
        torch.testing.assert_close(model.predict(rows), table[:, item], rtol=0, atol=1e-6)
    assert len(items) == encoded  # the catalogue was encoded once


@torch.no_grad()
@pytest.mark.parametrize("keys", [{}, {"time_num": 2, "start": 1_400_000_000}, {"fusion": "early"}])
def test_late_fusion_reads_each_history_once(build, keys):
    model, loaders = build(loss_lambda=0.0, history_filter="positive", **keys)
    read = []
    model.user_encoder.register_forward_hook(lambda module, inputs, output: read.append(len(inputs[0])))
    rows = loaders[0]._dataset[:]
    # The time of the request is that of the row: with times, other rows of the same history are read apart.
    timed = rows["event_time"].tolist() if "time_num" in keys else [0.0] * len(rows)
    distinct = set(zip(map(tuple, rows["item_id_list"].tolist()), timed, strict=True))
    model.calculate_loss(rows)
    scores = model.eval().predict(rows)
    assert len(distinct) < len(rows)
    assert read == [len(rows) if keys.get("fusion") else len(distinct)] * 2
    for index in range(0, len(rows), 7):
        torch.testing.assert_close(model.predict(rows[index : index + 1])[0], scores[index], rtol=0, atol=1e-6)


def test_an_item_is_known_as_a_candidate_by_its_id_where_wanted(build):
    for fusion in FUSIONS:
        with_ids, loaders = build(fusion=fusion)
        without, _ = build(fusion=fusion, target_item_id=False)
        assert with_ids.target_ids.weight.shape == (N_ITEMS + 1, 16) and without.target_ids is None
        rows = next(iter(loaders[2]))[0]
        scores = with_ids.eval().predict(rows)
        with_ids.target_ids.weight.data[0] = 5.0  # of no candidate
        assert torch.equal(with_ids.predict(rows), scores)
        with_ids.target_ids.weight.data.zero_()
        assert (with_ids.predict(rows) - scores).abs().max() > 1e-3


def test_each_item_of_a_batch_is_encoded_once(build):
    model, loaders = build(loss_lambda=0.5)
    texts = []
    model.item_encoder.register_forward_hook(lambda module, inputs, output: texts.append(len(output)))
    rows = next(iter(loaders[0]))
    model.calculate_loss(rows)
    seen = torch.cat([rows[field].reshape(-1) for field in ("item_id_list", "item_id", "neg_item_id")]).unique()
    assert sum(texts) == (seen > 0).sum()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_part_learns(build, fusion):
    model, loaders = build(fusion=fusion, loss_lambda=0.0)
    model.calculate_loss(next(iter(loaders[0]))).backward()
    learned = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    parts = {"item_encoder", "user_encoder", "head", "target_ids"}
    assert learned == parts | ({"user_token"} if fusion == "late" else set())
    grouped = [parameter for group in model.parameter_groups() for parameter in group["params"]]
    assert {id(p) for p in model.head.parameters()} <= {id(p) for p in grouped}


@torch.no_grad()
def test_user_vectors_are_of_late_fusion_and_of_no_candidate(build):
    model, loaders = build()
    rows = next(iter(loaders[2]))[0]
    vectors = model.eval().user_vectors(rows)
    rows["item_id"][:] = 1
    assert torch.equal(model.user_vectors(rows), vectors) and vectors.shape == (len(rows), 16)
    early, _ = build(fusion="early")
    with pytest.raises(ModelError, match="fusion: early"):
        early.eval().user_vectors(rows)


@pytest.mark.parametrize("inputs, width", [("concat", 32), ("product", 16), ("both", 48)])
def test_what_the_head_reads(build, inputs, width):
    model, _ = build(head_input=inputs, head_hidden=[5, 3])
    assert [layer.in_features for layer in model.head.layers[::2]] == [width, 5, 3]
    assert build(head_input=inputs, fusion="early")[0].head.layers[0].in_features == 16


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"fusion": "erly"}, "fusion: 'erly' is not one of late, early; did you mean 'early'"),
        ({"fusion": None}, "fusion must not be empty"),
        ({"head_input": "sum"}, "head_input: 'sum' is not one of concat, product, both"),
        ({"head_hidden": 128}, "head_hidden: 128 is not a list of int"),
        ({"head_hidden": [0]}, "head_hidden: 0 must be at least 1"),
        ({"history_filter": "liked"}, "history_filter: 'liked'"),
        ({"loss_lambda": -1}, "loss_lambda: -1 must be at least 0"),
        ({"candidates_per_batch": 0}, "candidates_per_batch: 0 must be at least 1"),
    ],
)
def test_keys_that_cannot_be_used(build, keys, words):
    with pytest.raises(ConfigError, match=words):
        build(**keys)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("time_of", ["item", "next"])
def test_times_of_a_row_are_its_own(build, fusion, time_of):
    """In a batch and alone: [USER] and the candidate have the time of the request, whatever the longest history."""
    model, loaders = build(fusion=fusion, time_num=6, time_of=time_of, start=1_000_000_000)
    with torch.no_grad():
        for table in model.input_features.time.tables:
            table.weight.mul_(50)
    rows = loaders[0]._dataset[list(range(0, 70, 3))]
    assert rows["item_length"].unique().numel() > 2
    together = model.eval().predict(rows)
    alone = torch.cat([model.predict(rows[index : index + 1]) for index in range(len(rows))])
    torch.testing.assert_close(together, alone, atol=2e-6, rtol=0)
    rows.interaction["event_time"] = rows["event_time"] + 40_000_000
    assert (model.predict(rows) - together).abs().min() > 1e-7, "the time of the request counts"


def test_negatives_without_a_number_are_as_many_as_the_batch_has_places(build):
    _, loaders = build(num_negatives=None)
    assert next(iter(loaders[0]))["neg_item_id"].shape == (1, 16 * (HISTORY + 1))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_export_is_read_back(build, tmp_path, fusion):
    model, loaders = build(fusion=fusion)
    rows = next(iter(loaders[0]))
    expected = model.eval().predict(rows)
    export_model(model, tmp_path / "out")
    other = {"item_pretrain_dir": None, "user_pretrain_dir": None, "user_llm_init": False, "item_llm_init": False}
    again, _ = build(fusion=fusion, pretrained_hllm=str(tmp_path / "out"), **other)
    torch.testing.assert_close(again.eval().predict(rows), expected, atol=1e-6, rtol=0)
