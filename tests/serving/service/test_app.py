"""Each address: what it answers, and what it says to wrong requests."""

import json
import re
from pathlib import Path

import pytest
from exports import LENGTH, titles, write_export

from recbole_hllm.serving import Recommender
from recbole_hllm.serving.service import bodies
from recbole_hllm.serving.service.limits import Limits


def said(answer, status=422):
    """Field and message of the one mistake."""
    assert answer.status_code == status, answer.text
    (mistake,) = answer.json()["errors"]
    return mistake["field"], mistake["message"]


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


# ---- recommendations ----


@pytest.mark.parametrize(
    "asked",
    [
        {"items": ["i1", "i2"]},
        {"items": ["i3"], "k": 3, "filter_seen": False},
        {"items": ["i3"], "exclude": ["i4", "unknown"], "k": 20},
        {"items": ["i3", "i5"], "among": ["i5", "i6", "i7"]},
        {"user": "u1"},
        {"user": "u2", "items": ["i9"]},
        {"texts": ["red shoe"]},
        {"texts": [{"title": "wool hat", "other": "x"}, "red shoe"], "items": ["i1"], "k": 4},
    ],
)
def test_it_answers_what_the_recommender_does(shared, texts_export, asked):
    answer = shared.post("/recommend", json=asked)
    wanted = Recommender.from_pretrained(texts_export).recommend(**asked)
    assert ids(answer) == [item.id for item in wanted]
    for item, own in zip(answer.json()["items"], wanted, strict=True):
        assert item["score"] == pytest.approx(own.score, abs=1e-5)
        assert item["title"] == item["fields"]["title"] == titles(20)[int(own.id[1:]) - 1]


def test_an_answer_says_why(shared, texts_export):
    history = ["i1", "i2", "i3", "i4", "i5"]
    answer = shared.post("/recommend", json={"items": history, "k": 2, "explain": True}).json()
    recommender = Recommender.from_pretrained(texts_export)
    scores = {item.id: item.score for item in recommender.recommend(items=history, k=20)}
    for item in answer["items"]:
        added = {}
        for place, left_out in enumerate(history):
            others = recommender.recommend(items=history[:place] + history[place + 1 :], k=20)
            added[left_out] = scores[item["id"]] - {one.id: one.score for one in others}[item["id"]]
        most = sorted(added, key=lambda one: -added[one])[:3]
        assert [reason["id"] for reason in item["why"]["contributing"]] == most
        for reason in item["why"]["contributing"]:
            assert reason["contribution"] == pytest.approx(added[reason["id"]], abs=1e-4)
        like = [reason["similarity"] for reason in item["why"]["nearest"]]
        assert like == sorted(like, reverse=True) and len(like) == 3


def test_a_history_of_one_item_and_of_a_text_have_reasons(shared):
    (item,) = shared.post("/recommend", json={"items": ["i1"], "k": 1, "explain": True}).json()["items"]
    assert item["why"]["contributing"][0]["id"] == "i1" and "contribution" not in item["why"]["contributing"][0]
    (item,) = shared.post("/recommend", json={"texts": ["red hat"], "k": 1, "explain": True}).json()["items"]
    assert item["why"]["contributing"] == [{"id": "red hat", "title": "red hat"}]


def test_a_model_that_reads_times(served, tmp_path):
    client = served(write_export(tmp_path / "times", times=True, texts=False), journal=None)
    assert client.get("/health").json()["reads_times"] is True
    asked = {"items": ["i1", "i2"], "times": [1.6e9, 1.7e9], "at": 1.7e9, "k": 3}
    best = client.post("/recommend", json=asked)
    wanted = Recommender.from_pretrained(tmp_path / "times").recommend(**asked)
    assert ids(best) == [item.id for item in wanted]
    field, message = said(client.post("/recommend", json={"items": ["i1"]}))
    assert field == "times" and "1 are given, with 0 times" in message
    field, message = said(client.post("/recommend", json={**asked, "times": [1.6e12, 1.7e12][:1] + [1.0]}))
    assert field == "times.0" and "divide milliseconds by 1000" in message


# ---- wrong requests ----


