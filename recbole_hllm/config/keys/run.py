"""Keys that every model understands, RecBole's own included: ``properties/overall.yaml`` and ``labelled.yaml``."""

from typing import TYPE_CHECKING, Any

from recbole_hllm.config.keys.engines import EngineKeys
from recbole_hllm.config.keys.recbole import ColumnKeys, DataKeys, EvaluationKeys, MachineKeys, TrainingKeys
from recbole_hllm.config.schema import Scope, Settings, default, key

if TYPE_CHECKING:
    import torch
    from recbole.utils import EvaluatorType

PROTOCOL, PLACE, CALL, TRAINING = Scope.PROTOCOL, Scope.PLACE, Scope.CALL, Scope.TRAINING


class OurDataKeys(Settings):
    """Data."""

    title = "Data"

    strict_data: bool = key(
        False,
        "Refuse items without a row in .item and users too short for the split, instead of warning.",
        scope=PROTOCOL,
    )
    cache_dir: str | None = key(
        None,
        "Folder for sorted interactions of large files, tokenised texts, item vectors, states of teachers, and "
        "prerequisite runs of E4SRec, SLMRec and LEARNRanker. Empty: beside the data, or the user's cache folder where "
        "that cannot be written.",
        scope=PLACE,
        inherited=True,
    )
    train_user_fraction: float = key(
        1.0,
        "Share of the users whose interactions are trained on; all are evaluated. For learning curves.",
        scope=TRAINING, inherited=True, least=0, most=1,
    )  # fmt: skip
    train_min_items: int | None = key(
        None,
        "Train only on users with at least so many training interactions; all are evaluated. Empty: on all.",
        scope=TRAINING, inherited=True, least=1,
    )  # fmt: skip
    train_first_items: int | None = key(
        None,
        "Train only on the first so many training interactions of each user, at least 2. Empty: on all.",
        scope=TRAINING, inherited=True, least=2,
    )  # fmt: skip


class OurEvaluationKeys(Settings):
    """Evaluation."""

    title = "Evaluation"

    mask_history: bool | str = key(
        False,
        "Never recommend what the user had before, the whole history and not only the last items. False is RecBole's "
        "behaviour for sequential models. both: metrics of both kinds, those without the history with -masked after "
        "their names.",
        scope=PROTOCOL, choices=("both",), filled=True,
    )  # fmt: skip
    eval_targets: str = key(
        "each",
        "Where a split RS or TS holds out several items of a user: each is a row of the evaluation with the history "
        "before it (RecBole's sequential models), or together: one row of a user, with what was before the first of "
        "them.",
        scope=PROTOCOL, choices=("each", "together"),
    )  # fmt: skip
    eval_users: int | None = key(
        None,
        "How many users are evaluated, in validation and in the test: a sample drawn from the seed, the same for every "
        "model, with all targets of each of them. Empty: all users.",
        scope=PROTOCOL, least=1,
    )  # fmt: skip
    tail_ratio: float | None = key(
        0.1,
        "TailPercentage, the share of lists that is long tail: the items of this share that have fewest training "
        "interactions; above 1, those of at most so many. Items without any do not count.",
        scope=PROTOCOL, least=0, reported=True,
    )  # fmt: skip
    segments_user: int | list[int] = key(
        [1, 36],
        "Metrics by the user's interactions in training; a segment begins at each number: 0 (cold), 1 to 35 (long "
        "tail), from 36 on.",
        scope=PROTOCOL, least=1, reported=True,
    )  # fmt: skip
    segments_item: int | list[int] = key(
        [1, 30],
        "The same by the item's interactions in training: 0, 1 to 29, from 30 on.",
        scope=PROTOCOL, least=1, reported=True,
    )  # fmt: skip
    sanity_rows: bool | list[str] | None = key(
        True,
        "Rows that every table of several models gets after those named: True for Pop, Markov and TextKNN (where items "
        "have texts), or some of these names.",
        scope=PROTOCOL, reported=True,
    )  # fmt: skip
    ratios_to: str | None = key(
        None,
        "Name of a row: the table gets a second one with all others relative to it, such as a student to its teacher. "
        "Empty: none.",
        scope=PROTOCOL, reported=True,
    )  # fmt: skip
    compare_to: str | None = key(
        None,
        "Name of a row that every other one is tested against, user by user: interval, p value, effect size and a "
        "verdict in words. Empty: none.",
        scope=PROTOCOL, reported=True,
    )  # fmt: skip
    compare_test: str = key(
        "t-test",
        "The paired test of compare_to: t-test, of the mean difference, or wilcoxon, of signed ranks.",
        scope=PROTOCOL, choices=("t-test", "wilcoxon"), reported=True,
    )  # fmt: skip
    show_recommendations: int | None = key(
        None,
        "How many items a table recommends by title, to one user of the test, by its first trained row. Empty: none.",
        scope=PROTOCOL, least=1, reported=True,
    )  # fmt: skip
    evaluate_only: bool = key(
        False,
        "Evaluate the finished run in run_dir again, with the keys given, instead of training.",
        scope=CALL, one_for_all=True,
    )  # fmt: skip


