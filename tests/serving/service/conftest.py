"""A tiny export, a service of it, and a client."""

import pytest
from exports import write_export

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from fastapi.testclient import TestClient  # noqa: E402

from recbole_hllm.serving.service.app import create_app  # noqa: E402
from recbole_hllm.serving.service.service import Service  # noqa: E402


@pytest.fixture(scope="session")
def texts_export(tmp_path_factory):
    """Of a model that reads texts; nobody writes into it."""
    return write_export(tmp_path_factory.mktemp("exports") / "texts")


@pytest.fixture
def served(texts_export, tmp_path):
    """A function that gives a client of a service; both end with the test."""
    clients = []

    def start(folder=texts_export, journal=tmp_path / "journal", token=None, **options):
        app = create_app(Service(folder, journal, **options), token)
        client = TestClient(app, raise_server_exceptions=False)
        client.app = app
        clients.append(client.__enter__())
        return client

    def stop(client):
        clients.remove(client)
        client.__exit__(None, None, None)

    start.stop = stop
    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(served):
    """Of a service with a journal."""
    return served()


@pytest.fixture(scope="session")
def shared(texts_export, tmp_path_factory):
    """Of a service that tests ask and do not change."""
    service = Service(texts_export, tmp_path_factory.mktemp("shared") / "journal")
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        yield client
