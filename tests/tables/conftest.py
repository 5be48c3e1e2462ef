"""A search of two small models."""

import pytest

from recbole_hllm.tables.search import search

SASREC = {"learning_rate": [0.003, 0.01, 0.03], "hidden_dropout_prob": [0.1, 0.3]}
BPR = {"learning_rate": [0.01, 0.001, 0.0001], "embedding_size": [4, 8]}
SPACES = {"SASRec.search": SASREC, "BPR.search": BPR}


@pytest.fixture(scope="session")
def keys(settings_of):
    """Of two small models on the toy data, with what to search and one row that trains nothing."""
    return {**settings_of("SASRec"), **SPACES, "trials": 3, "epochs": 1, "sanity_rows": ["Markov"]}


@pytest.fixture(scope="session")
def searched(keys, tmp_path_factory, in_this_process):
    """A finished search of SASRec and BPR, its folder (with a space in its name), and what was started."""
    folder = tmp_path_factory.mktemp("search") / "my search"
    with pytest.MonkeyPatch.context() as monkeypatch:
        started = in_this_process(monkeypatch)
        done = search(["SASRec", "BPR"], config_dict=keys, run_dir=folder)
    return done, folder, started


@pytest.fixture(scope="session")
def without():
    """(keys, model) -> the same without those of that model alone."""
    return lambda keys, model: {key: value for key, value in keys.items() if not key.startswith(f"{model}.")}
