"""What all rows of a table share: the split, the masking and the candidates, read from the config once."""

import logging

import numpy as np

from recbole_hllm.data import sequences as seq
from recbole_hllm.data.cache import digest
from recbole_hllm.errors import ConfigError, DataError

# Behaviours of the official HLLM code that differ from the default here; `reference` switches them on by name.
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
}


def referenced(config) -> frozenset[str]:
    """The names switched on by ``reference``: False, True for all, or a list of names.

    Raises:
        ConfigError: an unknown name.
    """
    value = config["reference"]
    if isinstance(value, str):
        value = [value]
    names = frozenset(REFERENCE) if value is True else frozenset(value or ())
    if names - set(REFERENCE):
        raise ConfigError(f"reference: {sorted(names - set(REFERENCE))} unknown; there are {sorted(REFERENCE)}")
    return names


def build_split(dataset) -> seq.Split:
    """The split that ``eval_args`` (or ``benchmark_filename``) asks for, checked.

    Raises:
        ConfigError: a split RecBole does not know.
        DataError: nobody left to test or, with ``strict_data``, users too short for the split.
    """
    config, sequences = dataset.config, dataset.sequences
    split = _split(dataset, config, sequences, dataset._calcu_split_ids)
    short = _count_short(config, sequences, split)
    if short and config["strict_data"]:
        raise DataError(f"strict_data: {short} users are too short for the split {config['eval_args']['split']}")
    if short:
        logging.getLogger().warning(f"{short} users are too short to be both validated and tested; kept as they are")
    if len(split.test) == 0 and len(split.valid) == 0:
        raise DataError(
            f"data set '{dataset.dataset_name}': no user is left to test; the split {config['eval_args']['split']} "
            f"needs longer sequences than these (longest: {int(sequences.lengths.max())} items)"
        )
    if len(split.train) == 0:
        raise DataError(f"data set '{dataset.dataset_name}': no target is left to train on")
    return split


def _split(dataset, config, sequences, split_ids):
    if config["benchmark_filename"] is not None:
        return seq.by_file(sequences, dataset.phase)
    (mode, value), *more = config["eval_args"]["split"].items()
    group_by = str(config["eval_args"]["group_by"]).lower()
    if more or mode not in ("LS", "RS", "TS"):
        raise ConfigError(f"eval_args: split {config['eval_args']['split']} is not one of LS, RS, TS")
    if mode == "LS":
        if value not in ("valid_and_test", "valid_only", "test_only"):
            raise ConfigError(f"eval_args: split LS: '{value}' is not one of valid_and_test, valid_only, test_only")
        return seq.leave_one_out(sequences, value, "short_users" in referenced(config))
    if not isinstance(value, list) or len(value) != 3:
        raise ConfigError(f"eval_args: split {mode}: {value} must be three ratios, such as [0.8, 0.1, 0.1]")
    if mode == "TS":
        return seq.by_time(sequences, value)
    ratios = [ratio / sum(value) for ratio in value]
    if group_by == "none":
        return seq.by_global_ratio(sequences, lambda total: split_ids(total, ratios))
    if group_by != "user":
        raise ConfigError(f"eval_args: group_by '{group_by}' is neither user nor none")
    return seq.by_ratio(sequences, lambda total: split_ids(total, ratios))


def _count_short(config, sequences, split):
    if config["benchmark_filename"] is not None or "LS" not in config["eval_args"]["split"]:
        return 0
    if config["eval_args"]["split"]["LS"] != "valid_and_test":
        return 0
    return int((sequences.lengths > 0).sum()) - len(split.valid)


def fingerprint(dataset, parts: dict, candidates: dict[str, np.ndarray | None]) -> dict[str, str | int]:
    """Numbers and digests that two rows of one table must have in common.

    Args:
        dataset: the whole data set.
        parts: phase -> the part of the data set evaluated in it.
        candidates: phase -> drawn candidates, None for the full catalogue.
    """
    config = dataset.config
    shared = {key: config[key] for key in ("eval_args", "metrics", "topk", "mask_history", "metric_decimal_place")}
    result = {
        "items": dataset.item_num - 1,
        "item_ids": digest("\n".join(map(str, dataset.field2id_token[dataset.iid_field]))),
        "protocol": digest(shared),
    }
    for phase, part in parts.items():
        users = dataset.sequences.users[dataset.sequences.of(part.targets)]
        result[f"{phase}_targets"] = len(part.targets)
        result[f"{phase}_pairs"] = digest(users, dataset.sequences.items[part.targets])
        result[f"{phase}_candidates"] = "all" if candidates[phase] is None else digest(candidates[phase])
    return result
