import re

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base import item_memory
from recbole_hllm.model.base.item_memory import CHUNK_SHARE, GIB, ROUNDED_UP, VECTOR_COPIES

WINDOWS = [[3, 5, 3, 9, 1], [2, 8, 0, 0, 0], [7, 4, 6, 0, 0]]
NEGATIVES = [5, 11, 2, 5, 10, 12]
ROWS = Interaction({"item_id_list": torch.tensor(WINDOWS), "neg_item_id": torch.tensor([NEGATIVES])})
DISTINCT = len({*sum(WINDOWS, []), *NEGATIVES} - {0})


@pytest.fixture
def trained(build, monkeypatch, caplog):
    """(bytes in use, **keys) -> the model after the backward pass of one step, and the number of items in each call of
    its Item LLM."""

    def make(used=0, **keys):
        monkeypatch.setattr(item_memory, "used_memory", lambda device: used)
        monkeypatch.setattr(item_memory, "free_memory", lambda device: used)
        model, _ = build(**keys)
        calls, forward = [], model.item_encoder.forward
        model.item_encoder.forward = lambda tokens, lengths: calls.append(len(lengths)) or forward(tokens, lengths)
        caplog.clear()
        caplog.set_level("INFO")
        model.train()
        torch.manual_seed(1)
        model.calculate_loss(ROWS).backward()
        return model, calls

    return make


def gigabytes_for(model, activations):
    """``memory_gb`` that leaves so many bytes to activations that are kept."""
    sizes = [weight.numel() for weight in model.parameters()]
    numbers = 12 * sum(sizes) + 8 * max(sizes)  # gradients and two moments; two more gradients of the largest
    vectors = 4 * VECTOR_COPIES * DISTINCT * model.item_encoder.out_features
    return (numbers + vectors + activations * ROUNDED_UP) / GIB


def sizes(model):
    """Bytes that each chunk keeps, in the order of chunks, and the most at work."""
    lengths = model.catalogue.lookup(torch.tensor(sorted({*sum(WINDOWS, []), *NEGATIVES} - {0})))[1].tolist()
    memory, encoder = model.item_memory, model.item_encoder
    chunks, activations = item_memory.chunk_sizes(lengths, memory.chunk_tokens(encoder)), memory._measured(encoder)
    return [activations.kept(*chunk) for chunk in chunks], max(activations.at_work(*chunk) for chunk in chunks)


def test_what_fits_is_kept_and_all_gradients_are_equal(trained, caplog):
    plain, calls = trained(recompute_items=False, item_llm_dropout=0.3)
    kept, at_work = sizes(plain)
    assert len(calls) == len(kept) > 3 and "memory of items" not in caplog.text
    for again in (0, 2, len(kept)):
        left = sum(kept[again:]) + at_work / ROUNDED_UP + 1
        model, calls = trained(memory_gb=gigabytes_for(plain, left), item_llm_dropout=0.3)
        assert len(calls) == len(kept) + again
        count = sum(calls[:again])
        assert f"{DISTINCT} items, {DISTINCT - count} are kept and {count}, the longest, computed" in caplog.text
        for (name, weight), expected in zip(model.named_parameters(), plain.parameters(), strict=True):
            assert (weight.grad is None) == (expected.grad is None), name
            assert weight.grad is None or torch.equal(weight.grad, expected.grad), name


def test_without_a_number_most_of_what_is_free(trained, caplog):
    plain, _ = trained(recompute_items=False)
    model, calls = trained(10 * GIB)
    assert len(calls) == len(sizes(plain)[0])
    assert "the memory that is free has 5.60 GiB" in caplog.text, "0.7 / 1.25 of 10"
    model, calls = trained(200_000)
    assert len(calls) == 2 * len(sizes(plain)[0]), "gradients and moments take more than that"


def test_what_is_in_use_is_of_the_budget(trained, caplog):
    trained(2 * GIB, memory_gb=4.5)
    assert "memory_gb: 4.5 has 2.00 GiB" in caplog.text


