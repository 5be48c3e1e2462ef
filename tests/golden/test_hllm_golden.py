"""HLLM with `reference: True` gives the official code's numbers: tokens, rows, vectors, loss, gradients.

Tolerances, for float32 on a CPU; the reference and an independent computation differ by less than a quarter of them.
Sizes and settings come from the golden files, and what they leave out is skipped. `test_hllm_run_golden.py` goes on.
"""

import math
import os

import numpy as np
import pytest
import torch
from reference_numbers import close, ids_filtered, negatives_near, nothing_filtered, numbers_of

from recbole_hllm.data.protocol import REFERENCE
from recbole_hllm.model.base import next_item
from recbole_hllm.model.base.item_texts import build_catalogue, read_texts
from recbole_hllm.model.hllm.language_models import item_llm_source
from recbole_hllm.nn import losses as losses_module
from recbole_hllm.nn.backbone import load_tokenizer
from recbole_hllm.nn.probe import position_range

VECTORS = 2e-5  # item vectors and outputs of the User LLM, absolute
LOSS, LARGE_LOSS = 1e-5, 5e-7  # absolute, and relative for losses above 20
SAMPLES = 1e-4  # mean number of negatives and the positive, absolute
GRADIENTS = 1e-5  # norms, relative; elements, relative to the largest
# BERT's attention does not depend on these: their gradient is rounding noise.
OTHER_GOLDENS = bool(os.environ.get("HLLM_GOLDENS"))  # may leave out anything
WITHOUT_GRADIENT = "self.key.bias"


# ---- items and rows ----


def check_texts(pipeline):
    for item in pipeline.goldens.holding(pipeline.given("items.json"), "id", "text"):
        assert pipeline.model.catalogue.texts[pipeline.items[item["id"]]] == item["text"]


def check_token_ids(pipeline):
    """Without the slot at the end that stands for [ITEM]."""
    slots = pipeline.config["item_emb_token_n"]
    for item in pipeline.goldens.holding(pipeline.given("items.json"), "id", "input_ids"):
        tokens, _ = pipeline.model.catalogue.lookup(pipeline.items[[item["id"]]])
        length = item.get("input_len", len(item["input_ids"]))
        assert tokens.tolist() == item["input_ids"][: length - slots]


def check_truncation(pipeline):
    items = [item for item in pipeline.given("items.json") if item["id"] > 0]
    known = pipeline.goldens.holding(items, "truncated")
    if len(known) < len(items):
        pytest.skip("these goldens do not say of every item whether it was truncated")
    assert pipeline.model.catalogue.report.truncated == sum(item["truncated"] for item in known)


def check_tokens(pipeline):
    check_texts(pipeline)
    check_token_ids(pipeline)
    check_truncation(pipeline)


def check_targets(pipeline):
    """Every user's last item but one is validated and the last one tested, users of three items included."""
    for phase, place in (("valid", -2), ("test", -1)):
        part = pipeline.loaders[phase]._dataset
        sequences = part.sequences
        users, items = sequences.users[sequences.of(part.targets)], sequences.items[part.targets]
        sequence_of = dict(pipeline.goldens.given("splits.json", "user_seq"))
        expected = [(pipeline.users[user], pipeline.items[sequence_of[user][place]]) for user in sequence_of]
        assert sorted(zip(users, items, strict=True)) == sorted(expected)


def check_training_rows(pipeline, name="default"):
    """The windows hold what the reference's rows hold; rows of a single item have nothing to predict."""
    expected = pipeline.goldens.given("splits.json", f"train_sequences_data_split_{name}")
    train = pipeline.loaders["train"]._dataset
    size = train.max_item_list_len + 1
    rows = train[np.arange(len(train))]
    fields = (train.uid_field, train.item_id_list_field, train.item_list_length_field)
    columns = zip(*(rows[field].tolist() for field in fields), strict=True)
    ours = [(user, items[:length]) for user, items, length in columns]
    theirs = [(pipeline.users[user], pipeline.items[row][-size:].tolist()) for user, row in expected if len(row) > 1]
    assert sorted(ours) == sorted(theirs)


@pytest.mark.parametrize("check", [check_texts, check_token_ids, check_truncation])
def test_texts_and_token_ids(pipeline, check):
    check(pipeline)


def test_item_file_gives_the_same_tokens(pipeline):
    """For the texts that a tab-separated file can hold."""
    settings = pipeline.model.settings
    source = item_llm_source(settings)
    from_file = build_catalogue(settings, read_texts(settings, pipeline.dataset), load_tokenizer(source), source)
    all_fields = pipeline.item_texts.fields
    same = [item for item, fields in enumerate(all_fields) if all(" ".join(field.split()) == field for field in fields)]
    assert len(same) > len(all_fields) / 2 or OTHER_GOLDENS
    for ours, expected in zip(from_file.lookup(same), pipeline.model.catalogue.lookup(same), strict=True):
        assert torch.equal(ours, expected)


