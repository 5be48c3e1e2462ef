"""Finished runs to blend, on the toy data set of walks round 12 items."""

from types import SimpleNamespace

import pytest

from recbole_hllm import Config, create_dataset, data_preparation, run

# A temperature of 1 keeps scores small, so that sums in another order differ by little.
MADE = {
    "SASRecNCE": {"num_negatives": 8, "temperature": 1.0, "MAX_ITEM_LIST_LENGTH_TEST": 3},
    "SASRec": {},
    "Markov": {},
    "BPR": {},
    "EASE": {"score_from": "history"},
    "MultiVAE": {"mlp_hidden_size": [8], "latent_dimension": 4, "score_from": "history"},
    "ItemKNN": {},
    "NeuMF": {"mf_embedding_size": 4, "mlp_embedding_size": 4, "mlp_hidden_size": [8]},
}


@pytest.fixture(scope="session")
def runs(settings_of, tmp_path_factory):
    """model name -> folder of its finished run."""
    folder = tmp_path_factory.mktemp("parts")
    made = {}

    def make(name):
        if name not in made:
            keys = {**settings_of(name), **MADE[name], "epochs": 3, "learning_rate": 0.03}
            made[name] = str(run(name, config_dict=keys, run_dir=folder / name)["run_dir"])
        return made[name]

    return make


@pytest.fixture
def keys_of(settings_of, runs):
    """(*parts, **keys) -> keys of a blend of them."""

    def make(*parts, **keys):
        settings = {name: value for name, value in settings_of("Blend").items() if name not in ("epochs",)}
        return {**settings, "of": list(map(runs, parts)), **keys}

    return make


@pytest.fixture
def build(keys_of):
    """(*parts, **keys) -> config, loaders and the blend of them."""

    def make(*parts, **keys):
        config = Config("Blend", config_dict=keys_of(*parts, **keys))
        train, valid, test = data_preparation(config, create_dataset(config))
        model = config.spec.build(config, train._dataset)
        model.prepare_evaluation()
        return SimpleNamespace(config=config, train=train, valid=valid, test=test, model=model)

    return make
