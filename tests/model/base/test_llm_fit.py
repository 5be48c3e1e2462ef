"""Numbers and kinds of language models that do not fit each other are refused before anything is trained."""

import numpy as np
import pytest
import torch
from architectures import keys_of

from recbole_hllm import Config, create_dataset, data_preparation, run
from recbole_hllm.errors import ConfigError, ModelError, UserError
from recbole_hllm.model.base.contract import Weights

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 8}
GPT1 = {**GPT2, "model_type": "openai-gpt"}
NARROW = keys_of("opt:narrow", vocab_size=48)


@pytest.fixture
def keys(settings_of, tmp_path):
    """(model, **keys) -> keys of a run whose caches are this test's own."""
    return lambda model, **own: {**settings_of(model), "cache_dir": str(tmp_path / "cache"), **own}


@pytest.fixture
def refused(keys, tmp_path):
    """(model, what the error says, **keys): a run is refused, and has left and trained nothing."""

    def check(model, said, **own):
        with pytest.raises(UserError, match=said):
            run(model, config_dict=keys(model, **own), run_dir=tmp_path / "run")
        assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()

    return check


@pytest.mark.parametrize(
    ("model", "own", "said"),
    [
        ("HLLM", {"user_llm_config": {**GPT1, "n_positions": 4}}, "MAX_ITEM_LIST_LENGTH: 5 items do .* 4 positions"),
        (
            "HLLM",
            {"user_llm_config": {**GPT2, "n_positions": 8}, "MAX_ITEM_LIST_LENGTH_TEST": 9},
            "MAX_ITEM_LIST_LENGTH_TEST: 9 items do not fit into the 8 positions of the language model; give at most 8",
        ),
        ("LLMIDRec", {"user_llm_config": {**GPT2, "n_positions": 4}}, "MAX_ITEM_LIST_LENGTH: 5 items do .* 4 pos"),
        (
            "HLLMRanker",
            {"user_llm_config": {**GPT2, "n_positions": 5}},
            "MAX_ITEM_LIST_LENGTH: 5 items and 1 further vector do not fit into the 5 positions .*; give at most 4",
        ),
        ("E4SRec", {"user_llm_config": {**GPT1, "n_positions": 4}}, "MAX_ITEM_LIST_LENGTH: 5 items do .* 4 positions"),
        (
            "E4SRec",
            {"user_llm_config": {**GPT2, "n_positions": 8}, "MAX_ITEM_LIST_LENGTH_TEST": 9},
            "MAX_ITEM_LIST_LENGTH_TEST: 9 items do not fit",
        ),
        (
            "PromptLLMTuned",
            {"item_llm_config": {**GPT2, "n_positions": 64, "vocab_size": None}, "MAX_PROMPT_LENGTH": 70},
            r"item_llm_config: texts of 70 tokens .* 64 positions .*\(MAX_PROMPT_LENGTH\)",
        ),
    ],
)
def test_more_positions_than_there_are(refused, model, own, said):
    if isinstance(own.get("item_llm_config"), dict):
        own = {**own, "item_llm_config": {k: v for k, v in own["item_llm_config"].items() if v is not None}}
    refused(model, "^" + said, **own)


@pytest.mark.parametrize("model", ["HLLM", "HLLMRanker", "E4SRec", "LLMIDRec"])
@pytest.mark.parametrize("sizes", [{}, {"hidden_size": 12}, {"model_type": None}])
def test_a_language_model_that_no_key_names(refused, model, sizes):
    refused(model, r"^user_llm_config: \{.*\} lacks a model_type, say llama", user_llm_config=sizes)


def test_an_emptied_config_is_no_default(refused):
    refused("HLLM", "^user_llm_config: None lacks a model_type, .* leave the key out", user_llm_config=None)


def test_the_last_length_that_fits_is_read(keys):
    config = Config("HLLM", config_dict=keys("HLLM", user_llm_config={**GPT2, "n_positions": 5}))
    config.spec.model.check_keys(config)
    config = Config("HLLMRanker", config_dict=keys("HLLMRanker", user_llm_config={**GPT2, "n_positions": 6}))
    config.spec.model.check_keys(config)


def test_longer_histories_in_an_evaluation_than_the_user_llm_reads(keys, tmp_path):
    own = keys("HLLM", user_llm_config={**GPT2, "n_positions": 6}, epochs=1)
    run("HLLM", config_dict=own, run_dir=tmp_path / "run")
    again = {"evaluate_only": True, "MAX_ITEM_LIST_LENGTH_TEST": 7}
    with pytest.raises(ConfigError, match="^MAX_ITEM_LIST_LENGTH_TEST: 7 items do not fit into the 6 positions"):
        run(config_dict=again, run_dir=tmp_path / "run")


def test_longer_texts_than_the_item_llm_reads(refused, tiny_llm):
    short = tiny_llm("bert", max_position_embeddings=16)
    said = r"^item_pretrain_dir: texts of 24 tokens .* 16 positions .*\(MAX_TEXT_LENGTH\)"
    for model in ("HLLM", "TextKNN"):
        refused(model, said, item_pretrain_dir=short, item_llm_layers=None, MAX_TEXT_LENGTH=24)
    said = said.replace("item_pretrain_dir", "item_pretrain_dir")
    refused("LEARN", said, content="bert", item_pretrain_dir=short, MAX_TEXT_LENGTH=24)


