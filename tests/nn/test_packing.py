from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from recbole_hllm.nn import packing as packed
from recbole_hllm.nn.content_encoder import POOLINGS, ContentEncoder
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.packing import FLASH, PACKED, Packing, packed_attention
from recbole_hllm.nn.tuning import set_dropout

KINDS = ["llama", "gpt2", "bert", "roberta"]
LENGTHS = torch.tensor([3, 3, 6, 1, 2, 2])
DIAGONAL = torch.block_diag(*(torch.ones(length, length) for length in LENGTHS.tolist())).bool()


def layer(training=False):
    return nn.Identity().train(training)


def drawn(dtype=torch.float64, heads=4, shared=2):
    torch.manual_seed(0)
    sizes = (heads, heads // shared, heads // shared)
    return [torch.randn(1, n, int(LENGTHS.sum()), 8, dtype=dtype, requires_grad=True) for n in sizes]


def plainly(query, key, value, causal, scale):
    """Every token with every other; those of other texts, and those that follow, weigh nothing."""
    key, value = (part.repeat_interleave(query.shape[1] // key.shape[1], 1) for part in (key, value))
    seen = DIAGONAL.tril() if causal else DIAGONAL
    products = (query @ key.transpose(-1, -2) * scale).masked_fill(~seen, float("-inf"))
    return (torch.softmax(products, -1) @ value).transpose(1, 2)


def varlen_plainly(query, key, value, bounds, keys_bounds, longest, longest_key, *, scale, window_size, enable_gqa):
    """What the kernel of flash attention computes, by its arguments."""
    assert torch.equal(bounds, keys_bounds) and bounds.dtype == torch.int32
    assert longest == longest_key == max(bounds.diff()) and enable_gqa == (query.shape[1] != key.shape[1])
    slices = [slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]
    parts = [[part[where].transpose(0, 1) for part in (query, key, value)] for where in slices]
    options = {"is_causal": window_size == (-1, 0), "scale": scale, "enable_gqa": enable_gqa}
    outputs = [nn.functional.scaled_dot_product_attention(*text, **options) for text in parts]
    return torch.cat(outputs, 1).transpose(0, 1)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize("kernel", ["fused", "products", "varlen"])
def test_texts_see_only_themselves(monkeypatch, kernel, shared, causal):
    if kernel == "products":
        monkeypatch.setattr(packed, "_HALF", (torch.float64,))
    if kernel == "varlen":
        monkeypatch.setattr(packed, "varlen_attn", varlen_plainly)
        monkeypatch.setattr(packed._Formula, "has_varlen", lambda formula, query: True)
    parts = drawn(shared=shared)
    options = {"packing": Packing.of(LENGTHS), "is_causal": causal, "scaling": 0.3}
    outputs, weights = packed_attention(layer(training=True), *parts, None, **options)
    expected = plainly(*parts, causal, 0.3)
    assert weights is None
    torch.testing.assert_close(outputs, expected, atol=1e-9, rtol=0)
    way = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad(result, parts, way) for result in (outputs, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)


def test_the_layer_says_whether_it_is_causal_and_the_scale_is_the_usual_one():
    parts, options = drawn(), {"packing": Packing.of(LENGTHS)}
    module = layer()
    for module.is_causal in (False, True):
        expected = plainly(*parts, module.is_causal, 8**-0.5)
        torch.testing.assert_close(packed_attention(module, *parts, None, **options)[0], expected, atol=1e-9, rtol=0)


def test_weights_are_dropped():
    parts = drawn(torch.bfloat16)
    for training in (False, True):  # both kernels
        outputs, _ = packed_attention(layer(training), *parts, None, packing=Packing.of(LENGTHS), dropout=1.0)
        assert torch.equal(outputs, torch.zeros_like(outputs))


@pytest.mark.parametrize(("changed", "expected"), [
    ({}, True),
    ({"dtype": torch.float16}, True),
    ({"dtype": torch.float32}, False),
    ({"is_cuda": False}, False),
    ({"dropout": 0.1}, False),
    ({"there": None}, False),
    ({"capability": (7, 5)}, False),
    ({"capability": (9, 0)}, True),
    ({"width": 12}, False),
    ({"width": 256}, True),
    ({"width": 264}, False),
])  # fmt: skip
def test_one_kernel_for_all_texts_where_a_gpu_has_it(monkeypatch, changed, expected):
    of = {"dtype": torch.bfloat16, "is_cuda": True, "dropout": 0.0, "there": varlen_plainly, "capability": (8, 0)}
    of |= changed
    monkeypatch.setattr(packed, "varlen_attn", of["there"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: of["capability"])
    query = SimpleNamespace(dtype=of["dtype"], is_cuda=of["is_cuda"], device=None, shape=(1, 2, 3, of.get("width", 64)))
    assert packed._Formula(True, 1.0, of["dropout"]).has_varlen(query) is expected


def test_neighbours_of_one_length_are_one_run():
    packing = Packing.of(LENGTHS)
    assert packing.runs == ((2, 3), (1, 6), (1, 1), (2, 2)) and packing.longest == 6
    assert packing.bounds.tolist() == [0, 3, 6, 12, 13, 15, 17]


@pytest.mark.parametrize("other", [{"sliding_window": 4}, {"softcap": 30.0}, {"s_aux": torch.ones(4)}])
def test_another_attention_is_refused(other):
    options = {"packing": Packing.of(LENGTHS), **other}
    with pytest.raises(NotImplementedError, match="|".join(other)):
        packed_attention(layer(), *drawn(), None, **options)


def test_packed_texts_have_no_mask():
    with pytest.raises(NotImplementedError, match="has no mask"):
        packed_attention(layer(), *drawn(), torch.zeros(1, 1, 17, 17), packing=Packing.of(LENGTHS))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_padding_are_read_as_they_are(tiny, kind):
    vectors = torch.linspace(-1, 1, 3 * 5 * 16).view(3, 5, 16)
    model = tiny(kind)
    expected = model(inputs_embeds=vectors).last_hidden_state
    packed.pack(model)
    masks = [None, torch.ones(3, 5)]
    for mask in masks:
        read = model(inputs_embeds=vectors, attention_mask=mask, use_cache=False).last_hidden_state
        torch.testing.assert_close(read, expected, atol=1e-5, rtol=1e-5)
    masks[1][2, 4] = 0
    with pytest.raises(NotImplementedError, match="cannot read padded ones"):
        model(inputs_embeds=vectors, attention_mask=masks[1])


def test_a_mask_of_rows_says_alone_what_is_seen():
    query, key, value = drawn(shared=1)
    last = torch.full((1, 1, 17, 17), float("-inf"), dtype=query.dtype)
    last[..., -1] = 0
    outputs, _ = packed_attention(layer(), query, key, value, last, is_causal=True)
    torch.testing.assert_close(outputs, value[:, :, -1:].transpose(1, 2).expand_as(outputs))


def pair(tiny, kind, options, **keys):
    """The same encoder, padded and packed."""
    encoders = [ItemEncoder(tiny(kind, **keys), max_text_length=8, packed=way, **options) for way in (False, True)]
    encoders[1].load_state_dict(encoders[0].state_dict())
    return encoders


def texts(lengths):
    return torch.arange(sum(lengths)) * 7 % 40, torch.tensor(lengths)


@pytest.mark.parametrize("item_emb_token_n", [0, 1])
@pytest.mark.parametrize("right_aligned", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_padded_with_gradients(tiny, kind, right_aligned, item_emb_token_n):
    options = {"item_emb_token_n": item_emb_token_n, "right_aligned_positions": right_aligned}
    padded, ours = pair(tiny, kind, options)
    padded.eval(), ours.eval()

    @settings(max_examples=8, deadline=None)
    @given(st.lists(st.integers(0, 8), min_size=1, max_size=7))
    def check(lengths):
        expected, vectors = padded(*texts(lengths)), ours(*texts(lengths))
        torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-5)
        way = torch.linspace(-1, 1, vectors.numel()).view_as(vectors)
        for encoder, result in ((padded, expected), (ours, vectors)):
            encoder.zero_grad()
            (result * way).sum().backward()
        for (name, theirs), own in zip(padded.named_parameters(), ours.parameters(), strict=True):
            if theirs.grad is not None:
                largest = float(theirs.grad.abs().max())
                torch.testing.assert_close(own.grad, theirs.grad, atol=1e-5 * (1 + largest), rtol=0, msg=name)

    check()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_poolings_of_content(tiny, kind, pooling):
    vectors = [
        ContentEncoder(tiny(kind), pooling, end_token=3, max_text_length=8, packed=way).eval()(*texts([3, 5, 3, 1]))
        for way in (False, True)
    ]
    torch.testing.assert_close(*vectors, atol=1e-5, rtol=1e-5)


def test_layers_with_configurations_of_their_own(tiny):
    padded, packed = tiny("bert", hidden_dropout_prob=0.5), tiny("bert", hidden_dropout_prob=0.5)
    for model in (padded, packed):
        set_dropout(model, 0.0)
    padded, ours = (ItemEncoder(model, max_text_length=8, packed=model is packed) for model in (padded, packed))
    ours.load_state_dict(padded.state_dict())
    torch.testing.assert_close(ours(*texts([3, 5, 3, 1])), padded(*texts([3, 5, 3, 1])), atol=1e-5, rtol=1e-5)


def test_layers_that_are_recomputed(tiny):
    padded, ours = pair(tiny, "llama", {})
    ours.train().backbone.gradient_checkpointing_enable({"use_reentrant": False})
    gradients = []
    for encoder in (padded, ours):
        encoder(*texts([4, 2, 4])).square().sum().backward()
        gradients.append(encoder.item_emb_tokens.grad)
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-4)


def test_no_padding_is_read(tiny, monkeypatch):
    encoder = pair(tiny, "bert", {"item_emb_token_n": 0})[1]
    widths = []
    encoder.backbone.encoder.register_forward_pre_hook(lambda _, args: widths.append(tuple(args[0].shape)))
    encoder(*texts([6, 1, 1, 0]))
    assert widths == [(1, 9, 16)]  # an item of no tokens is read as one


def test_bf16(tiny):
    _, ours = pair(tiny, "llama", {})
    exact = ours.train()(*texts([4, 2, 4]))
    for mode in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            rounded = ours.train(mode)(*texts([4, 2, 4]))
        assert torch.cosine_similarity(rounded.float(), exact).min() > 0.99


def test_flash_attention_of_transformers_is_told_where_texts_lie(tiny):
    model = tiny("llama")
    packed.pack(model)
    assert model.config._attn_implementation == PACKED and "packing" in Packing.of(LENGTHS).options(model)
    model.config._attn_implementation = FLASH
    packed.pack(model)
    assert model.config._attn_implementation == FLASH
    options = Packing.of(LENGTHS).options(model)
    assert options.pop("cu_seq_lens_q") is options.pop("cu_seq_lens_k")
    assert options == {"max_length_q": 6, "max_length_k": 6}
