"""Recommendations, against all scores sorted; items that come and go; what is refused."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_served import N_ITEMS, blend, hstu, numbers_of, random_table, recommender, sasrec, slow_scores, z_scores

from recbole_hllm.errors import Damaged, DataError, ModelError
from recbole_hllm.serving.folder import UserHistories
from recbole_hllm.serving.requests import Request

IDS = [f"i{number}" for number in range(1, N_ITEMS + 1)]
SOME = st.lists(st.sampled_from(IDS), max_size=4)
REQUESTS = st.builds(
    Request,
    items=st.lists(st.sampled_from(IDS), min_size=1, max_size=6),
    k=st.integers(1, 20),
    exclude=st.lists(st.sampled_from([*IDS, "unknown"]), max_size=4),
    among=st.none() | SOME,
    filter_seen=st.booleans(),
)
PLAIN, BLEND, Z_SCORES = recommender(sasrec()), recommender(blend()), recommender(z_scores())


def slow(served, request):
    """(id, score) of the best, from the score of every item."""
    scores = slow_scores(served, numbers_of(request.items))
    out = {*request.exclude, *(request.items if request.filter_seen else ())}
    allowed = {item for item in IDS if item not in out and (request.among is None or item in request.among)}
    best = sorted(((scores[int(item[1:])], item) for item in allowed), reverse=True)[: request.k]
    return [(item, score) for score, item in best]


def assert_slow(found, wanted):
    assert [item.id for item in found] == [item for item, _ in wanted]
    assert [item.score for item in found] == pytest.approx([score for _, score in wanted], rel=1e-4, abs=1e-5)
    assert all(item.fields == {"title": f"Title {item.id}"} for item in found)


@pytest.mark.parametrize(
    "asked", [PLAIN, BLEND, Z_SCORES], ids=["vectors", "blend with Markov", "z-scores with a table"]
)
@given(requests=st.lists(REQUESTS, min_size=1, max_size=4))
def test_the_best_of_all_scores(asked, requests):
    for request, found in zip(requests, asked.recommend_many(requests), strict=True):
        assert_slow(found, slow(asked.served, request))


@pytest.mark.parametrize("served", [sasrec(3, n_items=300), blend()], ids=["vectors", "blend"])
def test_few_are_found_among_many(served):
    """The index is asked for no more than k and what may be left out of it."""
    many, wanted = recommender(served), []
    search = many.index.search
    many.index.search = lambda users, k: (wanted.append(k), search(users, k))[1]
    found = many.recommend(["i5", "i7", "i5"], k=3, exclude=["i1"])
    scores = slow_scores(served, [5, 7, 5])
    best = sorted(((score, item) for item, score in scores.items() if item not in (1, 5, 7)), reverse=True)[:3]
    assert numbers_of(item.id for item in found) == [item for _, item in best]
    assert wanted[0] <= 3 + 3 + 2


def test_who_scores_all_does_so_for_some_requests_at_a_time(monkeypatch):
    requests = [Request([f"i{1 + place % N_ITEMS}", "i3"], k=4) for place in range(9)]
    asked = recommender(z_scores())
    wanted = [[item.id for item in asked.recommend_many([request])[0]] for request in requests]
    monkeypatch.setattr("recbole_hllm.serving.best_items.MOST_SCORES", 2 * (N_ITEMS + 1))
    assert [[item.id for item in found] for found in asked.recommend_many(requests)] == wanted
    asked.remove_items([wanted[0][0]])
    assert [item.id for item in asked.recommend_many(requests[:1])[0]][:3] == wanted[0][1:]


def test_ids_may_be_numbers():
    asked = recommender(sasrec())
    asked.catalogue = type(asked.catalogue)([str(number) for number in range(1, N_ITEMS + 1)], [{}] * N_ITEMS)
    found = asked.recommend([3, 5], k=2, exclude=[1], among=[1, 2, 4])
    assert [item.id for item in found] == [item.id for item in asked.recommend(["3", "5"], k=2, among=["2", "4"])]
    asked.remove_items([2])
    assert [item.id for item in asked.recommend([3, 5], among=[1, 2, 4], exclude=[1])] == ["4"]


def test_what_is_not_there_is_told():
    for unknown in ({"items": ["x"]}, {"items": ["i1"], "among": ["x"]}):
        with pytest.raises(DataError, match="not in the catalogue: 'x'"):
            PLAIN.recommend(**unknown)
    with pytest.raises(DataError, match="the history is empty"):
        PLAIN.recommend()
    with pytest.raises(DataError, match="holds no histories of users"):
        PLAIN.recommend(user="u1")
    with pytest.raises(ModelError, match="SASRec knows items by id and reads no texts"):
        PLAIN.recommend(texts=["a title"])
    with pytest.raises(ModelError, match="SASRec knows items by id"):
        PLAIN.add_items({"new": {"title": "New"}})
    assert PLAIN.recommend_many([]) == [] and PLAIN.recommend(["i1"], among=[]) == []
    assert len(PLAIN.recommend(["i1"], k=10**12)) == N_ITEMS - 1


def test_known_users_have_a_history_that_items_come_after():
    offsets, items = torch.tensor([0, 2, 5]), torch.tensor([1, 2, 3, 4, 5])
    histories = UserHistories.of(["u1", "7"], items, torch.arange(5.0).double() * 100, offsets)
    asked = recommender(sasrec(), histories=histories)
    assert asked.recommend(user="u1") == asked.recommend(["i1", "i2"])
    assert asked.recommend(user=7, items=["i9"]) == asked.recommend(["i3", "i4", "i5", "i9"])
    with pytest.raises(DataError, match="user: 'u3' has no history"):
        asked.recommend(user="u3")
    timed = recommender(hstu(), histories=histories)
    given_ = timed.recommend(user="u1", items=["i9"], times=[5000.0], at=9000.0)
    assert given_ == timed.recommend(["i1", "i2", "i9"], times=[0.0, 100.0, 5000.0], at=9000.0)
    assert given_ != timed.recommend(["i1", "i2", "i9"], times=[0.0, 100.0, 200.0], at=9000.0)
    with pytest.raises(Damaged, match="item 99 of 12"):
        of_another = UserHistories.of(["u"], torch.tensor([99]), torch.zeros(1), torch.tensor([0, 1]))
        recommender(sasrec(), histories=of_another)


def test_models_that_read_times_want_one_for_each_item():
    timed = recommender(hstu())
    with pytest.raises(DataError, match="times: this model reads the time of each item: 2 are given, with 0 times"):
        timed.recommend(["i1", "i2"])
    wanted = slow_scores(timed.served, [1, 2], [10.0, 20.0], 500.0)
    best = sorted((score for item, score in wanted.items() if item not in (1, 2)), reverse=True)[:3]
    found = timed.recommend(["i1", "i2"], times=[10, 20], at=500, k=3)
    assert [item.score for item in found] == pytest.approx(best, abs=1e-5)
    assert timed.recommend(["i1", "i2"], times=[10, 20]) != timed.recommend(["i1", "i2"], times=[10, 20], at=21)


def test_a_frame_has_a_line_for_each_rank():
    frame = PLAIN.recommend_frame({"a": ["i1"], 5: ["i2", "i3"]}, k=2, exclude=["i4"])
    assert list(frame.columns) == ["user_id", "item_id", "score", "rank"]
    assert frame["user_id"].tolist() == ["a", "a", 5, 5] and frame["rank"].tolist() == [1, 2, 1, 2]
    alone = PLAIN.recommend(["i2", "i3"], k=2, exclude=["i4"])
    assert frame["item_id"].tolist()[2:] == [item.id for item in alone]
    assert frame["score"].tolist()[2:] == pytest.approx([item.score for item in alone], abs=1e-6)
    assert PLAIN.recommend_frame({}).empty


# ---- items that come and go ----


class Titles:
    """An encoder: the vector of ``Title 5`` is row 5 of a table."""

    def encode(self, texts):
        return random_table(77, n_items=3000)[[int(text.split()[-1]) for text in texts]]


def of_texts():
    asked = recommender(sasrec(), encoder=Titles())
    asked.manifest["template"] = {"text_keys": ["title"], "item_prompt": "", "field": "{value}"}
    return type(asked)(asked.served, asked.catalogue, asked.manifest, asked.encoder)


def test_new_items_are_recommended_at_once_and_read():
    asked = of_texts()
    asked.add_items({"new": {"title": "Title 40"}, "i3": {"title": "Title 41"}})
    table = torch.cat([random_table(1), random_table(77, n_items=3000)[40:41]])
    table[3] = random_table(77, n_items=3000)[41]
    user = asked.served.user_model
    again = type(asked.served)(user, table, cosine=False, length=4)
    wanted = slow_scores(again, [13, 3])
    found = asked.recommend(["new", "i3"], k=13, filter_seen=False)
    assert {item.id: item.score for item in found} == pytest.approx(
        {f"i{number}" if number < 13 else "new": score for number, score in wanted.items()}, abs=1e-5
    )
    assert [item.fields for item in found if item.id == "i3"] == [{"title": "Title 41"}]
    texts = asked.recommend(texts=["Title 40", {"title": "Title 41"}], k=20)
    assert [item.id for item in texts][:5] == [item.id for item in found][:5]


def test_removed_items_are_read_and_not_recommended_until_they_come_back():
    asked = of_texts()
    best = asked.recommend(["i1"], k=3)
    asked.remove_items([best[0].id, best[1].id])
    assert asked.recommend(["i1"], k=1)[0].id == best[2].id
    assert asked.recommend(["i1"], among=[best[0].id, best[2].id])[0].id == best[2].id
    assert asked.recommend([best[0].id], k=2), "it stays readable"
    asked.add_items({best[0].id: {"title": "Title 2"}})
    assert best[0].id in [item.id for item in asked.recommend(["i1"], k=11)]
    with pytest.raises(DataError, match="items: not in the catalogue: 'x'"):
        asked.remove_items(["x"])


def test_who_asks_between_vector_and_id_of_a_new_item_gets_an_answer(monkeypatch):
    asked = of_texts()
    add, answers = asked.catalogue.add, []

    def slowly(item, fields):
        answers.append(asked.recommend(["i1"], k=50))
        assert len(asked.recommend(["i1"], k=5)) == 5
        return add(item, fields)

    monkeypatch.setattr(asked.catalogue, "add", slowly)
    asked.add_items({f"n{number}": {"title": f"Title {number}"} for number in range(1, 4)})
    assert [len(answer) for answer in answers] == [11, 12, 13]
    assert len(asked.recommend(["i1"], k=50)) == 14


def test_many_ask_while_items_come_and_go():
    asked, wrong, stop = of_texts(), [], threading.Event()

    def ask():
        while not stop.is_set():
            try:
                found = asked.recommend(["i1", "i2"], k=5)
                if len({item.id for item in found}) != len(found) or not all(abs(item.score) < 1e4 for item in found):
                    wrong.append(found)
            except Exception as error:  # whatever it is, the test names it
                wrong.append(error)

    readers = [threading.Thread(target=ask) for _ in range(3)]
    for reader in readers:
        reader.start()
    for first in range(1, 1500, 100):
        asked.add_items({f"n{number}": {"title": f"Title {number}"} for number in range(first, first + 100)})
        asked.remove_items([f"n{number}" for number in range(first, first + 50)])
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == [] and len(asked.catalogue) == N_ITEMS + 750


def test_a_blend_has_no_vectors_for_new_items():
    with pytest.raises(ModelError, match="items by id"):
        BLEND.add_items({"new": {"title": "New"}})


def test_removed_items_make_a_search_look_for_more():
    many, asked = recommender(sasrec(3, n_items=300)), []
    search = many.index.search
    many.index.search = lambda users, k: (asked.append(k), search(users, k))[1]
    before = [item.id for item in many.recommend(["i1"], k=30)]
    many.remove_items(before[:6])
    asked.clear()
    assert [item.id for item in many.recommend(["i1"], k=3)] == before[6:9]
    assert asked == [4, 8, 16]  # k and what was seen; then twice as many
    many.remove_items([item for item in many.catalogue.ids[1:] if item != before[7]])
    assert [item.id for item in many.recommend(["i1"], k=3)] == [before[7]]
