"""Items that are added to a Recommender, and requests that are looked at before they are computed."""

import threading

import pytest
import torch
from exports import write_export

from recbole_hllm.errors import ConfigError, DataError, ModelError
from recbole_hllm.serving import Recommender, Request


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("exports") / "texts")


@pytest.fixture
def recommender(folder):
    return Recommender.from_pretrained(folder)


@pytest.mark.parametrize(
    ("asked", "kind", "message"),
    [
        ({"items": ["i1"], "k": 0}, ConfigError, "k: 0 is no positive number"),
        ({}, DataError, "the history is empty"),
        ({"items": ["x"]}, DataError, "items: not in the catalogue"),
        ({"items": ["i1"], "among": ["x"]}, DataError, "among: not in the catalogue"),
        ({"user": "x"}, DataError, "user: 'x'"),
        ({"texts": [""]}, DataError, "a text is empty"),
    ],
)
def test_check_raises_what_recommend_does_and_computes_nothing(recommender, monkeypatch, asked, kind, message):
    with pytest.raises(kind, match=message):
        recommender.recommend(**asked)
    monkeypatch.setattr(type(recommender.served), "users", None)
    with pytest.raises(kind, match=message):
        recommender.check(Request(**asked))
    assert not recommender.encoder.is_loaded


def test_check_of_a_right_request_computes_nothing(recommender, monkeypatch):
    monkeypatch.setattr(type(recommender.served), "users", None)
    recommender.check(Request(items=["i1"], texts=["red"], user="u1", among=["i2"]))
    assert not recommender.encoder.is_loaded


def test_an_export_without_an_item_llm_reads_no_texts(folder, recommender):
    recommender.encoder = None
    with pytest.raises(ModelError, match="no item_encoder"):
        recommender.check(Request(texts=["red"]))
    with pytest.raises(ModelError, match="no item_encoder"):
        recommender.add_items({"n": {"title": "red"}})


def test_items_are_encoded_where_they_are_new_or_changed(recommender):
    before = recommender.served.items.clone()
    items = {"i1": dict(recommender.catalogue.fields[1]), "i2": {"title": "silk"}, "n": {"title": "wool"}}
    assert recommender.new_or_changed(items) == ["i2", "n"]
    vectors = recommender.vectors_of(items)
    assert set(vectors) == {"i2", "n"}
    assert torch.allclose(vectors["n"], recommender.encoder.encode(["title: wool"])[0], atol=1e-6)
    recommender.remove_items(["i1"])
    recommender.add_items(items, {"n": torch.ones_like(vectors["n"])})
    after = recommender.served.items
    assert torch.equal(after[1], before[1]) and recommender.catalogue.listed[1], "listed again as it was"
    assert torch.allclose(after[2], vectors["i2"], atol=1e-6) and torch.equal(after[21], torch.ones(8))
    assert torch.equal(after[3:21], before[3:]) and recommender.new_or_changed(items) == []


def test_who_asks_while_items_are_added_gets_items_that_are_whole(recommender):
    vectors = {f"n{number}": torch.randn(8) for number in range(3000)}
    wrong, ended = [], threading.Event()

    def ask():
        while not ended.is_set():
            for item in recommender.recommend(items=["i1"], k=50):
                if not item.fields["title"]:
                    wrong.append(item)

    thread = threading.Thread(target=ask)
    thread.start()
    for item, vector in vectors.items():
        recommender.add_items({item: {"title": item}}, {item: vector})
    ended.set()
    thread.join()
    assert not wrong and len(recommender.catalogue) == 3020


def test_fields_that_the_model_does_not_read_change_no_vector(recommender):
    shown = {**recommender.catalogue.fields[2], "stock": "3"}
    before = recommender.served.read[2].clone()
    assert recommender.new_or_changed({"i2": shown}) == []
    recommender.add_items({"i2": shown})
    assert torch.equal(recommender.served.read[2], before) and recommender.catalogue.fields[2] == shown
