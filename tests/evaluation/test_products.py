"""Which scores are products of vectors, found by watching; none that is something else."""

import pytest
import torch
import torch.nn.functional as F

from recbole_hllm.evaluation.products import ProductFinder

USERS, ITEMS = torch.randn(4, 3), torch.randn(7, 3)
BIAS = torch.randn(7)
PRODUCTS = {
    "matmul": lambda: torch.matmul(USERS, ITEMS.transpose(0, 1)),
    "mm": lambda: torch.mm(USERS, ITEMS.T),
    "@": lambda: USERS @ ITEMS.t(),
    "method": lambda: USERS.matmul(ITEMS.T),
    "flat": lambda: torch.matmul(USERS, ITEMS.T).view(-1),
    "of what is computed": lambda: F.normalize(USERS + USERS @ ITEMS[:3].T, dim=-1) @ F.normalize(ITEMS, dim=-1).T,
    "in double precision": lambda: USERS.double() @ ITEMS.double().T,
}
OTHERS = {
    "bias": lambda: USERS @ ITEMS.T + BIAS,
    "bias in place": lambda: (USERS @ ITEMS.T).add_(BIAS),
    "sigmoid": lambda: (USERS @ ITEMS.T).sigmoid(),
    "temperature": lambda: USERS @ ITEMS.T / 0.1,
    "two products": lambda: USERS @ ITEMS.T + USERS @ ITEMS.T,
    "written to": lambda: (USERS @ ITEMS.T).index_fill_(1, torch.tensor([0]), -1.0),
    "linear": lambda: F.linear(USERS, ITEMS, BIAS),
    "a vector of each pair": lambda: (USERS[:, None] * ITEMS).sum(-1),
    "half precision": lambda: USERS.bfloat16() @ ITEMS.bfloat16().T,
    "not the last": lambda: (USERS @ ITEMS.T) @ torch.eye(7),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_vectors_of_a_product(name):
    score = PRODUCTS[name]
    for _ in range(2):
        users, items = ProductFinder(lambda rows: score(), 7).find(range(4))
        assert torch.equal(users @ items.T, score().view(4, 7))


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_product_is_watched_once(name):
    calls = []
    finder = ProductFinder(lambda rows: calls.append(rows) or OTHERS[name](), 7)
    assert finder.find(range(4)) is None and finder.find(range(4)) is None
    assert len(calls) == 1


def of_some(change):
    scores = USERS @ ITEMS.T
    change(scores)
    return scores


def bonus(scores):
    scores[:, torch.tensor([1, 2])] += 1.0


def factor(scores):
    scores[torch.arange(4), torch.arange(4)] *= 0.5


def accumulated(scores):
    scores.index_put_((torch.tensor([1]), torch.tensor([2])), torch.ones(1), accumulate=True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("change", [bonus, factor, accumulated])
def test_scores_that_are_changed_at_some_places_are_no_product(change):
    """Torch writes to a tensor without memory then, and what is added to a stand-in is lost."""
    assert ProductFinder(lambda rows: of_some(change), 7).find(range(4)) is None


def test_a_model_that_checks_its_scores_is_not_told_of_the_stand_in():
    def score(rows):
        scores = USERS @ ITEMS.T
        assert scores.isfinite().all()
        return scores

    assert ProductFinder(score, 7).find(range(4)) is None


def test_one_row_that_is_written_to_is_no_product():
    """A tensor of one row can be written to in part."""

    def score(rows):
        scores = USERS[:1] @ ITEMS.T
        scores[:, 0] = -1
        return scores

    assert ProductFinder(score, 7).find(range(1)) is None


def test_a_product_of_another_shape_is_none():
    assert ProductFinder(lambda rows: USERS @ ITEMS.T, 7).find(range(3)) is None
    assert ProductFinder(lambda rows: USERS @ ITEMS.T, 8).find(range(4)) is None


def test_a_model_without_scores_of_the_catalogue():
    def score(rows):
        raise NotImplementedError

    assert ProductFinder(score, 7).find(range(4)) is None


def test_under_autocast_a_product_is_another():
    with torch.autocast("cpu", torch.bfloat16):
        assert ProductFinder(lambda rows: USERS @ ITEMS.T, 7).find(range(4)) is None


def test_an_error_of_the_model_shows_when_it_is_asked_again():
    finder = ProductFinder(lambda rows: USERS @ ITEMS, 7)
    assert finder.find(range(4)) is None
    with pytest.raises(RuntimeError):
        finder.score(range(4))
