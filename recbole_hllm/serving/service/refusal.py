"""What the service does not do: an answer with a status, the field that is meant, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

from recbole_hllm.errors import Damaged, UserError

# Fields whose name begins a message of a Recommender.
FIELDS = ("items", "texts", "user", "times", "at", "k", "exclude", "among")
_UNPROCESSABLE, _UNAVAILABLE, _FAILED = 422, 503, 500
# Mistakes that one answer names.
_MOST = 10


class Refusal(Exception):
    """An answer that says no.

    Args:
        status: of HTTP.
        message: what is wrong, and what to do.
        field: of the body or the address that is meant.
        headers: of the answer.
    """

    def __init__(
        self, status: int, message: str, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.headers = status, message, field, dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """As JSON."""
        return body_of([(self.field, self.message)])


def body_of(errors: Sequence[tuple[str | None, str]]) -> dict[str, Any]:
    """JSON of mistakes, each with the field that is meant; the first ten."""
    shown: list[dict[str, str | None]] = [{"field": field, "message": message} for field, message in errors[:_MOST]]
    if len(errors) > _MOST:
        shown.append({"field": None, "message": f"and {len(errors) - _MOST:,} more"})
    return {"errors": shown}


def busy() -> Refusal:
    """So many wait that one more would wait too long."""
    return Refusal(_UNAVAILABLE, "too many requests wait; ask again in a second", headers={"Retry-After": "1"})


def refusal_of(error: Exception) -> Refusal | None:
    """What a Recommender's error is as an answer; None of one that is the program's own fault.

    Files of the export are the operator's, so a message about them stays in the log.
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Damaged):
        return Refusal(_UNAVAILABLE, "a part of the export cannot be read; the log of the service says which")
    if not isinstance(error, UserError):
        return None
    field, colon, _ = str(error).partition(":")
    return Refusal(_UNPROCESSABLE, str(error), field if colon and field in FIELDS else None)


def failed() -> Refusal:
    """For an error that is the program's own fault."""
    return Refusal(_FAILED, "the service failed; its log says why")
