"""Keys of HLLM and HLLMRanker."""

from typing import Any

from recbole_hllm.config.keys.language_models import (
    CheckpointingKeys,
    ComputeKeys,
    EncodingKeys,
    ItemLLMKeys,
    ItemTextKeys,
    LoraKeys,
    PackingKeys,
    UserLLMKeys,
)
from recbole_hllm.config.keys.next_item import HistoryKeys, NextItemLossKeys
from recbole_hllm.config.keys.run import LabelledKeys, RunKeys
from recbole_hllm.config.schema import Scope, Settings, default, key

PLACE, TRAINING = Scope.PLACE, Scope.TRAINING


class ItemPartKeys(Settings):
    """What lies between a text's vector and the item vector that the User LLM reads and predicts."""

    title = "From the Item LLM's vector to the item vector"

    item_whitening: str | None = key(
        None,
        "zca or pca: whiten the Item LLM's vectors with mean and covariance of the catalogue (arXiv 2402.10602), "
        "before the head. Of a frozen Item LLM they are computed once; of another one, with zca, at the start of each "
        "epoch and in each evaluation. Empty: none.",
        choices=("zca", "pca"),
    )  # fmt: skip
    item_head_hidden: int | None = key(
        None,
        "Size between the two layers of a perceptron from the Item LLM's width to the User LLM's. Empty: one linear "
        "layer, or none where the widths are equal.",
        least=1,
    )
    item_id_bound: float = key(
        0.0,
        "Add an embedding of the item's id to the vector of its text, at most so long as this share of that vector. "
        "0: none.",
        least=0,
    )  # fmt: skip
    item_id_min_count: int = key(
        1,
        "Items that stand in the training data less often have no part of their id: their text alone.",
        least=1,
    )
    item_head_learning_rate: float | None = key(
        None,
        "Learning rate of the head and of the id's part. Empty: the head's is that of the Item LLM, or learning_rate "
        "where it is frozen, and the id's part has learning_rate.",
        scope=TRAINING, least=0,
    )  # fmt: skip


class InputFeatureKeys(Settings):
    """What the User LLM reads beside item vectors."""

    title = "What else the User LLM reads (section 4.5), added to the item vectors; it predicts the item vector alone"

    input_dropout: float = key(
        0.0,
        "Dropout of what the User LLM reads, in training; small data needs some.",
        scope=TRAINING, least=0, most=1,
    )  # fmt: skip
    time_num: int = key(
        0,
        "Parts of the UTC time: 0 none, 1 year, ... 4 to the hour, 6 to the second. Needs timestamps in seconds "
        "since 1970.",
        least=0,
        most=6,
    )
    time_of: str = key(
        "item",
        "item: when each item of the history was had. next: when the item to predict is, the time of the request.",
        choices=("item", "next"),
    )  # fmt: skip
    time_width: int = key(64, "Size of the embedding of each part; the paper's is 512.", least=1)
    input_item_id: bool = key(False, "An embedding of the item's id.")
    action_field: str | None = key(
        None,
        "Column of .inter, such as rating or a type of action, whose value is embedded.",
    )


class StartKeys(Settings):
    """Trained weights to start from."""

    title = "What training starts from"

    pretrained_hllm: str | None = key(
        None,
        "What to start from: pytorch_model.bin of the official code, its LLMs must be those above; or an export of"
        " HLLM or HLLMRanker (recbole-hllm export), whose LLMs are taken instead of those above.",
        source=True,
    )


class HLLMTrainingKeys(RunKeys):
    """How HLLM is trained."""

    title = "Training"

    learner: str = default("adamw", "Optimizer.")
    learning_rate: float = default(0.001, "Learning rate of the User LLM.")
    item_learning_rate: float | None = key(
        5e-05,
        "Learning rate of the Item LLM, or of its LoRA. Empty: learning_rate.",
        scope=TRAINING, least=0,
    )  # fmt: skip
    weight_decay: float = default(0.01, "AdamW's; not applied to norms, biases and the logit scale.")
    scheduler: str | None = default("cosine", "Learning rate over the steps: none or cosine.")
    precision: str | None = default(
        "auto",
        "Autocast: bf16, fp16 or fp32; auto is bf16 where the GPU or CPU has instructions for it, else fp32.",
    )
    epochs: int = default(10, "Most epochs.")
    stopping_step: float = default(3, "Most validations without a better valid_metric; one more stops training.")
    train_batch_size: int = default(128, "Histories per batch.")


class ItemCacheKeys(Settings):
    """Fewer items to encode in a step."""

    title = "Fewer item tokens: a cache of every item's newest vector, with negatives: cached or live_items"

    live_items: int | None = key(
        None,
        "Most distinct items of a batch that are encoded in a step, drawn anew each time; the others have the vector "
        "that was computed last, without gradients. Empty: all.",
        scope=TRAINING, least=1,
    )  # fmt: skip
    cache_refresh_steps: int | None = key(
        None,
        "Encode items of the cache again after every so many steps, without gradients. Empty: only the items of the "
        "batches are, which are most of them in each epoch. train/cache_age in the log is the mean age in steps.",
        scope=TRAINING, least=1,
    )  # fmt: skip
    cache_refresh_items: int | None = key(
        None,
        "How many items at a time, those with the oldest vectors first. Empty: all.",
        scope=TRAINING, least=1,
    )  # fmt: skip


