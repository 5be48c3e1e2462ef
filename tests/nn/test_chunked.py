import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.activations import Activations, Bytes, Room
from recbole_hllm.nn.chunked import chunk_sizes, encode_items, share_of_chunks
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.tuning import LoraSettings, tune

lengths_and_budget = st.tuples(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 40))


class SumEncoder(nn.Module):
    """One item -> (sum of weights of its tokens, its length); remembers the chunks it saw."""

    out_features = 2

    def __init__(self):
        super().__init__()
        self.weight = nn.Embedding(200, 1, dtype=torch.float64)
        self.chunks = []

    def forward(self, tokens, lengths):
        assert len(tokens) == lengths.sum()
        self.chunks.append(lengths.tolist())
        sums = [self.weight(text).sum() for text in tokens.split(lengths.tolist())]
        return torch.stack([torch.stack(sums), lengths.double()], 1)


def texts(lengths):
    return torch.arange(sum(lengths)) % 200, torch.tensor(lengths, dtype=torch.long)


@given(lengths_and_budget, st.booleans())
def test_order_and_budget(case, recompute):
    lengths, budget = case
    tokens, n_tokens = texts(lengths)
    encoder = SumEncoder()
    vectors = encode_items(encoder, tokens, n_tokens, token_budget=budget, recompute=recompute)
    assert vectors.shape == (len(lengths), 2)
    assert vectors[:, 1].tolist() == lengths
    expected = [encoder.weight(text).sum().item() for text in tokens.split(lengths)]
    assert vectors[:, 0].tolist() == pytest.approx(expected)
    for chunk in encoder.chunks:
        assert len(chunk) == 1 or len(chunk) * (max(chunk) + 1) <= budget
    # longest with longest, and no chunk smaller than it has to be
    assert sum(encoder.chunks, []) == sorted(lengths, reverse=True)
    for chunk, following in zip(encoder.chunks, encoder.chunks[1:], strict=False):
        assert following and (len(chunk) + 1) * (max(chunk) + 1) > budget


@given(lengths_and_budget, st.integers(1, 4))
def test_shares_of_processes_are_whole_chunks(case, world_size):
    lengths, budget = case
    tokens, n_tokens = texts(lengths)
    alone, together = SumEncoder(), SumEncoder()
    encode_items(alone, tokens, n_tokens, token_budget=budget)
    shares = [share_of_chunks(n_tokens, budget, rank, world_size) for rank in range(world_size)]
    assert torch.cat(shares).tolist() == sorted(range(len(lengths)), key=lambda item: -lengths[item])
    numbers = []
    for share in shares:
        own = [tokens.split(lengths)[item] for item in share.tolist()]
        encode_items(together, torch.cat([tokens[:0], *own]), n_tokens[share], token_budget=budget)
        numbers.append(len(together.chunks))
    assert together.chunks == alone.chunks
    counts = [last - first for first, last in zip([0, *numbers], numbers, strict=False)]
    assert max(counts) - min(counts) <= 1


@settings(max_examples=10)
@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=8), budget=st.integers(1, 30))
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("kind", "item_emb_token_n"), [("llama", 1), ("bert", 1), ("bert", 0)])
def test_vectors_and_gradients_equal_the_plain_pass(
    encoders, kind, item_emb_token_n, recompute, lengths, budget
):
    encoder = encoders[kind, item_emb_token_n]
    tokens, n_tokens = torch.arange(sum(lengths)) % 40, torch.tensor(lengths)
    weights = torch.linspace(-1, 1, 16)
    results = []
    for vectors in (
        encoder(tokens, n_tokens),
        encode_items(encoder, tokens, n_tokens, token_budget=budget, recompute=recompute),
    ):
        encoder.zero_grad()
        (vectors * weights).sum().backward()
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in encoder.parameters()]
        results.append((vectors, torch.cat([gradient.flatten() for gradient in gradients])))
    torch.testing.assert_close(results[1][0], results[0][0], atol=2e-5, rtol=1e-4)
    scale = results[0][1].abs().max().clamp(min=1e-3)
    torch.testing.assert_close(results[1][1] / scale, results[0][1] / scale, atol=2e-5, rtol=1e-3)


@pytest.fixture(scope="module")
def encoders():
    from recbole_hllm.nn.backbone import BackboneSpec, load_backbone

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    made = {}
    for kind, n in (("llama", 1), ("bert", 1), ("bert", 0)):
        torch.manual_seed(3)
        config = {"model_type": kind, "vocab_size": 40, "initializer_range": 0.3, **sizes}
        backbone = load_backbone(BackboneSpec(None, "scratch", config=config)).eval()
        made[kind, n] = ItemEncoder(backbone, item_emb_token_n=n, max_text_length=8)
    return made


def test_recomputation_repeats_dropout(tiny):
    """With dropout the gradient fits the outputs only if both passes draw the same random numbers."""
    encoder = ItemEncoder(tiny("bert", hidden_dropout_prob=0.5), max_text_length=8).train()
    tokens, lengths = torch.arange(9), torch.tensor([4, 2, 3])
    results = []
    for recompute in (False, True):
        torch.manual_seed(5)
        encoder.zero_grad()
        vectors = encode_items(encoder, tokens, lengths, token_budget=8, recompute=recompute)
        torch.rand(3)  # what runs between the passes must not matter
        vectors.square().sum().backward()
        results.append((vectors, encoder.item_emb_tokens.grad.clone()))
    torch.testing.assert_close(results[0], results[1])


