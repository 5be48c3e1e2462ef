"""Writes synthetic interactions and item texts of a named size, as fast as two cores can.

    python benchmarks/synthetic.py --size pixel8m --formats text,parquet,raw [--order shuffled] [--data FOLDER]

Counts are exact, and every user and item occurs. Popularity follows Zipf's law, the number of a user's interactions is
heavy-tailed with at least 3, times are Unix seconds that rise inside a user; an item may come again to a user. A folder
that is already complete is left as it is.
"""

import argparse
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from synthetic_texts import COUNTERS, counters, texts

VERSION = 1  # of what is written: data of another version is made again
SEED = 2020
FEWEST = 3  # interactions of a user
DRAWS = 2**22  # entries of the table that items are drawn from; each item has at least one
FLAT_RANKS = 50  # Zipf-Mandelbrot: popularity of a rank is 1 / (rank + this)
DAY, YEARS = 86_400, 2 * 365 * 86_400
FIRST_TIME = 1_577_836_800  # 2020-01-01
USERS_AT_ONCE, ROWS_AT_ONCE, ROWS_OF_A_PART = 2**19, 2**20, 10_000_000
DONE = "synthetic.json"  # in a complete folder: what it holds


@dataclass(frozen=True)
class Size:
    """How much data, and the data set's name: with one of ``properties/dataset`` come its keys."""

    name: str
    users: int
    items: int
    interactions: int


SIZES = {
    "tiny": Size("synthetic-tiny", 300, 120, 5_000),
    "100k": Size("synthetic-100k", 5_607, 6_000, 100_000),
    "1m": Size("synthetic-1m", 56_067, 20_000, 1_000_000),
    "10m": Size("synthetic-10m", 560_668, 80_000, 10_000_000),
    "pixel1m": Size("pixel1m", 1_001_822, 100_541, 19_886_579),
    "pixel8m": Size("pixel8m", 8_886_078, 407_082, 158_488_652),
}
ORDERS = ("shuffled", "users")
FORMATS = ("text", "parquet", "raw")


# ---- what is written ----


def lengths_of(size: Size, rng: np.random.Generator) -> np.ndarray:
    """(users,) int64 interactions of each user: at least ``FEWEST``, log-normal above, exact in sum."""
    weights = rng.lognormal(0, 1.2, size.users)
    spare = size.interactions - FEWEST * size.users
    lengths = FEWEST + (weights * (spare / weights.sum())).astype(np.int64)
    lengths[rng.permutation(size.users)[: size.interactions - lengths.sum()]] += 1
    return lengths


def table_of_items(n_items: int, rng: np.random.Generator) -> np.ndarray:
    """(about DRAWS,) int32 items from 1 on, each as often as its popularity; draws from it follow that."""
    shares = 1 / (np.arange(1, n_items + 1) + FLAT_RANKS)
    counts = np.maximum(1, shares * (DRAWS / shares.sum())).astype(np.int64)
    return np.repeat(rng.permutation(n_items).astype(np.int32) + 1, counts)


