"""What outlives the service, and a new export in the old one's place."""

import asyncio
import shutil
import threading
import weakref

import pytest
from exports import damage, write_export

from recbole_hllm.errors import ConfigError, DataError, ModelError
from recbole_hllm.serving import Recommender, Request
from recbole_hllm.serving.service import journal as journal_module
from recbole_hllm.serving.service.limits import Limits
from recbole_hllm.serving.service.service import Service

ASKED = {"items": ["i1", "i2"], "k": 30, "filter_seen": False}


def scores(client, asked=ASKED):
    answer = client.post("/recommend", json=asked)
    assert answer.status_code == 200, answer.text
    return {item["id"]: item["score"] for item in answer.json()["items"]}


@pytest.fixture
def exports(tmp_path):
    """Two exports, and a link to the first."""
    write_export(tmp_path / "one")
    write_export(tmp_path / "two", n_items=22, seed=1)
    (tmp_path / "current").symlink_to("one")
    return tmp_path


def lead_to(folder, name):
    (folder / "next").symlink_to(name)
    (folder / "next").replace(folder / "current")


# ---- restarts ----


def test_what_was_added_and_removed_is_there_again_without_the_item_llm(served, tmp_path):
    client = served()
    client.post("/items", json={"n": {"title": "silk hat"}, "m": {"title": "wool"}})
    client.delete("/items/i7")
    client.delete("/items/m")
    before, with_m = scores(client), scores(client, {**ASKED, "items": ["m", "n"]})
    served.stop(client)
    again = served()
    assert scores(again) == before and scores(again, {**ASKED, "items": ["m", "n"]}) == with_m
    assert "n" in before and not {"i7", "m"} & set(before)
    assert again.get("/items", params={"search": "silk"}).json()["items"][0]["id"] == "n"
    assert again.post("/items", json={"i7": {"title": "blue hat 7"}}).status_code == 200
    assert again.post("/items", json={"m": {"title": "wool"}}).status_code == 200
    served.stop(again)
    third = served()
    assert {"i7", "m", "n"} <= set(scores(third))


def test_the_item_llm_is_not_loaded_for_what_was_added(texts_export, tmp_path):
    first = Service(texts_export, tmp_path / "journal")
    asyncio.run(first.add({"n": {"title": "silk hat"}}))
    first.close()
    again = Service(texts_export, tmp_path / "journal")
    recommender = again._loaded.recommender
    assert "n" in recommender.catalogue and not recommender.encoder.is_loaded
    again.close()


def test_what_the_disk_does_not_take_is_not_done(client, monkeypatch):
    before = scores(client)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_module.os, "fsync", full)
    for answer in (client.post("/items", json={"n": {"title": "silk"}}), client.delete("/items/i7")):
        assert answer.status_code == 503 and "nothing was changed" in answer.json()["errors"][0]["message"]
    assert scores(client) == before


