"""Recommendations of one row for one user, by title, below a table."""

from recbole_hllm.runs.recommend import item_names, recommend
from recbole_hllm.runs.run import Run

_LAST_ITEMS = 5


def example_lines(model: str, run: Run, k: int) -> list[list[str]]:
    """A heading and a Markdown list: the last items of the first user of the test, the next one, and ``k`` recommended.

    Args:
        model: name of the row.
        run: its finished run, with ``mask_history``.
        k: how many recommendations.
    """
    (example,), names = recommend(run, k=k), item_names(run)
    places = {item: place for place, item in enumerate(example.items, start=1)}
    following = [f"{names[item]} ({_place(places.get(item))})" for item in example.next_items]
    last = [names[item] for item in example.history[-_LAST_ITEMS:]]
    listed = [f"{place}. {names[item]}" for item, place in places.items()]
    return [
        [f"{model} for user {example.user}, the first of the test, without items of the history:"],
        [
            f"- last items: {'; '.join(last) or 'none'}",
            f"- next, held out: {'; '.join(following)}",
            f"- {len(listed)} recommendations: {'; '.join(listed)}",
        ],
    ]


def _place(place: int | None) -> str:
    return "not in the list" if place is None else f"number {place}"
