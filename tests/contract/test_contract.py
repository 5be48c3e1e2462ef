"""What every model of this package promises, whatever it computes."""

from itertools import product

import pytest
import torch
from recbole.utils import ModelType
from small_models import MODELS

from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.contract import Factorised, LabelledScorer
from recbole_hllm.model.base.next_item import NextItemRecommender
from recbole_hllm.model.base.servable import Exports
from recbole_hllm.registry import _OURS, get_spec
from recbole_hllm.runs.export import export_model
from recbole_hllm.training.checkpoint import load_model, save_model
from recbole_hllm.training.trainer import Trainer

# model -> keys of one that starts with random weights and not with those of a teacher
FROM_SCRATCH = {"SLMRec": {"distillation": "online"}}
# model -> keys with which what it reads tells its targets: of several targets each comes after each place of a history
FOLLOWS = {"MAX_ITEM_LIST_LENGTH": 1, "target_length": 1, "mask_same_items": True, "shared_towers": False}
DETERMINED = dict.fromkeys(("LEARN", "LEARNScorer"), FOLLOWS)
# model -> keys that cut its step into chunks; a text of the toy data has about 8 tokens
CHUNKED = dict.fromkeys(("HLLM", "HLLMRanker"), {"item_chunk_tokens": 20, "recompute_items": True})
TRAINED = [name for name in MODELS if get_spec(name).model.type != ModelType.TRADITIONAL]
NEXT_ITEM = [
    name
    for name in TRAINED
    if issubclass(get_spec(name).model, NextItemRecommender) and not issubclass(get_spec(name).model, LabelledScorer)
]
TOLERANCE = {"rtol": 0, "atol": 2e-6}


def test_every_model_is_here():
    assert MODELS.keys() == _OURS.keys()


@pytest.fixture(params=MODELS)
def ready(request, build):
    """A model in evaluation mode that has seen the data where it needs to, and rows to score."""
    built = build(request.param)
    if request.param not in TRAINED:
        for rows in built.train:
            built.model.calculate_loss(rows)
    built.model.eval()
    built.rows = next(iter(built.test))[0]
    return built


@torch.no_grad()
def scores(model, rows):
    return model.full_sort_predict(rows).view(len(rows), -1)


def losses(built, steps):
    """Losses of so many steps of the optimizer the Trainer builds."""
    trainer = Trainer(built.config, built.model, "unused")
    seen = []
    built.model.train()
    while len(seen) < steps:
        for rows in built.train:
            loss = built.model.calculate_loss(rows)
            trainer.optimizer.zero_grad()
            loss.backward()
            trainer.optimizer.step()
            seen.append(loss.item())
    return seen[:steps]


def test_scores_of_the_catalogue_are_those_of_its_items(ready):
    table = scores(ready.model, ready.rows)
    assert table.shape == (len(ready.rows), ready.model.n_items) and table.isfinite().all() and table.std() > 0
    for item in range(1, ready.model.n_items):
        rows = next(iter(ready.test))[0]
        rows[ready.model.ITEM_ID][:] = item
        with torch.no_grad():
            single = ready.model.predict(rows)
        assert single.shape == (len(rows),)
        torch.testing.assert_close(single.double(), table[:, item].double(), **TOLERANCE)


def test_a_batch_is_its_rows_one_by_one(ready):
    table = scores(ready.model, ready.rows)
    for index in range(len(ready.rows)):
        torch.testing.assert_close(scores(ready.model, ready.rows[index : index + 1])[0], table[index], **TOLERANCE)


def test_the_length_of_padding_does_not_matter(ready):
    if "item_id_list" not in ready.rows:
        pytest.skip("reads no history")
    table = scores(ready.model, ready.rows)
    history = ready.rows["item_id_list"]
    short = ready.rows["item_length"] < history.shape[1]
    for columns in (3, 1):
        ready.rows.interaction["item_id_list"] = torch.nn.functional.pad(history, (0, columns))
        torch.testing.assert_close(scores(ready.model, ready.rows), table, **TOLERANCE)
    rows = ready.rows[torch.nonzero(~short)[:, 0]]
    width = int(rows["item_length"].max())
    rows.interaction["item_id_list"] = rows["item_id_list"][:, :width]
    torch.testing.assert_close(scores(ready.model, rows), table[~short], **TOLERANCE)


def test_the_padding_item_is_never_recommended(ready, tmp_path):
    trainer = Trainer(ready.config, ready.model, tmp_path)
    trainer.tot_item_num = ready.model.n_items
    for batch in ready.test:
        with torch.no_grad():
            ranked = trainer._full_sort_batch_eval(batch)[1]
        listed = ranked.topk(ready.model.n_items - 1).indices
        assert torch.isneginf(ranked[:, 0]).all() and (listed > 0).all() and ranked[:, 1:].isfinite().all()
    if trainer.labelled:
        return
    trainer.evaluate(ready.test)
    ranks = trainer.eval_collector.take_ranks()
    assert (ranks["target"] > 0).all() and (ranks["rank"] < ready.model.n_items).all()


