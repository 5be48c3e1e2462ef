"""What all rows of a table share: the split, the masking and the candidates, read from the config once."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recbole_hllm.config.keys.run import LabelledKeys, RunKeys
from recbole_hllm.data.rows import sequences as seq
from recbole_hllm.errors import ConfigError, DataError
from recbole_hllm.evaluation.metrics import of_popularity
from recbole_hllm.storage.cache import Blocks, digest

# Behaviours of published code that differ from the default here; `reference` switches them on by name. Those of
# distillation are of the published SLMRec code, the others of the official HLLM code.
REFERENCE = {
    "positions": "item texts are placed at the right end of the position ids",
    "truncation": "a long text is cut from the right, closing special token and prompt included",
    "special_tokens": "special tokens inside item texts act as special tokens",
    "empty_text": "an item without a row has the empty text, without even the prompt",
    "missing_words": "texts such as None, NA and nan count as missing",
    "raw_text": "HTML entities and line breaks of the texts are kept as they are",
    "chunks": "training chunks do not overlap and the oldest remainder of a history is dropped",
    "short_users": "a user of three items is validated and tested",
    "mask_target": "masking the history also masks a target that is in it",
    "weight_decay": "norms, biases and the logit scale decay too",
    "warmup": "the learning rate of the first step is 0",
    "distillation_sum": "the terms of the distillation are summed over blocks, not averaged",
    "distillation_norm": "the distance of teacher and student is not squared",
}
# Those of them that decide what is evaluated, so that all rows of a table have them in common.
SHARED_REFERENCE = frozenset({"short_users", "mask_target"})
# Keys that choose what is trained on, while everybody is evaluated; with the value that leaves nothing out.
TRAINED_ON = {"train_user_fraction": 1, "train_min_items": None, "train_first_items": None}
# Modes of RecBole's ``LS`` split, and the phases that hold out a target of every user.
_LEAVE_ONE_OUT = {"valid_and_test": ("valid", "test"), "valid_only": ("valid",), "test_only": ("test",)}


def referenced(value: Any) -> frozenset[str]:
    """The names switched on by a value of ``reference``: False, True for all, or a list of names.

    Raises:
        ConfigError: an unknown name, or something else.
    """
    if value is None or isinstance(value, bool):
        return frozenset(REFERENCE if value else ())
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)):
        raise ConfigError(f"reference: {value!r} is neither True, False nor a list of {sorted(REFERENCE)}")
    unknown = [name for name in names if not isinstance(name, str) or name not in REFERENCE]
    if unknown:
        raise ConfigError(f"reference: {unknown} unknown; there are {sorted(REFERENCE)}")
    return frozenset(names)


def check_same_reference(values: Mapping[str, Any]) -> None:
    """Runs that are compared may differ in behaviours of published code, unless these decide what is evaluated.

    Args:
        values: of ``reference``, by what an error calls the run.

    Raises:
        ConfigError: two of them are not evaluated alike.
    """
    shared = {run: referenced(value) & SHARED_REFERENCE for run, value in values.items()}
    (first, wanted), *others = shared.items()
    for run, names in others:
        if names != wanted:
            raise ConfigError(
                f"reference: {', '.join(sorted(names ^ wanted))} would be of {first} or {run} alone, and decides what "
                "is evaluated; give it to all of them"
            )


def build_split(dataset: Any) -> seq.Split:
    """The split that ``eval_args`` (or ``benchmark_filename``) asks for, checked.

    Raises:
        ConfigError: a split RecBole does not know.
        DataError: nobody left to train or test or, with ``strict_data``, users too short for the split.
    """
    settings, sequences = RunKeys.of(dataset.config), dataset.sequences
    split, wanted = _split(dataset, settings, sequences)
    how = settings.benchmark_filename or settings.eval_args["split"]
    if len(split.test) == 0 and len(split.valid) == 0:
        raise DataError(
            f"data set '{dataset.dataset_name}': no user is left to test; the split {how} needs longer sequences than "
            f"these (longest: {int(sequences.lengths.max())} items)"
        )
    if len(split.train) == 0:
        raise DataError(f"data set '{dataset.dataset_name}': no target is left to train on by the split {how}")
    _report_unsought(dataset, wanted)
    short = _count_short(sequences, split, wanted)
    if short and settings.strict_data:
        raise DataError(f"strict_data: {short} users are too short for {' and '.join(wanted)} of the split {how}")
    if short:
        logging.getLogger().warning(f"{short} users are too short for {' and '.join(wanted)}; kept as they are")
    return split


def _report_unsought(dataset: Any, wanted: Any) -> None:
    """Says how many rows of the data nobody looks for, since nothing is before them.

    Raises:
        DataError: there are some in ready-made histories, with ``strict_data``.
    """
    log, lengths, strict = logging.getLogger(), dataset.sequences.lengths, RunKeys.of(dataset.config).strict_data
    if not dataset.histories_given:
        if not wanted and (alone := int((lengths == 1).sum())):  # else they are counted as too short
            log.info(f"{alone} users have one interaction and are neither trained on a target nor tested")
        return
    empty = np.bincount(dataset.phase[lengths < 2], minlength=3)
    if empty.any():
        names = dict(zip(dataset.benchmark_filename_list, empty.tolist(), strict=True))
        message = (
            f"data set '{dataset.dataset_name}': {empty.sum()} of {len(lengths)} rows have an empty "
            f"{dataset.item_list_field} ({', '.join(f'{name}: {count}' for name, count in names.items() if count)})"
        )
        if strict:
            raise DataError(f"strict_data: {message}")
        log.warning(f"{message}; they are left out, neither trained on nor tested")


def _split(dataset: Any, settings: RunKeys, sequences: Any) -> Any:
    """The split, and the phases that every user is expected in."""
    if settings.benchmark_filename is not None:
        by = seq.by_row if dataset.histories_given else seq.by_file
        return by(sequences, dataset.phase), ()
    asked = settings.eval_args["split"]
    if not isinstance(asked, dict) or len(asked) != 1 or next(iter(asked)) not in ("LS", "RS", "TS"):
        raise ConfigError(f"eval_args: split {asked} is not one of LS, RS, TS, such as {{'LS': 'valid_and_test'}}")
    ((mode, value),) = asked.items()
    if mode == "LS":
        if not isinstance(value, str) or value not in _LEAVE_ONE_OUT:
            raise ConfigError(f"eval_args: split LS: '{value}' is not one of {', '.join(_LEAVE_ONE_OUT)}")
        short_users = "short_users" in referenced(settings.reference)
        return seq.leave_one_out(sequences, value, short_users), _LEAVE_ONE_OUT[value]
    check_ratios(mode, value)
    if mode == "TS":
        return seq.by_time(sequences, value), ()
    ratios = [ratio / sum(value) for ratio in value]
    group_by = str(settings.eval_args["group_by"]).lower()
    if group_by == "none":
        return seq.by_global_ratio(sequences, lambda total: dataset._calcu_split_ids(total, ratios)), ()
    if group_by != "user":
        raise ConfigError(f"eval_args: group_by '{group_by}' is neither user nor none")
    wanted = [phase for phase, ratio in zip(("valid", "test"), ratios[1:], strict=True) if ratio]
    return seq.by_ratio(sequences, lambda total: dataset._calcu_split_ids(total, ratios)), wanted


def check_ratios(mode: str, value: Any) -> None:
    """Raises ConfigError where the value of a split RS or TS is not three ratios, the first above 0."""
    numbers = isinstance(value, list) and all(isinstance(ratio, (int, float)) and ratio >= 0 for ratio in value)
    if not numbers or len(value) != 3 or not value[0]:
        raise ConfigError(
            f"eval_args: split {mode}: {value} must be three ratios for training, validation and test, "
            "such as [0.8, 0.1, 0.1]"
        )


def _count_short(sequences: Any, split: Any, wanted: Sequence[str]) -> int:
    """Users without a target in some phase."""
    in_all = sequences.lengths > 0
    users = int(in_all.sum())
    for phase in wanted:
        in_all &= getattr(split, phase).counts > 0
    return users - int(in_all.sum())


def fingerprint(dataset: Any, parts: dict[str, Any], candidates: dict[str, np.ndarray | None]) -> dict[str, str | int]:
    """Numbers and digests that two rows of one table must have in common.

    Args:
        dataset: the whole data set, after ``build``.
        parts: phase -> the part of the data set evaluated in it.
        candidates: phase -> drawn candidates, None for the full catalogue.
    """
    settings, sequences = LabelledKeys.of(dataset.config), dataset.sequences
    names = ("eval_args", "metrics", "topk", "mask_history", "metric_decimal_place")
    shared = {name: getattr(settings, name) for name in names}
    if settings.eval_targets == "together":  # not always, so that a table of an earlier version can go on
        shared["eval_targets"] = settings.eval_targets
    if of_popularity(settings.metrics):
        # An earlier version counted in each row's own training rows: values that these cannot stand beside.
        shared |= {"popularity": "of all training interactions", "tail_ratio": settings.tail_ratio}
    result = {
        "items": dataset.item_num - 1,
        "item_ids": token_digest(dataset, dataset.iid_field),
        "protocol": digest(shared),
        "training": training_digest(dataset),
    }
    for phase, part in parts.items():
        result[f"{phase}_targets"] = len(part.held_out)
        result[f"{phase}_pairs"] = digest(*_pairs(sequences, part.held_out))
        result[f"{phase}_candidates"] = "all" if candidates[phase] is None else digest(candidates[phase])
        if dataset.labels is not None:
            result[f"{phase}_labels"] = digest(part.targets.pick(dataset.labels))
    if dataset.labels is not None:
        result["training_labels"] = digest(dataset.training_positions.pick(dataset.labels))
        result["history_filter"] = settings.history_filter
    return result


def token_digest(dataset: Any, field: str) -> str:
    """Of the values of a column in the order of their numbers."""
    return digest("\n".join(map(str, dataset.field2id_token[field])))


def training_digest(dataset: Any) -> str:
    """Who had what and when in the training interactions, and how much of each sequence may be trained on; rows that
    train on a part of it only (`train_user_fraction`, `train_min_items`, ...) still stand in one table."""
    sequences, (positions, train_lengths) = dataset.sequences, dataset.whole_training
    times = (sequences.timestamps[block].astype(np.float64) for _, block in positions.blocks())
    had = Blocks(np.float64, len(positions), times)
    return digest(*_pairs(sequences, positions), had, train_lengths.astype(np.int64))


def _pairs(sequences: Any, positions: Any) -> tuple[Blocks, Blocks]:
    """Users and items at some positions, as int64 whatever they are kept as."""
    users = (sequences.users_of(owners) for owners, _ in positions.blocks())
    items = (sequences.items[block].astype(np.int64) for _, block in positions.blocks())
    return Blocks(np.int64, len(positions), users), Blocks(np.int64, len(positions), items)
