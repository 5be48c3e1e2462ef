"""From two CSV files to a service, by the commands that README and quickstart show, as they stand there."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page, heading):
    """The commands of a section."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return BLOCK.findall(text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0])


@pytest.fixture
def clone(tmp_path):
    """A folder as a clone is, of which nothing is written to."""
    for name in ("run_recbole_hllm.py", "recbole_hllm", "properties"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.fixture
def shell(clone):
    """Runs commands there, with this interpreter as ``python``."""
    python = clone / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    return lambda commands, run=subprocess.run, **more: run(
        ["bash", "-euc", commands], cwd=clone, env=environment, text=True, stdout=subprocess.PIPE, **more
    )


def answered(port, process):
    """Waits until a service answers."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the service did not start")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("bash") or not shutil.which("curl"), reason="bash and curl run the commands")
def test_the_commands_of_the_readme(clone, shell):
    pytest.importorskip("fastapi", reason="extra serve")
    (files,) = blocks("docs/quickstart.md", "Two CSV files")
    convert, compare, export, serve, ask = blocks("README.md", "From your data to a service")
    shell(files, check=True)
    described = shell(convert, check=True).stdout
    assert "100,000 interactions of 943 users with 1,682 items" in described
    shell(compare, check=True)
    rows = {row["model"]: row for row in json.loads((clone / "runs/films/table.json").read_text("utf-8"))["rows"]}
    assert rows.keys() == {"HLLM", "SASRecCE", "EASE", "Blend", "Markov", "Pop", "TextKNN"}
    found = {model: row["test_result"]["ndcg@10"] for model, row in rows.items()}
    assert found["HLLM"] > 1.5 * found["Pop"] > 0
    assert "<html" in (clone / "runs/films/report.html").read_text(encoding="utf-8")
    shell(export, check=True)
    (line,) = (clone / "recommended.jsonl").read_text(encoding="utf-8").splitlines()
    recommended = json.loads(line)
    assert recommended["user"] == "someone new" and len(set(recommended["items"]) - {"1", "50"}) == 10
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    install, command = serve.strip().splitlines()
    assert install == "pip install '.[serve]'"
    process = shell(f"exec {command} --port={port}", run=subprocess.Popen)
    try:
        answered(port, process)
        added, answer = (
            json.loads(shell(line, check=True).stdout)
            for line in ask.replace("localhost:8000", f"localhost:{port}").strip().splitlines()
        )
    finally:
        process.terminate()
        process.communicate()
    assert added["added"] == ["new"]
    assert len(answer["items"]) == 3 and all(item["title"] for item in answer["items"])
