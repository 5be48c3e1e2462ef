"""Names of metrics with the history left in and taken out, and who reads them."""

import json

import numpy as np
import pytest
import yaml

from recbole_hllm import Config, run
from recbole_hllm.errors import ConfigError
from recbole_hllm.evaluation.columns import is_masked, other_column, plain_name
from recbole_hllm.evaluation.metrics import is_smaller_better
from recbole_hllm.evaluation.segments import by_user, segment_table
from recbole_hllm.runs.run import evaluate_run


def test_a_mark_and_its_absence():
    assert [plain_name(name) for name in ("mrr@10", "mrr@10-masked", "gauc-masked")] == ["mrr@10", "mrr@10", "gauc"]
    assert is_masked("mrr@10-masked") and not is_masked("mrr@10")
    assert other_column("mrr@10") == "mrr@10-masked" and other_column("mrr@10-masked") == "mrr@10"
    assert is_smaller_better("averagepopularity@10-masked") == is_smaller_better("averagepopularity@10")
    assert is_smaller_better("giniindex@10-masked") and not is_smaller_better("ndcg@5-masked")


@pytest.mark.parametrize("value, kept", [(True, True), (0, False), ("both", "both"), ("True", True), (False, False)])
def test_values_of_the_key(settings_of, value, kept):
    assert Config("Pop", config_dict={**settings_of("Pop"), "mask_history": value})["mask_history"] is kept


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"mask_history": "one"}, "mask_history: 'one' is neither True, False nor both"),
        ({"mask_history": None}, "mask_history must not be empty"),
        ({"valid_metric": "MRR@10-masked"}, "valid_metric: 'MRR@10-masked' is not computed"),
        ({"mask_history": True, "valid_metric": "MRR@10-masked"}, "valid_metric: 'MRR@10-masked' is not computed"),
        ({"mask_history": "both", "valid_metric": "MRR@4-masked"}, "give recall@1, .*, recall@1-masked, "),
        ({"mask_history": "both", "repeatable": False}, "repeatable: False and mask_history: both contradict"),
    ],
    ids=str,
)
def test_wrong_values(settings_of, keys, said):
    with pytest.raises(ConfigError, match=said):
        Config("BPR", config_dict={**settings_of("BPR"), **keys})


@pytest.fixture(scope="module")
def both(settings_of, tmp_path_factory):
    """A run with both columns, whose epoch the masked one chose, and one of each mask."""
    folder = tmp_path_factory.mktemp("both")
    keys = {**settings_of("SASRec"), "topk": [1, 3], "metrics": ["MRR", "NDCG"], "valid_metric": "MRR@3"}
    run("SASRec", config_dict={**keys, "mask_history": "both", "valid_metric": "MRR@3-masked"}, run_dir=folder / "both")
    run("SASRec", config_dict={**keys, "mask_history": True}, run_dir=folder / "masked")
    evaluate_run(folder / "masked", {"mask_history": False})
    return folder


def test_a_run_that_the_masked_metric_chose_is_that_of_this_mask(both):
    results, masked = (json.loads((both / name / "metrics.json").read_text()) for name in ("both", "masked"))
    again = json.loads((both / "masked" / "evaluation-1.json").read_text())
    assert results["best_valid_score"] == masked["best_valid_score"] == results["best_valid_result"]["mrr@3-masked"]
    of_masked = {f"{metric}-masked": value for metric, value in masked["test_result"].items()}
    assert results["test_result"] == {**again["test_result"], **of_masked}
    assert yaml.safe_load((both / "both" / "config.yaml").read_text())["mask_history"] == "both"


def test_ranks_and_segments_are_of_both(both):
    with np.load(both / "both" / "ranks-test.npz") as arrays, np.load(both / "masked" / "ranks-test.npz") as masked:
        assert np.array_equal(arrays["rank_masked"], masked["rank"]) and (arrays["rank"] >= masked["rank"]).all()
        assert (arrays["rank"] > masked["rank"]).any()
        for metric, ranks in (("mrr@3-masked", masked["rank"]), ("mrr@3", arrays["rank"])):
            assert np.array_equal(by_user(both / "both", metric)[0], np.where(ranks > 3, 0, 1 / ranks))
    segments = segment_table(both / "both")
    expected = json.loads((both / "masked" / "evaluation-1.json").read_text())["segments"]
    of_masked = segment_table(both / "masked")
    for kind, parts in segments.items():
        for part, plain, own in zip(parts, expected[kind], of_masked[kind], strict=True):
            assert part == {**plain, **{f"{name}-masked": own[name] for name in own if "@" in name}}
    assert by_user(both / "masked", "mrr@3-masked") is None
