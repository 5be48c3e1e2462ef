"""The program: started, told to reload, killed under load, and started again."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from exports import write_export

pytest.importorskip("uvicorn")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Program:
    """``recbole-hllm serve`` in a process of its own."""

    def __init__(self, folder, *words, port=None):
        self.port = port or free_port()
        command = [sys.executable, "-m", "recbole_hllm.cli", "serve", str(folder), f"--port={self.port}", *words]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        begin = time.monotonic()
        while time.monotonic() < begin + 120:
            try:
                self.ask("GET", "/health")
                return
            except OSError:
                assert self.process.poll() is None, self.process.stderr.read()
                time.sleep(0.05)
        raise AssertionError("it does not answer")

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, json.dumps(body), {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def end(self, signal_=signal.SIGTERM):
        self.process.send_signal(signal_)
        self.process.wait(60)
        self.process.stderr.close()


@pytest.mark.slow
def test_sighup_reloads_and_sigterm_ends(tmp_path):
    write_export(tmp_path / "one", texts=False)
    write_export(tmp_path / "two", n_items=22, texts=False)
    (tmp_path / "current").symlink_to("one")
    (tmp_path / "token").write_text("0123456789abcdef\n")
    program = Program(tmp_path / "current", f"--token-file={tmp_path / 'token'}")
    assert program.ask("POST", "/recommend", {"items": ["i1"]})[0] == 401
    right = {"Authorization": "Bearer 0123456789abcdef"}
    assert program.ask("POST", "/recommend", {"items": ["i1"]}, **right)[0] == 200
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "current")
    program.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 30
    while program.ask("GET", "/health")[1]["items"] != 22 and time.monotonic() < end:
        time.sleep(0.05)
    assert program.ask("GET", "/health")[1]["items"] == 22
    second = subprocess.run(
        [sys.executable, "-m", "recbole_hllm.cli", "serve", str(tmp_path / "one"), f"--port={program.port}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert second.returncode == 2 and "error: serve: cannot listen" in second.stderr
    program.end()
    assert program.process.returncode in (0, -signal.SIGTERM)


@pytest.mark.slow
def test_killed_under_load_nothing_acknowledged_is_lost(tmp_path):
    folder, journal = write_export(tmp_path / "export"), f"--journal={tmp_path / 'journal'}"
    acknowledged, removed, port = [], [], None
    for round_ in range(2):
        program = Program(folder, journal, port=port)
        port = program.port
        listed = lambda item, program=program: any(  # noqa: E731
            one["id"] == item for one in program.ask("GET", f"/items?search={item}")[1]["items"]
        )
        assert all(map(listed, acknowledged)) and not any(map(listed, removed))

        def add(thread, round_=round_, program=program):
            number = 0
            while True:
                item = f"n{round_}-{thread}-{number}x"
                try:
                    if program.ask("POST", "/items", {item: {"title": f"red hat {item}"}})[0] == 200:
                        acknowledged.append(item)
                    if number == 3 and program.ask("DELETE", f"/items/{item}")[0] == 200:
                        acknowledged.remove(item)
                        removed.append(item)
                except (OSError, http.client.HTTPException):
                    return
                number += 1

        threads = [threading.Thread(target=add, args=(thread,)) for thread in range(3)]
        before = len(acknowledged)
        for thread in threads:
            thread.start()
        while len(acknowledged) < before + 40:
            time.sleep(0.02)
        os.kill(program.process.pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
        program.process.wait()
        program.process.stderr.close()
    program = Program(folder, journal)
    items = program.ask("GET", "/health")[1]["items"]
    assert 20 + len(acknowledged) <= items <= 20 + len(acknowledged) + 6, "three were being added at each end"
    best = program.ask("POST", "/recommend", {"items": acknowledged[:3], "among": acknowledged, "k": 500})
    assert best[0] == 200 and len(best[1]["items"]) == len(acknowledged) - 3
    program.end()


def test_without_a_token_it_answers_by_names_of_its_own_machine(tmp_path):
    program = Program(write_export(tmp_path / "export", texts=False))
    asked = ("POST", "/recommend", {"items": ["i1"]})
    assert program.ask(*asked)[0] == program.ask(*asked, Host=f"localhost:{program.port}")[0] == 200
    status, body = program.ask(*asked, Host=f"evil.example:{program.port}")
    assert status == 403 and "--token-file" in body["errors"][0]["message"]
    program.end()


def test_it_starts_without_recbole_and_without_transformers(tmp_path):
    folder = write_export(tmp_path / "export")
    look = (
        "import sys\n"
        "import recbole_hllm.serving.service.server\n"
        "from recbole_hllm.serving.service.service import Service\n"
        f"Service({str(folder)!r}, {str(tmp_path / 'journal')!r}).close()\n"
        "print([name for name in ('recbole', 'transformers') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
