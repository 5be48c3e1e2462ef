"""Files with one record per line: JSON, or a Python literal, which is read without running anything."""

import ast
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from recbole_hllm.data.raw.blocks import shortened
from recbole_hllm.data.raw.files import Progress, RawFile
from recbole_hllm.data.raw.report import UNUSED, Report

Record = dict[str, Any]


def records(
    file: RawFile, report: Report, progress: Progress | None = None, skip: Callable[[bytes], bool] | None = None
) -> Iterator[tuple[int, Record]]:
    """Line and record of each line that is not blank.

    Args:
        file: the raw file.
        report: counts the records, and the lines that are none.
        progress: called with the number of bytes read.
        skip: whether a line is of an item without interactions: it is counted, and not read further.

    Raises:
        DataError: the file cannot be read, or a line is no record while the report is strict.
    """
    for first, data in file.lines(progress):
        for number, line in enumerate(data.split(b"\n")[:-1], first):
            if not line.strip():
                continue
            if skip is not None and skip(line):
                report.rows += 1
                report.leave_out(UNUSED, 1)
                continue
            try:
                record = parse_record(line)
            except ValueError as error:
                report.refuse(file.name, number, str(error))
                continue
            report.rows += 1
            yield number, record


def parse_record(line: bytes) -> Record:
    """A JSON object or a Python dict of literals.

    Raises:
        ValueError: it is neither.
    """
    text = line.decode("utf-8")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        try:
            record = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ValueError(f"neither JSON ({error}) nor a Python literal: {shortened(text[:80])}") from None
    if not isinstance(record, dict):
        raise ValueError(f"not a record with names but {shortened(record)}")
    return record


def text_of(value: Any, between: str = " ") -> str | None:
    """A value as a text: None, NaN and empty lists are missing; texts of a list, nested ones too, stand one after the
    other.

    Args:
        value: what a record holds.
        between: stands between two texts of a list.
    """
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (list, tuple)):
        return between.join(filter(None, (text_of(item, between) for item in value))) or None
    if isinstance(value, dict):
        return between.join(f"{key}: {text}" for key in value if (text := text_of(value[key], between))) or None
    return str(value)


def names_of(value: Any) -> str | None:
    """Names of a list, perhaps of paths of names, each once, separated by commas."""
    return ", ".join(dict.fromkeys(_flat(value))) or None


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    elif text := text_of(value):
        yield text


def id_of(value: Any) -> str | None:
    """An id as a text; None for what cannot be one."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return str(value)


def number_of(value: Any) -> str | None:
    """A number, or a text that may be one, as a text."""
    if value is None or isinstance(value, (str, int)):
        return None if value is None else str(value)
    return repr(value)
