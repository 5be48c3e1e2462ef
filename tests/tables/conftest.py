"""A search of two small models, and its runs in this process."""

import subprocess
from pathlib import Path

import pytest

from recbole_hllm.tables.search import search

SASREC = {"learning_rate": [0.003, 0.01, 0.03], "hidden_dropout_prob": [0.1, 0.3]}
BPR = {"learning_rate": [0.01, 0.001, 0.0001], "embedding_size": [4, 8]}
SPACES = {"SASRec.search": SASREC, "BPR.search": BPR}


@pytest.fixture(scope="session")
def keys(settings_of):
    """Of two small models on the toy data, with what to search and one row that trains nothing."""
    return {**settings_of("SASRec"), **SPACES, "trials": 3, "epochs": 1, "sanity_rows": ["Markov"]}


def _in_this_process(monkeypatch):
    from recbole_hllm import cli

    started = []

    def here(command, env):
        folder = next(word for word in command if word.startswith("--run_dir=")).removeprefix("--run_dir=")
        started.append("/".join(Path(folder).parts[-2:]))
        try:
            code = cli.main(command[command.index("recbole_hllm.cli") + 1 :])
        except Exception:  # a traceback, in a process
            code = 1
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", here)
    return started


@pytest.fixture(scope="session")
def in_this_process():
    """The function that puts this process in place of others, and returns the run folders it starts."""
    return _in_this_process


@pytest.fixture
def started(monkeypatch):
    """search() with this process in place of others; the run folders it started, in order, by their last two names."""
    return _in_this_process(monkeypatch)


@pytest.fixture(scope="session")
def searched(keys, tmp_path_factory):
    """A finished search of SASRec and BPR, its folder (with a space in its name), and what was started."""
    folder = tmp_path_factory.mktemp("search") / "my search"
    with pytest.MonkeyPatch.context() as monkeypatch:
        started = _in_this_process(monkeypatch)
        done = search(["SASRec", "BPR"], config_dict=keys, run_dir=folder)
    return done, folder, started


@pytest.fixture(scope="session")
def without():
    """(keys, model) -> the same without those of that model alone."""
    return lambda keys, model: {key: value for key, value in keys.items() if not key.startswith(f"{model}.")}