def test_recomputation_keeps_no_activations(tiny):
    encoder = ItemEncoder(tiny("llama"), max_text_length=8)
    tokens, lengths = torch.arange(24) % 40, torch.full((6,), 4)
    kept = {}
    for recompute in (False, True):
        sizes = []
        parameters = {parameter.data_ptr() for parameter in encoder.parameters()}

        def pack(tensor, sizes=sizes, parameters=parameters):
            if tensor.data_ptr() not in parameters:
                sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            encode_items(encoder, tokens, lengths, token_budget=10, recompute=recompute)
        kept[recompute] = sum(sizes)
    assert kept[True] < 0.05 * kept[False]


def test_sizes_of_chunks_are_those_that_are_encoded():
    lengths = [3, 9, 0, 4, 4, 1, 7, 2]
    encoder = SumEncoder()
    encode_items(encoder, *texts(lengths), token_budget=12)
    assert chunk_sizes(lengths, 12) == [(len(chunk), max(chunk) + 1) for chunk in encoder.chunks]
    assert chunk_sizes([], 12) == []


def room_for(tokens):
    """Memory for the activations of so many padded tokens."""
    return Room(Activations(Bytes(1.0, 0.0), Bytes(1.0, 0.0)), tokens)


@settings(max_examples=40)
@given(lengths_and_budget.filter(lambda case: case[0]), st.integers(0, 60))
def test_what_does_not_fit_is_computed_again_the_longest_first_and_last(case, size):
    lengths, budget = case
    tokens, n_tokens = texts(lengths)
    encoder = SumEncoder()
    vectors = encode_items(encoder, tokens, n_tokens, token_budget=budget, recompute=room_for(size))
    forward, encoder.chunks = encoder.chunks, []
    vectors.sum().backward()
    again = len(encoder.chunks)
    assert encoder.chunks == forward[:again][::-1]
    kept = [len(chunk) * (max(chunk) + 1) for chunk in forward[again:]]
    assert sum(kept) <= size
    assert again == 0 or sum(kept) + len(forward[again - 1]) * (max(forward[again - 1]) + 1) > size
    with torch.no_grad():
        encoder.chunks = []
        encode_items(encoder, tokens, n_tokens, token_budget=budget, recompute=room_for(size))
        assert encoder.chunks == forward


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize(("kind", "n"), [("bert", 0), ("gpt2", 1)])
def test_a_step_is_the_same_whatever_is_computed_again(tiny, kind, n, mode, checkpointing, precision):
    """All gradients, with dropout of every kind."""
    rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "resid_pdrop", "attn_pdrop", "embd_pdrop")
    backbone = tiny(kind, **{rate: 0.3 for rate in rates if ("pdrop" in rate) == (kind == "gpt2")})
    if mode == "lora":
        pytest.importorskip("peft")
        tune(backbone, "lora", LoraSettings(r=2, dropout=0.3))
    if checkpointing:
        backbone.gradient_checkpointing_enable({"use_reentrant": False})
    encoder = ItemEncoder(backbone, item_emb_token_n=n, max_text_length=8, out_features=5).train()
    tokens, lengths = torch.arange(30) % 40, torch.tensor([4, 2, 7, 3, 3, 5, 6])
    results = []
    for recompute in (False, True, room_for(20)):
        torch.manual_seed(5)
        encoder.zero_grad()
        with torch.autocast("cpu", precision, enabled=precision is not None):
            vectors = encode_items(encoder, tokens, lengths, token_budget=16, recompute=recompute)
            after = torch.rand(3)
        vectors.float().square().sum().backward()
        gradients = {name: weight.grad for name, weight in encoder.named_parameters() if weight.grad is not None}
        results.append((vectors.detach(), after, gradients))
    plain = results[0]
    assert len(plain[2]) > 2 and any(gradient.abs().max() > 1e-3 for gradient in plain[2].values())
    for vectors, after, gradients in results[1:]:
        assert torch.equal(vectors, plain[0]) and torch.equal(after, plain[1])
        assert gradients.keys() == plain[2].keys()
        for name, gradient in gradients.items():
            assert torch.equal(gradient, plain[2][name]), name


@pytest.mark.parametrize("recompute", [False, True])
def test_autocast_and_no_grad(tiny, recompute):
    encoder = ItemEncoder(tiny("llama"), max_text_length=8)
    tokens, lengths = torch.arange(9), torch.tensor([4, 2, 3])
    exact = encoder(tokens, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        vectors = encode_items(encoder, tokens, lengths, token_budget=8, recompute=recompute)
    vectors.float().sum().backward()
    assert torch.cosine_similarity(vectors.float(), exact).min() > 0.99
    assert encoder.item_emb_tokens.grad.isfinite().all()
    with torch.no_grad():
        vectors = encode_items(encoder, tokens, lengths, token_budget=8, recompute=recompute)
    assert not vectors.requires_grad
    torch.testing.assert_close(vectors, exact.detach(), atol=2e-5, rtol=0)


def test_no_items_and_no_budget():
    tokens, lengths = texts([])
    assert encode_items(SumEncoder(), tokens, lengths, token_budget=8).shape == (0, 2)
    with pytest.raises(ModelError, match="token budget 0"):
        encode_items(SumEncoder(), tokens, lengths, token_budget=0)
