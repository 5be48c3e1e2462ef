"""User models with layers of their own: what they compute of a batch, and what they read."""

import pytest
import torch

from recbole_hllm.nn.user_models.base import Histories
from recbole_hllm.nn.user_models.sequence import FilterUser, HSTUUser, LiGRUser, LRUUser, SASRecUser

WIDTH, LENGTH = 8, 6
MAKE = {
    "SASRec": lambda: SASRecUser(WIDTH, LENGTH, 2, 2, 12, "relu", 1e-6),
    "eSASRec": lambda: LiGRUser(WIDTH, LENGTH, 2, 2, 12),
    "HSTU": lambda: HSTUUser(WIDTH, LENGTH, 2, 2, with_times=False),
    "HSTU with times": lambda: HSTUUser(WIDTH, LENGTH, 2, 2, with_times=True),
    "LRURec": lambda: LRUUser(WIDTH - 1, 2, 12),
    "FMLP-Rec": lambda: FilterUser(WIDTH, LENGTH, 2, 12),
}


@pytest.fixture(params=MAKE)
def model(request):
    torch.manual_seed(0)
    made = MAKE[request.param]().eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return made


def histories(lengths, width=None):
    """The same items whatever the padding."""
    generator, width = torch.Generator().manual_seed(1), width or max(lengths)
    real = torch.arange(width) < torch.tensor(lengths)[:, None]
    vectors = torch.randn(len(lengths), LENGTH, WIDTH, generator=generator)[:, :width]
    vectors = torch.nn.functional.pad(vectors, (0, 0, 0, width - vectors.shape[1]))
    times = torch.arange(width, dtype=torch.float64).square() * 1000 * real
    at = torch.full((len(lengths),), 1e6, dtype=torch.float64)
    return Histories(vectors * real[..., None], real.long(), torch.tensor(lengths), times, at)


@torch.no_grad()
def test_a_batch_is_its_rows_and_padding_does_not_count(model):
    lengths = [4, 1, 6, 2]
    together = model(histories(lengths))
    assert together.shape == (4, WIDTH) and together.std(dim=0).median() > 0.01
    whole = histories(lengths)
    for row, length in enumerate(lengths):
        times = whole.times[row : row + 1, :length]
        alone = Histories(
            whole.vectors[row : row + 1, :length], whole.items[row : row + 1, :length], torch.tensor([length]), times,
            whole.at[:1],
        )  # fmt: skip
        torch.testing.assert_close(model(alone)[0], together[row], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_every_item_and_their_order_count(model):
    before = histories([4])
    user = model(before)
    for place in range(4):
        vectors = before.vectors.clone()
        vectors[0, place] += 1 - 2 * torch.rand(WIDTH, generator=torch.Generator().manual_seed(place))
        changed = Histories(vectors, before.items, before.lengths, before.times, before.at)
        assert (model(changed) - user).abs().max() > 1e-4, place
    turned = Histories(before.vectors.flip(1), before.items, before.lengths, before.times, before.at)
    assert (model(turned) - user).abs().max() > 1e-3


def test_the_settings_make_the_same_again(model):
    again = type(model).build(model.settings)
    assert {name: weight.shape for name, weight in again.state_dict().items()} == {
        name: weight.shape for name, weight in model.state_dict().items()
    }
    again.load_state_dict(model.own_weights())
    with torch.no_grad():
        assert torch.equal(again.eval()(histories([3, 6])), model(histories([3, 6])))


@torch.no_grad()
def test_only_an_hstu_with_times_reads_them(model):
    one = histories([4])
    later = Histories(one.vectors, one.items, one.lengths, one.times * 50, one.at)
    assert torch.equal(model(one), model(later)) != model.reads_times
    assert model.reads_times == bool(model.settings.get("with_times"))


@torch.no_grad()
def test_the_last_number_of_an_lru_recs_user_is_1():
    assert LRUUser(3, 1, 4)(Histories(torch.randn(2, 3, 4), torch.ones(2, 3), torch.tensor([3, 1])))[:, -1].eq(1).all()
