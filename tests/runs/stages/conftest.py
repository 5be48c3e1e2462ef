"""A schedule of seconds: its keys, and what the whole of it leaves."""

import pytest

from recbole_hllm import run_stages

OF_LABELS = {"metrics": ["AUC", "LogLoss"]}  # no user has both labels in validation: GAUC would be NaN


@pytest.fixture(scope="session")
def keys_of(settings_of, tmp_path_factory):
    """model -> keys of a schedule of seconds."""
    cache = str(tmp_path_factory.mktemp("cache"))

    def keys(model, /, **more):
        own = {
            "model": model, "training_stage": [1, 2, 3], "cache_dir": cache, "temperature": 0.1,
            "learning_rate": 0.01, "stage1.MAX_ITEM_LIST_LENGTH": 4, "stage1.epochs": 1,
            "stage2.MAX_ITEM_LIST_LENGTH": 8, **(OF_LABELS if model == "HLLMRanker" else {}),
        }  # fmt: skip
        return {**settings_of(model), **own, **more}

    return keys


@pytest.fixture(scope="session")
def keys_without_stages(keys_of):
    """(model, **keys) -> the same without keys of single stages."""

    def keys(model, /, **more):
        return {key: value for key, value in keys_of(model).items() if not key.startswith("stage")} | more

    return keys


@pytest.fixture(scope="session")
def scheduled(keys_of, tmp_path_factory):
    """model -> result of its whole schedule, run once."""
    done = {}

    def of(model):
        if model not in done:
            folder = tmp_path_factory.mktemp("stages") / model
            done[model] = run_stages(config_dict=keys_of(model), run_dir=folder)
        return done[model]

    return of
