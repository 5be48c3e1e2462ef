"""The exact lines of one user's recommendations."""

from recbole_hllm.runs.recommend import Recommendation
from recbole_hllm.tables import examples
from recbole_hllm.tables.examples import example_lines

NAMES = {f"i{item}": f"Film {item}" for item in range(9)}


def lines(monkeypatch, **entry):
    asked = []
    entry = {"user": "u7", "history": [], "next_items": ["i6"], "items": ["i7", "i6"], **entry}
    monkeypatch.setattr(examples, "recommend", lambda run, k: asked.append((run, k)) or [Recommendation(**entry)])
    monkeypatch.setattr(examples, "item_names", lambda run: NAMES)
    result = example_lines("HLLM", "the run", 2)
    assert asked == [("the run", 2)]
    return result


def test_last_items_next_item_and_list(monkeypatch):
    assert lines(monkeypatch, history=[f"i{item}" for item in range(6)]) == [
        [
            "Recommendations of HLLM for user u7, the first of the test; what the user had is left out.",
            "The user's last items: Film 1; Film 2; Film 3; Film 4; Film 5.",
            "The next, held out: Film 6 (number 2).",
        ],
        ["1. Film 7", "2. Film 6"],
    ]


def test_several_targets_and_no_history(monkeypatch):
    (_, *said), _ = lines(monkeypatch, next_items=["i8", "i7"])
    assert said == ["The user's last items: none.", "The next, held out: Film 8 (not in the list); Film 7 (number 1)."]