def times_of(lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(sum of lengths,) int32 Unix seconds, strictly rising inside a user; a day between two, or less for the busy."""
    pace = np.minimum(DAY * rng.lognormal(0, 1, len(lengths)), YEARS / lengths)
    gaps = 1 + rng.standard_exponential(lengths.sum(), np.float32) * np.repeat(pace.astype(np.float32), lengths)
    times = np.cumsum(gaps, dtype=np.int64)
    first = np.cumsum(lengths) - lengths
    start = FIRST_TIME + rng.integers(0, YEARS, len(lengths))
    return (times + np.repeat(start - times[first], lengths)).astype(np.int32)


@dataclass
class Interactions:
    """Arrays of all interactions, grouped by user in time order, and the order of the lines.

    Attributes:
        users, items, times: (T,) int32; numbers from 1 on, and Unix seconds.
        order: (T,) int32 row of each line; None where lines are in the order of rows.
    """

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    order: np.ndarray | None

    @classmethod
    def of_size(cls, size: Size, order: str) -> "Interactions":
        rng = np.random.default_rng(SEED)
        lengths, table = lengths_of(size, rng), table_of_items(size.items, rng)
        items, times = (np.empty(size.interactions, np.int32) for _ in range(2))
        begin = 0
        for some in np.array_split(lengths, -(-size.users // USERS_AT_ONCE)):
            end = begin + int(some.sum())
            items[begin:end] = table[rng.integers(0, len(table), end - begin, np.int32)]
            times[begin:end] = times_of(some, rng)
            begin = end
        everywhere = np.arange(size.items) * (size.interactions // size.items)
        items[everywhere] = rng.permutation(size.items) + 1  # each at least once
        lines = None
        if order == "shuffled":
            lines = np.arange(size.interactions, dtype=np.int32)
            rng.shuffle(lines)
        return cls(np.repeat(np.arange(1, size.users + 1, dtype=np.int32), lengths), items, times, lines)

    def lines(self, begin: int, end: int) -> dict[str, np.ndarray]:
        """Columns of some lines."""
        rows = slice(begin, end) if self.order is None else self.order[begin:end]
        return {"user_id": self.users[rows], "item_id": self.items[rows], "timestamp": self.times[rows]}


@dataclass
class Source:
    """What all formats of a size are written from, made when first asked for."""

    size: Size
    order: str

    @cached_property
    def interactions(self) -> Interactions:
        return Interactions.of_size(self.size, self.order)

    @cached_property
    def texts(self) -> pa.Table:
        """Columns item_id, title, tag, description of each item; a missing text is null."""
        return texts(self.size.items, SEED)


# ---- how it is written ----


def text_of(number: np.ndarray) -> pa.Array:
    return pa.array(number).cast(pa.string())


def joined(*columns: Any) -> memoryview:
    """Bytes of lines: columns and constants one after another."""
    lines = pc.binary_join_element_wise(*columns, "")
    offsets = np.frombuffer(lines.buffers()[1], np.int32)[lines.offset :]
    return memoryview(lines.buffers()[2])[offsets[0] : offsets[len(lines)]]


def atomic_lines(data: Interactions, begin: int, end: int) -> memoryview:
    user, item, times = map(text_of, data.lines(begin, end).values())
    return joined("u", user, "\ti", item, "\t", times, "\n")


def pixelrec_lines(data: Interactions, begin: int, end: int) -> memoryview:
    user, item, times = map(text_of, data.lines(begin, end).values())
    return joined("i", item, ",u", user, ",", times, "\n")


def write_lines(path: Path, header: str, lines: Callable[..., memoryview], data: Interactions, pool: Any) -> None:
    with path.open("wb") as file:
        file.write(header.encode())
        for block in in_order(pool, partial(lines, data), blocks(len(data.times), ROWS_AT_ONCE)):
            file.write(block)


def write_text(source: Source, folder: Path, pool: Any) -> None:
    """RecBole's atomic files."""
    name, data = source.size.name, source.interactions
    write_lines(folder / f"{name}.inter", "user_id:token\titem_id:token\ttimestamp:float\n", atomic_lines, data, pool)
    write_items(source, folder)


def write_items(source: Source, folder: Path) -> None:
    item, *fields = source.texts.combine_chunks().columns
    cells = [cell for field in fields for cell in ("\t", pc.fill_null(field.combine_chunks(), ""))]
    with (folder / f"{source.size.name}.item").open("wb") as file:
        file.write(b"item_id:token\ttitle:token_seq\ttag:token\tdescription:token_seq\n")
        file.write(joined(item.combine_chunks(), *cells, "\n"))


def write_parquet(source: Source, folder: Path, pool: Any) -> None:
    """Parts as a cluster writes them, plain names and types; the items as text."""
    data, target = source.interactions, folder / f"{source.size.name}.inter.parquet"
    target.mkdir()
    (target / "_SUCCESS").touch()
    parts = enumerate(blocks(len(data.times), ROWS_OF_A_PART))
    for _ in in_order(pool, partial(write_part, data, target), parts):
        pass
    write_items(source, folder)


def write_part(data: Interactions, folder: Path, part: int, block: tuple[int, int]) -> None:
    schema = pa.schema({"user_id": pa.string(), "item_id": pa.string(), "timestamp": pa.int64()})
    with pq.ParquetWriter(folder / f"part-{part:05}.snappy.parquet", schema) as file:
        for begin, end in blocks(block[1] - block[0], ROWS_AT_ONCE):
            user, item, times = data.lines(block[0] + begin, block[0] + end).values()
            columns = [named("u", user), named("i", item), pa.array(times).cast(pa.int64())]
            file.write_table(pa.table(columns, schema=schema))


def named(letter: str, numbers: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(letter, text_of(numbers), "")


def write_raw(source: Source, folder: Path, pool: Any) -> None:
    """The two files of PixelRec."""
    write_lines(folder / "interaction.csv", "item_id,user_id,timestamp\n", pixelrec_lines, source.interactions, pool)
    item, *fields = (column.combine_chunks() for column in source.texts.columns)
    numbers = [cell for column in counters(source.size.items, SEED) for cell in (",", text_of(column), ".0")]
    cells = [cell for field in fields for cell in (",", quoted(field))]
    with (folder / "item_info.csv").open("wb") as file:
        file.write(f"item_id,{','.join(COUNTERS)},title,tag,description\n".encode())
        file.write(joined(item, *numbers, *cells, "\n"))


def quoted(field: pa.Array) -> pa.Array:
    """Cells of a CSV file: in quotation marks where it is needed."""
    field = pc.fill_null(field, "")
    marked = pc.binary_join_element_wise('"', pc.replace_substring(field, '"', '""'), '"', "")
    return pc.if_else(pc.match_substring_regex(field, '[",]'), marked, field)


WRITERS = {"text": write_text, "parquet": write_parquet, "raw": write_raw}


def blocks(total: int, step: int) -> Iterator[tuple[int, int]]:
    return ((begin, min(begin + step, total)) for begin in range(0, total, step))


def in_order(pool: ThreadPoolExecutor, function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """Results of the jobs in their order, few of them made ahead."""
    waiting: deque[Any] = deque()
    for job in jobs:
        waiting.append(pool.submit(function, *job))
        if len(waiting) > 2 * pool._max_workers:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


# ---- where it is written ----


def folder_of(data: Path, size: str, format: str, order: str = "shuffled") -> Path:
    """The data set's folder; its parent is ``data_path``."""
    return data / order / format / SIZES[size].name


def is_complete(folder: Path, size: str, order: str) -> bool:
    try:
        return json.loads((folder / DONE).read_text()) == facts(size, order)
    except (OSError, ValueError):
        return False


def facts(size: str, order: str) -> dict[str, Any]:
    return {**asdict(SIZES[size]), "order": order, "seed": SEED, "version": VERSION}


def make(data: Path, size: str, formats: Iterable[str], order: str = "shuffled", threads: int = 2) -> dict[str, float]:
    """Writes what is not there.

    Returns:
        Seconds that each format took, of those that were not there; the arrays they share are in the first one's.
    """
    source, seconds = Source(SIZES[size], order), {}
    pa.set_cpu_count(1)  # the blocks are parallel
    with ThreadPoolExecutor(threads) as pool:
        for format in formats:
            folder = folder_of(data, size, format, order)
            if is_complete(folder, size, order):
                continue
            start, half = time.perf_counter(), folder.with_name(f"{folder.name}.half-{os.getpid()}")
            half.mkdir(parents=True)
            try:
                WRITERS[format](source, half, pool)
                (half / DONE).write_text(json.dumps(facts(size, order)))
                shutil.rmtree(folder, ignore_errors=True)  # of another version
                half.rename(folder)
            finally:
                shutil.rmtree(half, ignore_errors=True)
            seconds[format] = time.perf_counter() - start
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--size", choices=SIZES, default="1m")
    parser.add_argument("--formats", default="text,parquet,raw", help="of text, parquet, raw (PixelRec's own CSV)")
    parser.add_argument("--order", choices=ORDERS, default="shuffled", help="of the lines")
    parser.add_argument("--data", type=Path, default=Path("build/data_scale"), help="folder of all such data")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    formats = arguments.formats.split(",")
    seconds = make(arguments.data, arguments.size, formats, arguments.order, arguments.threads)
    for format in formats:
        folder = folder_of(arguments.data, arguments.size, format, arguments.order)
        megabytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
        took = f"{seconds[format]:.1f} s" if format in seconds else "was there"
        print(f"{folder}: {megabytes:,.0f} MB, {took}")


if __name__ == "__main__":
    main()
