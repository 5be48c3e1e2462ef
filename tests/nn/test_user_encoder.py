import pytest
import torch

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.user_encoder import UserEncoder


def test_outputs_are_those_of_the_language_model_on_vectors(tiny):
    vectors = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0))
    encoder = UserEncoder(tiny("llama"))
    expected = tiny("llama", "eager")(inputs_embeds=vectors).last_hidden_state
    assert encoder.hidden_size == 16
    torch.testing.assert_close(encoder(vectors), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_padding_on_the_right_changes_no_real_position(tiny, kind):
    vectors = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0))
    encoder = UserEncoder(tiny(kind))
    torch.testing.assert_close(encoder(vectors)[:, :4], encoder(vectors[:, :4]), atol=1e-5, rtol=0)


def test_word_embeddings_are_freed(tiny):
    n_word_weights = tiny("llama").get_input_embeddings().weight.numel()
    n_weights = sum(parameter.numel() for parameter in tiny("llama").parameters())
    encoder = UserEncoder(tiny("llama"))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == n_weights - n_word_weights
    encoder(torch.randn(1, 3, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_bidirectional_backbone_is_refused(tiny):
    with pytest.raises(ModelError, match="bidirectional"):
        UserEncoder(tiny("bert"))


def test_history_longer_than_the_position_table(tiny):
    encoder = UserEncoder(tiny("gpt2"))
    assert encoder(torch.randn(1, 12, 16)).shape == (1, 12, 16)
    with pytest.raises(ModelError, match="13 items"):
        encoder(torch.randn(1, 13, 16))


def test_under_autocast_only_products_are_rounded(tiny):
    """Not the sums that every layer adds to, though what comes in is a product too."""
    encoder = UserEncoder(tiny("llama"))
    vectors, seen = torch.randn(1, 3, 16), []
    for layer in encoder.backbone.layers:
        layer.register_forward_pre_hook(
            lambda _, given, named: seen.append((given or tuple(named.values()))[0].dtype), with_kwargs=True
        )
    exact = encoder(vectors)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(vectors.bfloat16())
    assert len(seen) == 4 and set(seen) == {torch.float32}
    assert 0 < (rounded.float() - exact).abs().max() < 0.1
    assert encoder.to(torch.bfloat16)(vectors).dtype == torch.bfloat16, "a model in bf16 stays in it"