def test_saved_and_loaded_scores_are_equal(ready, build, tmp_path):
    table = scores(ready.model, ready.rows)
    save_model(tmp_path, ready.model, {})
    other = build(ready.config["model"], seed=7).model.eval()
    if ready.config["model"] in TRAINED:
        assert not torch.equal(scores(other, ready.rows), table)
    load_model(tmp_path, other)
    assert torch.equal(scores(other, ready.rows), table)


def test_vectors_give_the_scores_where_a_model_factorises(ready):
    if not isinstance(ready.model, Factorised):
        pytest.skip("does not factorise")
    with torch.no_grad():
        items, users = ready.model.item_vectors(), ready.model.user_vectors(ready.rows)
    assert items.shape == (ready.model.n_items, users.shape[1]) and len(users) == len(ready.rows)
    assert ready.model.candidate_vectors().shape == items.shape and not items[0].any()
    if ready.model.similarity == "other":
        return
    cosine = torch.nn.functional.cosine_similarity(users[:, None], items[None, 1:], dim=-1)
    similarity = {"cosine": cosine, "dot": (users[:, None] * items[None, 1:]).sum(-1)}
    torch.testing.assert_close(
        scores(ready.model, ready.rows)[:, 1:], similarity[ready.model.similarity], **TOLERANCE
    )


def test_labelled_rows_have_scores_between_0_and_1(ready):
    if not isinstance(ready.model, LabelledScorer):
        pytest.skip("ranks items")
    with torch.no_grad():
        single = ready.model.predict(ready.rows)
    assert single.shape == (len(ready.rows),) and (0 < single).all() and (single < 1).all()


def test_a_model_that_exports_fills_a_folder_and_overwrites_none(ready, tmp_path):
    if not isinstance(ready.model, Exports):
        pytest.skip("does not export")
    export_model(ready.model, tmp_path / "export")
    written = {file.name for file in (tmp_path / "export").iterdir()}
    assert any(name.endswith(".safetensors") for name in written)
    with pytest.raises(ConfigError, match="export"):
        export_model(ready.model, tmp_path / "export")


@pytest.mark.parametrize("name", TRAINED)
def test_the_loss_falls(build, name):
    """On data whose next item follows from the last one: far below guessing, not only below the first weights."""
    seen = losses(build(name, **FROM_SCRATCH.get(name, {}), **DETERMINED.get(name, {})), 130)
    assert sum(seen[-10:]) < 0.2 * sum(seen[:10])


@pytest.mark.parametrize("name", TRAINED)
def test_the_loss_is_a_scalar_with_terms(build, name):
    built = build(name)
    loss = built.model.calculate_loss(next(iter(built.train)))
    assert loss.shape == () and loss.requires_grad and loss.isfinite()
    assert built.model.loss_terms and all(float(value) == value for value in built.model.loss_terms.values())


@pytest.mark.parametrize("name", TRAINED)
def test_the_same_seed_gives_the_same_losses(build, name):
    first = losses(build(name), 4)
    assert losses(build(name), 4) == first
    assert losses(build(name, seed=3), 4) != first


@pytest.mark.parametrize("name", NEXT_ITEM)
def test_the_loss_over_the_whole_catalogue(build, name):
    """That of negatives which are every item once, in any order; it falls on data whose next item follows."""
    plain, whole = build(name), build(name, negatives="catalogue")
    rows, others = next(iter(whole.train)), next(iter(plain.train))
    items = torch.arange(1, whole.model.n_items)
    assert torch.equal(rows["item_id_list"], others["item_id_list"])
    others.interaction["neg_item_id"] = items.flip(0)[None]
    expected = plain.model.calculate_loss(others).item()
    assert whole.model.calculate_loss(rows).item() == pytest.approx(expected, abs=1e-6)
    assert whole.model.loss_terms["surviving_negatives"] <= len(items) - 1
    seen = losses(whole, 25)
    assert sum(seen[-3:]) < 0.8 * sum(seen[:3])


def step(built, rows):
    """Loss and gradients of one batch."""
    loss = built.model.calculate_loss(rows)
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in built.model.named_parameters()}


