"""All targets of a user in one row: against plain loops over users, for every kind of model."""

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_hllm import load_run, run
from recbole_hllm.evaluation.segments import segment_metrics, segment_table
from recbole_hllm.runs.run import evaluate_run
from recbole_hllm.storage.files import read_json
from recbole_hllm.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

# Rows of prefixes, of windows, of interactions, and models that count.
MODELS = ["SASRec", "HLLM", "BPR", "Pop", "Markov"]
TOP = [1, 3, 10]
RATIO = {"split": {"RS": [0.4, 0.3, 0.3]}, "group_by": "user", "order": "TO", "mode": "full"}
PROTOCOLS = {
    "ratio": {},
    "masked": {"mask_history": True},
    "targets masked": {"mask_history": True, "reference": ["mask_target"]},
    "candidates": {"eval_args": {**RATIO, "mode": "uni5"}},
    "popular": {"eval_args": {**RATIO, "mode": "pop4"}, "mask_history": True},
    "over all users": {"eval_args": {**RATIO, "group_by": "none"}},
    "time": {"eval_args": {**RATIO, "split": {"TS": [0.5, 0.2, 0.3]}}, "mask_history": True},
}


@pytest.fixture(scope="module")
def events(write_dataset, tmp_path_factory):
    """data_path, and each user's (item, time) in order: items repeat, in histories and among targets."""
    draw, folder = random.Random(3), tmp_path_factory.mktemp("together")
    times = draw.sample(range(1000), 16 * 15)
    had = {
        f"u{user}": [(f"i{draw.randint(0, 17)}", times.pop()) for _ in range(draw.randint(4, 15))] for user in range(16)
    }
    rows = [(user, item, time) for user, own in had.items() for item, time in own]
    draw.shuffle(rows)
    items = [(f"i{item}", f"title {item}", "a b") for item in range(40)]
    write_dataset(folder, "toy", rows, ("item_id:token\ttitle:token_seq\tclass:token_seq", items))
    return str(folder), {user: sorted(own, key=lambda event: event[1]) for user, own in had.items()}


@pytest.fixture(scope="module")
def trained(settings_of, events, tmp_path_factory):
    """model -> folder of its run, each trained once; Markov's weights are as long as its pairs, so for each split."""
    folders = {}

    def of(model, eval_args=RATIO, **_):
        args = {**eval_args, "mode": "full"} if model == "Markov" else RATIO
        name = (model, str(args))
        if name not in folders:
            keys = {**settings_of(model), "data_path": events[0], "eval_args": args, "eval_targets": "together",
                    "metrics": ["Recall", "Hit", "NDCG", "MRR", "MAP", "Precision"]}  # fmt: skip
            folders[name] = tmp_path_factory.mktemp("runs") / model
            run(model, config_dict=keys, run_dir=folders[name])
        return folders[name]

    return of


def evaluated(run_dir, phase="test", **keys):
    """A loaded run, its evaluation loader, result and ranks."""
    loaded = load_run(run_dir, keys)
    loader = {"valid": loaded.valid_data, "test": loaded.test_data}[phase]
    trainer = Trainer(loaded.config, loaded.model, run_dir)
    trainer.eval_collector.data_collect(loaded.train_data)
    result = trainer.evaluate(loader)
    return SimpleNamespace(loaded=loaded, loader=loader, result=result, ranks=trainer.eval_collector.take_ranks())


def targets_of(run_dir, phase, **keys):
    """user token -> item tokens of the phase in order, from the evaluation in which each target is a row."""
    loaded = load_run(run_dir, {**keys, "eval_targets": "each"})
    part = {"valid": loaded.valid_data, "test": loaded.test_data}[phase]._dataset
    targets = {}
    for user, item, time in zip(*(part.inter_feat[name] for name in ("user_id", "item_id", "timestamp")), strict=True):
        user, item = (part.id2token(f"{kind}_id", value.item()) for kind, value in (("user", user), ("item", item)))
        targets.setdefault(user, []).append((item, time.item()))
    return {user: [item for item, _ in sorted(own, key=lambda event: event[1])] for user, own in targets.items()}


def scores_of(loaded, user, history):
    """(n_items,) scores of one user after these items, asked for by hand."""
    data, longest = loaded.dataset, loaded.config["MAX_ITEM_LIST_LENGTH"]
    items = [data.token2id("item_id", item) for item, _ in history][-longest:]
    row = {
        "user_id": torch.tensor([data.token2id("user_id", user)]),
        "item_id_list": torch.tensor([items + [0] * (longest - len(items))]),
        "item_length": torch.tensor([len(items)]),
    }
    with torch.no_grad():
        return loaded.model.full_sort_predict(Interaction(row)).view(-1).float()