@pytest.mark.parametrize(
    ("asked", "field", "message"),
    [
        ({}, None, "the history is empty: give items, texts, or a user"),
        ({"items": ["i1", "i99"]}, "items", "not in the catalogue: 'i99'; did you mean 'i9'?"),
        ({"items": ["i1"], "among": ["x"]}, "among", "not in the catalogue: 'x'"),
        ({"user": "u9"}, "user", "'u9' has no history in this export; give items"),
        ({"items": [1]}, "items.0", "should be a valid string"),
        ({"items": "i1"}, "items", "should be a valid list"),
        ({"items": ["\ud800"]}, "items.0", "whole characters"),
        ({"items": ["i1"], "k": 0}, "k", "greater than or equal to 1"),
        ({"items": ["i1"], "k": "10"}, "k", "valid integer"),
        ({"items": ["i1"], "k": True}, "k", "valid integer"),
        ({"items": ["i1"], "k": 501}, "k", "at most 500 items are recommended (--max-k)"),
        ({"itms": ["i1"]}, "itms", "there is no such field; did you mean 'items'?"),
        ({"items": ["i1"], "times": [1.0, 2.0]}, "times", "2 for 1 items and texts; send one each"),
        ({"items": ["i1"], "at": 1e12}, "at", "divide milliseconds by 1000"),
        ({"texts": [{"size": "3"}]}, "texts", "none of the fields title is given"),
        ({"texts": ["red", " "]}, "texts", "a text is empty; leave it out"),
        ({"texts": ["red", {"title": "\x00"}]}, "texts", "none of the fields title is given"),
        ({"texts": ["a" * 4001]}, "texts", "longer than 4,000 characters (--max-text)"),
        ({"texts": [{str(number): "x" for number in range(51)}]}, "texts", "at most 50 fields"),
        ({"items": ["i1"] * 1001}, "items", "1,001 are more than 1,000 (--max-history); send the last ones"),
        ({"texts": ["a"] * 51}, "texts", "(--max-texts)"),
        ({"items": ["i1"], "exclude": ["i2"] * 10_001}, "exclude", "(--max-ids)"),
        ([], None, "no JSON object"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(shared, asked, field, message):
    answer = shared.post("/recommend", content=json.dumps(asked), headers={"content-type": "application/json"})
    found, text = said(answer)
    assert found == field and message in text


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 422, "the body is missing: send JSON"),
        (b'{"items": [', 422, "the body is no JSON"),
        (b"\xff\xfe", 422, "the body is no JSON"),
        (b'{"items": ["i1"], "at": NaN}', 422, "at: Input should be a finite number"),
        (b'{"items": ["i1"], "at": 1e999}', 422, "at: Input should be a finite number"),
        (b"[" * 100_000, 400, "error parsing the body"),
        (b'{"items": ["i1"], "k": ' + b"9" * 5000 + b"}", 400, "error parsing the body"),
        (b'{"items": ["' + b"x" * 1_000_000 + b'"]}', 413, "larger than 1,000,000 bytes (--max-body)"),
    ],
)
def test_a_body_that_is_none(shared, body, status, message):
    answer = shared.post("/recommend", content=body, headers={"content-type": "application/json"})
    assert message in said(answer, status)[1]


def test_many_mistakes_are_few_in_the_answer(shared):
    mistakes = shared.post("/recommend", json={"items": list(range(500))}).json()["errors"]
    assert len(mistakes) == 11 and mistakes[-1]["message"] == "and 490 more"


def test_a_body_in_parts_is_bounded(shared):
    parts = (b"x" * 100_000 for _ in range(11))
    assert said(shared.post("/recommend", content=parts), 413)


def test_what_is_no_address(shared):
    assert "/docs lists them" in said(shared.get("/nothing"), 404)[1]
    assert "/docs lists them" in said(shared.get("/%2e%2e/%2e%2e/etc/passwd"), 404)[1]
    assert "other methods" in said(shared.put("/items"), 405)[1]


def test_a_model_without_texts_says_so(served, tmp_path):
    client = served(write_export(tmp_path / "ids", texts=False, users=False))
    assert "knows items by id and reads no texts" in said(client.post("/recommend", json={"texts": ["x"]}))[1]
    assert "knows items by id and reads no texts" in said(client.post("/items", json={"n": {"title": "x"}}))[1]
    assert said(client.post("/recommend", json={"user": "u1"}))[0] == "user"
    assert client.get("/health").json()["text_fields"] == []


def test_an_error_of_the_program_is_told_without_its_words(served, texts_export, monkeypatch, caplog):
    client = served()

    def fail(*_):
        raise RuntimeError("secret /place")

    monkeypatch.setattr(Recommender, "recommend_many", fail)
    answer = client.post("/recommend", json={"items": ["i1"]})
    assert said(answer, 500) == (None, "the service failed; its log says why")
    assert "secret /place" in caplog.text