def test_position_ids(pipeline):
    items, seen = pipeline.goldens.holding(pipeline.given("items.json"), "id", "position_ids"), {}
    encoder = pipeline.model.item_encoder
    hook = encoder.backbone.register_forward_pre_hook(lambda _, args, options: seen.update(options), with_kwargs=True)
    tokens, lengths = pipeline.model.catalogue.lookup(pipeline.items[[item["id"] for item in items]])
    with torch.no_grad():
        encoder(tokens, lengths)
    hook.remove()
    assert encoder.packed
    read = lengths + (encoder.item_emb_tokens is not None)
    for item, positions in zip(items, seen["position_ids"][0].split(read.tolist()), strict=True):
        assert positions.tolist() == item["position_ids"][: len(positions)]


def test_targets(pipeline):
    check_targets(pipeline)


@pytest.mark.parametrize(("data_split", "name"), [(None, "default"), (True, "default"), (False, "false")])
def test_training_rows(new_pipeline, data_split, name):
    check_training_rows(new_pipeline(data_split=data_split), name)


# ---- vectors, loss and gradients ----


def check_item_vectors(pipeline):
    """Row 0 is zeros here and the empty text's vector there; nothing reads it."""
    name = "item_emb_token" if pipeline.config["item_emb_token_n"] else "mean_pool"
    expected, vectors = pipeline.given("item_embeddings.npz", name), pipeline.model.eval().item_vectors()
    assert not vectors[0].any()
    close(vectors[pipeline.items[1:]], expected[1:], VECTORS, pipeline.undefined())


def backward(pipeline, result):
    """Loss of the rows of a result; gradients stay in the model."""
    model = pipeline.model.train()
    model.nce_thres = result.get("nce_thres") or pipeline.config["nce_thres"]
    model.zero_grad()
    with negatives_near(result.get("loss")):
        loss = model.calculate_loss(pipeline.batch_of(result))
    loss.backward()
    return loss.item()


def check_loss(pipeline, result):
    """Loss, negatives that were kept and accuracies; gradients stay in the model."""
    loss, model = backward(pipeline, result), pipeline.model
    if not any(name in ("loss", "nce_samples") or name.startswith("nce_top") for name in result):
        pytest.skip("these goldens have no such loss")
    if not math.isfinite(result.get("loss", 0.0)):  # the other numbers come from what is none
        assert pipeline.undefined() and math.isfinite(loss)
        return
    if "loss" in result:
        assert loss == pytest.approx(result["loss"], abs=LOSS, rel=LARGE_LOSS)
    if "nce_samples" in result:  # the reference counts the positive too
        assert model.loss_terms["surviving_negatives"] + 1 == pytest.approx(result["nce_samples"], abs=SAMPLES)
    for name, expected in result.items():
        if name.startswith("nce_top"):
            k = name.removeprefix("nce_top").removesuffix("_acc")
            assert model.loss_terms[f"top{k}_accuracy"] == pytest.approx(expected, abs=1e-6), name


def check_batch(pipeline, number=0):
    """One of the fixed batches."""
    check_loss(pipeline, {"batch": number, **pipeline.given("batch_results.json", "batches", number)})


def gradients_of(pipeline, number):
    backward(pipeline, {"batch": number, **pipeline.given("batch_results.json", "batches", number)})
    return {name: parameter.grad for name, parameter in pipeline.official_names().items()}


def check_gradient_norms(pipeline, number):
    expected = pipeline.given("batch_results.json", "batches", number, "grad_norms")
    gradients = gradients_of(pipeline, number)
    assert gradients.keys() == expected.keys() or (OTHER_GOLDENS and expected.keys() <= gradients.keys())
    compared = [name for name in expected if not name.endswith(WITHOUT_GRADIENT)]
    norms = {name: gradients[name].norm().item() for name in compared}
    theirs = numbers_of(norms, {name: expected[name] for name in compared}, pipeline.undefined())
    assert {name: norms[name] for name in theirs} == pytest.approx(theirs, rel=GRADIENTS, abs=1e-9)


def check_gradients(pipeline, number):
    prefix = f"batch{number}_grad:"
    arrays = pipeline.given("batches.npz")
    names = [name.removeprefix(prefix) for name in arrays if name.startswith(prefix)]
    if not names:
        pytest.skip("these goldens have no such gradients")
    gradients = gradients_of(pipeline, number)
    for name in names:
        if not name.endswith(WITHOUT_GRADIENT):
            elements = arrays[prefix + name]
            largest = np.abs(elements[np.isfinite(elements)]).max(initial=0)
            close(gradients[name], elements, GRADIENTS * largest, pipeline.undefined())


def check_clamp_at(pipeline, place):
    result = pipeline.given("batch_results.json", "logit_scale_clamp", place)
    pipeline.goldens.holding([result], "before")
    scale = pipeline.model.logit_scale
    start = scale.item()
    try:
        scale.data.fill_(result["before"])
        pipeline.model.calculate_loss(pipeline.batch_of(result))
        assert scale.item() == pytest.approx(result.get("after", scale.item()), abs=1e-6)
        scale.data.fill_(result["before"])
        check_loss(pipeline, result)
    finally:
        scale.data.fill_(start)