@pytest.mark.parametrize(
    ("model", "key", "more"),
    [
        ("HLLM", "user_llm_config", {}),
        ("LLMIDRec", "user_llm_config", {}),
        ("E4SRec", "user_llm_config", {}),
        ("SLMRec", "user_llm_config", {}),
        ("PromptLLMTuned", "item_llm_config", {"MAX_PROMPT_LENGTH": 64}),
    ],
)
def test_bidirectional_by_configuration(refused, model, key, more):
    sizes = {name: value for name, value in keys_of("xlnet").items() if name != "vocab_size"}
    refused(model, f"^{key}: a xlnet model cannot .* bidirectional .* or set attn_type: uni", **{key: sizes}, **more)


def test_a_model_that_sees_padding(refused, tiny_llm):
    refused("HLLM", "^item_pretrain_dir: a convbert model .* when padding", item_pretrain_dir=tiny_llm("convbert"))


@pytest.mark.parametrize("model", ["HLLM", "TextKNN", "PromptLLM", "LEARN"])
def test_a_tokenizer_with_more_words_than_the_language_model(keys, tiny_llm, tmp_path, model):
    few = tiny_llm("llama", vocab_size=1)
    own = {"content": "llm", "item_pretrain_dir": few} if model == "LEARN" else {"item_pretrain_dir": few}
    own = keys(model, **own, item_llm_layers=None) if model != "LEARN" else keys(model, **own)
    said = "the tokenizer of .* has more words than the language model: .* embeddings of 1 words"
    with pytest.raises(ModelError, match=said):
        run(model, config_dict=own, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_an_instruction_with_more_words_than_the_language_model(refused, tiny_llm):
    few = {"user_pretrain_dir": tiny_llm("llama", vocab_size=10), "user_llm_init": True, "user_llm_config": None}
    refused("E4SRec", "^user_pretrain_dir: the tokenizer has more words than the 10", instruction="w30 {items}", **few)


def test_layers_that_lora_does_not_find_or_cannot_have(refused, tiny_llm):
    """E4SRec's own default names layers of Llama."""
    gpt2 = {"user_pretrain_dir": tiny_llm("gpt2"), "user_llm_init": True, "user_llm_config": None}
    refused("E4SRec", "^lora_target_modules: no linear layer is called 'gate_proj'; its .* are c_attn", **gpt2)
    item = {"item_pretrain_dir": tiny_llm("mamba"), "item_llm_tuning": "lora", "item_llm_layers": None}
    refused("HLLM", "^lora_target_modules: .*out_proj", lora_target_modules=["out_proj"], **item)
    user = {"user_pretrain_dir": tiny_llm("gpt2"), "user_llm_init": True, "user_llm_config": None}
    user |= {"user_llm_tuning": "lora"}
    refused("HLLM", "^lora_target_modules: no linear layer is called 'q_proj'", lora_target_modules=["q_proj"], **user)


@pytest.mark.parametrize(
    ("kind", "sizes", "target"),
    [
        ("llama", {"num_hidden_layers": 3}, "layers.2.self_attn.q_proj"),
        ("jamba", {"num_hidden_layers": 4, "attn_layer_period": 4, "attn_layer_offset": 3}, "q_proj"),
    ],
)
def test_lora_of_layers_that_only_the_whole_model_has(keys, tiny_llm, kind, sizes, target):
    user = {"user_pretrain_dir": tiny_llm(kind, **sizes), "user_llm_init": True, "user_llm_config": None}
    config = Config("HLLM", config_dict=keys("HLLM", **user, user_llm_tuning="lora", lora_target_modules=[target]))
    recommender = config.spec.build(config, data_preparation(config, create_dataset(config))[0]._dataset)
    trained = [name for name, weight in recommender.user_encoder.named_parameters() if weight.requires_grad]
    assert len(trained) == 2 and all(f".{target}.lora_" in name for name in trained)


def test_a_language_model_that_fails_only_when_it_is_built(keys, tmp_path):
    """Flash attention is not installed, or this is no GPU: known before a table is trained."""
    own = keys("E4SRec", attn_implementation="flash_attention_2")
    with pytest.raises(ModelError, match="^the language model cannot be built .*FlashAttention2"):
        run("E4SRec", config_dict=own, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists() and not list(tmp_path.glob("cache/SASRec*"))


@pytest.mark.parametrize("model", ["HLLM", "LLMIDRec", "E4SRec", "HLLMRanker"])
def test_narrow_embeddings_work(keys, tiny_llm, tmp_path, model):
    key = "user_llm_config" if model == "E4SRec" else "user_llm_config"
    own = {key: NARROW, **({"user_llm_layers": 1} if model == "E4SRec" else {})}
    if model.startswith("HLLM"):
        own |= {"item_pretrain_dir": tiny_llm("opt:narrow"), "item_llm_layers": None, "nce_thres": None}
    config = Config(model, config_dict=keys(model, **own, epochs=1))
    train = data_preparation(config, create_dataset(config))[0]
    weights = Weights.FOLLOW if model == "E4SRec" else Weights.FRESH  # no table
    recommender = config.spec.build(config, train._dataset, weights).eval()
    rows = train._dataset[torch.arange(3)]
    if model == "E4SRec":
        recommender.item_table.weight.data.normal_()
    loss = recommender.calculate_loss(next(iter(train)))
    loss.backward()
    assert np.isfinite(loss.item())
    reader = recommender.llm.backbone if model == "E4SRec" else recommender.user_encoder.backbone
    assert reader.config.hidden_size == 16 and reader.config.word_embed_proj_dim == 8
    assert reader.decoder.project_in.weight.grad.abs().sum() > 0
    assert len(rows) == 3


def test_narrow_embeddings_and_blocks(refused):
    said = "^distill_cos, .* outputs of 8 numbers and hidden_size 16"
    refused("SLMRec", said, user_llm_config=NARROW, user_llm_layers=1)
