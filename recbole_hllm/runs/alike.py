"""Whether the processes of one run are alike: the same program, the same keys, the same data."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import recbole
import torch
import transformers

import recbole_hllm
from recbole_hllm.config.config import Config
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.scopes import MAY_CHANGE
from recbole_hllm.data.files.formats import files_of, parts_of
from recbole_hllm.data.protocol import fingerprint
from recbole_hllm.errors import ConfigError
from recbole_hllm.processes import current
from recbole_hllm.runs.folder import saved_keys
from recbole_hllm.storage.cache import digest, file_digest


def check_same_program(config: Config) -> None:
    """Raises ConfigError, in all processes, where one has another version of the program or other keys than the first.

    Folders and other keys of a machine may differ.
    """
    if current().world_size == 1:
        return
    keys = {key: value for key, value in saved_keys(config.settings).items() if key not in MAY_CHANGE}
    _compare("versions", _versions(), "install the same on all machines")
    _compare("keys", keys, "start all processes with the same keys and files")


def check_same_data(data: Any, evaluated: Any) -> None:
    """Raises ConfigError, in all processes, where one reads other data than the first.

    Args:
        data: a SequenceDataset, after ``build``.
        evaluated: loaders of validation and test, None where there is none.
    """
    if current().world_size == 1:
        return
    loaders = {phase: loader for phase, loader in zip(("valid", "test"), evaluated, strict=True) if loader}
    parts = {phase: loader._dataset for phase, loader in loaders.items()}
    candidates = {phase: loader.candidates for phase, loader in loaders.items()}
    about = {**data.statistics(), **fingerprint(data, parts, candidates), "item table": _item_table(data.config)}
    _compare("data", about, "copy the files to all machines, or read them from a disk that all share")


def _compare(what: str, own: dict[str, Any], advice: str) -> None:
    """Raises ConfigError where a process has other values than the first one."""
    digests = {name: digest(json.dumps(value, sort_keys=True, default=str)) for name, value in own.items()}
    first, *others = current().gather(digests)
    for rank, theirs in enumerate(others, 1):
        names = sorted(name for name in first.keys() | theirs.keys() if first.get(name) != theirs.get(name))
        if names:
            process = f"process {rank} of {current().world_size}"
            raise ConfigError(f"{process} has other {what} than process 0 ({', '.join(names)}); {advice}")


def _item_table(config: Config) -> list[str]:
    """Digests of the files with the items' texts."""
    folder = Path(RunKeys.of(config).data_path)
    tables = [table for kind in files_of(Path("*.item")) for table in sorted(folder.glob(kind.name))]
    return [file_digest(part) for table in tables for part in parts_of(table)]


@cache
def _versions() -> dict[str, str]:
    package = Path(recbole_hllm.__file__).parent
    code = [file.read_bytes() for file in sorted(package.rglob("*.py"))]
    libraries = {library.__name__: library.__version__ for library in (torch, recbole, transformers)}
    return {"recbole_hllm": digest(*code), **libraries}
