"""Recommendations for a file of histories: any number of them, some at a time, going on where a kill stopped it.

Lines are written into ``.NAME.part`` beside the output, and ``.NAME.progress`` says how far it is; both are gone when
the output is there. Histories are read together in batches counted from the first line, so what is written does not
depend on where it was stopped.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recbole_hllm.errors import ConfigError, DataError, UserError, naming
from recbole_hllm.serving.folder import MANIFEST
from recbole_hllm.serving.index_building import digest
from recbole_hllm.serving.lines import Line, Lines, request_of
from recbole_hllm.serving.output import Counts, Journal, beside, written_line
from recbole_hllm.serving.recommender import Recommender
from recbole_hllm.serving.requests import Recommended, Request
from recbole_hllm.serving.saving import local_folder
from recbole_hllm.storage.locks import held

ENDINGS = (".jsonl", ".parquet")
UNKNOWN = ("error", "skip")


def recommend_file(
    export: str | Path,
    source: str | Path,
    target: str | Path,
    *,
    k: int = 10,
    unknown: str = "error",
    index: str = "exact",
    batch: int = 256,
    device: str = "cpu",
) -> Counts:
    """Recommends after every history of a file; see ``lines.request_of`` for what a line may hold.

    The ``user`` of a line is one whose history the export holds, ``items`` and ``texts`` come after it. Of a user that
    it does not hold they are the history; so they are of a line that has an ``id`` and no ``user``.

    Args:
        export: its folder, or ``user/name`` of a repository of the Hugging Face Hub.
        source: ends in .jsonl, with a history a line, or in .parquet, with one a row.
        target: ends in .jsonl or .parquet; a new file. JSON lines have ``user``, ``items`` and ``scores``, one for each
            history; rows of Parquet have ``user_id``, ``item_id``, ``score`` and ``rank`` from 1, one for each item.
        k: how many are wanted where a line does not say.
        unknown: "error" ends at an id that is not in the catalogue, "skip" leaves it out and counts it; a history that
            is empty then gets no items.
        index: see ``Recommender.from_pretrained``.
        batch: histories that are read together.
        device: torch's name of where.

    Raises:
        ConfigError: an option is wrong, the target is there, cannot be written or was begun in another way.
        DataError: a line cannot be read; the error names it.
        ModelError: there is no export in the folder, or its model cannot read what is asked.
    """
    export, source, target = local_folder(export), Path(source).expanduser(), Path(target).expanduser()
    _check(export, source, target, k, unknown, batch)
    lines = Lines(source)
    recommender = Recommender.from_pretrained(export, device, index=index)
    found = source.stat()
    asked = {
        "source": [str(source.resolve()), found.st_size, found.st_mtime_ns],
        "export": [hashlib.sha256((export / MANIFEST).read_bytes()).hexdigest(), digest(export)],
        "options": {"k": k, "unknown": unknown, "index": index, "batch": batch, "device": device},
    }
    with held(beside(target, "lock"), wait=False) as lock:
        if lock is None:
            raise ConfigError(f"out: another program writes {target}")
        journal = Journal(target, asked)
        job = _Job(recommender, source, k, unknown == "skip", journal.at)
        with journal.open() as written, tqdm(
            total=lines.total, initial=lines.done(journal.place), desc="Recommend", disable=None, leave=False,
            unit="B" if source.suffix == ".jsonl" else "row", unit_scale=True,
        ) as bar:  # fmt: skip
            for some, place in lines.batches(journal.place, batch):
                text, counts = job.answers(some)
                bar.update(lines.done(place) - lines.done(journal.place))
                journal.add(written, text, counts, place)
        journal.finish()
    return journal.counts


def _check(export: Path, source: Path, target: Path, k: int, unknown: str, batch: int) -> None:
    """Raises ConfigError."""
    for name, path in (("in", source), ("out", target)):
        if path.suffix not in ENDINGS:
            raise ConfigError(f"{name}: {path} must end in {' or '.join(ENDINGS)}")
    if unknown not in UNKNOWN:
        raise ConfigError(f"unknown: {unknown!r} is not one of {', '.join(UNKNOWN)}")
    if k < 1 or not 1 <= batch <= 4096:
        raise ConfigError(f"k: {k} must be at least 1, batch: {batch} 1 to 4096")
    if target.exists():
        raise ConfigError(f"out: {target} is there already, and is not overwritten; name another file, or remove it")
    if not target.parent.is_dir():
        raise ConfigError(f"out: there is no folder {target.parent}")
    if target.resolve().is_relative_to(export.resolve()):
        raise ConfigError(f"out: {target} is inside the export, which holds its own files alone; name another folder")


class _Job:
    """Answers lines."""

    def __init__(self, recommender: Recommender, source: Path, k: int, skip: bool, at: float) -> None:
        self.recommender, self.source, self.k, self.skip, self.at = recommender, source, k, skip, at

    def answers(self, lines: Sequence[Line]) -> tuple[str, Counts]:
        """What is written for some lines, and what was counted.

        Raises:
            UserError: a line cannot be answered; it is named.
        """
        names, requests, unknown = [], [], 0
        for line in lines:
            with self._naming(line):
                name, request = request_of(line, self.k)
                request, left_out = self._known(replace(request, at=self.at if request.at is None else request.at))
            names.append(name)
            requests.append(request)
            unknown += left_out
        asked = [place for place, request in enumerate(requests) if not (self.skip and _is_empty(request))]
        found: list[list[Recommended]] = [[] for _ in lines]
        answers = self._recommended([lines[place] for place in asked], [requests[place] for place in asked])
        for place, answer in zip(asked, answers, strict=True):
            found[place] = answer
        text = "".join(map(written_line, names, found))
        return text, Counts(len(lines), sum(map(len, found)), unknown, len(lines) - len(asked))

    def _known(self, request: Request) -> tuple[Request, int]:
        """The part of a request whose ids are known, and how many are left out of it.

        Raises:
            DataError: some are not known, and are not to be left out.
        """
        catalogue, histories = self.recommender.catalogue, self.recommender.histories
        if request.user not in histories.users and (self.skip or not _is_empty(replace(request, user=None))):
            request = replace(request, user=None)
        ids = [*request.items, *(request.among or ())]
        unknown = sum(item not in catalogue for item in ids)
        if not unknown:
            return request, 0
        if not self.skip:
            try:
                catalogue.numbers(ids, "items")
            except DataError as error:
                raise DataError(f"{error}; correct the line, or leave such ids out with --unknown=skip") from error
        kept = [place for place, item in enumerate(request.items) if item in catalogue]
        texts = range(len(request.items), len(request.times or ()))
        times = None if request.times is None else [request.times[place] for place in (*kept, *texts)]
        among = None if request.among is None else [item for item in request.among if item in catalogue]
        return replace(request, items=[request.items[place] for place in kept], times=times, among=among), unknown

    def _recommended(self, lines: Sequence[Line], requests: Sequence[Request]) -> list[list[Recommended]]:
        try:
            return self.recommender.recommend_many(requests)
        except UserError:
            for line, request in zip(lines, requests, strict=True):  # which of them is it?
                with self._naming(line):
                    self.recommender.recommend_many([request])
            raise

    def _naming(self, line: Line) -> Any:
        return naming(f"{self.source}, {'row' if self.source.suffix == '.parquet' else 'line'} {line.number}")


def _is_empty(request: Request) -> bool:
    return request.user is None and not request.items and not request.texts
