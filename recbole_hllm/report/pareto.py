"""Which rows are worth their cost."""

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The Pareto front of (cost, quality): who is not beaten by another that costs no more, is no worse, and better in
    one of the two.

    Args:
        points: cost, less is better, and quality, more is better.

    Returns:
        Numbers of the points on the front, by rising cost; of equal points all.
    """
    order = sorted(range(len(points)), key=lambda number: (points[number][0], -points[number][1]))
    kept: list[int] = []
    for number in order:
        if not kept or points[number][1] > points[kept[-1]][1] or points[number] == points[kept[-1]]:
            kept.append(number)
    return kept
