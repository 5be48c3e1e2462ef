"""The HSTU block against its formula, written out with loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.nn.hstu import EPSILON, HSTUBlock, RelativeBias, time_buckets


def silu(value):
    return value / (1 + math.exp(-value))


def normed(vector):
    mean = sum(vector) / len(vector)
    variance = sum((value - mean) ** 2 for value in vector) / len(vector)
    return [(value - mean) / math.sqrt(variance + EPSILON) for value in vector]


def linear(vector, weight, bias=None):
    rows = [sum(w * value for w, value in zip(row, vector, strict=True)) for row in weight]
    return rows if bias is None else [row + b for row, b in zip(rows, bias, strict=True)]


def plain_bucket(seconds):
    return min(max(math.floor(math.log(max(1, abs(seconds))) / 0.301), 0), 128)


def plain_block(x, block, times=None):
    """One history, S lists of D numbers, and S + 1 times, of its items and of the one to predict; number by number."""
    width, heads, n = len(x[0]), block.n_heads, block.length
    weight, out = block.uvqk.weight.tolist(), block.out.weight.tolist()
    size = width // heads
    u, v, q, k = [], [], [], []
    for vector in x:
        projected = [silu(value) for value in linear(normed(vector), weight)]
        for part, store in enumerate((u, v, q, k)):
            store.append(projected[part * width : (part + 1) * width])
    outputs = []
    for i, vector in enumerate(x):
        mixed = [0.0] * width
        for head in range(heads):
            places = range(head * size, (head + 1) * size)
            for j in range(i + 1):
                logit = sum(q[i][place] * k[j][place] for place in places)
                if times is not None:
                    logit += block.bias.position[j - i + n - 1].item()
                    logit += block.bias.time[plain_bucket(times[i + 1] - times[j])].item()
                for place in places:
                    mixed[place] += silu(logit) / n * v[j][place]
        gated = [gate * value for gate, value in zip(u[i], normed(mixed), strict=True)]
        change = linear(gated, out, block.out.bias.tolist())
        outputs.append([value + more for value, more in zip(vector, change, strict=True)])
    return outputs


def large_block(length, *, relative_bias, width=6, n_heads=2, dropout=0.0):
    """Weights far from 0, so that a wrong formula shows."""
    torch.manual_seed(length)
    block = HSTUBlock(width, n_heads, length, dropout, relative_bias=relative_bias).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.7)
    return block.eval()


def history(rows, length, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, length, width, generator=generator, dtype=torch.float64)
    gaps = 10 ** (6 * torch.rand(rows, length + 1, generator=generator, dtype=torch.float64))
    return x, (1e9 + gaps.cumsum(1)).floor()


@settings(max_examples=15)
@given(n=st.integers(1, 6), shorter=st.integers(0, 5), seed=st.integers(0, 1000), timed=st.booleans())
def test_the_block_is_its_formula(n, shorter, seed, timed):
    length = max(1, n - shorter)
    block = large_block(n, relative_bias=timed)
    x, times = history(2, length, seed=seed)
    with torch.no_grad():
        outputs = block(x, time_buckets(times[:, :-1], times[:, 1:]) if timed else None)
    for row in range(2):
        expected = plain_block(x[row].tolist(), block, times[row].tolist() if timed else None)
        torch.testing.assert_close(outputs[row], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


def test_a_block_with_numbers_worked_out_by_hand():
    """One head, N = 2, a history of one item; u, v, q and k are all SiLU(2 norm(x))."""
    block = HSTUBlock(2, 1, 2, 0.0, relative_bias=False).double()
    with torch.no_grad():
        block.uvqk.weight.copy_(torch.tensor([[2.0, 0], [0, 2.0]] * 4))
        block.out.weight.copy_(torch.eye(2))
        block.out.bias.copy_(torch.tensor([10.0, 20.0]))
    x = torch.tensor([[[3.0, 1.0]]], dtype=torch.float64)  # norm (1, -1), projected (2, -2)
    high, low = 2 / (1 + math.exp(-2)), -2 / (1 + math.exp(2))  # SiLU of 2 and of -2
    logit = high * high + low * low
    weight = logit / (1 + math.exp(-logit)) / 2  # N = 2, though the history has one item
    spread = weight * (high - low) / 2  # of the mixed values round their mean
    unit = spread / math.sqrt(spread**2 + 1e-6)
    expected = [3 + 10 + high * unit, 1 + 20 - low * unit]
    assert block(x)[0, 0].tolist() == pytest.approx(expected, abs=5e-6)  # the norm's epsilon


@pytest.mark.parametrize("timed", [True, False])
def test_the_future_never_matters(timed):
    block = large_block(6, relative_bias=timed)
    x, times = history(3, 6)
    other, other_times = history(3, 6, seed=1)
    for cut in range(1, 6):
        changed = torch.cat([x[:, :cut], other[:, cut:]], dim=1)
        # The time of the item to predict, at `cut`, is known; all later ones are the future.
        changed_times = torch.cat([times[:, : cut + 1], other_times[:, cut + 1 :]], dim=1)
        buckets = [time_buckets(t[:, :-1], t[:, 1:]) if timed else None for t in (times, changed_times)]
        with torch.no_grad():
            before, after = block(x, buckets[0]), block(changed, buckets[1])
        torch.testing.assert_close(before[:, :cut], after[:, :cut], rtol=0, atol=1e-12)
        assert not torch.allclose(before[:, cut:], after[:, cut:], atol=1e-3)


@pytest.mark.parametrize("timed", [True, False])
def test_the_width_of_the_batch_does_not_matter(timed):
    block = large_block(8, relative_bias=timed)
    x, times = history(2, 8)
    buckets = time_buckets(times[:, :-1], times[:, 1:]) if timed else None
    with torch.no_grad():
        short = block(x[:, :3], buckets[:, :3, :3] if timed else None)
        torch.testing.assert_close(short, block(x, buckets)[:, :3], rtol=0, atol=1e-12)


def test_the_time_of_the_item_to_predict_matters():
    block = large_block(3, relative_bias=True)
    x, times = history(1, 3)
    later = times.clone()
    later[0, 3] += 1e8
    with torch.no_grad():
        before, after = (block(x, time_buckets(t[:, :-1], t[:, 1:])) for t in (times, later))
    assert torch.equal(before[:, :2], after[:, :2]) and not torch.allclose(before[:, 2], after[:, 2], atol=1e-3)


def test_dropout_is_of_the_gated_values_in_training_only():
    block = large_block(3, relative_bias=False, dropout=0.5)
    x, _ = history(1, 3)
    assert torch.equal(block(x), block(x))
    block.train()
    assert not torch.equal(block(x), block(x))
    with torch.no_grad():
        block.out.weight.zero_()
    assert torch.equal(block(x), x + block.out.bias), "neither the input nor the output is dropped"


# ---- time ----


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0, 0), (0.5, 0), (1, 0), (1.3, 0), (1.4, 1), (2, 2), (60, 13), (3600, 27), (86400, 37), (-86400, 37),
     (31_557_600, 57), (1e16, 122), (1e17, 128), (1e300, 128)],
)  # fmt: skip
def test_buckets_of_seconds(seconds, bucket):
    zero = torch.zeros(1, 1, dtype=torch.float64)
    assert time_buckets(zero, zero + seconds).item() == bucket


def test_buckets_are_of_the_next_items_time():
    times = torch.tensor([[1_000_000_000, 1_000_000_010, 1_000_003_600]], dtype=torch.float64)
    next_times = torch.tensor([[1_000_000_010, 1_000_003_600, 1_000_003_601]], dtype=torch.float64)
    buckets = time_buckets(times, next_times)[0]
    expected = [[plain_bucket(later - earlier) for earlier in times[0].tolist()] for later in next_times[0].tolist()]
    assert buckets.tolist() == expected
    assert expected[0][0] == 7 and expected[1][:2] == [27, 27] and expected[2] == [27, 27, 0]


def test_bias_is_shared_by_equal_distances():
    bias = RelativeBias(4)
    assert bias.position.shape == (7,) and bias.time.shape == (129,)
    with torch.no_grad():
        bias.position.copy_(torch.arange(7.0))
        bias.time.zero_()
        bias.time[5] = 100
    buckets = torch.zeros(1, 3, 3, dtype=torch.long)
    buckets[0, 2, 0] = 5
    assert bias(buckets).tolist() == [[[3, 4, 5], [2, 3, 4], [101, 2, 3]]]
