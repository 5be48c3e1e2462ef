"""What stands before the application, without one."""

import asyncio
import json

import pytest

pytest.importorskip("prometheus_client")

from recbole_hllm.serving.service import guard as module  # noqa: E402
from recbole_hllm.serving.service.guard import Guard  # noqa: E402
from recbole_hllm.serving.service.metrics import Metrics  # noqa: E402


def asked(parts, headers=(), max_body=10, token=None, path="/items", pause=0.0, local=False):
    """Status, body and what the application read, of a request whose body comes in parts."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    sent, read, metrics = [], [], Metrics()

    async def receive():
        await asyncio.sleep(pause)
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        read.append((await receive())["body"])
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
    asyncio.run(Guard(app, metrics, max_body, token, ("/items",), local)(scope, receive, send))
    assert (b"x-content-type-options", b"nosniff") in sent[0]["headers"]
    return sent[0]["status"], json.loads(sent[1]["body"]), read, metrics.text().decode()


def test_a_body_in_parts_is_given_whole():
    status, _, read, metrics = asked([b"abc", b"def"])
    assert status == 200 and read == [b"abcdef"]
    assert 'requests_total{method="POST",path="/items",status="200"} 1.0' in metrics


@pytest.mark.parametrize(
    ("parts", "headers"), [([b"abcdef"] * 2, ()), ([], [(b"content-length", b"11")]), ([b"abcdefghijk"], ())]
)
def test_a_large_body_is_refused_before_it_is_read(parts, headers):
    status, body, read, _ = asked(parts, headers)
    assert status == 413 and read == [] and "larger than 10 bytes" in body["errors"][0]["message"]


def test_a_body_that_does_not_come(monkeypatch):
    monkeypatch.setattr(module, "_SECONDS", 0.05)
    status, body, read, _ = asked([b"a"] * 8, pause=0.02)
    assert status == 408 and read == [] and "did not come within" in body["errors"][0]["message"]


def test_a_stranger_is_refused_before_the_body_is_read():
    status, _, read, metrics = asked([b"abc"], token="t" * 16, path="/items/x")
    assert status == 401 and read == [] and 'path="/items/{item}",status="401"' in metrics
    assert asked([b"abc"], [(b"authorization", b"Bearer " + b"t" * 16)], token="t" * 16)[0] == 200


def test_paths_that_clients_invent_are_counted_as_one():
    assert 'path="other"' in asked([b"a"], path="/a/b")[3]


@pytest.mark.parametrize("host", [b"localhost", b"LocalHost:8000", b"127.0.0.1:1", b"127.0.0.2", b"[::1]", b"[::1]:80"])
def test_its_own_machine_is_answered(host):
    assert asked([b"a"], [(b"host", host), (b"origin", b"http://" + host)], local=True)[0] == 200


@pytest.mark.parametrize("host", [b"evil.example:8000", b"localhost.evil.example", b"127.0.0.1.evil.example", b""])
def test_a_name_that_leads_to_its_own_machine_is_refused_without_a_token(host):
    headers = [(b"host", host), (b"origin", b"http://" + host)]
    status, body, read, _ = asked([b"a"], headers, local=True)
    message = body["errors"][0]["message"]
    assert status == 403 and read == [] and "--token-file" in message and "--host" in message
    with_token = [*headers, (b"authorization", b"Bearer " + b"t" * 16)]
    assert asked([b"a"], with_token, local=True, token="t" * 16)[0] == asked([b"a"], headers)[0] == 200
