"""Malformed requests: a clear answer to each, and never an error of the program."""

import json
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as some

FIELDS = ("items", "texts", "user", "times", "at", "k", "exclude", "among", "filter_seen", "explain")
STRINGS = some.text(max_size=8) | some.sampled_from(["i1", "i2", "u1", "\ud800", "\x00", "../..", "red", "title"])
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | STRINGS | some.integers(0, 3),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=8,
)
WANTED = some.dictionaries(some.sampled_from(FIELDS) | STRINGS, VALUES, max_size=5) | VALUES
NEARLY = some.fixed_dictionaries(
    {"items": some.lists(some.sampled_from(["i1", "i2", "i3"]) | STRINGS, max_size=3)},
    optional={
        "texts": some.lists(STRINGS | some.dictionaries(STRINGS, STRINGS, max_size=2), max_size=2),
        "user": STRINGS | some.none(), "k": some.integers(-2, 600), "at": some.floats(), "explain": some.booleans(),
        "among": some.lists(some.sampled_from(["i1", "i2"]) | STRINGS, max_size=2), "exclude": some.lists(STRINGS),
        "times": some.lists(some.floats() | some.integers(), max_size=3), "filter_seen": some.booleans(),
    },
)  # fmt: skip
UNFINISHED = some.text(max_size=40).map(lambda text: f'{{"items": "{text}"'.encode("utf-8", "replace"))
JSON = {"content-type": "application/json"}


def clear(answer, wrong_only=False):
    """Whether an answer is one, or says what is wrong."""
    assert answer.status_code in ((400, 404, 422) if wrong_only else (200, 400, 404, 422)), answer.text
    if answer.status_code != 200:
        mistakes = answer.json()["errors"]
        assert mistakes and all(len(mistake["message"]) > 8 for mistake in mistakes)
        assert not any(word in answer.text for word in ("Traceback", "recbole_hllm", "/tmp", "site-packages"))


@settings(max_examples=600)
@given(WANTED)
def test_any_json(shared, body):
    answer = shared.post("/recommend", content=json.dumps(body), headers=JSON)
    history = isinstance(body, dict) and any(body.get(name) for name in ("items", "texts", "user"))
    clear(answer, wrong_only=not history)


@settings(max_examples=200)
@given(NEARLY)
def test_json_that_is_nearly_right(shared, body):
    clear(shared.post("/recommend", content=json.dumps(body), headers=JSON))


@settings(max_examples=150)
@given(some.binary(max_size=60) | UNFINISHED)
def test_bytes_that_are_no_json(shared, body):
    clear(shared.post("/recommend", content=body, headers=JSON), wrong_only=True)


@settings(max_examples=100)
@given(some.dictionaries(STRINGS, VALUES.filter(lambda value: not isinstance(value, dict)), max_size=3) | VALUES)
def test_items_that_are_none(shared, body):
    answer = shared.post("/items", content=json.dumps(body), headers=JSON)
    clear(answer)


@settings(max_examples=60)
@given(some.text(max_size=30), some.text(max_size=20))
def test_ids_and_words_in_the_address(shared, item, typed):
    path = quote(item.encode("utf-8", "replace"), safe="")
    clear(shared.delete(f"/items/{path}"), wrong_only=not item.startswith("i"))
    clear(shared.get("/items", params={"search": typed.encode("utf-8", "replace").decode()}))