def test_a_journal_in_the_export_is_refused(texts_export, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(texts_export)
    for folder in (texts_export / "journal", link / "journal", texts_export):
        with pytest.raises(ConfigError, match="lies in the export"):
            Service(texts_export, folder)


# ---- reloads ----


def test_the_new_export_is_served_with_what_was_added(served, exports):
    client = served(exports / "current")
    client.post("/items", json={"n": {"title": "silk hat"}})
    client.delete("/items/i5")
    old = client.get("/health").json()["version"]
    lead_to(exports, "two")
    health = client.post("/reload").json()
    assert health["version"] != old and health["items"] == 22 and client.get("/health").json() == health
    beside = Recommender.from_pretrained(exports / "two")
    beside.add_items({"n": {"title": "silk hat"}})
    beside.remove_items(["i5"])
    wanted = {item.id: item.score for item in beside.recommend(**ASKED)}
    assert scores(client) == pytest.approx(wanted, abs=1e-5)
    served.stop(client)
    again = Service(exports / "current", exports / "journal")
    assert not again._loaded.recommender.encoder.is_loaded, "the journal has the vector of the new Item LLM"
    again.close()
    lead_to(exports, "one")
    assert "n" in scores(served(exports / "current")), "nor is it lost on the way back"


def test_an_item_that_the_model_was_trained_with_since_has_its_trained_vector(served, exports):
    client = served(exports / "current")
    client.post("/items", json={"i21": {"title": "red shoe 21"}, "i22": {"title": "another title"}})
    lead_to(exports, "two")
    client.post("/reload")
    trained = {item.id: item.score for item in Recommender.from_pretrained(exports / "two").recommend(**ASKED)}
    now = scores(client)
    assert now["i21"] == pytest.approx(trained["i21"], abs=1e-5)
    assert abs(now["i22"] - trained["i22"]) > 1e-3, "other fields were acknowledged"
    assert client.get("/items", params={"search": "another"}).json()["items"][0]["id"] == "i22"


@pytest.mark.parametrize("how", ["vectors", "manifest", "empty", "gone", "nan", "no texts"])
def test_a_damaged_export_is_refused_and_the_old_one_stays(served, exports, how, caplog):
    client = served(exports / "current")
    client.post("/items", json={"n": {"title": "silk hat"}})
    before, two = scores(client), exports / "two"
    if how == "vectors":
        damage(two)
    elif how == "manifest":
        (two / "recommender.json").write_text("{")
    elif how == "empty":
        shutil.rmtree(two)
        two.mkdir()
    elif how == "gone":
        shutil.rmtree(two)
    elif how == "nan":
        shutil.rmtree(two)
        write_export(two, value=float("nan"))
    else:
        shutil.rmtree(two)
        write_export(two, texts=False)
    lead_to(exports, "two")
    answer = client.post("/reload")
    assert answer.status_code == 409 and str(exports) not in answer.text
    assert answer.json()["errors"][0]["message"].startswith("the new export was refused, and the old one stays")
    assert "reload: refused" in caplog.text
    assert scores(client) == before and 'reloads_total{result="refused"} 1.0' in client.get("/metrics").text


def test_no_request_is_lost_while_exports_change(served, exports):
    client = served(exports / "current")
    wanted = {
        name: [item.id for item in Recommender.from_pretrained(exports / name).recommend(items=["i1"], k=5)]
        for name in ("one", "two")
    }
    answers, ended = [], threading.Event()

    def ask():
        while not ended.is_set():
            answers.append(client.post("/recommend", json={"items": ["i1"], "k": 5}))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    versions = set()
    for name in ("two", "one", "two"):
        lead_to(exports, name)
        versions.add(client.post("/reload").json()["version"])
    ended.set()
    for thread in threads:
        thread.join()
    assert len(answers) > 10 and {answer.status_code for answer in answers} == {200}
    found = {tuple(item["id"] for item in answer.json()["items"]) for answer in answers}
    assert found <= set(map(tuple, wanted.values())) and len(versions) == 2


def test_items_are_added_while_others_ask(client):
    ended, failed = threading.Event(), []

    def ask():
        while not ended.is_set():
            answer = client.post("/recommend", json={"items": ["i1"], "k": 100, "filter_seen": False})
            failed.extend([answer.text] if answer.status_code != 200 else [])

    thread = threading.Thread(target=ask)
    thread.start()
    for part in range(12):
        items = {f"n{part}-{number}": {"title": f"red hat {number}"} for number in range(100)}
        assert client.post("/items", json=items).status_code == 200
    ended.set()
    thread.join()
    assert not failed and client.get("/health").json()["items"] == 1220


def test_a_reload_frees_the_first_export(texts_export, monkeypatch):
    read, whole = [], Recommender.from_pretrained

    def reads(*args, **options):
        recommender = whole(*args, **options)
        read.append(weakref.ref(recommender))
        return recommender

    monkeypatch.setattr(Recommender, "from_pretrained", reads)

    async def ask_and_reload():
        service = Service(texts_export)
        with pytest.raises(DataError):  # an error leads to frames, which lead to the export and to the error
            await service.recommend(Request(items=["unknown"]))
        await service.reload()
        left = [recommender() is not None for recommender in read]
        service.close()
        return left

    assert asyncio.run(ask_and_reload()) == [False, True]


def test_two_reloads_at_once(texts_export):
    async def both():
        service = Service(texts_export)
        done = await asyncio.gather(service.reload(), service.reload(), return_exceptions=True)
        service.close()
        return done

    done, refused = asyncio.run(both())
    assert done["ready"] and refused.status == 409 and "goes on already" in refused.message


# ---- batches ----


def test_one_that_fails_in_a_batch_fails_alone(texts_export, monkeypatch):
    """Whatever ``check`` overlooks."""
    whole = Recommender.recommend_many

    def fails(self, requests):
        if any(request.k == 7 for request in requests):
            raise RuntimeError("of this request")
        return whole(self, requests)

    monkeypatch.setattr(Recommender, "recommend_many", fails)

    async def ask():
        service = Service(texts_export)
        requests = [Request(items=["i1"], k=k) for k in (1, 7, 3)] + [Request(items=["no"])]
        answers = await asyncio.gather(*map(service.recommend, requests), return_exceptions=True)
        service.close()
        return answers

    one, seven, three, unknown = asyncio.run(ask())
    assert (len(one["items"]), len(three["items"])) == (1, 3)
    assert isinstance(seven, RuntimeError) and "not in the catalogue" in str(unknown)


def test_more_than_may_wait(texts_export):
    async def ask():
        service = Service(texts_export, limits=Limits(queue=2, batch=1))
        asked = (service.recommend(Request(items=["i1"])) for _ in range(6))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        service.close()
        return answers

    answers = asyncio.run(ask())
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert [answer.status for answer in refused] == [503] * 4


def test_limits_are_positive():
    with pytest.raises(ConfigError, match="--max-k is a number from 1 on"):
        Limits(max_k=0)


def test_an_export_without_numbers_is_refused(tmp_path):
    with pytest.raises(ModelError, match="are no numbers"):
        Service(write_export(tmp_path / "nan", value=float("nan"), texts=False))
