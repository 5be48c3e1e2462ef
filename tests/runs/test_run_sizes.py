"""Numbers of items that a key asks for and a catalogue does not have are told before anything is trained."""

import pytest

from recbole_hllm.errors import ConfigError
from recbole_hllm.runs.plan import plan
from recbole_hllm.runs.run import evaluate_run, load_run, run
from recbole_hllm.storage.files import read_json

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # RecBole's

LISTED = ["ItemCoverage", "AveragePopularity", "ShannonEntropy", "GiniIndex", "TailPercentage", "Coverage", "Entropy",
          "Gini"]  # fmt: skip


def keys_of(settings_of, model="SASRec", **keys):
    """Of the toy data: 12 items, 14 users."""
    return {**settings_of(model), "epochs": 1, "valid_metric": "MRR@3", **keys}


def refused(folder, message, model="SASRec", **keys):
    with pytest.raises(ConfigError, match=message):
        run(model, config_dict=keys, run_dir=folder)
    assert not (folder / "last").exists() and not (folder / "best").exists(), "nothing is trained"


@pytest.mark.parametrize("model", ["SASRec", "BPR", "Pop", "SASRecNCE", "HLLM"])
@pytest.mark.parametrize("topk", [13, 14, 1000])
def test_topk_above_the_number_of_items(settings_of, tmp_path, model, topk):
    keys = keys_of(settings_of, model, topk=[3, topk])
    refused(tmp_path / "run", rf"topk: {topk} is more than the 12 items .* at most 12", model, **keys)


def test_topk_of_all_items_finds_every_target(settings_of, tmp_path):
    result = run("SASRec", config_dict=keys_of(settings_of, topk=[3, 12]), run_dir=tmp_path / "run")
    assert result["test_result"]["recall@12"] == 1.0
    with pytest.raises(ConfigError, match="topk: 13 is more than the 12 items"):
        evaluate_run(tmp_path / "run", {"topk": [13]})
    load_run(tmp_path / "run", {"topk": [3, 13]})  # nothing is listed


def test_what_has_to_be_trained_first_is_not(settings_of, tmp_path):
    """E4SRec needs a SASRec, which is evaluated alike."""
    keys = keys_of(settings_of, "E4SRec", topk=[3, 13], cache_dir=str(tmp_path / "cache"))
    refused(tmp_path / "run", "topk: 13 is more than the 12 items", "E4SRec", **keys)
    assert not list((tmp_path / "cache").rglob("last")) and not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_plan_is_refused_too(settings_of):
    with pytest.raises(ConfigError, match="topk: 13 is more than the 12 items"):
        plan("SASRec", config_dict=keys_of(settings_of, topk=[3, 13]))


@pytest.mark.parametrize("model", ["SASRecCPR", "GRU4RecCPR"])
def test_candidates_to_rerank(settings_of, tmp_path, model):
    keys = keys_of(settings_of, model)
    refused(tmp_path / "default", "^reranker_CAN_NUM: 100 candidates to rerank .* 12 items", model, **keys)
    several = {**keys, "reranker_CAN_NUM": "13,5", "n_facet_all": 6}
    refused(tmp_path / "several", "^reranker_CAN_NUM: 13 candidates .* at most 12", model, **several)
    result = run(model, config_dict={**keys, "reranker_CAN_NUM": 12}, run_dir=tmp_path / "all")
    assert set(result["test_result"]) == {"recall@1", "recall@3", "recall@10", "mrr@1", "mrr@3", "mrr@10", "ndcg@1",
                                          "ndcg@3", "ndcg@10"}  # fmt: skip


def test_no_reranker_needs_no_candidates(settings_of, tmp_path):
    keys = keys_of(settings_of, n_facet_reranker=0, n_facet_all=4)
    assert run("GRU4RecCPR", config_dict=keys, run_dir=tmp_path / "run")["test_result"]


# ---- lists with fewer candidates than places ----


@pytest.mark.parametrize("metric", LISTED)
@pytest.mark.parametrize(
    "narrow, least",
    [({"eval_args": {"mode": "uni3"}}, "4, by the mode uni3"), ({"mask_history": True}, r"\d, the others are masked")],
)
def test_metrics_of_listed_items_need_full_lists(settings_of, tmp_path, metric, narrow, least):
    keys = keys_of(settings_of, "Pop", metrics=["MRR", metric], topk=[3, 12], **narrow)
    refused(tmp_path / "run", f"topk: 12: {metric} would count items that are no candidates: a row has only {least}",
            "Pop", **keys)  # fmt: skip


def test_just_as_many_candidates_as_places(settings_of, tmp_path):
    """The longest history of the toy data before a test target has 8 different items: 4 of 12 are left."""
    keys = keys_of(settings_of, "Pop", metrics=["MRR", "Coverage"], mask_history=True)
    for topk in (5, 12):  # rows of validation have one more
        refused(tmp_path / str(topk), "a row has only 4, .* of at most 4", "Pop", **{**keys, "topk": [3, topk]})
    assert run("Pop", config_dict={**keys, "topk": [3, 4]}, run_dir=tmp_path / "four")["test_result"]["coverage@4"] == 1


def test_every_target_is_in_a_list_of_all_candidates(settings_of, tmp_path, caplog):
    keys = keys_of(settings_of, "Pop", topk=[3, 10], eval_args={"mode": "uni3"})
    run("Pop", config_dict=keys, run_dir=tmp_path / "run")
    said = [message for message in caplog.messages if message.startswith("topk: 10 is more than the 4 candidates")]
    assert len(said) == 1  # of validation and test together
    assert read_json(tmp_path / "run" / "metrics.json")["test_result"]["recall@10"] == 1.0