def slow(seen, events, targets, drawn=None, mask=False, spare=True):
    """RecBole's definitions, one user after the other, whose last events are the targets.

    Returns:
        The means, and each user's own values.
    """
    data, own_values = seen.loaded.dataset, {}
    for user, wanted in targets.items():
        history, last = events[user][: -len(wanted)], events[user][-len(wanted) :]
        assert [item for item, _ in last] == wanted and history
        scores = scores_of(seen.loaded, user, history)
        positives = {data.token2id("item_id", item) for item in wanted}
        scores[0] = -math.inf
        if drawn is not None:
            left_out = set(range(len(scores))) - positives - set(drawn[data.token2id("user_id", user)])
            scores[list(left_out)] = -math.inf
        if mask:
            had = {data.token2id("item_id", item) for item, _ in history}
            scores[list(had - positives if spare else had)] = -math.inf
        listed = torch.sort(scores, descending=True, stable=True).indices[: max(TOP)].tolist()  # ties: smaller id first
        hits = [item in positives for item in listed]
        values = {}
        for k in TOP:
            found = [place for place in range(1, k + 1) if hits[place - 1]]
            most = min(k, len(positives))
            values[f"recall@{k}"] = len(found) / len(positives)
            values[f"hit@{k}"] = float(bool(found))
            values[f"precision@{k}"] = len(found) / k
            values[f"mrr@{k}"] = 1 / found[0] if found else 0.0
            values[f"ndcg@{k}"] = sum(1 / math.log2(place + 1) for place in found) / sum(
                1 / math.log2(place + 1) for place in range(1, most + 1)
            )
            values[f"map@{k}"] = sum((n + 1) / place for n, place in enumerate(found)) / most
        own_values[user] = values
    return {name: np.mean([own[name] for own in own_values.values()]) for name in values}, own_values


def drawn_for(loader):
    """user id -> candidates drawn for its row."""
    if loader.candidates is None:
        return None
    users = loader._dataset.inter_feat["user_id"].tolist()
    assert len(set(users)) == len(users) == len(loader.candidates)
    return dict(zip(users, loader.candidates.tolist(), strict=True))


# ---- numbers ----


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", MODELS)
def test_metrics_are_those_of_plain_loops(trained, events, model, protocol):
    keys = PROTOCOLS[protocol]
    folder, masking = trained(model, **keys), (keys.get("mask_history"), "reference" not in keys)
    tested = targets_of(folder, "test", **keys)
    for phase in ("valid", "test"):
        seen, targets = evaluated(folder, phase, **keys), targets_of(folder, phase, **keys)
        assert max(map(len, targets.values())) > 2 and len(seen.loader._dataset) == len(targets)
        later = {user: len(tested.get(user, [])) if phase == "valid" else 0 for user in targets}
        had = {user: events[1][user][: len(events[1][user]) - later[user]] for user in targets}
        expected, _ = slow(seen, had, targets, drawn_for(seen.loader), *masking)
        assert seen.result == pytest.approx(expected, abs=2e-6)
        assert 0 < expected["recall@3"] < 1


@pytest.mark.parametrize("protocol", ["ratio", "candidates", "time"])
def test_every_model_gets_the_same_rows(trained, protocol):
    keys = PROTOCOLS[protocol]
    batches = [
        list(load_run(trained(model, **keys), {**keys, "eval_batch_size": 5}).test_data) for model in MODELS
    ]
    for others in batches[1:]:
        for one, other in zip(batches[0], others, strict=True):
            for field in ("user_id", "item_id", *(["candidate_items"] if protocol == "candidates" else [])):
                assert torch.equal(one[0][field], other[0][field])
            assert torch.equal(one[2], other[2]) and torch.equal(one[3], other[3])


@pytest.mark.parametrize("mode, mask", [("full", False), ("uni5", False), ("full", True)])
@pytest.mark.parametrize("model", ["SASRec", "HLLM", "BPR"])
def test_one_target_of_each_user_is_the_same_either_way(trained, model, mode, mask):
    keys = {"eval_args": {**RATIO, "split": {"LS": "valid_and_test"}, "mode": mode}, "mask_history": mask}
    together, each = (evaluated(trained(model), **keys, eval_targets=name) for name in ("together", "each"))
    assert together.result == each.result and len(each.ranks["rank"]) > 10
    for name, values in each.ranks.items():
        assert np.array_equal(together.ranks[name], values)


def test_the_ranks_have_an_entry_for_each_distinct_target(trained):
    seen, targets = evaluated(trained("SASRec")), targets_of(trained("SASRec"), "test")
    data = seen.loaded.dataset
    listed = {}
    tokens = (data.id2token(field, seen.ranks[name]) for field, name in (("user_id", "user"), ("item_id", "target")))
    for user, item in zip(*tokens, strict=True):
        listed.setdefault(user, []).append(item)
    assert {user: sorted(items) for user, items in listed.items()} == {
        user: sorted(set(items)) for user, items in targets.items()
    }
    assert sum(map(len, targets.values())) > len(seen.ranks["rank"]) > len(targets)


