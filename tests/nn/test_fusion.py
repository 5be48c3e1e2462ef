import torch

from recbole_hllm.nn.fusion import Fusion


def test_the_layers_written_out():
    torch.manual_seed(0)
    fusion = Fusion(3, 4, [5, 6])
    users, items = torch.randn(7, 3), torch.randn(7, 4)
    first = torch.cat([fusion.user_proj(users), fusion.item_proj(items)], dim=-1).clamp(min=0)
    middle = fusion.layers[0](first).clamp(min=0)
    expected = middle, (middle @ fusion.head.weight[0]) + fusion.head.bias
    for one, other in zip(fusion(users, items), expected, strict=True):
        torch.testing.assert_close(one, other)
    assert fusion.middle_size == 6


def test_one_size_gives_the_projections_themselves():
    fusion = Fusion(2, 2, [3])
    assert fusion.middle_size == 6 and fusion(torch.randn(4, 2), torch.randn(4, 2))[0].shape == (4, 6)
