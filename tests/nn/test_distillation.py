import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.distillation import block_ends, direction_loss, norm_loss


def states(blocks=3, positions=5, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(positions, width, generator=generator, dtype=torch.float64) for _ in range(blocks)]


def plain(students, teachers, of_a_pair, reduction):
    """Numbers one at a time, as the formulas are printed."""
    per_block = []
    for student, teacher in zip(students, teachers, strict=True):
        pairs = zip(student.tolist(), teacher.tolist(), strict=True)
        values = [of_a_pair(h, t) for h, t in pairs]
        per_block.append(sum(values) / len(values))
    return sum(per_block) if reduction == "sum" else sum(per_block) / len(per_block)


def one_minus_cosine(h, t):
    dot, norms = sum(a * b for a, b in zip(h, t, strict=True)), [math.sqrt(sum(a * a for a in v)) for v in (h, t)]
    return 1 - dot / (norms[0] * norms[1])


def distance(power):
    return lambda h, t: sum((a - b) ** 2 for a, b in zip(h, t, strict=True)) ** (power / 2)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_direction_is_the_plain_formula(reduction):
    students, teachers = states(seed=1), states(seed=2)
    expected = plain(students, teachers, one_minus_cosine, reduction)
    assert direction_loss(students, teachers, reduction).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("power", [1, 2])
def test_norm_is_the_plain_formula(reduction, power):
    students, teachers = states(seed=1), states(seed=2)
    expected = plain(students, teachers, distance(power), reduction)
    assert norm_loss(students, teachers, reduction, power).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [direction_loss, norm_loss, lambda s, t: norm_loss(s, t, "sum", 1)])
def test_gradients_are_those_of_small_steps(loss):
    students, teachers = states(blocks=2, positions=2), states(blocks=2, positions=2, seed=3)
    students = [student.requires_grad_() for student in students]
    loss(students, teachers).backward()
    for student in students:
        for place in ((0, 0), (1, 3)):
            step = torch.zeros_like(student)
            step[place] = 0.05
            moved = [[h + sign * step if h is student else h for h in students] for sign in (1, -1)]
            slope = (loss(moved[0], teachers) - loss(moved[1], teachers)) / 0.1
            assert student.grad[place].item() == pytest.approx(slope.item(), rel=0.02, abs=2e-4)


def test_equal_states_cost_nothing_and_move_nothing():
    teachers = states()
    for loss in (direction_loss, norm_loss, lambda s, t: norm_loss(s, t, "mean", 1)):
        students = [teacher.clone().requires_grad_() for teacher in teachers]
        value = loss(students, teachers)
        value.backward()
        assert value.item() == pytest.approx(0, abs=2e-6)
        assert all(student.grad.isfinite().all() and student.grad.abs().max() < 1e-5 for student in students)


def test_direction_knows_no_length_and_opposite_costs_two():
    teachers = states()
    assert direction_loss([3 * teacher for teacher in teachers], teachers).item() == pytest.approx(0, abs=1e-6)
    assert direction_loss([-teacher for teacher in teachers], teachers).item() == pytest.approx(2, abs=1e-6)


def test_half_precision_states_are_compared_in_float32():
    students, teachers = ([state.bfloat16() * 300 for state in states(seed=seed)] for seed in (1, 2))
    expected = plain([h.double() for h in students], [t.double() for t in teachers], distance(2), "mean")
    assert norm_loss(students, teachers).item() == pytest.approx(expected, rel=1e-4)


@given(st.integers(1, 8), st.integers(1, 8))
def test_blocks_have_equally_many_layers_and_the_last_ends_on_top(per_block, blocks):
    ends = block_ends(per_block * blocks, blocks)
    assert len(ends) == blocks and ends[-1] == per_block * blocks
    assert {after - before for before, after in zip((0, *ends), ends, strict=False)} == {per_block}


@pytest.mark.parametrize("depth, blocks", [(7, 4), (2, 4), (4, 0)])
def test_layers_that_cannot_be_shared(depth, blocks):
    with pytest.raises(ModelError, match=f"{depth} layers cannot be cut into {blocks} blocks"):
        block_ends(depth, blocks)
