"""Clock: the unit of a file's times, found from the values, and the times as Unix seconds."""

import re
from datetime import datetime, timezone

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbole_hllm.data.raw.blocks import NUMBER, Block, Check, shortened
from recbole_hllm.errors import ConfigError, DataError

# Unit -> its name, and the power of ten that makes seconds of it.
UNITS = {"s": ("seconds", 0), "ms": ("milliseconds", 3), "us": ("microseconds", 6), "ns": ("nanoseconds", 9)}
DATES = "dates"
# Numbers from here on are of the next unit: each unit's times of the years 1973 to 5138. Smaller ones are seconds.
_FROM = np.array([1e11, 1e14, 1e17])
_LARGEST = 1e20
_CLOCK = 1e8
_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d([.,]\d+)?)?( ?(Z|[+-]\d\d(:?\d\d)?))?)?")


class Clock:
    """Times of raw files as Unix seconds.

    The unit of a file is that of its first time; a file with times of several units is an error.

    Attributes:
        units: file -> the unit found, ``s``, ``ms``, ``us``, ``ns`` or ``dates`` (ISO 8601, UTC where no zone is
            named).

    Args:
        unit: that of all numbers, whatever their size; empty: found from the values.

    Raises:
        ConfigError: there is no such unit.
    """

    def __init__(self, unit: str = "") -> None:
        if unit and unit not in UNITS:
            raise ConfigError(f"--time_unit={unit} must be one of {', '.join(UNITS)}")
        self.unit = unit
        self.units: dict[str, str] = {}
        self._first: dict[str, int] = {}
        self._largest: dict[str, float] = {}

    def name_of(self, file: str) -> str:
        """The unit of a file in words."""
        if self.units[file] == DATES:
            return "ISO 8601 dates"
        small = self.units[file] == "s" and self._largest[file] < _CLOCK
        return "small numbers, no clock times, as they are" if small else UNITS[self.units[file]][0]

    def check(self, block: Block, name: str = "timestamp") -> Check:
        """Whether cells are numbers or dates."""
        texts = block.columns[name]
        values, dates = _read(texts)
        good = pc.is_valid(values) if dates is None else pc.or_(pc.is_valid(values), pc.is_valid(dates))
        return Check(good, lambda row: _no_time(texts[row].as_py()))

    def seconds(self, block: Block, name: str = "timestamp") -> Block:
        """Rows that passed the check, their times as text of Unix seconds; seconds stay as they are written.

        Raises:
            DataError: times of several units in one file.
        """
        if not len(block):
            return block
        texts = block.columns[name]
        values, dates = _read(texts)
        unit = self._unit_of(block, values)
        return block.with_column(name, _as_seconds(texts, dates if unit == DATES else values, unit))

    def _unit_of(self, block: Block, values: pa.Array) -> str:
        """The unit of all times of a block; its file may have no other."""
        sizes = np.abs(values.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64))
        codes = np.searchsorted(_FROM, sizes, side="right") if not self.unit else np.zeros(len(sizes), np.int64)
        names = [self.unit] if self.unit else list(UNITS)
        if values.null_count:
            codes[values.is_null().to_numpy(zero_copy_only=False)] = len(names)
        names.append(DATES)
        file = block.file
        unit = self.units.setdefault(file, names[codes[0]])
        first = self._first.setdefault(file, int(block.lines[0]))
        self._largest[file] = max(self._largest.get(file, 0), float(sizes.max()))
        other = np.flatnonzero(codes != names.index(unit))
        if len(other):
            raise DataError(
                f"{file}: the time of line {first} is in {_words(unit)}, that of line {int(block.lines[other[0]])} in "
                f"{_words(names[codes[other[0]]])}; if all have one unit, name it with --time_unit="
                f"{'|'.join(UNITS)}"
            )
        return unit


def _words(unit: str) -> str:
    return UNITS[unit][0] if unit in UNITS else "ISO 8601"


def _no_time(text: str | None) -> str:
    return f"timestamp {shortened(text)} is neither a number nor an ISO 8601 date" if text else "timestamp is empty"


def _read(texts: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Numbers, and dates in microseconds of the cells that are no numbers; null where it is neither."""
    values = _numbers(texts)
    if not values.null_count:
        return values, None
    return values, _dates(pc.if_else(pc.is_null(values), texts, pa.scalar(None, pa.string())))


def _numbers(texts: pa.Array) -> pa.Array:
    """int64 or float64; null where there is no number that can be a time."""
    try:
        return texts.cast(pa.int64())
    except pa.ArrowInvalid:
        is_number = pc.match_substring_regex(texts, NUMBER)
        values = pc.if_else(is_number, texts, pa.scalar(None, pa.string())).cast(pa.float64())
        return pc.if_else(pc.less(pc.abs(values), _LARGEST), values, pa.scalar(None, pa.float64()))


def _as_seconds(texts: pa.Array, values: pa.Array, unit: str) -> pa.Array:
    digits = 6 if unit == DATES else UNITS[unit][1]
    if not digits:
        return texts
    if pa.types.is_integer(values.type) and pc.min(values).as_py() >= 0:
        return _shifted(values, digits)
    return pc.divide(values.cast(pa.float64()), 10.0**digits).cast(pa.string())


def _shifted(values: pa.Array, digits: int) -> pa.Array:
    """Texts of whole numbers, not negative, with the point moved, exactly."""
    whole = pc.divide(values, 10**digits)
    rest = pc.subtract(values, pc.multiply(whole, 10**digits))
    rest = pc.utf8_slice_codeunits(pc.add(rest, 10**digits).cast(pa.string()), 1)
    return pc.replace_substring_regex(pc.binary_join_element_wise(whole.cast(pa.string()), rest, "."), r"\.?0+$", "")


def _dates(texts: pa.Array) -> pa.Array:
    """int64 microseconds since 1970; null where there is no ISO 8601 date."""
    try:
        return texts.cast(pa.timestamp("us")).cast(pa.int64())
    except pa.ArrowInvalid:
        return pa.array([_date(text) for text in texts.to_pylist()], pa.int64())


def _date(text: str | None) -> int | None:
    if not text or not _DATE.fullmatch(text):
        return None
    text = re.sub(r" (?=[+-]\d\d(:?\d\d)?$)", "", text.replace("Z", "+00:00").replace(",", "."))
    text = re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", text) if "T" in text or " " in text else text
    text = re.sub(r"([T ].*[+-]\d\d)$", r"\1:00", text)
    text = re.sub(r"\.(\d+)", lambda match: f".{match[1][:6]:0<6}", text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    past = time - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds
