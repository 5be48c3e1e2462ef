"""What is recommended at all: RecBole's values under RecBole's names, the formulas' under ours; one count for all."""

import math
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import recbole.evaluator
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.evaluator import Evaluator
from recbole.evaluator.register import metric_information

from recbole_hllm import Config, load_run, run
from recbole_hllm.config.scopes import SHARED
from recbole_hllm.errors import ConfigError
from recbole_hllm.evaluation.evaluator import MetricEvaluator
from recbole_hllm.evaluation.topk import TopKCollector
from recbole_hllm.tables.side_by_side import compare

OURS = ["Coverage", "Gini", "Entropy"]
RECBOLES = ["ItemCoverage", "GiniIndex", "ShannonEntropy"]
POPULARITY = ["AveragePopularity", "TailPercentage"]


def keys_of(metrics, topk):
    return {
        "metrics": metrics, "topk": topk, "metric_decimal_place": 12, "device": torch.device("cpu"),
        "eval_args": {"mode": {"valid": "full", "test": "full"}}, "USER_ID_FIELD": "user_id", "tail_ratio": 0.25,
    }  # fmt: skip


def evaluated(lists, n_items, topk, metrics, counts=None):
    """Values of rows that list these items (R, k), best first, out of 1 ... n_items."""
    collector = TopKCollector(keys_of(metrics, topk))
    counts = np.zeros(n_items + 1, dtype=int) if counts is None else counts
    part = SimpleNamespace(item_num=n_items + 1, whole_counts=lambda: counts)
    collector.data_collect(SimpleNamespace(_dataset=part))
    lists = torch.tensor(lists)
    scores = torch.full((len(lists), n_items + 1), -1.0)
    scores[:, 0] = -torch.inf
    scores.scatter_(1, lists, torch.arange(lists.shape[1], 0, -1.0).repeat(len(lists), 1))
    rows = torch.arange(len(lists))
    collector.eval_batch_collect(scores, {"user_id": rows + 1}, rows, lists[:, 0])
    return MetricEvaluator(keys_of(metrics, topk), labelled=False).evaluate(collector.get_data_struct())


def test_a_catalogue_that_is_listed_evenly():
    """60 items, each once: RecBole counts 61 with the padding item, and parts the entropy by 60."""
    values = evaluated(np.arange(1, 61).reshape(12, 5).tolist(), 60, [5], OURS + RECBOLES)
    assert values["coverage@5"] == 1.0 and values["itemcoverage@5"] == pytest.approx(60 / 61)
    assert values["gini@5"] == 0.0 and values["giniindex@5"] == pytest.approx(1 / 61)
    assert values["entropy@5"] == pytest.approx(math.log(60))
    assert values["shannonentropy@5"] == pytest.approx(math.log(60) / 60)


def test_one_item_for_everybody():
    values = evaluated([[3]] * 9, 20, [1], OURS)
    assert values == pytest.approx({"coverage@1": 1 / 20, "gini@1": 1 - 1 / 20, "entropy@1": 0.0}, abs=1e-12)


@st.composite
def listed(draw):
    """A catalogue, its counts in training, and lists of different items."""
    n_items = draw(st.integers(1, 9))
    k = draw(st.integers(1, n_items))
    lists = draw(st.lists(st.permutations(range(1, n_items + 1)).map(lambda row: row[:k]), min_size=1, max_size=5))
    counts = [0, *draw(st.lists(st.integers(0, 3), min_size=n_items, max_size=n_items))]
    return n_items, k, lists, np.array(counts)


@given(listed())
def test_plain_formulas(case):
    n_items, k, lists, counts = case
    values = evaluated(lists, n_items, [1, k], OURS + ["AveragePopularity"], counts)
    for length in (1, k):
        places = [item for row in lists for item in row[:length]]
        often = Counter(places)
        everything = [often.get(item, 0) for item in range(1, n_items + 1)]
        differences = sum(abs(a - b) for a in everything for b in everything)
        expected = {
            "coverage": len(often) / n_items,
            "gini": differences / (2 * n_items * sum(everything)),
            "entropy": -sum(n / len(places) * math.log(n / len(places)) for n in often.values()),
            "averagepopularity": sum(counts[item] for item in places) / len(places),
        }
        assert {name: values[f"{name}@{length}"] for name in expected} == pytest.approx(expected, abs=1e-9)


@given(listed())
def test_recboles_names_keep_recboles_values(case):
    n_items, k, lists, counts = case
    metrics = RECBOLES + POPULARITY if counts.any() else RECBOLES
    struct = {
        "rec.items": torch.tensor(lists), "data.num_items": n_items + 1,
        "data.count_items": Counter({item: int(count) for item, count in enumerate(counts) if count}),
    }  # fmt: skip
    stock = Evaluator(keys_of(metrics, [k])).evaluate(SimpleNamespace(get=struct.get))
    assert evaluated(lists, n_items, [k], metrics, counts) == pytest.approx(dict(stock), abs=1e-12)


def test_every_need_of_recboles_metrics_is_met():
    known = {"rec.topk", "rec.items", "rec.meanrank", "rec.score", "data.label", "data.num_items", "data.count_items"}
    assert {need for needs in metric_information.values() for need in needs} == known


def test_keys_of_recboles_metrics_are_shared_by_all_rows():
    """But for the device, which changes no definition, and what the program sets itself."""
    folder = Path(recbole.evaluator.__file__).parent
    source = "".join(file.read_text(encoding="utf-8") for file in folder.glob("*.py"))
    assert set(re.findall(r'config\["(\w+)"\]', source)) - {"device"} <= SHARED


# ---- runs ----

# One model for each kind of training rows.
KINDS = {"BPR": "interaction", "SASRec": "prefix", "SASRecNCE": "window", "LEARN": "split", "Pop": "interaction"}


@pytest.fixture(scope="module")
def finished(settings_of, tmp_path_factory):
    """model -> the finished run, with metrics of popularity, and what it lists."""
    runs = {}

    def of(model):
        if model not in runs:
            keys = {
                **settings_of(model), "metrics": OURS + RECBOLES + POPULARITY + ["Recall"], "topk": [2, 12],
                "valid_metric": "Recall@2", "tail_ratio": 0.4, "epochs": 1,
                **({"content": "id", "content_dim": 8} if model == "LEARN" else {}),
            }  # fmt: skip
            folder = tmp_path_factory.mktemp("popular") / model
            runs[model] = run(model, config_dict=keys, run_dir=folder)
        return runs[model]

    return of


@torch.no_grad()
def lists_of(done):
    scores = [done.model.full_sort_predict(rows).view(len(rows), -1) for rows, *_ in done.test_data]
    scores = torch.cat(scores)
    scores[:, 0] = -torch.inf
    return done.dataset.id2token("item_id", scores.topk(12).indices.numpy())


@pytest.mark.parametrize("model", KINDS)
def test_popularity_is_counted_in_the_file(finished, toy_data, model):
    """In all interactions but the last two of each user, whatever rows the model is trained on."""
    result = finished(model)
    done = load_run(result["run_dir"])
    assert done.config.spec.rows.name == KINDS[model]
    trained = {}
    for line in (Path(toy_data) / "toy" / "toy.inter").read_text().splitlines()[1:]:
        user, item, time = line.split("\t")
        trained.setdefault(user, []).append((float(time), item))
    counts = Counter(item for events in trained.values() for _, item in sorted(events)[:-2])
    ids = {token: number for number, token in enumerate(done.dataset.field2id_token["item_id"])}
    tail = sorted(counts, key=lambda item: (counts[item], ids[item]))[: int(0.4 * len(counts))]
    for k in (2, 12):
        places = lists_of(done)[:, :k].ravel()
        values = result["test_result"]
        assert values[f"averagepopularity@{k}"] == pytest.approx(np.mean([counts[item] for item in places]))
        assert values[f"tailpercentage@{k}"] == pytest.approx(np.mean([item in tail for item in places]))
        assert values[f"coverage@{k}"] == pytest.approx(len(set(places)) / 12)


def test_models_that_list_the_whole_catalogue_agree(finished):
    """Whatever the model, its list of all 12 items has the popularity of the catalogue."""
    names = [f"{metric.lower()}@12" for metric in OURS + RECBOLES + POPULARITY]
    values = {model: {name: finished(model)["test_result"][name] for name in names} for model in KINDS}
    assert all(value == values["BPR"] for value in values.values())
    assert values["BPR"]["coverage@12"] == 1.0 and values["BPR"]["itemcoverage@12"] == pytest.approx(12 / 13)


def test_tail_ratio_of_one_row_is_refused(settings_of, tmp_path):
    keys = {**settings_of("SASRec"), "SASRec.tail_ratio": 0.5, "sanity_rows": False}
    with pytest.raises(ConfigError, match="SASRec.tail_ratio: 'tail_ratio' is shared by all rows"):
        compare(["SASRec", "BPR"], config_dict=keys, run_dir=tmp_path / "t")


def test_another_tail_ratio_is_another_protocol(settings_of, tmp_path):
    from recbole_hllm import create_dataset
    from recbole_hllm.data.protocol import fingerprint

    def of(metrics, ratio):
        keys = {**settings_of("Pop"), "metrics": metrics, "tail_ratio": ratio, "valid_metric": f"{metrics[0]}@3"}
        config = Config("Pop", config_dict=keys)
        data = create_dataset(config)
        data.build()
        return fingerprint(data, {}, {})["protocol"]

    assert of(["TailPercentage"], 0.1) != of(["TailPercentage"], 0.2)
    assert of(["Recall"], 0.1) == of(["Recall"], 0.2)


@pytest.mark.parametrize(
    "metric, bigger", [("Gini@3", False), ("giniindex@3", False), ("Coverage@3", True), ("Entropy@3", True)]
)
def test_the_better_value_of_each(settings_of, metric, bigger):
    keys = {**settings_of("Pop"), "metrics": OURS + RECBOLES, "valid_metric": metric}
    assert Config("Pop", config_dict=keys)["valid_metric_bigger"] is bigger


@pytest.mark.parametrize("ratio, message", [("much", "is not a number"), (-1, "must be at least 0")])
def test_a_tail_ratio_that_is_none(settings_of, ratio, message):
    with pytest.raises(ConfigError, match=f"tail_ratio: .* {message}"):
        Config("Pop", config_dict={**settings_of("Pop"), "tail_ratio": ratio})