class SeedsKeys(Settings):
    """Several seeds."""

    title = "Several seeds"

    seeds: list[int] | None = key(
        None,
        "Of a table, such as [1, 2, 3]: every row has a run with each of these seeds and shows their mean and standard "
        "deviation; a row that only counts has one run. Empty: one run of each row, with seed.",
        scope=PROTOCOL, least=0, most=2**32 - 1, reported=True,
    )  # fmt: skip
    seeds_for: list[str] | None = key(
        None,
        "Names of the rows that have a run with each of seeds; the others have one, with the first. Empty: all rows.",
        scope=PROTOCOL, reported=True,
    )  # fmt: skip
    data_seed: int | None = key(
        None,
        "Seed of what is evaluated, where that is drawn: candidates of uniN and popN, the users of eval_users. Empty: "
        "seed, or the first of seeds.",
        scope=PROTOCOL, least=0, most=2**32 - 1,
    )  # fmt: skip


class SearchKeys(Settings):
    """Search."""

    title = "Search"

    trials: int | None = key(
        None,
        "Runs of each model, the same number for all, with values drawn at random and without repetition from its "
        "search; the best by valid_metric is its row. Empty: one run of each, without search.",
        scope=PROTOCOL, least=1, reported=True,
    )  # fmt: skip
    search: dict[str, Any] | None = key(
        None,
        "As <Model>.search: keys of the model and the list of values to draw from, such as {learning_rate: [0.001, "
        "0.0003], n_layers: [2, 4]}. Read where there are trials.",
        scope=TRAINING,
    )


class ScheduleKeys(Settings):
    """The steps of a training, and the learning rate over them."""

    title = "Training"

    gradient_accumulation_steps: int = key(1, "Batches per optimizer step.", scope=TRAINING, least=1)
    max_steps: int | None = key(
        None,
        "Stop after so many optimizer steps, counted over all epochs, in the run and in each prerequisite run; the row "
        "is then not called converged. Empty: no limit.",
        scope=TRAINING, inherited=True, least=1,
    )  # fmt: skip
    eval_every_steps: int | None = key(
        None,
        "Validate after every so many optimizer steps, not after epochs (eval_step); early stopping counts these "
        "validations. Empty: after epochs.",
        scope=TRAINING, least=1,
    )  # fmt: skip
    scheduler: str | None = key(
        "none",
        "Learning rate over the steps of all epochs, or of max_steps if that is fewer: none (constant) or cosine (to "
        "0, after warm-up).",
        scope=TRAINING, choices=("none", "constant", "cosine"),
    )  # fmt: skip
    warmup_ratio: float = key(
        0.1, "Share of all steps in which the learning rate of `scheduler: cosine` rises.", scope=TRAINING
    )


