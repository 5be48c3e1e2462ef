import pytest
import torch

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.item_encoder import ItemEncoder

LENGTHS = torch.tensor([3, 0, 6, 1])
TOKENS = torch.tensor([5, 9, 9, 30, 31, 32, 33, 34, 35, 7])
ATTENTION = ["eager", "sdpa"]
KINDS = ["llama", "gpt2", "bert", "roberta"]


def one_by_one(encoder, backbone, positions_from=None):
    """Plain reference: every item alone, no padding, positions written out."""
    vectors = []
    for text in TOKENS.split(LENGTHS.tolist()):
        inputs = backbone.get_input_embeddings()(text)
        if encoder.item_emb_tokens is not None:
            inputs = torch.cat([inputs, encoder.item_emb_tokens[0]])
        if len(inputs) == 0:
            vectors.append(torch.zeros(backbone.config.hidden_size))
            continue
        options = {}
        if positions_from is not None:
            options["position_ids"] = torch.arange(len(inputs))[None] + positions_from - len(text)
        hidden = backbone(inputs_embeds=inputs[None], **options).last_hidden_state[0]
        vectors.append(hidden[-1] if encoder.item_emb_tokens is not None else hidden.mean(0))
    return torch.stack(vectors)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("item_emb_token_n", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_equals_each_item_alone(tiny, kind, item_emb_token_n, attention):
    encoder = ItemEncoder(tiny(kind, attention), item_emb_token_n=item_emb_token_n, max_text_length=8).eval()
    expected = one_by_one(encoder, tiny(kind, "eager"))
    torch.testing.assert_close(encoder(TOKENS, LENGTHS), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("item_emb_token_n", [0, 1])
@pytest.mark.parametrize(("kind", "first"), [("llama", 0), ("gpt2", 0), ("bert", 0), ("roberta", 2)])
def test_right_aligned_positions(tiny, kind, first, item_emb_token_n, attention):
    options = {"item_emb_token_n": item_emb_token_n, "max_text_length": 8}
    encoder = ItemEncoder(tiny(kind, attention), right_aligned_positions=True, **options).eval()
    expected = one_by_one(encoder, tiny(kind, "eager"), positions_from=first + 8)
    torch.testing.assert_close(encoder(TOKENS, LENGTHS), expected, atol=2e-5, rtol=0)
    if kind != "llama":  # rotary positions are relative, tables are not
        from_zero = ItemEncoder(tiny(kind), **options).eval()
        from_zero.item_emb_tokens = encoder.item_emb_tokens
        assert (from_zero(TOKENS, LENGTHS) - expected).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_gradients_equal_each_item_alone(tiny, kind):
    encoder = ItemEncoder(tiny(kind), max_text_length=8).eval()
    parameters = dict(encoder.named_parameters())
    weights = torch.linspace(-1, 1, 64).view(4, 16)

    def gradients(vectors):
        return torch.autograd.grad((vectors * weights).sum(), list(parameters.values()), allow_unused=True)

    ours = gradients(encoder(TOKENS, LENGTHS))
    expected = gradients(one_by_one(encoder, encoder.backbone))
    for name, a, b in zip(parameters, ours, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
    assert ours[list(parameters).index("item_emb_tokens")].abs().sum() > 0


def test_item_token_starts_small(tiny):
    torch.manual_seed(0)
    encoder = ItemEncoder(tiny("llama", hidden_size=512), max_text_length=8)
    assert encoder.item_emb_tokens.shape == (1, 1, 512)
    assert encoder.item_emb_tokens.std().item() == pytest.approx(0.02, rel=0.1)
    assert encoder.item_emb_tokens.mean().item() == pytest.approx(0, abs=0.004)


def test_mean_of_no_tokens_is_zero_with_finite_gradients(tiny):
    for kind in ("llama", "bert"):
        encoder = ItemEncoder(tiny(kind), item_emb_token_n=0, max_text_length=8)
        empty = encoder(TOKENS[:0], torch.tensor([0, 0]))
        assert torch.equal(empty, torch.zeros(2, 16))
        encoder(TOKENS, LENGTHS).sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


def test_unequal_widths_are_joined_by_a_linear_layer(tiny):
    encoder = ItemEncoder(tiny("bert"), out_features=6, max_text_length=8).eval()
    same = ItemEncoder(tiny("bert"), out_features=16, max_text_length=8)
    assert isinstance(same.projection, torch.nn.Identity) and same.out_features == 16
    expected = encoder.projection(one_by_one(encoder, encoder.backbone))
    assert expected.shape == (4, 6) and encoder.out_features == 6
    torch.testing.assert_close(encoder(TOKENS, LENGTHS), expected, atol=2e-5, rtol=0)


def test_autocast(tiny):
    encoder = ItemEncoder(tiny("llama"), max_text_length=8).eval()
    exact = encoder(TOKENS, LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(TOKENS, LENGTHS)
    assert torch.cosine_similarity(rounded.float(), exact).min() > 0.99


@pytest.mark.parametrize(("kind", "longest"), [("bert", 12), ("gpt2", 12), ("roberta", 12)])
def test_text_longer_than_the_position_table(tiny, kind, longest):
    ItemEncoder(tiny(kind), max_text_length=longest - 1)
    ItemEncoder(tiny(kind), max_text_length=longest, item_emb_token_n=0)
    with pytest.raises(ModelError, match=f"{longest - 1} tokens"):
        ItemEncoder(tiny(kind), max_text_length=longest)


def test_only_one_item_token(tiny):
    with pytest.raises(ModelError, match="item_emb_token_n=2"):
        ItemEncoder(tiny("llama"), item_emb_token_n=2)