# ---- segments ----


def test_segments_of_users_have_whole_rows(trained, events):
    folder = trained("SASRec")
    table = segment_table(folder, segments_user=[4, 6])["history_length"]
    assert table == segment_table(folder, segments_user=[6, 4])["history_length"]
    seen, targets = evaluated(folder), targets_of(folder, "test")
    _, own_values = slow(seen, events[1], targets)
    valid = targets_of(folder, "valid")
    trained_on = {user: len(events[1][user]) - len(targets[user]) - len(valid.get(user, [])) for user in targets}
    for row, (first, end) in zip(table, [(0, 4), (4, 6), (6, 99)], strict=True):
        users = [user for user in targets if first <= trained_on[user] < end]
        assert users and row["targets"] == sum(len(set(targets[user])) for user in users)
        means = {name: np.mean([own_values[user][name] for user in users]) for name in seen.result}
        assert {name: row[name] for name in means} == pytest.approx(means, abs=1e-9)


def test_segments_of_items_know_what_was_found_of_their_own_targets(trained):
    folder = trained("SASRec")
    with np.load(folder / "ranks-test.npz") as file:
        ranks = {name: file[name] for name in file.files}
    table = segment_table(folder, segments_item=[3])["popularity"]
    assert sum(row["targets"] for row in table) == len(ranks["rank"])
    for row, inside in zip(table, (ranks["popularity"] < 3, ranks["popularity"] >= 3), strict=True):
        found = {user: ranks["rank"][inside & (ranks["user"] == user)] <= 3 for user in ranks["user"][inside]}
        assert row["recall@3"] == pytest.approx(np.mean([own.mean() for own in found.values()]))
        assert row["hit@3"] == pytest.approx(np.mean([own.any() for own in found.values()]))
        assert [row[f"{name}@3"] for name in ("ndcg", "mrr", "map", "precision")] == [None] * 4


def test_a_row_worked_out_by_hand():
    """User 1 finds two of three targets, at 1 and 4; user 2 none of one."""
    kept = {
        "user": np.array([1, 1, 1, 2]), "rank": np.array([4, 30, 1, 12]),
        "history_length": np.array([5, 5, 5, 5]), "popularity": np.array([0, 9, 9, 9]),
    }  # fmt: skip
    keys = {"metrics": ["Recall", "Hit", "NDCG", "MRR", "MAP", "Precision"], "topk": [2, 10],
            "segments_user": [1], "segments_item": [1], "eval_targets": "together"}  # fmt: skip
    nobody, everybody = segment_metrics(kept, keys)["history_length"]
    assert nobody["targets"] == 0 and nobody["recall@2"] is None and everybody["targets"] == 4
    ideal = [1 + 1 / math.log2(3), 1 + 1 / math.log2(3) + 1 / 2]
    expected = {
        "recall@2": 1 / 3, "hit@2": 1, "precision@2": 1 / 2, "mrr@2": 1, "map@2": 1 / 2, "ndcg@2": 1 / ideal[0],
        "recall@10": 2 / 3, "hit@10": 1, "precision@10": 2 / 10, "mrr@10": 1, "map@10": (1 + 2 / 4) / 3,
        "ndcg@10": (1 + 1 / math.log2(5)) / ideal[1],
    }  # fmt: skip
    assert {name: 2 * everybody[name] for name in expected} == pytest.approx(expected)
    cold, other = segment_metrics(kept, keys)["popularity"]
    assert (cold["targets"], cold["recall@2"], cold["recall@10"], cold["ndcg@10"]) == (1, 0.0, 1.0, None)
    assert (other["targets"], other["recall@10"], other["hit@10"]) == (3, pytest.approx(0.25), 0.5)


def test_a_finished_run_is_evaluated_the_other_way(trained):
    folder = trained("Pop")
    evaluate_run(folder, {"eval_targets": "each"})
    kept, own = read_json(folder / "evaluation-1.json"), read_json(folder / "metrics.json")["test_result"]
    rows = kept["segments"]["popularity"]
    targets = sum(map(len, targets_of(folder, "test").values()))
    assert sum(row["targets"] for row in rows) == targets
    whole = {name: sum(row["targets"] * (row[name] or 0) for row in rows) / targets for name in own}
    assert whole == pytest.approx(kept["test_result"], abs=1e-9) and kept["test_result"] != own
    assert read_json(folder / "protocol.json")["eval_targets"] == "together"
