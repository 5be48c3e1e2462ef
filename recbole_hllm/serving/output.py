"""What a batch writes: lines that survive a kill, and the file that they become at the end."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recbole_hllm.errors import ConfigError
from recbole_hllm.serving.lines import Place
from recbole_hllm.serving.requests import Recommended
from recbole_hllm.storage.files import read_json, sync, write_json, writing

_KEPT_EVERY = 2.0  # seconds; what a kill loses at most
_ROW_GROUP = 100_000
_SCHEMA = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("score", pa.float32()), ("rank", pa.int32())])


@dataclass(frozen=True)
class Counts:
    """What was written.

    Attributes:
        histories: how many were read.
        items: how many were recommended to all of them.
        unknown: ids that are not in the catalogue and were left out.
        empty: histories without an item that is known.
    """

    histories: int = 0
    items: int = 0
    unknown: int = 0
    empty: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Both together."""
        return Counts(*(own + more for own, more in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    def in_words(self) -> str:
        """A line."""
        left_out = f"; {self.unknown:,} unknown ids were left out" if self.unknown else ""
        empty = f"; {self.empty:,} histories had no known item and got nothing" if self.empty else ""
        return f"{self.histories:,} histories, {self.items:,} items recommended{left_out}{empty}"


def written_line(name: str, items: Sequence[Recommended]) -> str:
    """A line of JSON; scores have the fewest digits that are theirs as float32."""
    scores = [float(str(np.float32(item.score))) for item in items]
    content = {"user": name, "items": [item.id for item in items], "scores": scores}
    return json.dumps(content, ensure_ascii=False) + "\n"


def beside(target: Path, ending: str) -> Path:
    """A hidden file beside the output."""
    return target.with_name(f".{target.name}.{ending}")


class Journal:
    """Lines that are written so far, and how far that is.

    Args:
        target: the file that is to be.
        asked: what decides its content; what is left of an earlier start goes on only where it is the same.

    Raises:
        ConfigError: something is left of another start.
    """

    def __init__(self, target: Path, asked: Mapping[str, Any]) -> None:
        self.target, self._asked = target, dict(asked)
        self.part, self._progress = beside(target, "part"), beside(target, "progress")
        self.place, self.bytes, self.counts, self.at = Place(), 0, Counts(), time.time()
        self._kept = time.monotonic()
        if self.part.is_file() and self._progress.is_file():
            self._go_on(read_json(self._progress))

    def _go_on(self, left: Any) -> None:
        try:
            different = [name for name in self._asked if left["asked"].get(name) != self._asked[name]]
            self.place, self.counts = Place(*left["place"]), Counts(**left["counts"])
            self.bytes, self.at = left["bytes"], left["at"]
            why = f"with another {' and '.join(different)}" if different else "and lost a part since"
        except (AttributeError, KeyError, TypeError):
            different, why = ["?"], "in a way that cannot be read"
        if different or self.part.stat().st_size < self.bytes:
            raise ConfigError(
                f"out: {self.target} was begun {why}; remove {self.part} and {self._progress} to begin again"
            )

    def open(self) -> Any:
        """The file of lines, behind those that are kept."""
        with writing(self.part):
            file = self.part.open("r+b" if self.part.is_file() else "w+b")
            file.truncate(self.bytes)
            file.seek(self.bytes)
        return file

    def add(self, file: Any, text: str, counts: Counts, place: Place) -> None:
        """Writes lines; every two seconds they are kept."""
        content = text.encode("utf-8")
        with writing(self.part):
            file.write(content)
            self.place, self.bytes, self.counts = place, self.bytes + len(content), self.counts.plus(counts)
            if time.monotonic() - self._kept > _KEPT_EVERY:
                file.flush()
                self._keep()

    def _keep(self) -> None:
        sync(self.part)
        write_json(
            self._progress,
            {"asked": self._asked, "place": list(self.place), "bytes": self.bytes, "at": self.at}
            | {"counts": asdict(self.counts)},
        )
        self._kept = time.monotonic()

    def finish(self) -> None:
        """The target, whole.

        Raises:
            ConfigError: it is there already, or cannot be written.
        """
        self._keep()
        if self.target.exists():
            raise ConfigError(f"out: {self.target} was written by another program meanwhile; name another file")
        with writing(self.target):
            whole = self.part
            if self.target.suffix == ".parquet":
                whole = beside(self.target, "whole")
                _write_parquet(self.part, whole)
            sync(whole)
            whole.rename(self.target)
            sync(self.target.parent)
            self._progress.unlink()
            self.part.unlink(missing_ok=True)


def _write_parquet(lines: Path, target: Path) -> None:
    """A row for each item of each line."""
    with pq.ParquetWriter(target, _SCHEMA) as table:
        for rows in _row_groups(lines):
            table.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), row_group_size=len(rows))


def _row_groups(lines: Path) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    with lines.open(encoding="utf-8") as file:
        for line in file:
            content = json.loads(line)
            pairs = zip(content["items"], content["scores"], strict=True)
            rows += [
                {"user_id": content["user"], "item_id": item, "score": score, "rank": rank}
                for rank, (item, score) in enumerate(pairs, start=1)
            ]
            if len(rows) >= _ROW_GROUP:
                yield rows
                rows = []
    if rows:
        yield rows