def test_a_damaged_item_llm_is_told_without_its_place(served, tmp_path):
    folder = write_export(tmp_path / "export")
    (folder / "item_encoder" / "model.safetensors").write_bytes(b"nothing")
    client = served(folder)
    _, message = said(client.post("/recommend", json={"texts": ["red"]}), 503)
    assert message == "a part of the export cannot be read; the log of the service says which"
    assert ids(client.post("/recommend", json={"items": ["i1"], "k": 1}))


# ---- items ----


def test_items_by_what_is_typed(shared):
    assert ids(shared.get("/items", params={"search": "red shoe 1"})) == ["i12", "i15", "i18"]
    assert ids(shared.get("/items", params={"search": "I7"})) == ["i7"]
    assert ids(shared.get("/items", params={"limit": 2})) == ["i1", "i2"]
    assert ids(shared.get("/items", params={"search": "nothing"})) == []
    assert said(shared.get("/items", params={"limit": 101}))[0] == "limit"


def test_an_item_is_added_found_changed_and_removed(client, texts_export):
    assert client.post("/items", json={"n/1": {"title": "wool hat"}}).json() == {"added": ["n/1"], "items": 21}
    assert ids(client.get("/items", params={"search": "wool"})) == ["n/1"]
    beside = Recommender.from_pretrained(texts_export)
    beside.add_items({"n/1": {"title": "wool hat"}})
    wanted = [item.id for item in beside.recommend(items=["n/1"], k=21, filter_seen=False)]
    assert "n/1" in wanted
    assert ids(client.post("/recommend", json={"items": ["n/1"], "k": 21, "filter_seen": False})) == wanted
    client.post("/items", json={"n/1": {"title": "silk coat"}})
    assert ids(client.get("/items", params={"search": "wool"})) == []
    assert ids(client.get("/items", params={"search": "silk"})) == ["n/1"]
    assert client.delete("/items/n/1").json() == {"removed": "n/1", "items": 20}
    assert ids(client.get("/items", params={"search": "silk"})) == []
    assert "n/1" not in ids(client.post("/recommend", json={"items": ["n/1"], "k": 30, "filter_seen": False}))
    assert said(client.delete("/items/n/1"), 404) == ("item", "there is no item 'n/1' in the catalogue")


@pytest.mark.parametrize(
    ("items", "field", "message"),
    [
        ({}, None, "no item is given"),
        ({"n": {}}, "texts", "none of the fields title is given"),
        ({"n": {"title": 3}}, "n.title", "valid string"),
        ({"n": "red shoe"}, "n", "valid dictionary"),
        ({"": {"title": "x"}}, None, "no blank"),
        ({"a\nb": {"title": "x"}}, None, "control characters"),
        ({"n": {"title": "x" * 4001}}, "n", "(--max-text)"),
        ({f"n{number}": {"title": "x"} for number in range(101)}, None, "101 are more than 100 (--max-items)"),
    ],
)
def test_wrong_items(shared, items, field, message):
    answer = shared.post("/items", json=items)
    assert answer.status_code == 422
    mistake = answer.json()["errors"][0]
    assert message in mistake["message"] and (field is None or mistake["field"] == field)
    assert shared.get("/health").json()["items"] == 20


def test_without_a_journal_items_stay(served):
    client = served(journal=None)
    for answer in (client.post("/items", json={"n": {"title": "red"}}), client.delete("/items/i1")):
        assert "start it with --journal=FOLDER" in said(answer, 409)[1]
    assert client.get("/health").json()["takes_items"] is False


# ---- limits, token, strangers ----


def test_limits_are_the_operators(served):
    client = served(limits=Limits(max_k=3, max_history=2, max_texts=2, max_body=200))
    assert "(--max-k)" in said(client.post("/recommend", json={"items": ["i1"], "k": 4}))[1]
    assert said(client.post("/recommend", json={"items": ["i1"] * 3, "k": 1}))[0] == "items"
    assert said(client.post("/recommend", json={"items": ["i1" * 100], "k": 1}), 413)
    beside = {"user": "u1", "items": ["i1", "i2"], "texts": ["red", "hat"], "k": 1}
    assert ids(client.post("/recommend", json=beside)), "texts and a user's history do not count as items"


