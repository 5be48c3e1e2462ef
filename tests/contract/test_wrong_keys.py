"""RecBole's models with losses, negatives and features that do not fit: a result or a sentence, never a traceback."""

import itertools

import pytest
from torch import nn

from recbole_hllm import Config, create_dataset, data_preparation

LOSSES = (None, "CE", "BPR", "BCE", "bpr", "XYZ")  # the first is left out
NEGATIVES = {
    "as by default": ...,
    "none": None,
    "None": "None",
    "no distribution": {"distribution": None},
    "one": {"distribution": "uniform", "sample_num": 1},
    "three": {"distribution": "uniform", "sample_num": 3},
    "popular": {"distribution": "popularity", "sample_num": 1, "alpha": 0.5},
    "dynamic": {"dynamic": True, "candidate_num": 4},
    "dynamic without candidates": {"dynamic": True},
    "no number": {"sample_num": 0},
    "a word": {"sample_num": "two"},
    "no alpha": {"distribution": "popularity", "alpha": "much"},
    "no such distribution": {"distribution": "normal"},
    "no dict": "uniform",
}
EVERYTHING = {"inter": "*", "item": "*", "user": "*"}
FEATURES = {
    "as by default": {},
    "all": {"load_col": EVERYTHING},
    "all, numbers named": {"load_col": EVERYTHING, "numerical_features": ["price", "vector", "income", "taste"]},
    "all, floats named": {"load_col": EVERYTHING, "numerical_features": ["price", "income"]},
    "floats": {"load_col": {**EVERYTHING, "item": ["item_id", "price"], "user": ["user_id", "income"]}},
    "sequences": {"load_col": {**EVERYTHING, "item": ["item_id", "words", "vector"], "user": ["user_id", "taste"]}},
}
# Models with a layer of selected features, and what it is given.
SELECTING = ("FDSA", "GRU4RecF", "SASRecF")
SELECTED = [
    {"selected_features": columns, "numerical_features": numerical}
    for columns in (["words"], ["kind"], ["price"], ["vector"], ["kind", "price"], ["words", "vector"], ["nothing"], [])
    for numerical in ([], columns)
]
# Kernels and candidates that fit the small sizes of these tests.
FITTING = {
    "ConvNCF": {"embedding_size": 64},
    "FEARec": {"n_layers": 2},
    "S3Rec": {"pretrain_epochs": 1},
    **dict.fromkeys(("GRU4RecCPR", "SASRecCPR"), {"reranker_CAN_NUM": "3"}),
}


@pytest.fixture(scope="module")
def keys_of(write_dataset, settings_of, tmp_path_factory):
    """(model, spec) -> keys of a run of one epoch on data with a column of each kind for users and for items."""
    folder = tmp_path_factory.mktemp("features")
    places = [(step, user) for step in range(10) for user in range(14) if step < 6 + user % 4]
    rows = [(f"u{user}", f"i{(5 * user + step) % 12}", step % 2, 100 * step + user) for step, user in places]
    header = "item_id:token\twords:token_seq\tkind:token\tprice:float\tvector:float_seq"
    items = [(f"i{n}", f"w{n} v{n % 4}", f"k{n % 3}", n / 2, f"{n} {n + 1} 3") for n in range(12)]
    users = [(f"u{n}", f"{n % 3}", n / 2, f"t{n} t", f"{n} 2") for n in range(14)]
    of_users = "user_id:token\tage:token\tincome:float\ttags:token_seq\ttaste:float_seq"
    of_rows = "user_id:token\titem_id:token\tlabel:float\ttimestamp:float"
    write_dataset(folder, "columns", rows, (header, items), (of_users, users), header=of_rows)
    labelled = {"metrics": ["AUC", "LogLoss"], "valid_metric": "AUC", "eval_args": {"split": {"RS": [0.6, 0.2, 0.2]}}}
    own = {"data_path": str(folder), "dataset": "columns", "epochs": 1, "state": "critical"}
    return lambda model, spec: {
        **settings_of("SASRec"),
        **own,
        **(labelled if spec.rows.labelled else {}),
        **FITTING.get(model, {}),
    }


def combinations():
    """name -> keys: every loss with every choice of negatives, and every choice of columns to load."""
    for loss, (name, negatives) in itertools.product(LOSSES, NEGATIVES.items()):
        of_loss = {} if loss is None else {"loss_type": loss}
        of_negatives = {} if negatives is ... else {"train_neg_sample_args": negatives}
        yield f"loss_type {loss}, negatives {name}", of_loss | of_negatives
    yield from ((f"features {name}", features) for name, features in FEATURES.items())


def test_the_table_of_models_knows_their_losses_and_layers(specs, keys_of):
    """``losses`` and ``batch_norm`` against what the constructors take and make."""
    for model, spec in specs.items():
        if spec.ours:
            continue
        config = Config(model, config_dict=keys_of(model, spec))
        train = data_preparation(config, create_dataset(config))[0]._dataset
        layers = [type(module) for module in spec.model(config, train).modules()]
        assert any(issubclass(layer, nn.modules.batchnorm._BatchNorm) for layer in layers) == spec.batch_norm, model
        taken = []
        for loss in ("CE", "BPR", "NLL", "BCE"):
            config["loss_type"] = loss
            try:
                spec.model(config, train)
            except (NotImplementedError, AssertionError, SystemExit):
                continue
            taken.append(loss)
        assert {*taken} == {*(spec.losses or ("CE", "BPR", "NLL", "BCE"))}, model


@pytest.fixture(scope="module")
def cases(specs):
    """model, name and keys of every case that is not about selected features."""
    theirs = [model for model, spec in specs.items() if not spec.ours]
    return [(model, name, keys) for model in theirs for name, keys in combinations()]


@pytest.fixture
def failures(attempt, keys_of, specs):
    """cases -> those that end in a traceback, never or without numbers, and how."""

    def of(chosen):
        found = {f"{m}, {name}": attempt(m, {**keys_of(m, specs[m]), **keys}, 20) for m, name, keys in chosen}
        return [f"{case}: {wrong}" for case, wrong in found.items() if wrong]

    return of


def test_selected_features(failures):
    assert failures([(model, f"selected {keys}", keys) for model in SELECTING for keys in SELECTED]) == []


def test_a_sample_of_wrong_combinations(failures, cases):
    chosen = cases[::11]
    for part in (0, 1):  # every model, and every combination with some model
        assert {case[part] for case in chosen} == {case[part] for case in cases}
    assert failures(chosen) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(16))
def test_every_wrong_combination(failures, cases, part):
    """In parts, for the workers that tests run in."""
    assert failures(cases[part::16]) == []
