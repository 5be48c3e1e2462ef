"""Keys of LEARN: what is refused, where, and what is told to be without effect."""

import json
from pathlib import Path

import pytest
import torch

from recbole_hllm.config.config import Config
from recbole_hllm.data.rows.dataset import create_dataset
from recbole_hllm.errors import ConfigError, DataError, ModelError


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"item_tower": "content", "shared_towers": False}, "shared_towers, output_size without effect: item_tower is"),
        ({"user_llm_layers": 3}, "user_llm_layers without effect: preference is transformer"),
        ({"negatives": "catalogue", "mask_same_items": True}, "mask_same_items without effect: negatives is"),
        ({"target_days": 3}, "target_days without effect: split_by is position"),
        ({"sampling": "last", "recency_beta": 99}, "recency_beta without effect: sampling is last"),
        ({"content_dim": 99}, "content_dim without effect: content is bert"),
        ({"content": "id", "item_llm_layers": 1}, "item_pretrain_dir, item_llm_layers without effect: content is id"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing without effect: preference is transformer"),
        ({}, None),
    ],
)
def test_keys_without_effect_are_told(build, caplog, keys, said):
    build(**keys)
    told = [record.getMessage() for record in caplog.records if "without effect" in record.getMessage()]
    assert told == [] if said is None else told[0].startswith(said)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"content": "LLM"}, "content: 'LLM' is not one of llm, bert, id, random"),
        ({"content_pooling": "max"}, "content_pooling: 'max' is not one of mean, cls, last, eos"),
        ({"content_dtype": "int8"}, "content_dtype: 'int8'"),
        ({"item_tower": "b"}, "item_tower: 'b' is not one of causal, alone, content"),
        ({"sampling": "weighted"}, "sampling: 'weighted' is not one of uniform, recent, last"),
        ({"content": "llm", "content_pooling": "cls"}, "content_pooling: cls: the first token of a causal"),
        ({"split_by": "date"}, "split_by: 'date' is not one of position, time"),
        ({"preference": "llm"}, "user_pretrain_dir: name the causal language model"),
        ({"preference": "bert"}, "preference: 'bert'"),
        ({"user_llm_tuning": "qlora"}, "user_llm_tuning: 'qlora'"),
        ({"hidden_size": 9}, "n_heads: hidden_size 9"),
        ({"n_layers": 0}, "n_layers: 0"),
        ({"dropout": 2}, "dropout"),
        ({"negatives": "batch"}, "negatives: 'batch' is not one of users, catalogue"),
        ({"num_negatives": 5}, "num_negatives: is of negatives: catalogue"),
        ({"train_batch_size": 1}, "train_batch_size: 1: the targets of a batch's other rows"),
        ({"recency_alpha": 20, "recency_beta": 10}, "recency_beta: below recency_alpha"),
        ({"target_length": 0}, "target_length"),
        ({"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}, "LEARN compares with no drawn neg"),
    ],
)
def test_values_that_are_refused(build, keys, message):
    with pytest.raises(ConfigError, match=message):
        build(**keys)


def test_a_model_of_the_other_kind(build, tiny_llm):
    with pytest.raises(ConfigError, match="item_pretrain_dir: .* of type llama, is causal.*take content: llm"):
        build(item_pretrain_dir=tiny_llm("llama"))
    with pytest.raises(ConfigError, match="item_pretrain_dir: .* of type bert, looks ahead.*take content: bert"):
        build(content="llm", item_pretrain_dir=tiny_llm("bert"))


def test_a_preference_module_that_looks_ahead_is_told_before_texts_are_encoded(build, tiny_llm, monkeypatch):
    monkeypatch.setattr("recbole_hllm.model.learn.learn.build_content", None)  # would fail if called
    with pytest.raises(ModelError, match="^user_pretrain_dir: a bert model cannot .*bidirectional.*; take a causal"):
        build(preference="llm", user_pretrain_dir=tiny_llm("bert"))
    with pytest.raises(ModelError, match="^user_llm_layers: 9, but the language model .* has only 2 layers"):
        build(preference="llm", user_pretrain_dir=tiny_llm("llama"), user_llm_layers=9)


def test_an_end_token_that_is_not_there(build, tiny_llm):
    folder = Path(tiny_llm("llama"))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            kept = {key: value for key, value in json.loads((folder / name).read_text()).items() if key != "eos_token"}
            (folder / name).write_text(json.dumps(kept))
    with pytest.raises(ConfigError, match="content_pooling: eos: the tokenizer of .* has no end token; take another"):
        build(content="llm", item_pretrain_dir=str(folder), content_pooling="eos")


def test_data_without_texts(build, tmp_path):
    (tmp_path / "toy" / "toy.item").unlink()
    for names in (None, ["title"]):
        with pytest.raises(ConfigError, match="there is no .*toy.item: .*; without texts: content: id"):
            build(text_keys=names)


def test_positions_are_no_times(build):
    with pytest.raises(DataError, match="split_by: time: .*counters.*they have no days; set split_by: position"):
        build(split_by="time", history_days=1e-4, target_days=3e-5)
    with pytest.raises(DataError, match="split_by: time: .*counters.*set split_by: position"):
        build(split_by="time")


def sentence_folder(folder, prompts):
    """Makes a language model's folder one of sentence-transformers."""
    folder = Path(folder)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(kinds)
    ]
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    for file, keys in (
        ("modules.json", modules), ("1_Pooling/config.json", pooling), ("config_sentence_transformers.json", prompts),
    ):  # fmt: skip
        (folder / file).write_text(json.dumps(keys))
    return str(folder)


def test_a_default_prompt_is_told_and_gives_the_encoders_own_vectors(build, keys_of, tiny_llm, caplog):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    prompts = {"prompts": {"passage": "w30 w31 ", "query": "w32 "}, "default_prompt_name": "passage"}
    folder = sentence_folder(tiny_llm("bert"), prompts)
    keys = {"item_pretrain_dir": folder, "text_keys": ["brand"], "text_field": "{value}"}
    without, _ = build(**keys)
    assert "item_prompt: sentence-transformers writes 'w30 w31 ' before every text" in caplog.text
    caplog.clear()
    with_prompt, _ = build(**keys, item_prompt="w30 w31 ")
    assert "sentence-transformers" not in caplog.text
    encoder = sentence_transformers.SentenceTransformer(folder, device="cpu")
    items = create_dataset(Config("LEARN", config_dict=keys_of(**keys))).field2id_token["item_id"][1:]
    texts = [f"w{int(item[1:]) + 5}" for item in items]  # what conftest.py gives them
    encoder.tokenizer.pad_token = "<unk>"  # texts are of one length
    expected = torch.from_numpy(encoder.encode(texts))
    found, other = (torch.from_numpy(model.content.table.vectors[1:].copy()) for model in (with_prompt, without))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (other - expected).abs().max() > 0.1


def test_prompts_without_a_default_are_nothing_to_tell(build, tiny_llm, caplog):
    folder = sentence_folder(tiny_llm("bert"), {"prompts": {"query": "w32 "}, "default_prompt_name": None})
    build(item_pretrain_dir=folder)
    assert "sentence-transformers" not in caplog.text
