"""What a search draws: combinations that the seed decides, without repetition and spread over the space."""

from recbole_hllm.tables.search import draw


def test_draws_are_combinations_without_repetition_that_only_seed_and_space_decide():
    space = {"b": [1, 2, 3], "a": ["x", [1, 2], None]}
    every = draw(space, 9, 2020)
    assert sorted(map(str, every)) == sorted(str({"b": b, "a": a}) for b in space["b"] for a in space["a"])
    for trials in range(1, 9):
        assert draw(space, trials, 2020) == every[:trials]
    assert [list(keys.items()) for keys in draw(dict(reversed(space.items())), 9, 2020)] == [
        list(reversed(keys.items())) for keys in every
    ]
    assert draw(space, 9, 2021) != every and len({str(draw(space, 9, seed)) for seed in range(20)}) > 15


def test_draws_of_huge_spaces_are_as_those_of_small_ones():
    """89^40 combinations, which no order of all of them could hold."""
    space = {f"key_{number}": list(range(89)) for number in range(40)}
    every = draw(space, 20, 2020)
    assert draw(space, 4, 2020) == every[:4] and draw(dict(reversed(space.items())), 20, 2020) == every
    assert len({str(keys) for keys in every}) == 20 and draw(space, 20, 2021) != every
    assert all(keys.keys() == space.keys() and set(keys.values()) <= set(range(89)) for keys in every)
    assert len({value for keys in every for value in keys.values()}) > 80  # 800 draws of 89 values: 89 are expected


def test_draws_of_huge_spaces_do_not_repeat(monkeypatch):
    from recbole_hllm.tables import search as module

    monkeypatch.setattr(module, "_LARGE", 5)
    drawn = draw({"a": [1, 2, 3], "b": [1, 2]}, 6, 2020)
    assert sorted(map(str, drawn)) == sorted(str({"a": a, "b": b}) for a in (1, 2, 3) for b in (1, 2))


def test_the_order_of_small_spaces_stays():
    """Searches that began with it go on with it."""
    drawn = draw({"a": [1, 2, 3], "b": [1, 2]}, 6, 2020)
    assert [(keys["a"], keys["b"]) for keys in drawn] == [(3, 1), (1, 2), (2, 1), (2, 2), (3, 2), (1, 1)]


def test_first_draws_are_spread_over_the_space():
    """Each combination is first equally often: 6 sigma of a binomial around 400."""
    space = {"a": [1, 2, 3], "b": [1, 2]}
    first = [str(draw(space, 1, seed)[0]) for seed in range(2400)]
    counts = [first.count(str({"a": a, "b": b})) for a in space["a"] for b in space["b"]]
    assert sum(counts) == 2400 and all(abs(count - 400) < 6 * (2400 * 5 / 36) ** 0.5 for count in counts)
