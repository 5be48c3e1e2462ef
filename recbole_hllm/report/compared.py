"""One row of a table beside each other, user by user."""

from dataclasses import dataclass, field

from recbole_hllm.report.content import Content
from recbole_hllm.report.examples import Example, examples_of
from recbole_hllm.report.wins import Users, Wins, leader, users_of, wins


@dataclass
class Compared:
    """A row beside the others.

    Attributes:
        users: row -> users of its test; rows that keep no ranks are not there.
        named: the row that is compared; None where its users are not known.
        wins: it beside each other row.
        examples: users of it and of the best other row.
        sentences: what a reader should know of all this.
    """

    users: dict[str, Users]
    named: str | None = None
    wins: list[Wins] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)


def compare_users(content: Content, against: str | None, number: int) -> Compared:
    """The users of a table.

    Args:
        content: of the table.
        against: the row to compare; None: the one that leads.
        number: of examples of either kind.
    """
    done = [row["model"] for row in content.rows if "error" not in row]
    users = {name: users_of(content.runs[name].folders, content.metric or "") for name in done}
    found = Compared({name: one for name, one in users.items() if one is not None})
    found.named = leader(content, list(found.users)) if against is None else against
    if found.named not in found.users:
        whose = f"{against} keeps" if against else "the rows keep"
        found.sentences = [f"Users are not compared: {whose} no ranks that give {content.metric or 'a metric'}."]
        found.named = None
        return found
    found.wins = wins(found.users, found.named)
    best = leader(content, [one.other for one in found.wins])
    if best is None or not number:
        return found
    found.examples, found.sentences = examples_of(content, found.users, found.named, best, number)
    if found.examples:
        extremes = f"Examples are the users with the largest differences from {best}: extremes, not average users."
        found.sentences.insert(0, extremes)
    return found