def test_a_budget_that_gradients_and_moments_pass_alone_is_told(trained, caplog):
    plain, _ = trained(recompute_items=False)
    _, at_work = sizes(plain)
    enough = gigabytes_for(plain, at_work / ROUNDED_UP + 1)
    for budget, warned in ((enough, False), (0.97 * enough, True)):
        caplog.clear()
        trained(memory_gb=budget)
        said = re.search(r"is too little by about (\d+\.\d\d) [KM]iB, with the gradients", caplog.text)
        assert bool(said and float(said[1]) > 0) == warned


def test_the_switch_overrides_the_budget(trained, caplog):
    _, once = trained(memory_gb=1, recompute_items=False)
    _, twice = trained(memory_gb=1, recompute_items=True)
    assert len(twice) == 2 * len(once) and f"0 are kept and {DISTINCT}, the longest" in caplog.text


def test_a_step_that_cannot_fit_is_refused_before_it(trained):
    used, needed = GIB, 4 * VECTOR_COPIES * DISTINCT * 16
    with pytest.raises(ConfigError, match=rf"{DISTINCT} different items.*memory_gb: 1 leaves 0.00 GiB"):
        trained(used, memory_gb=1)
    with pytest.raises(ConfigError, match="num_negatives.*train_batch_size, a larger memory_gb, or give a smaller"):
        trained(used, memory_gb=1 + needed / GIB)
    with pytest.raises(ConfigError, match="the memory that is free leaves 0.00 GiB; .*batch_size, or give a smaller"):
        trained(0)
    plain, _ = trained(recompute_items=False)
    kept, at_work = sizes(plain)
    enough = 1 + (needed + 2 * max(kept) + at_work) / GIB
    trained(used, memory_gb=enough)
    with pytest.raises(ConfigError, match="all activations, which recompute_items: False keeps.*leave recompute_items"):
        trained(used, memory_gb=enough, recompute_items=False)


def test_a_small_budget_has_small_chunks_in_training_and_for_the_catalogue(build):
    model, _ = build(item_chunk_tokens=None, memory_gb=100)
    assert model.item_memory.chunk_tokens(model.item_encoder) == 2048
    activations, width = model.item_memory._measured(model.item_encoder), 10 + 1
    of_text = activations.kept(1, width) + activations.at_work(1, width)
    texts = 40
    model, _ = build(item_chunk_tokens=None, memory_gb=texts * of_text / CHUNK_SHARE / GIB)
    tokens = model.item_memory.chunk_tokens(model.item_encoder)
    assert tokens == 256 and 256 // width <= texts < 512 // width
    for budget in (0, 1e-12):
        model, _ = build(item_chunk_tokens=None, memory_gb=budget)
        assert width / 2 < model.item_memory.chunk_tokens(model.item_encoder) <= width, "one text at a time"
    calls, pooled = [], model.item_encoder.pooled
    model.item_encoder.pooled = lambda tokens, lengths: calls.append(len(lengths)) or pooled(tokens, lengths)
    model.eval().item_vectors()
    assert len(calls) > 6
    model, _ = build(item_chunk_tokens=77, memory_gb=1e-12)
    assert model.item_memory.chunk_tokens(model.item_encoder) == 77


def test_a_plan_says_what_the_step_will_do(trained):
    plain, _ = trained(recompute_items=False)
    kept, at_work = sizes(plain)
    left = sum(kept[1:]) + at_work / ROUNDED_UP + 1
    model, calls = trained(memory_gb=gigabytes_for(plain, left))
    reading = model.item_reading()
    tokens = reading.tokens[sorted({*sum(WINDOWS, []), *NEGATIVES} - {0})]
    activations, again = reading.memory(tokens.tolist())
    assert again == sum(sorted(tokens)[::-1][: calls[0]])
    assert sum(kept[1:]) < activations <= sum(kept[1:]) + at_work
    assert plain.item_reading().memory(tokens.tolist())[1] == 0
