"""Every model on one, two and three users and items, in batches of one row, all but one, all, and more than there are:
a result or a sentence, in time."""

import itertools

import pytest

from recbole_hllm import Config, create_dataset
from recbole_hllm.errors import UserError

# Users, items, and interactions of each user: of 3, one is left to train on, with a history of one item.
SIZES = list(itertools.product((1, 2, 3), (1, 2, 3), (3, 6)))
BATCHES = ("1", "n - 1", "n", "n + 1")
LABELLED = {"metrics": ["AUC", "LogLoss"], "valid_metric": "AUC", "eval_args": {"split": {"RS": [0.6, 0.2, 0.2]}}}
RANKING = {"topk": [1], "metrics": ["Recall", "MRR"], "valid_metric": "MRR@1"}
# Kernels, and candidates to rank again, that fit.
OF_MODEL = {
    "ConvNCF": {"embedding_size": 64},
    "FEARec": {"n_layers": 2},
    "S3Rec": {"pretrain_epochs": 1},
    **dict.fromkeys(("GRU4RecCPR", "SASRecCPR"), {"reranker_CAN_NUM": "1"}),
}


def name_of(users, items, length):
    return f"u{users}i{items}l{length}"


@pytest.fixture(scope="module")
def keys_of(write_dataset, settings_of, tmp_path_factory):
    """(model, spec, size) -> keys of a run of two epochs on data of that size."""
    folder = tmp_path_factory.mktemp("small")
    header = "user_id:token\titem_id:token\tlabel:float\ttimestamp:float"
    for users, items, length in SIZES:
        places = list(itertools.product(range(length), range(users)))
        rows = [(f"u{user}", f"i{(user + step) % items}", 10 * step + user) for step, user in places]
        features = [(f"i{n}", f"{n} red", f"c{n}") for n in range(items)]
        of_items = ("item_id:token\ttitle:token_seq\tclass:token", features)
        write_dataset(folder, name_of(users, items, length), rows, of_items)
        # Both labels in each part: four times as long, the labels taking turns.
        rows = [(*pair, number % 2, number) for number, (*pair, _) in enumerate(4 * rows)]
        write_dataset(folder, f"{name_of(users, items, length)}-labelled", rows, of_items, header=header)
    own = {"data_path": str(folder), "cache_dir": str(folder / "cache"), "epochs": 2, "state": "critical"}

    def make(model, spec, size):
        keys = settings_of(model if spec.ours else "SASRec")
        if "item_table_keys" in keys:
            keys = {**keys, "item_table_keys": {**keys["item_table_keys"], "epochs": 1}}
        of_rows, suffix = (LABELLED, "-labelled") if spec.rows.labelled else (RANKING, "")
        return {**keys, **of_rows, **own, **OF_MODEL.get(model, {}), "dataset": name_of(*size) + suffix}

    return make


@pytest.fixture(scope="module")
def cases(specs):
    """model, loss, size and batch of every case."""
    return [
        (model, loss, size, batch)
        for model, spec in specs.items()
        for loss in (spec.losses or (None,))
        for size in SIZES
        for batch in BATCHES
    ]


@pytest.fixture
def failures(attempt, keys_of, specs):
    """cases -> those that end in a traceback, never or without numbers, and how."""

    def rows_of(model, keys):
        try:
            return len(create_dataset(Config(model, config_dict=keys)).build()[0])
        except UserError:  # which the run itself ends with
            return 2

    def attempted(model, loss, size, batch):
        keys = keys_of(model, specs[model], size) | ({"loss_type": loss} if loss else {})
        rows = rows_of(model, keys)
        number = max({"1": 1, "n - 1": rows - 1, "n": rows, "n + 1": rows + 1}[batch], 1)
        return attempt(model, {**keys, "train_batch_size": number, "eval_batch_size": number}, 20)

    def of(chosen):
        found = [(case, attempted(*case)) for case in chosen]
        return [
            f"{model}, loss {loss}, {name_of(*size)}, batch of {batch}: {wrong}"
            for (model, loss, size, batch), wrong in found
            if wrong
        ]

    return of


def test_a_sample_of_small_data(failures, cases, specs):
    """Every model, and every size and batch with some model; ours less often, whose language models take longer."""
    ours = [case for case in cases if specs[case[0]].ours]
    chosen = [case for case in cases if case not in ours][::61] + ours[::61]
    for part in (0, 2, 3):
        assert {case[part] for case in chosen} == {case[part] for case in cases}
    assert failures(chosen) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(16))
def test_all_small_data(failures, cases, part):
    """In parts, for the workers that tests run in."""
    assert failures(cases[part::16]) == []
