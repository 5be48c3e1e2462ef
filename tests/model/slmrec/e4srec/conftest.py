"""An E4SRec of four small layers over the item table of a trained SASRec."""

from types import SimpleNamespace

import pytest

from recbole_hllm import Config, create_dataset, data_preparation, run

# isort: split
from recbole.utils import init_seed


@pytest.fixture(scope="session")
def sasrec(settings_of, tmp_path_factory):
    """Folder of a trained SASRec of width 8."""
    folder = tmp_path_factory.mktemp("runs") / "sasrec"
    run("SASRec", config_dict={**settings_of("SASRec"), "learning_rate": 0.01}, run_dir=folder)
    return str(folder)


@pytest.fixture
def keys(settings_of, sasrec):
    """(**keys) -> keys of an E4SRec with that table."""
    return lambda **own: {**settings_of("E4SRec"), "item_table": sasrec, **own}


@pytest.fixture
def build(keys):
    """(**keys) -> model with the weights of its seed, in evaluation mode, its config and loaders."""

    def make(**own):
        config = Config("E4SRec", config_dict=keys(**own))
        loaders = data_preparation(config, create_dataset(config))
        init_seed(config["seed"], config["reproducibility"])
        model = config.spec.model(config, loaders[0]._dataset)
        return SimpleNamespace(config=config, model=model.eval(), loaders=loaders, rows=next(iter(loaders[0])))

    return make


@pytest.fixture
def pretrained(tiny_llm):
    """Keys of a pretrained language model with a tokenizer."""
    return {"user_llm_init": True, "user_pretrain_dir": tiny_llm("llama"), "user_llm_config": None}
