"""Items by what is typed, against a loop over all of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from recbole_hllm.serving.catalogue import Catalogue
from recbole_hllm.serving.service.titles import Titles, title_of

WORDS = some.text("ab É\t", max_size=5)


def slow(catalogue, typed, limit):
    """By a loop: exact ids, then beginnings of ids, of titles, of words, and then anything."""
    typed = " ".join(typed.split())
    lines = {}
    for number in range(1, len(catalogue.ids)):
        if catalogue.listed[number]:
            names = catalogue.ids[number], title_of(catalogue.fields[number])
            lines[number] = [" ".join(name.split()).lower() for name in names]
    low = typed.lower()
    ranks = {}
    for number, (item, title) in lines.items():
        line = f"{item}\t{title}"
        if catalogue.ids[number] == typed and low in line:
            ranks[number] = 0
        elif line.startswith(low):
            ranks[number] = 1
        elif title.startswith(low):
            ranks[number] = 2
        elif f" {low}" in line:
            ranks[number] = 3
        elif low in line:
            ranks[number] = 4
    return ranks, sorted(ranks, key=ranks.get)[:limit]


@given(some.lists(WORDS, min_size=1, max_size=8), some.sets(some.integers(0, 7)), WORDS, some.integers(1, 5))
def test_as_a_loop_finds_them(names, removed, typed, limit):
    catalogue = Catalogue([f"x{place}{name}" for place, name in enumerate(names)], [{"title": name} for name in names])
    titles = Titles(catalogue)
    catalogue.remove([place + 1 for place in removed if place < len(names)])
    found, (ranks, wanted) = titles.search(typed, limit), slow(catalogue, typed, limit)
    assert len(found) == len(wanted) and len(set(found)) == len(found)
    if typed.split():
        assert [ranks[number] for number in found] == [ranks[number] for number in wanted]
    else:
        assert found == [number for number in range(1, len(names) + 1) if catalogue.listed[number]][:limit]


def test_items_that_are_added_or_changed_later():
    catalogue = Catalogue(["a", "b"], [{"title": "red shoe"}, {"title": "blue hat"}])
    titles = Titles(catalogue)
    catalogue.add("c", {"title": "red coat"})
    catalogue.change("a", {"title": "silk"})
    titles.add(["c", "a"])
    assert titles.search("red", 5) == [3] and titles.search("silk", 5) == [1] and titles.search("shoe", 5) == []
    assert titles.search("b", 5) == [2]


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({"brand": "x", "title": "shoe"}, "shoe"),
        ({"title": "", "name": "hat"}, "hat"),
        ({"class": "Drama", "movie_title": "Heat"}, "Heat"),
        ({"text": "first", "more": "x"}, "first"),
        ({}, ""),
    ],
)
def test_which_field_is_the_title(fields, title):
    assert title_of(fields) == title


def test_an_empty_catalogue():
    assert Titles(Catalogue([], [])).search("a", 3) == []
