"""Users whom one row serves well and another badly: what they had, what came next, what each row listed."""

from dataclasses import dataclass
from typing import Any

from recbole_hllm.data.loader import EvalLoader
from recbole_hllm.errors import UserError
from recbole_hllm.report.content import Content
from recbole_hllm.report.wins import Users, extremes
from recbole_hllm.runs.recommend import histories_of, names_of, recommend
from recbole_hllm.runs.run import load_data, load_run

# How many items are shown of a history, its last, and of a list.
HISTORY, LISTED = 5, 5


@dataclass(frozen=True)
class Example:
    """A user of the test.

    Attributes:
        user: the data's id.
        won: the named row is ahead; False: the other is.
        history: names of the user's last items, oldest first.
        targets: names of what came next.
        ranks: row -> rank of the target, the best of several.
        lists: row -> names of the items it ranks first; rows whose weights cannot be read have none.
    """

    user: str
    won: bool
    history: list[str]
    targets: list[str]
    ranks: dict[str, int]
    lists: dict[str, list[str]]


def examples_of(
    content: Content, users: dict[str, Users], named: str, other: str, number: int
) -> tuple[list[Example], list[str]]:
    """Users where a row is furthest ahead of another, then those where it is furthest behind.

    Args:
        content: of the table.
        users: row -> its users; of both rows the same.
        named, other: two rows.
        number: how many of either kind at most.

    Returns:
        The examples, and sentences that say what could not be read: data that are not on this machine, weights that
        were not kept.
    """
    ahead, behind = extremes(users[named], users[other], number)
    ids = [int(user) for user in (*ahead, *behind)]
    if not ids:
        return [], [f"{named} and {other} serve every user alike."]
    try:
        _, config, data, loaders = load_data(content.runs[named].folders[0], _KEYS)
    except UserError as error:
        return [], [f"Examples need the data set: {error}"]
    if not isinstance(loaders[2], EvalLoader):
        return [], ["Examples are of rows that rank items."]
    described, names = histories_of(data, loaders[2], ids), names_of(config, data)
    lists, missing = {}, []
    for row in (named, other):
        try:
            lists[row] = _lists(content, row, [one.user for one in described], names)
        except UserError as error:
            missing.append(f"Lists of {row} are not shown: {error}")
    place = {int(user): at for at, user in enumerate(users[named].ids)}
    found = [
        Example(
            user=one.user,
            won=index < len(ahead),
            history=[names[item] for item in one.history[-HISTORY:]],
            targets=[names[item] for item in one.next_items],
            ranks={row: int(users[row].ranks[place[ids[index]]]) for row in (named, other)},
            lists={row: of[index] for row, of in lists.items()},
        )
        for index, one in enumerate(described)
    ]
    return found, missing


# Whatever a run evaluates and logs, this is no further one of it.
_KEYS: dict[str, Any] = {"evaluate_only": True, "log_wandb": False, "show_progress": False, "resume": False}


def _lists(content: Content, row: str, users: list[str], names: dict[str, str]) -> list[list[str]]:
    listed = recommend(load_run(content.runs[row].folders[0], _KEYS), users, LISTED)
    return [[names[item] for item in one.items] for one in listed]
