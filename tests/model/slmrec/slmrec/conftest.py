"""An SLMRec of two layers, its item table and its teachers."""

import pytest

from recbole_hllm import Config, create_dataset, data_preparation, run

# isort: split
from recbole.utils import init_seed


@pytest.fixture(scope="session")
def table(settings_of, tmp_path_factory):
    """Folder of a trained SASRec."""
    folder = tmp_path_factory.mktemp("table") / "sasrec"
    keys = {**settings_of("SASRec"), "hidden_size": 8, "n_heads": 2, "MAX_ITEM_LIST_LENGTH": 5}
    run("SASRec", config_dict=keys, run_dir=folder)
    return str(folder)


@pytest.fixture(scope="session")
def keys_of(settings_of, table, tmp_path_factory):
    """Further keys -> those of an SLMRec in float32, without dropout, that finds its item table."""
    cache = str(tmp_path_factory.mktemp("cache"))
    own = {"precision": "fp32", "cache_dir": cache, "item_table": table}
    return lambda **keys: {**settings_of("SLMRec"), **own, **keys}


@pytest.fixture(scope="session")
def taught_by(keys_of, tmp_path_factory):
    """Training rows -> folder of a trained E4SRec of four layers."""
    folders = {}

    def make(rows):
        if rows not in folders:
            folders[rows] = str(tmp_path_factory.mktemp("teacher") / rows)
            keys = {key: value for key, value in keys_of().items() if key not in ("blocks", "teacher_keys")}
            run("E4SRec", config_dict={**keys, "user_llm_layers": 4, "training_rows": rows}, run_dir=folders[rows])
        return folders[rows]

    return make


@pytest.fixture
def build(keys_of, taught_by):
    """Keys -> an SLMRec with its teacher, and the first batch of its training rows."""

    def make(rows="positions", **keys):
        if keys.get("distillation") != "online":
            keys.setdefault("teacher", taught_by(rows))
        config = Config("SLMRec", config_dict=keys_of(training_rows=rows, **keys))
        init_seed(3, True)
        train = data_preparation(config, create_dataset(config))[0]
        model = config.spec.model(config, train._dataset)
        return model, next(iter(train)), config, train

    return make