def test_examples_of_the_page_are_of_the_export_that_it_serves():
    """It is that of the README's commands, which name the fields."""
    root = Path(__file__).resolve().parents[3]
    told = (root / "docs/serving/service.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"convert csv .*--texts=(\S+)", (root / "README.md").read_text(encoding="utf-8"))
    read = set(named.split(","))
    sent = [json.loads(body) for body in re.findall(r"-d '(.*)'", told)]
    (answer,) = (json.loads(body) for body in re.findall(r"```json\n(.*?)```", told, re.DOTALL) if '"score"' in body)
    wanted = [bodies.Wanted(**body) for body in sent if {"items", "texts", "user"} & set(body)]
    added = [body for body in sent if not {"items", "texts", "user"} & set(body)]
    fields = [text for one in wanted for text in one.texts] + [one for body in added for one in body.values()]
    fields += [item["fields"] for item in answer["items"]]
    assert len(wanted) == 3 and len(fields) == 3
    assert all("title" in one and set(one) <= read for one in fields)


def test_a_longer_history_than_the_model_reads_is_cut(shared):
    history = [f"i{number}" for number in range(1, 15)]
    long, cut = ({"items": items, "filter_seen": False} for items in (history, history[-LENGTH:]))
    assert ids(shared.post("/recommend", json=long)) == ids(shared.post("/recommend", json=cut))


def test_a_token(served):
    client = served(token="0123456789abcdef")
    for headers in ({}, {"Authorization": "Bearer 0123456789abcdeX"}, {"Authorization": "0123456789abcdef"}):
        for method, path in (("post", "/recommend"), ("get", "/items"), ("get", "/metrics"), ("post", "/reload")):
            answer = getattr(client, method)(path, headers=headers)
            assert said(answer, 401)[1].startswith("this service needs its token")
            assert answer.headers["www-authenticate"] == "Bearer"
    assert [client.get(path).status_code for path in ("/", "/docs", "/openapi.json", "/health")] == [200] * 4
    right = {"Authorization": "Bearer 0123456789abcdef"}
    assert ids(client.post("/recommend", json={"items": ["i1"], "k": 1}, headers=right))


def test_pages_of_other_sites_may_not_ask(shared):
    for origin in ("https://elsewhere.example", "null"):
        answer = shared.post("/reload", headers={"Origin": origin})
        assert "another site" in said(answer, 403)[1]
    assert shared.get("/items", headers={"Origin": str(shared.base_url)}).status_code == 200
    plain = shared.post("/recommend", content=b'{"items": ["i1"]}', headers={"content-type": "text/plain"})
    assert plain.status_code == 422, "what a form of another site can send is no JSON"


# ---- operation ----


def test_health_and_metrics(served):
    client = served()
    health = client.get("/health").json()
    assert health == {
        "ready": True, "model": "Tiny", "dataset": "shop", "version": health["version"], "items": 20, "users": 2,
        "text_fields": ["title"], "reads_times": False, "takes_items": True,
    }  # fmt: skip
    client.post("/recommend", json={"items": ["i1"]})
    client.post("/recommend", json={"items": ["nothing"]})
    client.post("/items", json={"n": {"title": "red"}})
    client.get("/items/../../etc/passwd")
    lines = client.get("/metrics").text.splitlines()
    for line in (
        'recbole_hllm_requests_total{method="POST",path="/recommend",status="200"} 1.0',
        'recbole_hllm_requests_total{method="POST",path="/recommend",status="422"} 1.0',
        'recbole_hllm_request_seconds_count{path="/recommend"} 2.0',
        "recbole_hllm_batch_requests_count 2.0",
        "recbole_hllm_items 21.0",
        "recbole_hllm_waiting_requests 0.0",
        'recbole_hllm_item_changes_total{change="added"} 1.0',
        f'recbole_hllm_export_info{{model="Tiny",version="{health["version"]}"}} 1.0',
    ):
        assert line in lines
    assert client.get("/metrics").headers["content-type"].startswith("text/plain")


def test_the_interface_is_described_and_nothing_is_loaded_from_elsewhere(shared):
    schema = shared.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/recommend", "/items", "/items/{item}", "/health", "/metrics", "/reload"}
    for path in ("/", "/docs"):
        answer = shared.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "http://" not in answer.text.replace("http://127.0.0.1:8000", "") and "https://" not in answer.text
    assert all(f"<code>{name}</code>" in shared.get("/docs").text for name in ("filter_seen", "POST /items"))
