"""TensorBoard's files of a run that goes on: what was written after a checkpoint is written again."""

import os
from pathlib import Path

from recbole_hllm.storage.files import sync, writing

_FILES = "events.out.tfevents.*"


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file, all of which are on the disk afterwards.

    Raises:
        ConfigError: the disk does not take them.
    """
    with writing(folder):
        files = sorted(folder.glob(_FILES))
        for file in files:
            sync(file)
        return {file.name: file.stat().st_size for file in files}


def cut_back(folder: Path, kept: dict[str, int]) -> None:
    """Removes what was added after ``sizes`` was asked.

    Raises:
        ConfigError: a file cannot be changed.
    """
    with writing(folder):
        for file in folder.glob(_FILES):
            if file.name not in kept:
                file.unlink()
            elif file.stat().st_size > kept[file.name]:
                os.truncate(file, kept[file.name])