def check_clamp(pipeline):
    for place in range(len(pipeline.given("batch_results.json", "logit_scale_clamp"))):
        check_clamp_at(pipeline, place)


def check_lower_threshold(pipeline):
    check_loss(pipeline, pipeline.given("batch_results.json", "nce_thres_variant"))


def test_item_vectors(pipeline):
    check_item_vectors(pipeline)


def test_item_vectors_of_mean_pooling(mean_pooling):
    check_item_vectors(mean_pooling)


def test_user_outputs(pipeline):
    suffix = "user_llm_output"
    arrays, model = pipeline.given("batches.npz"), pipeline.model.eval()
    prefixes = [name.removesuffix(suffix) for name in arrays if name.endswith(suffix)]
    if not prefixes:
        pytest.skip("these goldens have no outputs of the User LLM")
    for prefix in prefixes:
        own = {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
        number = int(prefix.removeprefix("batch").removesuffix("_"))
        rows, negatives, mask = pipeline.goldens.rows_of(pipeline.kind, {"batch": number, **own})
        windows = pipeline.batch(rows, negatives, mask)[model.ITEM_SEQ]
        with torch.no_grad():
            outputs = model.user_encoder(model.item_vectors()[windows[:, :-1]])
        close(outputs[windows[:, 1:] != 0], own[suffix][mask == 1], VECTORS, pipeline.undefined())


@pytest.mark.parametrize("check", [check_batch, check_gradient_norms, check_gradients])
def test_loss_accuracies_and_gradients(pipeline, batch, check):
    check(pipeline, batch)


def test_loss_in_the_other_negative_mode(pipeline):
    check_loss(pipeline, pipeline.given("batch_results.json", "other_negative_mode"))


def test_loss_with_mean_pooling(mean_pooling, mean_pool):
    check_loss(mean_pooling, mean_pooling.given("batch_results.json", "mean_pool", mean_pool))


def test_loss_with_a_lower_threshold_of_the_filter(pipeline):
    check_lower_threshold(pipeline)


def test_logit_scale_is_clamped(pipeline, clamp):
    check_clamp_at(pipeline, clamp)


# ---- the tolerances are tight: a formula that is a little wrong fails ----

only_here = pytest.mark.skipif(OTHER_GOLDENS, reason="other data need not show every difference")
SHOWN_BY = {
    "positions": check_item_vectors,
    "truncation": check_tokens,
    "special_tokens": check_tokens,
    "empty_text": check_tokens,
    "missing_words": check_tokens,
    "raw_text": check_tokens,
    "chunks": check_training_rows,
    "short_users": check_targets,
}


@only_here
@pytest.mark.parametrize("behaviour", SHOWN_BY)
def test_each_behaviour_of_the_reference_is_needed(new_pipeline, kind, behaviour):
    pipeline = new_pipeline(reference=[name for name in REFERENCE if name != behaviour])
    if behaviour == "positions" and position_range(pipeline.model.item_encoder.backbone)[1] is None:
        pytest.skip("rotary positions are relative")
    if behaviour == "truncation" and kind == "llama":
        pytest.skip("this tokenizer closes a text with no special token")
    with pytest.raises(AssertionError):
        SHOWN_BY[behaviour](pipeline)


@only_here
@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("MAX_TEXT_LENGTH", lambda length: length - 1),  # [ITEM] inside the limit instead of after it
        ("text_separator", lambda separator: separator + " "),
        ("item_prompt", lambda prompt: prompt.replace(":", "")),
        ("text_keys", lambda keys: keys[::-1]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_setting_of_the_texts_counts(new_pipeline, pipeline, key, change):
    with pytest.raises(AssertionError):
        check_item_vectors(new_pipeline(**{key: change(pipeline.config[key])}))


@only_here
def test_vector_at_the_last_token_of_the_text_fails(new_pipeline):
    pipeline = new_pipeline()
    encoder = pipeline.model.item_encoder
    at_item_token = encoder._packed_states
    encoder._packed_states = lambda *arguments: at_item_token(*arguments).roll(1, dims=1)
    with pytest.raises(AssertionError):
        check_item_vectors(pipeline)


@only_here
@pytest.mark.parametrize(
    ("module", "function", "wrong", "check"),
    [
        (losses_module, "_false_negatives", nothing_filtered, check_batch),
        (losses_module, "_false_negatives", ids_filtered, check_lower_threshold),
        (next_item, "clamp_logit_scale", lambda scale: scale, check_clamp),
        (next_item, "clamp_logit_scale", lambda scale: scale * 1.0001, check_batch),
    ],
    ids=["no filter", "filter of ids only", "no clamp", "another temperature"],
)
def test_each_part_of_the_loss_counts(new_pipeline, monkeypatch, module, function, wrong, check):
    monkeypatch.setattr(module, function, wrong)
    with pytest.raises(AssertionError):
        check(new_pipeline())
