"""TensorBoard's files of a run that goes on: what was written after a checkpoint is written again."""

import os
import time
from pathlib import Path

from recbole_hllm.storage.files import sync, writing

_FILES = "events.out.tfevents.*"  # then the second it was opened in, the host, the process and a count


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


def wait_for_a_later_name(folder: Path) -> None:
    """Lets the second pass in which the newest file was opened.

    TensorBoard reads files in the order of their names. Of two that are opened in one second the process ids decide,
    as text: 10001 comes before 9999. A file from a clock that is ahead is not waited for.
    """
    seconds = [int(file.name.split(".")[3]) for file in folder.glob(_FILES) if file.name.split(".")[3].isdigit()]
    newest = max(seconds, default=0)
    while newest <= time.time() < newest + 1:
        time.sleep(0.02)
