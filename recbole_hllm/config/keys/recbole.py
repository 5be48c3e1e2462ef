"""RecBole's keys that this package checks or treats by their scope; their defaults are RecBole's own."""

from typing import Any

from recbole_hllm.config.schema import Scope, Settings, key

PROTOCOL, PLACE, TRAINING = Scope.PROTOCOL, Scope.PLACE, Scope.TRAINING


class DataKeys(Settings):
    """Which interactions there are, and how their files are read."""

    title = "Data"

    model: str = key(..., "Name of the model, or several for a table.", scope=PROTOCOL)
    dataset: str = key(..., "Folder and file name under data_path.", scope=PROTOCOL)
    data_path: str = key(..., "Folder of the data sets.", scope=PLACE, filled=True, one_for_all=True)
    field_separator: str = key(..., "Between the columns of an atomic file.", scope=PROTOCOL, filled=True)
    encoding: str | None = key(..., "Of the text in atomic files.", scope=PROTOCOL)
    benchmark_filename: list[str] | None = key(..., "Suffixes of ready-made parts.", scope=PROTOCOL)
    user_inter_num_interval: str | None = key(..., "Users with so many interactions are kept.", scope=PROTOCOL)
    item_inter_num_interval: str | None = key(..., "Items with so many interactions are kept.", scope=PROTOCOL)
    val_interval: dict[str, str] | None = key(..., "Column -> the interval of values to keep.", scope=PROTOCOL)
    rm_dup_inter: str | None = key(
        ..., "Which of repeated interactions is kept: first or last.", scope=PROTOCOL, choices=("first", "last")
    )
    filter_inter_by_user_or_item: bool = key(
        ..., "Leave out interactions of users and items without a row in their file.", scope=PROTOCOL
    )
    USER_ID_FIELD: str = key(..., "Column of user ids.", scope=PROTOCOL, filled=True)
    ITEM_ID_FIELD: str = key(..., "Column of item ids.", scope=PROTOCOL, filled=True)
    TIME_FIELD: str | None = key(..., "Column of timestamps.", scope=PROTOCOL)
    RATING_FIELD: str | None = key(..., "Column of ratings.", scope=PROTOCOL)
    LABEL_FIELD: str = key(
        ..., "Column of .inter with labels 0 and 1; used where it is there and threshold is not given.",
        scope=PROTOCOL, filled=True,
    )  # fmt: skip
    threshold: dict[str, float] | None = key(
        ..., "Without labels: column and the least value that counts as label 1.", scope=PROTOCOL
    )
    LIST_SUFFIX: str = key(..., "After the name of a column of histories.", filled=True)
    NEG_PREFIX: str = key(..., "Before the name of a column of negatives.", filled=True)
    ITEM_LIST_LENGTH_FIELD: str = key(..., "Column of the length of a history.", filled=True)
    MAX_ITEM_LIST_LENGTH: int = key(..., "Most items of a history.", least=1)


class ColumnKeys(Settings):
    """Which columns of the files a model reads, and how; rows of a table may differ in them."""

    title = "Data"

    seq_separator: str = key(..., "Between the parts of a sequence in an atomic file.", filled=True)
    seq_len: dict[str, int] | None = key(..., "Column of sequences -> the most parts that are read.")
    load_col: dict[str, Any] | None = key(..., "File -> the columns that are read. Empty: all.")
    unload_col: dict[str, Any] | None = key(..., "File -> the columns that are not read.")
    unused_col: dict[str, Any] | None = key(..., "File -> columns that are read and are not in rows.")
    numerical_features: list[str] = key(..., "Columns of numbers that embeddings are multiplied by.")
    normalize_field: list[str] | None = key(..., "Columns of numbers that are brought to 0..1.")
    normalize_all: bool | None = key(..., "Bring every column of numbers to 0..1.")
    discretization: dict[str, Any] | None = key(..., "Column of numbers -> how it is cut into classes.")
    alias_of_user_id: list[str] | None = key(..., "Further columns of user ids.")
    alias_of_item_id: list[str] | None = key(..., "Further columns of item ids.")


