"""A LiGR layer against its formula, written out place by place and head by head."""

import torch
import torch.nn.functional as F

from recbole_hllm.nn.ligr import LiGRLayer


def layer(dropout=0.0):
    torch.manual_seed(0)
    made = LiGRLayer(6, 2, 10, dropout, dropout).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.7)
    return made


def by_hand(made, row):
    """(S, 6) of one row."""
    normed, heads = made.norms[0](row), []
    q, k, v = (normed @ part.T + bias for part, bias in zip(
        made.attention.qkv.weight.split(6), made.attention.qkv.bias.split(6), strict=True))  # fmt: skip
    for head in (slice(0, 3), slice(3, 6)):
        places = [
            F.softmax(q[place, head] @ k[: place + 1, head].T / 3**0.5, dim=0) @ v[: place + 1, head]
            for place in range(len(row))
        ]
        heads.append(torch.stack(places))
    attended = torch.cat(heads, dim=1) @ made.attention.out.weight.T + made.attention.out.bias
    row = row + torch.sigmoid(made.gates[0](row)) * attended
    normed, part = made.norms[1](row), made.feed_forward
    inner = F.silu(normed @ part.gate.weight.T) * (normed @ part.up.weight.T)
    return row + torch.sigmoid(made.gates[1](row)) * (inner @ part.down.weight.T)


def test_equals_the_formula():
    made, rows = layer(), torch.randn(2, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(made(rows), torch.stack([by_hand(made, row) for row in rows]))


def test_the_future_is_not_read():
    made, rows = layer(), torch.randn(2, 5, 6, dtype=torch.float64)
    changed = rows.clone()
    changed[:, 3:] += 1
    torch.testing.assert_close(made(rows)[:, :3], made(changed)[:, :3])
    assert not torch.allclose(made(rows)[:, 3:], made(changed)[:, 3:])


def test_dropout_is_of_training():
    made, rows = layer(dropout=0.5), torch.randn(1, 5, 6, dtype=torch.float64)
    assert not torch.equal(made(rows), made(rows))
    assert torch.equal(made.eval()(rows), made(rows))
