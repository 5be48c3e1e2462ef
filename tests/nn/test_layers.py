import pytest
import torch
from transformers import AlbertConfig, AutoModel, BertConfig

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.layers import LowerLayers, last_layers, repeated_layers

KINDS = ["llama", "gpt2", "bert", "roberta"]
INPUTS = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1))


def read(model, inputs=INPUTS):
    return model(inputs_embeds=inputs).last_hidden_state


@pytest.mark.parametrize("kind", KINDS)
def test_known_states_give_what_all_layers_give(tiny, kind):
    keys = {"n_layer": 3} if kind == "gpt2" else {"num_hidden_layers": 3}
    model = tiny(kind, **keys)
    for last in (1, 2):
        lower = LowerLayers(model, last)
        assert len(lower.layers) == 3 - last
        with lower.watched() as states:
            whole = read(model)
        assert len(states) == 1 and states[0].shape == INPUTS.shape
        lowest = repeated_layers(model)[0]
        with lower.left_out(states[0].detach()):
            divided = read(model, torch.randn(INPUTS.shape))  # of no account
        torch.testing.assert_close(divided, whole, atol=1e-6, rtol=1e-6)
        divided.sum().backward()
        assert all(weight.grad is None for weight in lowest.parameters())
        assert all(weight.grad is not None for part in last_layers(model, last) for weight in part.parameters())
        model.zero_grad()
        torch.testing.assert_close(read(model), whole)  # as it was


def test_layers_are_back_after_an_error(tiny):
    model = tiny("llama")
    whole, lower = read(model), LowerLayers(model, 1)
    with lower.watched():
        read(model)
    with pytest.raises(ZeroDivisionError), lower.left_out(torch.zeros(3, 5, 16)):
        raise ZeroDivisionError
    assert torch.equal(read(model), whole)


@pytest.mark.parametrize("number", [0, 2, 5])
def test_some_layers_must_be_left_below(tiny, number):
    with pytest.raises(ModelError, match=f"item_llm_layers_trained: {number}, but .* 2 layers; give 1 to 1"):
        last_layers(tiny("bert"), number)


def test_one_layer_has_none_below():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    with pytest.raises(ModelError, match="has one layer alone; take item_llm_tuning: full"):
        last_layers(AutoModel.from_config(BertConfig(vocab_size=30, **sizes)), 1)


def test_layers_that_share_their_weights_cannot_be_divided():
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    with pytest.raises(ModelError, match="albert model has no single list of its 3 layers"):
        last_layers(AutoModel.from_config(AlbertConfig(vocab_size=30, embedding_size=8, **sizes)), 1)
