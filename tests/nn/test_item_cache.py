import pytest
import torch

from recbole_hllm.nn.item_cache import ItemCache

N = 7  # items, the padding item included


def everything_of(cache, drawn=(), of_rows=()):
    return cache.all_items(torch.tensor(drawn, dtype=torch.long), torch.tensor(of_rows, dtype=torch.long))


class Encodes:
    """Vectors that say when they were computed; remembers what it was asked for."""

    def __init__(self):
        self.step, self.asked = 0, []

    def __call__(self, ids):
        self.asked.append(ids.tolist())
        return torch.stack([ids, torch.full_like(ids, self.step)], dim=1).float()


def steps(cache, batches):
    """Runs steps whose items are all encoded; returns what was encoded beside them, by step."""
    encode, found = Encodes(), []
    for encode.step, batch in enumerate(batches):
        encode.asked = []
        cache.begin_step(encode)
        found.append(sum(encode.asked, []))
        ids = torch.tensor(batch, dtype=torch.long)
        cache.with_live(ids, torch.arange(len(ids)), encode(ids).requires_grad_())
    return found


def test_all_items_are_encoded_once_at_the_beginning():
    cache = ItemCache(N, 2)
    assert steps(cache, [[1], [2, 5], [5], []]) == [[1, 2, 3, 4, 5, 6], [], [], []]
    assert everything_of(cache).vectors.tolist() == [[1, 0], [2, 1], [3, 0], [4, 0], [5, 2], [6, 0]]
    assert cache.age().item() == pytest.approx((3 + 2 + 3 + 3 + 1 + 3) / 6)


def test_a_refresh_takes_the_oldest():
    cache = ItemCache(N, 2, every=2, at_once=2)
    assert steps(cache, [[1], [2], [3], [4], []])[1:] == [[], [1, 3], [], [5, 6]]
    assert everything_of(cache).vectors[:, 1].tolist() == [2, 1, 2, 3, 4, 4]


def test_a_refresh_of_all():
    assert [len(asked) for asked in steps(ItemCache(N, 2, every=3), [[1]] * 5)] == [6, 0, 0, 6, 0]


def test_live_vectors_have_gradients_and_the_others_are_those_of_the_cache():
    cache, encode = ItemCache(N, 2), Encodes()
    cache.begin_step(encode)
    ids, live = torch.tensor([2, 4, 6]), torch.tensor([2, 0])
    vectors = torch.tensor([[60.0, 1.0], [20.0, 1.0]], requires_grad=True)
    read = cache.with_live(ids, live, vectors)
    assert read.tolist() == [[20, 1], [4, 0], [60, 1]]
    everything = everything_of(cache)
    assert everything.ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert everything.vectors[:, 0].tolist() == [1, 20, 3, 4, 5, 60]
    (read.sum() + 2 * everything.vectors.sum()).backward()
    assert torch.equal(vectors.grad, torch.full((2, 2), 3.0))
    cache.begin_step(encode)
    assert not everything_of(cache).vectors.requires_grad
    assert everything_of(cache).vectors[:, 0].tolist() == [1, 20, 3, 4, 5, 60]


def test_the_cache_goes_on_from_a_checkpoint():
    one, other = ItemCache(N, 2, every=2, at_once=2), ItemCache(N, 2, every=2, at_once=2)
    steps(one, [[1], [2]])
    other.load_state_dict(one.state_dict())
    assert steps(other, [[3], [4]]) == [[1, 3], []]


def test_gradients_of_drawn_items_stand_for_all_that_are_not_in_the_rows():
    torch.manual_seed(0)
    n_items, of_rows, k, draws = 6, [2, 5], 3, 4000
    weights, total = torch.randn(n_items), torch.zeros(n_items)
    for _ in range(draws):
        cache, drawn = ItemCache(N, 1), torch.randint(1, N, (k,))
        cache.begin_step(lambda ids: torch.zeros(len(ids), 1))
        ids = torch.cat([torch.tensor(of_rows), drawn]).unique()
        vectors = torch.zeros(len(ids), 1, requires_grad=True)
        cache.with_live(ids, torch.arange(len(ids)), vectors)
        (cache.all_items(drawn, torch.tensor(of_rows)).vectors[:, 0] * weights).sum().backward()
        total[ids - 1] += vectors.grad[:, 0]
    torch.testing.assert_close(total / draws, weights, atol=0.1, rtol=0.05)
    rows = torch.tensor(of_rows) - 1
    torch.testing.assert_close(total[rows] / draws, weights[rows], atol=1e-4, rtol=1e-4)
