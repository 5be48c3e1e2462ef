"""The stage before the first: on stored vectors of the Item LLM as it is."""

from pathlib import Path

import pytest
import torch

from recbole_hllm import Config, load_run, run, run_stages
from recbole_hllm.errors import ConfigError
from recbole_hllm.nn.item_encoder import StoredItemVectors
from recbole_hllm.runs import stages
from recbole_hllm.training.checkpoint import read_tensors

PARTS = {"item_whitening": "zca", "item_head_hidden": 6, "item_id_bound": 0.5, "item_emb_token_n": 0}


@pytest.fixture(scope="module")
def warmed_up(keys_without_stages, tmp_path_factory):
    """Keys and folder of stages 0 and 1."""
    folder = tmp_path_factory.mktemp("stages") / "run"
    keys = keys_without_stages("HLLM", training_stage=[0, 1], **PARTS, **{"stage1.epochs": 0})
    run_stages(config_dict=keys, run_dir=folder)
    return keys, folder


def weights_of(folder):
    return read_tensors(folder / "best" / "weights.safetensors")


def test_stage_1_starts_where_stage_0_ends(warmed_up):
    """Here it trains nothing."""
    _, folder = warmed_up
    before, after = (weights_of(folder / f"stage-{number}") for number in (0, 1))
    shared = [name for name in before if not name.endswith((".source", "whitening.mean", "whitening.matrix"))]
    assert {name.split(".")[1] for name in shared} == {"item_encoder", "id_part", "user_encoder"}
    assert all(torch.equal(before[name], after[name]) for name in shared)
    assert [name for name in after if name.startswith("model.item_encoder.backbone.")]
    stored, trained = (load_run(folder / f"stage-{number}").model for number in (0, 1))
    assert isinstance(stored.item_encoder, StoredItemVectors) and not trained.item_llm_is_frozen
    torch.testing.assert_close(trained.item_vectors(), stored.item_vectors(), atol=1e-2, rtol=1e-2)
    assert stored.id_part.rows.weight.any()


def test_stage_1_comes_later_too(warmed_up, tmp_path):
    keys, folder = warmed_up
    first = {key: value for key, value in keys.items() if key != "stage1.epochs"}
    run_stages(config_dict={**first, "training_stage": 0}, run_dir=tmp_path / "run")
    result = run_stages(config_dict={"training_stage": 1, "stage1.epochs": 0}, run_dir=tmp_path / "run")
    assert [row["stage"] for row in result["stages"]] == [0, 1]
    ours, theirs = (weights_of(one / "stage-1") for one in (folder, tmp_path / "run"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_further_run_starts_from_an_export(warmed_up, tmp_path):
    """Frozen, then some layers or LoRA, then all."""
    keys, folder = warmed_up
    own = {key: value for key, value in keys.items() if not key.startswith("stage")}
    own |= {"training_stage": None, "user_llm_config": None, "item_llm_layers": None, "epochs": 0}
    own["pretrained_hllm"] = str(folder / "stage-1" / "export")
    run(config_dict=own, run_dir=tmp_path / "all")
    ours, theirs = weights_of(tmp_path / "all"), weights_of(folder / "stage-1")
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-5)


def test_keys_of_each_stage(keys_without_stages, tmp_path, monkeypatch):
    """A number of layers is for the stage that trains them."""
    seen = []
    monkeypatch.setattr(stages, "_run_stage", lambda stage, keys, folder: seen.append(Config(config_dict=keys)))
    monkeypatch.setattr(stages, "_check_llms", lambda configs: None)
    given = {"training_stage": [0, 1, 2], "item_llm_tuning": "last", "item_llm_layers_trained": 1}
    run_stages(config_dict=keys_without_stages("HLLM", **given), run_dir=tmp_path)
    assert [config["item_llm_tuning"] for config in seen] == ["frozen", "last", "frozen"]
    assert [config["item_llm_layers_trained"] for config in seen] == [None, 1, None]
    exports = [None, *(str(tmp_path / f"stage-{number}" / "export") for number in (0, 1))]
    assert [config["pretrained_hllm"] for config in seen] == exports
    assert [config["user_llm_config"] is None for config in seen] == [False, True, True]


def test_stage_0_does_not_come_after_stage_1(keys_without_stages, tmp_path):
    Path(tmp_path, "run", "stage-1").mkdir(parents=True)
    with pytest.raises(ConfigError, match="stage 0 comes before stage 1, which .* has; use another run_dir"):
        run_stages(config_dict=keys_without_stages("HLLM", training_stage=0), run_dir=tmp_path / "run")


def test_stage_1_waits_for_stage_0(keys_without_stages, tmp_path):
    Path(tmp_path, "run", "stage-0").mkdir(parents=True)
    with pytest.raises(ConfigError, match="training_stage: 1 starts from stage 0, but .*stage-0 is not there"):
        run_stages(config_dict=keys_without_stages("HLLM", training_stage=1), run_dir=tmp_path / "run")
