"""Everything a Trainer needs, made without a run."""

from types import SimpleNamespace

import pytest

from recbole_hllm import Config, create_dataset, data_preparation

# isort: split
from recbole.utils import init_seed

from recbole_hllm.training.trainer import Trainer


@pytest.fixture
def prepare(settings_of, tmp_path):
    """(model, keys) -> config, model, loaders and a Trainer that writes into tmp_path / folder."""

    def make(name="SASRec", folder="run", **keys):
        config = Config(name, config_dict={**settings_of(name), **keys})
        init_seed(config["seed"], config["reproducibility"])
        train, valid, test = data_preparation(config, create_dataset(config))
        init_seed(config["seed"], config["reproducibility"])
        model = config.spec.model(config, train._dataset)
        trainer = Trainer(config, model, tmp_path / folder)
        return SimpleNamespace(config=config, model=model, train=train, valid=valid, test=test, trainer=trainer)

    return make