@pytest.mark.parametrize("name", CHUNKED)
def test_a_chunked_step_is_a_plain_step(build, name):
    plain, chunked = build(name), build(name, **CHUNKED[name])
    calls = []
    chunked.model.item_encoder.register_forward_hook(lambda *arguments: calls.append(1))
    plain.model.double(), chunked.model.double()  # in float32 the two sums are rounded in another order
    rows = next(iter(plain.train))
    (loss, gradients), (other_loss, other_gradients) = step(plain, rows), step(chunked, rows)
    assert len(calls) > 4  # each chunk twice: it was cut, and computed again
    assert other_loss == pytest.approx(loss, abs=1e-6)
    assert gradients.keys() == other_gradients.keys()
    for key, gradient in gradients.items():
        assert (gradient is None) == (other_gradients[key] is None), key
        if gradient is not None:
            assert (other_gradients[key] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-7, key


@pytest.mark.parametrize("name", [name for name in TRAINED if hasattr(get_spec(name).model, "read_by_length")])
def test_reading_rows_by_length_is_reading_them_together(build, name):
    results = []
    for together in (False, True):
        built = build(name)
        if together:
            built.model.read_by_length = built.model.read_history
        rows = next(iter(built.train))
        assert len(set((rows["item_id_list"] != 0).sum(1).tolist())) > 2
        loss = built.model.train().calculate_loss(rows)
        loss.backward()
        gradients = {key: p.grad for key, p in built.model.named_parameters() if p.grad is not None}
        built.model.eval()
        results.append((loss.detach(), gradients, scores(built.model, next(iter(built.test))[0])))
    torch.testing.assert_close(*results, rtol=1e-4, atol=2e-6)


# ---- what of a language model is trained ----

MODES, LLM = ("full", "lora", "frozen"), "the pretrained one"


def _id(name, keys, parts):
    return "-".join([name, *parts.values()])


def _tuned():
    """Model, keys, and the mode of each language model in it by the beginning of its weights' names."""
    for item, user in product(MODES, MODES):
        keys = {"item_llm_tuning": item, "user_llm_tuning": user, "user_llm_init": True, "user_llm_config": None}
        parts = {"item_encoder.backbone.": item, "user_encoder.backbone.": user}
        yield "HLLM", {"item_llm_init": True, "user_pretrain_dir": LLM, **keys}, parts
        if "full" not in (item, user):
            yield "HLLMRanker", {"item_llm_init": True, "user_pretrain_dir": LLM, **keys}, parts
    for mode in MODES:
        words = {"user_pretrain_dir": LLM, "user_llm_init": True, "user_llm_config": None,
                 "instruction": "User: {items}"}  # fmt: skip
        yield "E4SRec", {**words, "user_llm_tuning": mode}, {"llm.": mode}
        taught = {"distillation": "online", "user_llm_layers": 1, "blocks": 1, "teacher_keys": {"user_llm_layers": 2}}
        yield "SLMRec", {**words, **taught, "user_llm_tuning": mode}, {"llm.": mode, "teacher.llm.": mode}
        reader = {"preference": "llm", "user_pretrain_dir": LLM, "user_llm_tuning": mode}
        yield "LEARN", reader, {"user_tower.reader.backbone.": mode}
    yield "LEARNRanker", {"learn_keys": reader}, {"learn.": "frozen"}
    bare = {"item_pretrain_dir": LLM, "item_llm_config": None, "tokenizer_dir": None}
    yield "PromptLLMTuned", {**bare, "item_llm_tuning": "full"}, {"reader.": "full", "lm_head.": "full"}
    yield "PromptLLMTuned", {**bare, "item_llm_tuning": "lora"}, {"reader.": "lora", "lm_head.": "frozen"}
    yield "PromptLLM", {}, {"reader.": "frozen"}
    yield "LLMIDRec", {}, {"user_encoder.": "full"}


@pytest.mark.parametrize(("name", "keys", "parts"), [pytest.param(*case, id=_id(*case)) for case in _tuned()])
def test_what_the_keys_say_is_trained_and_nothing_else(build, settings_of, name, keys, parts):
    if "lora" in parts.values():
        pytest.importorskip("peft")
    llm = settings_of("HLLM")["item_pretrain_dir"]
    if name == "LEARNRanker":
        keys = {"learn_keys": {**settings_of(name)["learn_keys"], **keys["learn_keys"], "user_pretrain_dir": llm}}
    model = build(name, **{key: llm if value == LLM else value for key, value in keys.items()}).model
    for part, mode in parts.items():
        weights = {key: weight for key, weight in model.named_parameters() if key.startswith(part)}
        assert weights or (part, mode) == ("item_encoder.backbone.", "frozen")  # let go once its vectors are known
        for key, weight in weights.items():
            assert weight.requires_grad == {"full": True, "lora": ".lora_" in key, "frozen": False}[mode], key
        assert any(".lora_" in key for key in weights) == (mode == "lora")
