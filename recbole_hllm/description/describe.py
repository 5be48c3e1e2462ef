"""describe(): reads a data set as a run would, and says in numbers what it is like."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from recbole_hllm.config.config import Config
from recbole_hllm.config.keys.hllm import HLLMKeys
from recbole_hllm.config.keys.language_models import ItemLLMKeys, ItemTextKeys
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.schema import DECLARED, Scope
from recbole_hllm.data.files.formats import find_table, read_header, read_table
from recbole_hllm.data.rows.dataset import SequenceDataset, create_dataset
from recbole_hllm.data.rows.sequences import Sequences
from recbole_hllm.data.texts.item_texts import read_item_texts
from recbole_hllm.description.findings import findings
from recbole_hllm.description.numbers import cores, counts_of, popularity, repeated, spread, targets
from recbole_hllm.description.page import to_page
from recbole_hllm.description.texts import describe_texts
from recbole_hllm.description.times import describe_times, same_as_before
from recbole_hllm.errors import ConfigError, DataError, UserError
from recbole_hllm.model.base.item_texts import template_of, token_seq_columns
from recbole_hllm.model.hllm.language_models import item_llm_source
from recbole_hllm.nn.backbone import load_tokenizer
from recbole_hllm.runs.folder import unused_folder
from recbole_hllm.runs.run import as_files, merge_keys
from recbole_hllm.storage.files import finite, json_text

# Of which keys, rows and texts there are where no model is named.
DEFAULT_MODEL = "HLLM"
NUMBERS, PAGE = "describe.json", "describe.html"


def describe(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: str | Path | Sequence[str | Path] | None = None,
    config_dict: dict[str, Any] | None = None,
    folder: str | Path | None = None,
    arguments: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Describes a data set after the filters and with the split of a run with these keys; nothing is trained.

    Args:
        model: whose keys count, ``HLLM`` by default.
        dataset, config_file_list, config_dict, arguments: as for ``run``.
        folder: gets ``describe.json`` and ``describe.html``; default ``runs/<dataset>/describe-<time>``.

    Returns:
        what ``describe.json`` holds, and ``folder``.

    Raises:
        UserError: the data cannot be read, or the folder holds a description already or cannot be written.
    """
    given = merge_keys(as_files(config_file_list), config_dict, arguments)
    config = Config(model or given.get("model") or DEFAULT_MODEL, dataset, config_file_list, config_dict, arguments)
    data = create_dataset(config)
    with _new_folder(folder, RunKeys.of(config).dataset) as target:
        result = {**numbers(config, data), "keys": {key: given[key] for key in given if _of_data(key)}}
        result["look_at"] = findings(result)
        _keep(target / NUMBERS, json_text(finite(result)))
        _keep(target / PAGE, to_page(result))
    return {**result, "folder": str(target)}


def _of_data(key: str) -> bool:
    """Whether a key is worth telling beside the numbers: not so a folder of this machine."""
    name = key.rpartition(".")[2]
    return name not in ("model", "dataset") and not (
        name in DECLARED and DECLARED[name].scope in (Scope.PLACE, Scope.CALL)
    )


def numbers(config: Config, data: SequenceDataset) -> dict[str, Any]:
    """The numbers of the data set of a config, without findings; where it cannot be split, why not.

    Raises:
        UserError: its items cannot be read, or keys cannot be used.
    """
    settings = RunKeys.of(config)
    split, error = _split(data)
    events = _events(data)
    n_users, items, interactions = int((events.lengths > 0).sum()), data.item_num - 1, len(events.items)
    again = repeated(events.items, events.offsets, data.item_num)
    same = same_as_before(events.timestamps, events.offsets)
    return {
        "dataset": settings.dataset,
        "model": settings.model,
        "ready_made_histories": data.histories_given,
        "users": n_users,
        "items": items,
        "interactions": interactions,
        "density": interactions / (n_users * items),
        "history_length": settings.MAX_ITEM_LIST_LENGTH,
        "longer_than_history": int((events.lengths > settings.MAX_ITEM_LIST_LENGTH + 1).sum()),
        "lengths": spread(events.lengths[events.lengths > 0]),
        "popularity": popularity(counts_of(events.items, data.item_num)[1:]),
        "repeated_pairs": int(again.sum()),
        "times": describe_times(events, same),
        **_split_keys(settings),
        "split": None if error else _targets(data, split, again, same),
        "split_error": error,
        "cores": cores(events, data.item_num),
        "texts": _texts(config, data),
    }


# ---- interactions and targets ----


def _split(data: SequenceDataset) -> tuple[list[Any], str | None]:
    """The parts, or why there are none."""
    try:
        return data.build(), None
    except DataError as error:  # those of the rows; they are sorted into sequences by then
        return [], str(error)


