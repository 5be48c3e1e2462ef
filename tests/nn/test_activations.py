import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.nn.activations import Activations, Bytes, Room, measure_activations
from recbole_hllm.nn.tuning import LoraSettings, tune


def kept_bytes(backbone, texts, width, trained_inputs):
    """Counted in a list of all saved tensors that are held until the end."""
    held, weights = [], {part.data_ptr() for part in (*backbone.parameters(), *backbone.buffers())}
    inputs = torch.randn(texts, width, 16, requires_grad=trained_inputs)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: held.append(tensor) or tensor, lambda tensor: tensor):
        backbone(inputs_embeds=inputs)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in held}
    return sum(storage.nbytes() for place, storage in storages.items() if place not in weights)


WAYS = {
    "plain": {"attention": "eager"},
    "dropout": {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "attention": "eager"},
    "sdpa": {"attention": "sdpa"},
}


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("mode", ["full", "lora", "checkpointing"])
@pytest.mark.parametrize(
    ("kind", "way"), [("llama", "plain"), ("llama", "sdpa"), ("bert", "dropout"), ("bert", "sdpa")]
)
def test_estimate_is_what_texts_of_other_sizes_keep(tiny, kind, way, mode, precision):
    backbone = tiny(kind, **WAYS[way]).train()
    if mode == "lora":
        pytest.importorskip("peft")
        tune(backbone, "lora", LoraSettings(r=2))
    if mode == "checkpointing":
        backbone.gradient_checkpointing_enable({"use_reentrant": False})
    trained = mode != "lora"
    with torch.autocast("cpu", precision, enabled=precision is not None):
        estimate = measure_activations(backbone, 10, trained)
        fixed = 2 * kept_bytes(backbone, 3, 7, trained) - kept_bytes(backbone, 6, 7, trained)  # weights in bf16
        for texts, width in ((7, 9), (20, 4), (2, 10)):
            assert estimate.kept(texts, width) == pytest.approx(
                kept_bytes(backbone, texts, width, trained) - fixed, rel=0.1
            )
    if mode == "checkpointing":
        assert estimate.at_work(5, 8) > 2 * estimate.kept(5, 8)
    else:  # two layers, and twice what one keeps
        assert estimate.at_work(5, 8) == pytest.approx(estimate.kept(5, 8))


@pytest.mark.parametrize("kind", ["llama", "bert", "gpt2"])
def test_without_weights_the_estimate_is_the_same(tiny, kind):
    backbone = tiny(kind, "eager")
    real, outline = measure_activations(backbone, 10, True), measure_activations(backbone.to("meta"), 10, True)
    assert outline.kept(7, 9) == pytest.approx(real.kept(7, 9), rel=0.02)


def test_nothing_but_numbers_comes_of_it(tiny):
    backbone = tiny("bert", hidden_dropout_prob=0.5).train()
    backbone.gradient_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(2)
    expected = torch.rand(3)
    torch.manual_seed(2)
    with torch.no_grad():
        assert measure_activations(backbone, 10, True).kept(1, 1) > 0
    assert torch.equal(torch.rand(3), expected)
    assert backbone.training and all(weight.grad is None for weight in backbone.parameters())


def test_of_one_token_at_most(tiny):
    assert measure_activations(tiny("llama"), 1, True).kept.pair == 0


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30)), max_size=8),
    st.floats(-10, 1e5),
    st.integers(0, 100),
    st.integers(0, 5),
)
def test_as_many_of_the_last_chunks_as_fit(chunks, size, token, pair):
    kept = Bytes(token, pair)
    again = Room(Activations(kept, kept), size).computed_again(chunks)
    bytes_of = [texts * width * (token + pair * width) for texts, width in chunks]
    assert sum(bytes_of[again:]) <= max(size, 0) or again == len(chunks)
    assert again == 0 or sum(bytes_of[again - 1 :]) > size