class MachineKeys(Settings):
    """Where and how a run is made."""

    title = "Machine"

    use_gpu: bool = key(..., "Use a GPU where there is one.", scope=PLACE)
    gpu_id: str | None = key(..., "Which, counted from 0.", scope=PLACE)
    worker: int = key(
        ..., "Processes that make batches ahead of time; the batches are the same for any number.", scope=PLACE, least=0
    )
    show_progress: bool = key(..., "Show progress bars.", scope=PLACE)
    state: str | None = key(..., "Level of the log. Empty: info.", scope=PLACE)
    log_wandb: bool = key(..., "Log to Weights & Biases.", scope=TRAINING, reported=True)
    wandb_project: str | None = key(..., "Project there.", scope=TRAINING, reported=True)


class SeedKeys(Settings):
    """Random numbers."""

    title = "Training"

    seed: int = key(..., "Of every random number.", scope=TRAINING, least=0, most=2**32 - 1)
    reproducibility: bool = key(..., "The same seed gives the same numbers on a GPU too.", scope=TRAINING)


class OptimisationKeys(Settings):
    """The steps of a training."""

    title = "Training"

    shuffle: bool = key(..., "Training rows in another order in each epoch.", scope=TRAINING)
    enable_amp: bool = key(..., "RecBole's word for a precision of 16 bits, see precision.", scope=TRAINING)
    enable_scaler: bool = key(..., "With enable_amp: fp16, whose gradients are scaled.", scope=TRAINING)
    learner: str = key(..., "Optimizer.", scope=TRAINING, filled=True)
    learning_rate: float = key(..., "Learning rate.", scope=TRAINING, least=0)
    weight_decay: float = key(..., "Weight decay.", scope=TRAINING, least=0)
    clip_grad_norm: dict[str, Any] | None = key(..., "Gradients longer than this are shortened to it.", scope=TRAINING)
    epochs: int = key(..., "Most epochs.", scope=TRAINING, least=0)
    stopping_step: float = key(
        ..., "Most validations without a better valid_metric; one more stops training.", scope=TRAINING, least=0
    )
    train_batch_size: int = key(..., "Rows per batch.", scope=TRAINING, least=1)


class TrainingKeys(SeedKeys, OptimisationKeys):
    """How a model is trained."""

    title = "Training"

    train_neg_sample_args: dict[str, Any] | None = key(..., "Negatives drawn for each training row.", scope=TRAINING)
    eval_step: int = key(..., "Epochs between two validations; 0: none.", scope=TRAINING)
    loss_decimal_place: int = key(..., "Decimals of losses in the log.", scope=TRAINING, least=0, reported=True)


class EvaluationKeys(Settings):
    """How a model is evaluated."""

    title = "Evaluation"

    eval_args: dict[str, Any] = key(..., "Split, order, grouping and candidates.", scope=PROTOCOL, filled=True)
    repeatable: bool = key(..., "Whether an item may be recommended again.", scope=PROTOCOL)
    metrics: str | list[str] = key(..., "What is reported.", scope=PROTOCOL, filled=True, reported=True)
    topk: int | list[int] = key(
        ..., "Lengths of the recommendation list.", scope=PROTOCOL, least=1, filled=True, reported=True
    )
    valid_metric: str = key(..., "Chooses the epoch.", scope=PROTOCOL, filled=True)
    metric_decimal_place: int = key(..., "Decimals of metrics.", scope=PROTOCOL)
    eval_batch_size: int = key(..., "Rows of evaluation scored at once.", scope=TRAINING, least=1, reported=True)


class SizeKeys(Settings):
    """Sizes that many of RecBole's sequential models have, and baselines of this package after them."""

    n_layers: int = key(..., "Layers.", least=0)
    n_heads: int = key(..., "Attention heads, a divisor of hidden_size.", least=1)
    hidden_size: int = key(..., "Size of item vectors and layers.", least=1)
    inner_size: int = key(..., "Inner size of the feed-forward layers.", least=1)
    hidden_dropout_prob: float = key(..., "Dropout of inputs and layers.", least=0, most=1)
    attn_dropout_prob: float = key(..., "Dropout of attention weights.", least=0, most=1)
    hidden_act: str = key(..., "gelu, relu, swish, tanh or sigmoid.")
    layer_norm_eps: float = key(..., "Added to the variance in layer norms.")
    n_facet_reranker: int | None = key(..., "Facets of a model that ranks candidates again.")
    reranker_CAN_NUM: str | None = key(..., "Candidates that are ranked again.")


class FeatureKeys(Settings):
    """Features of items that some of RecBole's sequential models read beside ids."""

    selected_features: str | list[str] | None = key(..., "Columns of .item that are read. Empty: one that is there.")