def _split_keys(settings: RunKeys) -> dict[str, Any]:
    """How targets are held out, in words, whether by files, which are not filtered, and whether those of every user
    are wanted."""
    if settings.benchmark_filename:
        files = ", ".join(settings.benchmark_filename)
        return {"split_by": f"the files {files}", "ready_split": True, "each_user": False}
    ((mode, value),) = settings.eval_args["split"].items()
    every = mode == "LS" or mode == "RS" and str(settings.eval_args["group_by"]).lower() == "user"
    how = f"{mode} {value}{', inside each user' if every else ', in time order'}"
    return {"split_by": how, "ready_split": False, "each_user": every}


def _events(data: SequenceDataset) -> Sequences:
    """All interactions, a sequence for each user; of ready-made histories that of a row is its target."""
    if not data.histories_given:
        return data.sequences
    users = np.asarray(data.sequences.users)
    order = np.lexsort((data.timestamps, users))
    last = data.sequences.offsets[1:][order] - 1
    return Sequences.from_sorted(users[order], data.sequences.items[last], data.timestamps[order], data.user_num)


def _targets(data: SequenceDataset, parts: list[Any], again: np.ndarray, same: np.ndarray) -> dict[str, Any]:
    """Numbers of training, and of the targets of validation and test."""
    counts, sequences = data.training_counts(), data.sequences
    if data.histories_given:  # each has what is before its target, and one time
        again = repeated(sequences.items, sequences.offsets, data.item_num)
    trained = np.unique(sequences.users[data.train_lengths > 0])
    result: dict[str, Any] = {"train": {"interactions": int(counts.sum()), "users": len(trained)}}
    for phase, part in zip(("valid", "test"), parts[1:], strict=True):
        tied = None if data.histories_given else same
        result[phase] = targets(sequences, part.held_out, counts, data.train_lengths, again, tied)
    return result


# ---- texts ----


def _texts(config: Config, data: SequenceDataset) -> dict[str, Any] | None:
    """Numbers of the item file; None where there is none."""
    settings = _text_settings(config)
    path = find_table(Path(settings.data_path) / f"{settings.dataset}.item")
    if not path.is_file():
        return None
    separator, encoding = settings.field_separator, settings.encoding
    header = read_header(path, separator, encoding)
    columns = settings.text_keys or token_seq_columns(header)
    columns = [columns] if isinstance(columns, str) else columns
    tokens_of_items = data.field2id_token[data.iid_field]
    texts = read_item_texts(path, columns, tokens_of_items, data.iid_field, separator, encoding or "utf-8")
    rows = len(read_table(path, [data.iid_field], separator, encoding))
    tokenizer, source, why = _tokenizer(config) if columns else (None, None, None)
    described = describe_texts(
        texts, template_of(settings, texts.keys), tokenizer, settings.MAX_TEXT_LENGTH, settings.seed
    )
    return {
        "file": path.name,
        "rows": rows,
        "rows_without_interaction": rows - int(texts.has_row.sum()),
        "tokenizer": source,
        "no_tokens": why,
        **described,
    }


def _text_settings(config: Config) -> ItemTextKeys:
    """As the model reads texts; of one that reads none the keys given, or their defaults."""
    own, keys = config.spec.model.Keys.keys, ItemTextKeys.keys
    values = {
        name: keys[name].default if name in keys and name not in own and config[name] is None else config[name]
        for name in (*keys, *ItemTextKeys.derived)
    }
    return ItemTextKeys(values)


def _tokenizer(config: Config) -> tuple[Any, str | None, str | None]:
    """The tokenizer of the Item LLM and where it lies, or why there is none."""
    try:
        source = _source(config)
        return load_tokenizer(source, bool(config["trust_remote_code"])), source, None
    except UserError as error:
        return None, None, str(error)


def _source(config: Config) -> str:
    keys = config.spec.model.Keys
    if issubclass(keys, HLLMKeys):
        return item_llm_source(keys.of(config))
    return config["item_pretrain_dir"] or config["tokenizer_dir"] or ItemLLMKeys.keys["item_pretrain_dir"].default


# ---- the folder ----


@contextmanager
def _new_folder(folder: str | Path | None, dataset: str) -> Iterator[Path]:
    """The folder of a description, made now, so that a long work is not for nothing; gone again where that fails."""
    target = unused_folder(dataset, "describe") if folder is None else Path(folder)
    if there := [name for name in (NUMBERS, PAGE) if (target / name).exists()]:
        raise ConfigError(f"to: {target} already holds a description ({', '.join(there)}); name another folder")
    new = not target.exists()
    with _writing(target):
        target.mkdir(parents=True, exist_ok=True)
    try:
        yield target
    except BaseException:
        if new:
            with suppress(OSError):  # something was written
                target.rmdir()
        raise


def _keep(path: Path, text: str) -> None:
    """Writes a file, which appears whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    with _writing(path):
        try:
            part.write_text(text, encoding="utf-8")
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"to: cannot write {path}: {error.strerror}") from error
