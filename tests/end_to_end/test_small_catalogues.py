"""The recipes for small catalogues, with a tiny Item LLM in place of theirs."""

import pytest

from recbole_hllm import load_run, run, run_stages
from recbole_hllm.config.places import properties_folder
from recbole_hllm.nn.item_encoder import ItemEncoder, StoredItemVectors


@pytest.fixture
def recipe(settings_of, tiny_llm, tmp_path):
    """name -> file and keys of a short run of it."""
    keys = {key: value for key, value in settings_of("HLLM").items() if key not in ("num_negatives", "user_llm_config")}
    keys |= {"item_pretrain_dir": tiny_llm("bert"), "item_llm_layers": None, "MAX_TEXT_LENGTH": 10, "epochs": 1}
    keys |= {"cache_dir": str(tmp_path / "cache"), "train_batch_size": 64}
    return lambda name: (properties_folder() / "recipes" / f"{name}.yaml", keys)


def test_on_a_cpu(recipe, tmp_path):
    file, keys = recipe("HLLM-small-cpu")
    run("HLLM", None, file, keys, run_dir=tmp_path / "run")
    model = load_run(tmp_path / "run").model
    assert isinstance(model.item_encoder, StoredItemVectors) and model.item_encoder.whitening.method == "zca"
    assert [layer.weight.shape for layer in model.item_encoder.projection[::2]] == [(256, 16), (128, 256)]
    assert model.settings.negatives == "catalogue" and model.settings.nce_thres is None


def test_on_a_gpu(recipe, tmp_path):
    file, keys = recipe("HLLM-small-gpu")
    short = {"stage0.epochs": 1, "stage1.epochs": 1, "stage1.num_negatives": 8}
    result = run_stages("HLLM", None, file, {**keys, **short}, run_dir=tmp_path / "run")
    assert [row["stage"] for row in result["stages"]] == [0, 1]
    model = load_run(tmp_path / "run" / "stage-1").model
    assert isinstance(model.item_encoder, ItemEncoder) and model.cache is not None
    assert {group["lr"] for group in model.parameter_groups() if "lr" in group} == {5e-5, 3e-4}
