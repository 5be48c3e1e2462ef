"""The runs of a table, made by one process or by several that share its folder."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole_hllm.storage.locks import Lock, held

# Between two looks at runs that other processes have.
_SECONDS = 2.0


class Job(NamedTuple):
    """One run of a table.

    Attributes:
        row: that it is of.
        folder: of the run.
        words: of its command line, beside those of every run of the table.
        after: folders of runs that have to end before.
    """

    row: str
    folder: Path
    words: tuple[str, ...] = ()
    after: frozenset[Path] = frozenset()


def make_all(jobs: Sequence[Job], make: Callable[[Job, Lock], dict[str, Any]]) -> dict[Path, dict[str, Any]]:
    """Makes every run that no other process has at the time, in their order, and waits for the others.

    A process holds a lock on each run that it makes, and so does the run. Who gets the lock of one that is finished
    finds its results there; one whose process was killed goes on. A run that failed is tried by every process.

    Args:
        jobs: each after those it is ``after``.
        make: what a run results in, from its folder where it is finished.

    Returns:
        What ``make`` does, by folder.
    """
    made: dict[Path, dict[str, Any]] = {}
    told = False
    while left := [job for job in jobs if job.folder not in made]:
        before = len(made)
        for job in left:
            if job.after <= made.keys():
                with held(job.folder.with_name(f".{job.folder.name}.lock"), wait=False) as lock:
                    if lock is not None:
                        made[job.folder] = make(job, lock)
        if len(made) == before:
            if not told:
                rows = ", ".join(dict.fromkeys(job.row for job in left))
                logging.getLogger().info(f"other processes have the runs that are left, of {rows}; waiting for them")
            told = True
            time.sleep(_SECONDS)
    return made
