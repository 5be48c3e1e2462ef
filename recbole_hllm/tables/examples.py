"""Recommendations of one row for one user, by title, below a table."""

from recbole_hllm.runs.recommend import item_names, recommend
from recbole_hllm.runs.run import Run

_LAST_ITEMS = 5


def example_lines(model: str, run: Run, k: int) -> list[list[str]]:
    """The last items of the first user of the test and the next one, and a list of ``k`` recommended, as Markdown.

    Args:
        model: name of the row.
        run: its finished run, with ``mask_history``.
        k: how many recommendations.
    """
    (example,), names = recommend(run, k=k), item_names(run)
    places = {item: place for place, item in enumerate(example.items, start=1)}
    following = [f"{names[item]} ({_place(places.get(item))})" for item in example.next_items]
    last = [names[item] for item in example.history[-_LAST_ITEMS:]]
    whose = f"Recommendations of {model} for user {example.user}, the first of the test"
    return [
        [
            f"{whose}; what the user had is left out.",
            f"The user's last items: {'; '.join(last) or 'none'}.",
            f"The next, held out: {'; '.join(following)}.",
        ],
        [f"{place}. {names[item]}" for item, place in places.items()],
    ]


def _place(place: int | None) -> str:
    return "not in the list" if place is None else f"number {place}"
