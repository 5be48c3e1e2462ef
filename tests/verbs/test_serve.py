"""The verb ``serve``."""

import sys

import pytest
from exports import write_export

from recbole_hllm import cli
from recbole_hllm.serving.service.limits import Limits

pytest.importorskip("uvicorn")


@pytest.fixture
def served(monkeypatch):
    """What would be served: the service, host, port and token."""
    found = []

    def run(service, *others):
        found.extend([service, *others])
        service.close()

    monkeypatch.setattr("recbole_hllm.serving.service.server.run", run)
    monkeypatch.delenv("RECBOLE_HLLM_TOKEN", raising=False)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("exports") / "ids", texts=False)


def test_defaults(served, folder):
    assert cli.main(["serve", str(folder)]) == 0
    service, host, port, token = served
    assert (host, port, token, service.limits) == ("127.0.0.1", 8000, None, Limits())
    assert service.health()["takes_items"] is False


def test_options(served, folder, tmp_path):
    (tmp_path / "token").write_text("0123456789abcdef\nsecond line")
    words = ["--host=::1", "--port", "81", f"--journal={tmp_path / 'j'}", f"--token-file={tmp_path / 'token'}"]
    assert cli.main(["serve", str(folder), *words, "--max-k=7", "--queue=9", "--precision=bfloat16"]) == 0
    service, host, port, token = served
    assert (host, port, token, service.limits) == ("::1", 81, "0123456789abcdef", Limits(max_k=7, queue=9))
    assert service.health()["takes_items"] and (tmp_path / "j" / "items.jsonl").is_file()


def test_a_token_of_the_environment(served, folder, monkeypatch, caplog):
    monkeypatch.setenv("RECBOLE_HLLM_TOKEN", "a-token-of-24-characters")
    assert cli.main(["serve", str(folder), "--host=0.0.0.0"]) == 0
    assert served[3] == "a-token-of-24-characters" and "other machines" not in caplog.text
    monkeypatch.delenv("RECBOLE_HLLM_TOKEN")
    assert cli.main(["serve", str(folder), "--host=0.0.0.0"]) == 0
    assert "0.0.0.0 is open to other machines, and there is no token" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "serve: name the folder of an export"),
        (["--port=1"], "serve: name the folder of an export"),
        (["{}", "--prot=1"], "there is no --prot; did you mean 'port'?"),
        (["{}", "--max_k=1"], "there is no --max_k; did you mean 'max-k'?"),
        (["{}", "--port"], "--port needs a value"),
        (["{}", "--port=http"], "--port=http is not a number"),
        (["{}", "--port=70000"], "--port=70000 is none of 1 to 65535"),
        (["{}", "--queue=0"], "--queue is a number from 1 on"),
        (["{}", "--token-file={}/nothing"], "cannot be read"),
        (["{}", "--token-file={}/users.txt"], "a token has at least 16 letters"),
        (["{}/nothing"], "there is no export in it"),
        (["{}", "--journal={}"], "lies in the export"),
    ],
)
def test_wrong_words(served, folder, capsys, words, message):
    assert cli.main(["serve", *(word.format(folder) for word in words)]) == 2
    assert message in capsys.readouterr().err and not served


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client"])
def test_without_the_extra(folder, monkeypatch, capsys, package):
    for name in [name for name in sys.modules if name.startswith("recbole_hllm.serving.service")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["serve", str(folder)]) == 2
    assert f"serve needs the package '{package}': pip install 'recbole-hllm[serve]'" in capsys.readouterr().err
