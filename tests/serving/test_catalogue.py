"""Items of a Recommender by id and number."""

import pytest

from recbole_hllm.errors import DataError
from recbole_hllm.serving.catalogue import Catalogue


@pytest.fixture
def catalogue():
    return Catalogue(["apple", "pear", "7"], [{"title": "Apple"}, {}, {}])


def test_numbers_begin_at_1(catalogue):
    assert catalogue.numbers(["pear", "apple", "pear"], "items") == [2, 1, 2] and catalogue.number("kiwi") is None
    assert catalogue.ids[0] == "" and catalogue.number("") is None and len(catalogue) == 3


def test_ids_that_are_numbers_are_their_texts(catalogue):
    assert catalogue.number(7) == 3 and 7 in catalogue and catalogue.numbers([7], "items") == [3]
    assert catalogue.add(8, {}) == 4 and catalogue.ids[4] == "8" and catalogue.number("8") == 4
    assert catalogue.change(8, {"title": "Eight"}) == 4 and catalogue.fields[4] == {"title": "Eight"}


def test_unknown_ids_are_named_with_the_nearest(catalogue):
    with pytest.raises(DataError, match=r"items: not in the catalogue: 'aple'; did you mean 'apple'\?"):
        catalogue.numbers(["apple", "aple"], "items")
    with pytest.raises(DataError, match=r"among: not in the catalogue: 'x0', 'x1', 'x2', 'x3', 'x4' and 2 more"):
        catalogue.numbers([f"x{place}" for place in range(7)], "among")


def test_removed_items_stay_readable_and_come_back(catalogue):
    catalogue.remove([1, 3])
    assert catalogue.listed.tolist() == [False, False, True, False] and len(catalogue) == 1
    assert catalogue.numbers(["apple"], "items") == [1]
    assert catalogue.change("apple", {"title": "New"}) == 1
    assert catalogue.listed[1] and catalogue.fields[1] == {"title": "New"}


def test_many_items_are_added(catalogue):
    for number in range(4, 3000):
        assert catalogue.add(f"n{number}", {"title": str(number)}) == number
    assert len(catalogue) == 2999 and catalogue.number("n2999") == 2999 and catalogue.fields[2999] == {"title": "2999"}
    assert catalogue.listed[1:3000].all() and not catalogue.listed[3000:].any()


def test_ids_are_all_different_and_not_empty(catalogue):
    with pytest.raises(DataError, match="two items of the catalogue have the same id"):
        Catalogue(["a", "b", "a"], [{}, {}, {}])
    for item in ("", "apple"):
        with pytest.raises(DataError, match=f"items: '{item}' is no id of a new item"):
            catalogue.add(item, {})
    assert len(catalogue) == 3
