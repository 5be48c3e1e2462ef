"""Why items are recommended, as an answer has it."""

from collections.abc import Sequence
from typing import Any

from recbole_hllm.serving.explain import Reason, explain_all
from recbole_hllm.serving.requests import Request
from recbole_hllm.serving.service.loaded import Loaded

# Items of the history that are named of each kind.
_MOST = 3


def reasons(loaded: Loaded, request: Request, items: Sequence[str]) -> list[dict[str, Any]]:
    """Of each recommended item, the items of the history that add most to its score, and those most like it."""
    explained = explain_all(loaded.recommender, request, items) if items else []
    return [_why(loaded, found) for found in explained]


def _why(loaded: Loaded, found: Sequence[Reason]) -> dict[str, Any]:
    contributing = sorted(found, key=lambda reason: -(reason.contribution or 0.0))
    nearest = sorted(
        (reason for reason in found if reason.similarity is not None), key=lambda reason: -(reason.similarity or 0.0)
    )
    return {
        "contributing": [_shown(loaded, reason) for reason in contributing[:_MOST]],
        "nearest": [_shown(loaded, reason) for reason in nearest[:_MOST]],
    }


def _shown(loaded: Loaded, reason: Reason) -> dict[str, Any]:
    return {
        "id": reason.id,
        "title": loaded.title(reason.id),
        "contribution": reason.contribution,
        "similarity": reason.similarity,
    }
