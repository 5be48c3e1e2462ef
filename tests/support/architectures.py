"""Text architectures of transformers, each as the keys of a tiny configuration: what sweeps over language models read.

``CAUSAL`` read from left to right, ``ENCODERS`` in both directions. A name is a model type of transformers, or one with
a variant behind a colon. Architectures that the installed transformers does not know are left out.
"""

import pytest
from transformers import CONFIG_MAPPING

VOCAB, HIDDEN, LAYERS, POSITIONS = 40, 16, 2, 32
# Of each, a configuration takes what it knows.
_SIZES = {
    "vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 24, "ffn_dim": 24,
    "max_position_embeddings": POSITIONS, "embedding_size": HIDDEN, "word_embed_proj_dim": HIDDEN, "state_size": 8,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "moe_intermediate_size": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_MIXED = {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}
_DEEPSEEK = {
    "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "head_dim": 4,
    "moe_intermediate_size": 8, "first_k_dense_replace": 1,
}  # fmt: skip
_MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}

# Name -> what it needs besides, or a value that makes a scale or a cap large enough to be seen.
_CAUSAL = {
    "afmoe": {}, "apertus": {}, "arcee": {}, "bamba": {**_MAMBA2, "attn_layer_indices": [1]},
    "bert:decoder": {"is_decoder": True}, "bert-generation:decoder": {"is_decoder": True}, "biogpt": {}, "bitnet": {},
    "bloom": {}, "codegen": {"num_attention_heads": 4, "rotary_dim": 4},
    "cohere": {"logit_scale": 0.25}, "cohere2": {"logit_scale": 0.25}, "ctrl": {"dff": 24}, "cwm": {},
    "deepseek_v2": _DEEPSEEK, "deepseek_v3": _DEEPSEEK, "diffllama": {}, "doge": {}, "ernie4_5": {},
    "ernie4_5_moe": {}, "exaone4": {}, "falcon": {"head_dim": None}, "falcon:alibi": {"head_dim": None, "alibi": True},
    "falcon_h1": {**_MAMBA2, "mamba_d_ssm": 32}, "falcon_mamba": {}, "flex_olmo": {}, "gemma": {},
    "gemma2": {"final_logit_softcapping": 2.0, "attn_logit_softcapping": 2.0}, "gemma3_text": {}, "glm": {}, "glm4": {},
    "glm4_moe": {}, "gpt2": {}, "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4}, "gpt_neox": {},
    "gpt_neox_japanese": {}, "gpt_oss": {}, "gptj": {"rotary_dim": 4},
    "granite": {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5}, "granitemoe": {},
    "granitemoeshared": {}, "granitemoehybrid": {**_MAMBA2, "layer_types": ["mamba", "attention"]}, "helium": {},
    "hunyuan_v1_dense": {}, "hyperclovax": {}, "internlm3": {}, "jais2": {},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8}, "jetmoe": {},
    "lfm2": {"layer_types": ["conv", "full_attention"]}, "llama": {}, "llama:tied": {"tie_word_embeddings": True},
    "llama4_text": {}, "mamba": {}, "mamba2": {"num_heads": 4, "head_dim": 8, "n_groups": 1},
    "megatron-bert:decoder": {"is_decoder": True}, "minicpm3": {}, "minimax": {}, "ministral": {}, "mistral": {},
    "mixtral": {}, "modernbert-decoder": {}, "mpt": {},
    "nanochat": {}, "nemotron": {}, "olmo": {}, "olmo2": {}, "olmo3": {}, "olmo_hybrid": {}, "olmoe": {},
    "openai-gpt": {}, "opt": {}, "opt:narrow": {"word_embed_proj_dim": 8}, "persimmon": {}, "phi": {}, "phi3": {},
    "phimoe": {}, "qwen2": {}, "qwen2_moe": {"shared_expert_intermediate_size": 8}, "qwen3": {}, "qwen3_moe": {},
    "qwen3_next": {
        **_MIXED, "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
        "linear_value_head_dim": 8, "shared_expert_intermediate_size": 8,
    },
    "recurrent_gemma": {
        "block_types": ["recurrent", "attention"], "lru_width": 16, "attention_window_size": 8, "logits_soft_cap": 2.0
    },
    "roberta:decoder": {"is_decoder": True}, "rwkv": {}, "seed_oss": {}, "smollm3": {}, "stablelm": {},
    "starcoder2": {}, "vaultgemma": {}, "xglm": {"d_model": 16}, "xlm:causal": {"causal": True},
    "xlnet:uni": {"attn_type": "uni", "d_inner": 24, "d_head": 8, "max_position_embeddings": None},
}  # fmt: skip
_ENCODERS = {
    "albert": {}, "bert": {}, "big_bird": {"attention_type": "original_full"}, "camembert": {}, "convbert": {},
    "data2vec-text": {}, "deberta": {}, "deberta-v2": {},
    "deberta-v2:relative": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "distilbert": {"hidden_dim": 24}, "electra": {}, "electra:narrow": {"embedding_size": 8}, "ernie": {},
    "eurobert": {}, "flaubert": {}, "fnet": {}, "gte": {}, "ibert": {}, "jina_embeddings_v3": {},
    "longformer": {"attention_window": 4}, "megatron-bert": {},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16}, "modernbert": {},
    "mpnet": {}, "nomic_bert": {}, "nystromformer": {}, "rembert": {"input_embedding_size": 16}, "roberta": {},
    "mt5": {"d_kv": 8, "d_ff": 24}, "roberta-prelayernorm": {}, "roformer": {}, "splinter": {}, "squeezebert": {},
    "t5": {"d_kv": 8, "d_ff": 24}, "umt5": {"d_kv": 8, "d_ff": 24}, "xlm": {}, "xlm-roberta": {},
    "xlm-roberta-xl": {}, "xlnet": {"d_inner": 24, "d_head": 8, "max_position_embeddings": None}, "yoso": {},
}  # fmt: skip