class RecomputeKeys(Settings):
    """Memory of the Item LLM in training."""

    title = "Memory and speed"

    memory_gb: float | None = key(
        None,
        "Most GiB that training takes of the GPU, or as a process of the machine. It decides how many items' "
        "activations are kept. Empty: most of what is free at the first step.",
        scope=PLACE, least=0,
    )  # fmt: skip
    recompute_items: bool | None = key(
        None,
        "True: forget each chunk's activations and compute them again in the backward pass: memory of one chunk, equal "
        "gradients. False: keep all. Empty: keep what fits into memory_gb.",
        scope=TRAINING, reported=True,
    )  # fmt: skip


class CatalogueLossKeys(NextItemLossKeys):
    """The contrastive loss where the negatives are texts."""

    title = "Loss (arXiv 2409.12740, section 3.2)"

    catalogue_limit: int = key(
        2000,
        "Most items of the data set with negatives: catalogue and an Item LLM that is trained, which encodes all of "
        "them in every step. A frozen one's vectors are stored: any number.",
        scope=TRAINING, least=1,
    )  # fmt: skip


class HLLMKeys(
    ItemLLMKeys,
    ItemPartKeys,
    UserLLMKeys,
    InputFeatureKeys,
    StartKeys,
    LoraKeys,
    ItemTextKeys,
    HistoryKeys,
    CatalogueLossKeys,
    HLLMTrainingKeys,
    ItemCacheKeys,
    EncodingKeys,
    RecomputeKeys,
    CheckpointingKeys,
    PackingKeys,
    ComputeKeys,
):
    """HLLM, generative (arXiv 2409.12740). These defaults run offline on a CPU: a pretrained MiniLM as Item
    LLM, a small Llama from scratch as User LLM. The paper's set-up: item_pretrain_dir and user_pretrain_dir
    TinyLlama-1.1B (3T), user_llm_init: True, item_emb_token_n: 1, MAX_TEXT_LENGTH: 256, learning_rate and
    item_learning_rate 1e-4, item_prompt 'Compress the following sentence into embedding: ', num_negatives
    empty, and text_separator ''.
    """


class RankingKeys(Settings):
    """How candidates are scored."""

    title = "Ranking"

    fusion: str = key(
        "late",
        "late: a [USER] vector after the history, scored with each candidate by the head. early: the candidate "
        "itself after the history.",
        choices=("late", "early"),
    )  # fmt: skip
    head_input: str = key(
        "both",
        "What the head of late fusion reads of user and item: concat, product, or both (all three side by side). "
        "Early fusion has one vector.",
        choices=("concat", "product", "both"),
    )  # fmt: skip
    head_hidden: list[int] = key([128], "Sizes of the head's hidden layers; [] makes it linear.", least=1)
    target_item_id: bool = key(
        True,
        "Add an embedding of the candidate's id to its vector: how well an item is liked does not stand in its text.",
    )
    loss_lambda: float = key(
        0.1,
        "Weight of the generative loss at the history's positions; 0 leaves it out, with its negatives.",
        scope=TRAINING, least=0,
    )  # fmt: skip
    histories_together: bool = key(
        True,
        "Shuffle histories instead of rows: those rows of a user that have the same history are in one batch, "
        "where late fusion reads it once.",
        scope=TRAINING,
    )
    candidates_per_batch: int = key(
        8192,
        "Most pairs of user and candidate scored at once where a whole catalogue is scored.",
        scope=TRAINING, least=1, reported=True,
    )  # fmt: skip


class HLLMRankerKeys(HLLMKeys, LabelledKeys, RankingKeys):
    """HLLMRanker, the discriminative HLLM (arXiv 2409.12740, section 3.3): every key of HLLM.yaml, with other
    defaults here, except negatives, catalogue_limit, data_split and MAX_ITEM_LIST_LENGTH_TEST, and what
    follows. Labels, split and metrics are those of properties/labelled.yaml.
    """

    title = "Cheaper than HLLM's, for a CPU"

    item_llm_tuning: str = default(
        "frozen",
        "As HLLM's. A batch's histories hold most of a small catalogue: with full or lora nearly every text is "
        "encoded in every step. full is what the paper does.",
    )
    user_llm_config: dict[str, Any] | None = default(
        {
            "model_type": "llama",
            "hidden_size": 128,
            "intermediate_size": 344,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
            "vocab_size": 8,
        },
        "As HLLM's; a third of its width.",
    )
    MAX_ITEM_LIST_LENGTH: int = default(20, "Most items of a history.")
    text_field: str = default("{value}", "How a field is written; without the names of columns.")
    MAX_TEXT_LENGTH: int = default(20, "Most tokens of a text.")
    num_negatives: int | None = default(128, "Of the generative loss, shared by a batch.")
    train_batch_size: int = default(256, "Labelled interactions per batch.")
    epochs: int = default(3, "Most epochs; the cosine schedule ends with them.")
    stopping_step: float = default(1, "Most validations without a better valid_metric; one more stops training.")
