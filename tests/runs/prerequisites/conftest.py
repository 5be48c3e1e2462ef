"""Runs that come first, kept in a folder of each test's own."""

import pytest

from recbole_hllm import Config, run
from recbole_hllm.runs.prerequisites import complete


@pytest.fixture
def keys(settings_of, tmp_path):
    """(model) -> keys of a short run whose prerequisites are short too, and kept in a folder of this test's own."""

    def of(model="E4SRec"):
        short = {"epochs": 1, "cache_dir": str(tmp_path / "cache")}
        settings = settings_of(model)
        if "item_table_keys" in settings:
            short["item_table_keys"] = {**settings["item_table_keys"], "epochs": 2}
        return {**settings, **short}

    return of


@pytest.fixture
def made(keys, tmp_path):
    """(config keys) -> what ``complete`` sets, and the runs it starts, each for real."""
    started = []

    def start(config_dict, run_dir):
        started.append((config_dict["model"], config_dict["resume"]))
        return run(config_dict=config_dict, run_dir=run_dir)

    def make(model="E4SRec", run_dir=None, **changed):
        started.clear()
        config = Config(model, config_dict={**keys(model), **changed})
        complete(config, run_dir, start)
        return config, list(started)

    return make