class OurTrainingKeys(ScheduleKeys):
    """Training."""

    title = "Training"

    precision: str | None = key(
        None,
        "Autocast: fp32, bf16 or fp16; auto is bf16 where the GPU or CPU has instructions for it and the model can, "
        "else fp32. Empty: fp32, or what enable_amp asks for.",
        scope=TRAINING, choices=("auto", "fp32", "bf16", "fp16"),
    )  # fmt: skip
    max_training_minutes: float | None = key(
        None,
        "Stop after the epoch, the validation of eval_every_steps or the checkpoint of save_every_steps that passes "
        "this time, in the run and in each prerequisite run; the row is then not called converged.",
        scope=TRAINING, inherited=True, least=0,
    )  # fmt: skip
    resume: bool = key(
        False,
        "Go on with the unfinished run in run_dir from its last checkpoint: after an epoch, or inside one.",
        scope=CALL, one_for_all=True,
    )  # fmt: skip
    process_minutes: float = key(
        30,
        "Of several processes (torchrun, deepspeed): how long one waits for the others before all end with an error. "
        "More than the longest work of one alone, such as writing a large checkpoint.",
        scope=PLACE, least=0.01, most=100_000,
    )  # fmt: skip
    save_every_steps: int | None = key(
        None,
        "Write a checkpoint to go on from after every so many optimizer steps, too, in the run and in each "
        "prerequisite run. Empty: after epochs, on Ctrl-C and on SIGTERM.",
        scope=PLACE, inherited=True, least=1,
    )  # fmt: skip
    training_stage: int | list[int] | None = key(
        None,
        "Of HLLM and HLLMRanker: [1, 2, 3] trains both LLMs, then the User LLM on cached item vectors, then writes "
        "vectors; 0 before them trains the User LLM on vectors of the Item LLM as it is. `stage2.epochs: 3` is a key "
        "of one stage. Empty: one run.",
        scope=TRAINING,
    )


class CompatibilityKeys(Settings):
    """Compatibility."""

    title = "Compatibility"

    reference: bool | list[str] | None = key(
        False,
        "Behaviours of published code to reproduce: True for all, or names of the table in docs/official-hllm.md. Rows "
        "of a table may differ in those that do not change what is evaluated.",
        scope=TRAINING, inherited=True,
    )  # fmt: skip


class OverallKeys(
    OurDataKeys, OurEvaluationKeys, SeedsKeys, SearchKeys, OurTrainingKeys, EngineKeys, CompatibilityKeys
):
    """Keys of this package that every model understands, RecBole's own included. Keys of RecBole keep RecBole's
    defaults."""


class RunKeys(DataKeys, ColumnKeys, MachineKeys, TrainingKeys, EvaluationKeys, OverallKeys):
    """Every key that a run of any model has; and, derived from them, the device, the kind of its metrics and whether
    more of ``valid_metric`` is better."""

    derived = ("device", "eval_type", "valid_metric_bigger")
    if TYPE_CHECKING:
        device: torch.device
        eval_type: EvaluatorType
        valid_metric_bigger: bool


def data_seed(settings: RunKeys) -> int:
    """The seed of what is evaluated, where that is drawn."""
    return settings.seed if settings.data_seed is None else settings.data_seed


class LabelledKeys(RunKeys):
    """Models that are trained and tested on labelled interactions (HLLMRanker, RecBole's DIN, DIEN and
    context-aware models): the same rows for all of them, whatever their defaults in RecBole. Stronger than
    the other property files.
    """

    title = "Labelled rows"

    LABEL_FIELD: str = default("label")
    threshold: dict[str, float] | None = default({"rating": 4})
    history_filter: str = key(
        "positive",
        "Earlier events in a history: positive (label 1 only) or all.",
        scope=PROTOCOL, choices=("positive", "all"),
    )  # fmt: skip
    eval_args: dict[str, Any] = default(
        {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "none", "mode": "labeled"},
        "All interactions in time order: the first train, the last test; those of one moment stay together.",
    )
    metrics: str | list[str] = default(
        ["AUC", "LogLoss", "GAUC"],
        "AUC, LogLoss, MAE, RMSE over all rows; means of the AUC inside each user with both labels: GAUC or WUAUC "
        "weighted by rows, UAUC not.",
    )
    valid_metric: str = default("AUC")
    train_neg_sample_args: dict[str, Any] | None = default(None, "None: rows bring their own negatives.")
