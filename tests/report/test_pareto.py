"""The Pareto front."""

from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.report.pareto import front

NUMBERS = st.integers(0, 6).map(float)


def on_front(points):
    """By the definition."""
    return {
        number
        for number, (cost, quality) in enumerate(points)
        if not any(c <= cost and q >= quality and (c < cost or q > quality) for c, q in points)
    }


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12))
def test_nobody_beats_them_and_all_others_are_beaten(points):
    found = front(points)
    assert set(found) == on_front(points) and len(found) == len(set(found))
    assert [points[number][0] for number in found] == sorted(points[number][0] for number in found)


def test_one_case():
    assert front([(3, 0.9), (1, 0.5), (2, 0.4), (1, 0.5), (3, 0.8)]) == [1, 3, 0]
    assert front([]) == []
