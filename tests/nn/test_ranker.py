"""RankingHead."""

import pytest
import torch

from recbole_hllm.nn.ranker import RankingHead

USERS, ITEMS = torch.randn(3, 4), torch.randn(3, 4)
READ = {
    "concat": lambda user, item: torch.cat([user, item]),
    "product": lambda user, item: user * item,
    "both": lambda user, item: torch.cat([user, item, user * item]),
}


def plain(head, vector):
    """The perceptron written out."""
    linear = [layer for layer in head.layers if isinstance(layer, torch.nn.Linear)]
    for layer in linear[:-1]:
        vector = (layer.weight @ vector + layer.bias).clamp(min=0)
    return (linear[-1].weight @ vector + linear[-1].bias).squeeze()


@pytest.mark.parametrize("hidden", [[], [5], [6, 3]])
@pytest.mark.parametrize("inputs", READ)
def test_logits_of_two_vectors(inputs, hidden):
    head = RankingHead(4, hidden, inputs)
    expected = [plain(head, READ[inputs](user, item)) for user, item in zip(USERS, ITEMS, strict=True)]
    torch.testing.assert_close(head(USERS, ITEMS), torch.stack(expected))


def test_logits_of_one_vector():
    head = RankingHead(4, [5])
    torch.testing.assert_close(head(USERS), torch.stack([plain(head, user) for user in USERS]))


def test_every_user_with_every_item():
    head = RankingHead(4, [5], "both")
    table = head(USERS[:, None], ITEMS)
    assert table.shape == (3, 3)
    for index in range(3):
        torch.testing.assert_close(table[:, index], head(USERS, ITEMS[index].expand(3, -1)))