def _known(names) -> list[str]:
    return [name for name in names if name.partition(":")[0] in CONFIG_MAPPING]


CAUSAL, ENCODERS = _known(_CAUSAL), _known(_ENCODERS)
# Those that transformers has as half of an encoder-decoder.
ENCODERS_ALONE = [name for name in ENCODERS if name in ("mt5", "t5", "umt5")]
# Those in which a convolution, a Fourier transform or an approximate attention reaches what a mask hides.
SEE_PADDING = [name for name in ENCODERS if name in ("convbert", "fnet", "mobilebert", "nystromformer", "yoso")]
# The kinds that differ most, for tests that run whenever any test does.
SAMPLE = [
    name
    for name in (*CAUSAL, *ENCODERS)
    if name
    in {
        "llama", "llama:tied", "gpt2", "opt", "opt:narrow", "bloom", "gemma2", "granite", "cohere", "mamba", "xglm",
        "xlnet:uni", "gpt_neo", "qwen3", "recurrent_gemma", "bert", "roberta", "distilbert", "modernbert", "xlnet",
        "deberta-v2", "t5",
    }
]  # fmt: skip


def sampled(names, also=()) -> list:
    """Cases of a test: every run has those of the sample and of ``also``, ``make test-slow`` has the others."""
    return [pytest.param(name, marks=() if name in SAMPLE or name in also else pytest.mark.slow) for name in names]


def keys_of(name: str, **changes) -> dict:
    """The keys of a tiny configuration, as ``item_llm_config`` takes them; a value of None leaves the key alone.

    Args:
        name: of ``CAUSAL`` or ``ENCODERS``.
        changes: keys that take the place of others; those that the configuration does not know are left out.
    """
    kind = name.partition(":")[0]
    known = CONFIG_MAPPING[kind]()
    shared = {key: value for key, value in {**_SIZES, **changes}.items() if _has(known, key)}
    own = {key: value for key, value in {**_CAUSAL, **_ENCODERS}[name].items() if key not in changes}
    return {"model_type": kind, **{key: value for key, value in {**shared, **own}.items() if value is not None}}


def _has(config, key) -> bool:
    try:
        return hasattr(config, key)
    except NotImplementedError:  # XLNet has positions without a limit
        return False
