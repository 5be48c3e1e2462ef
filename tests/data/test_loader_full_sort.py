"""RecBole's full_sort_topk on loaders of this package: it masks what the evaluation masks."""

import numpy as np
import pytest
import torch
from recbole.utils.case_study import full_sort_scores, full_sort_topk

from recbole_hllm import load_run, run
from recbole_hllm.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # RecBole's

RATIO = {"eval_args": {"split": {"RS": [0.6, 0.2, 0.2]}}}


@pytest.fixture(scope="module")
def read_back(settings_of, tmp_path_factory):
    """(model, **keys) -> a finished run on the toy data, read back; one run each."""
    runs = {}

    def of(model, **keys):
        key = (model, str(keys))
        if key not in runs:
            folder = tmp_path_factory.mktemp("sorted") / model
            run(model, config_dict={**settings_of(model), "epochs": 1, **keys}, run_dir=folder)
            runs[key] = load_run(folder)
        return runs[key]

    return of


def events_of(toy_data):
    """user -> items in the order of time."""
    events = {}
    with open(f"{toy_data}/toy/toy.inter") as file:
        for line in file.read().splitlines()[1:]:
            user, item, time = line.split("\t")
            events.setdefault(user, []).append((float(time), item))
    return {user: [item for _, item in sorted(own)] for user, own in events.items()}


def held_out(done, user):
    """Items that the test looks for."""
    part = done.test_data._dataset
    rows = np.flatnonzero(part.inter_feat["user_id"].numpy() == user)
    return part.id2token("item_id", part.positives(rows)[1].numpy()).tolist()


@pytest.mark.parametrize("split", [{}, RATIO], ids=["leave one out", "ratio"])
@pytest.mark.parametrize("model", ["BPR", "Pop", "SASRec", "SASRecNCE", "HLLM"])
def test_the_history_is_not_listed_with_mask_history(read_back, toy_data, model, split):
    done = read_back(model, mask_history=True, **split)
    users, events = [3, 1, 8], events_of(toy_data)
    scores = full_sort_scores(users, done.model, done.test_data)
    assert scores.shape == (3, 13)
    for user, row in zip(users, scores, strict=True):
        name = done.dataset.id2token("user_id", user)
        tested = held_out(done, user)
        before = events[name][: -len(tested)]
        masked = done.dataset.id2token("item_id", np.flatnonzero(torch.isneginf(row).numpy()))
        assert set(masked) == {"[PAD]", *before}
    assert torch.equal(full_sort_topk(users, done.model, done.test_data, 3)[0], torch.topk(scores, 3).values)


@pytest.mark.parametrize("model", ["BPR", "SASRec"])
def test_nothing_but_padding_is_masked_without(read_back, model):
    done = read_back(model, **RATIO)
    scores = full_sort_scores([3, 1], done.model, done.test_data)
    assert torch.isneginf(scores).sum(dim=1).tolist() == [1] * len(scores)
    rows = sum(len(held_out(done, user)) for user in (3, 1))
    assert len(scores) == (2 if model == "BPR" else rows)  # of a sequential model a row for each target, as in RecBole


@pytest.mark.parametrize("model", ["BPR", "SASRec"])
def test_scores_are_those_of_the_evaluation(read_back, model):
    done = read_back(model, mask_history=True)
    with torch.no_grad():
        rows = [(batch["user_id"], done.model.full_sort_predict(batch)) for batch, *_ in done.test_data]
    users, expected = torch.cat([user for user, _ in rows]), torch.cat([own.view(len(u), -1) for u, own in rows])
    scores = full_sort_scores(users.tolist(), done.model, done.test_data)
    shown = ~torch.isneginf(scores)
    torch.testing.assert_close(scores[shown], expected[shown], rtol=0, atol=1e-6)


def test_a_user_who_is_not_tested_is_named(read_back):
    with pytest.raises(DataError, match=r"user 99 \(internal id\) has no row in this part of 'toy'"):
        full_sort_topk([1, 99], (done := read_back("BPR", mask_history=True)).model, done.test_data, 3)
