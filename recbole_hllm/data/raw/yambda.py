"""Yambda: flat Parquet files of listens, likes and other events of a music service.

usage: recbole-hllm convert yambda FILE --to=dataset/yambda [--events=TYPE,...] [--min_played=50] [--organic]
           [--keep=NAME[,NAME...]]

  FILE                      one of the flat files: listens.parquet, likes.parquet, ... or multi_event.parquet: uid,
                            item_id and timestamp, whole numbers. Times are counted from the beginning of the
                            collection in steps of 5 seconds: they order and split events, and are no clock times
  --events=listen,like      of multi_event.parquet: which values of event_type are interactions (all)
  --min_played=50           of listens: interactions are those with played_ratio_pct of at least so many per cent (all)
  --organic                 only events of the user's own accord (is_organic is 1), not of recommendations
  --keep=is_organic         of is_organic, played_ratio_pct, track_length_seconds and event_type, what is
                            written as well

Rows that these options leave out are counted. There are no texts of items.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from recbole_hllm.data.raw.blocks import Block
from recbole_hllm.data.raw.converters import Conversion, Raw, Table
from recbole_hllm.data.raw.parquet_files import parquet_blocks
from recbole_hllm.data.raw.report import Report
from recbole_hllm.data.raw.tables import is_named
from recbole_hllm.errors import ConfigError

OPTIONS: dict[str, str | bool] = {"events": "", "min_played": "", "organic": False, "keep": ""}
_INTERACTIONS = {"user_id": "token", "item_id": "token", "timestamp": "float"}
_MORE = {"is_organic": "float", "played_ratio_pct": "float", "track_length_seconds": "float", "event_type": "token"}


def conversion(raw: Raw) -> Conversion:
    """Events."""
    file = raw.interactions("events (.parquet)", is_named(r".*\.parquet"))
    more = raw.chosen("keep", _MORE)
    try:
        least = float(raw.text("min_played") or 0)
    except ValueError as error:
        raise ConfigError(f"--min_played={raw.text('min_played')} must be a number of per cent") from error
    asked = {"event_type": raw.names("events"), "played_ratio_pct": least, "is_organic": raw.options["organic"]}
    wanted = {"uid": "user_id", "item_id": "item_id", "timestamp": "timestamp", **{name: name for name in more}}
    wanted |= {name: name for name, value in asked.items() if value}

    def blocks(report: Report) -> Iterator[Block]:
        for block in parquet_blocks(file, wanted, report, raw.progress):
            if raw.names("events"):
                types = pa.array(raw.names("events"))
                block = _those(block, pc.is_in(block.columns["event_type"], types), report, "events")
            if least:
                played = pc.greater_equal(block.columns["played_ratio_pct"].cast(pa.float64()), least)
                block = _those(block, played.fill_null(False), report, "min_played")
            if raw.options["organic"]:
                block = _those(block, pc.is_in(block.columns["is_organic"], pa.array(["1", "true"])), report, "organic")
            yield block

    return Conversion({"": Table(_INTERACTIONS | more, [file], blocks)})


def _those(block: Block, mask: pa.Array, report: Report, option: str) -> Block:
    report.leave_out(f"--{option}", len(block) - (pc.sum(mask).as_py() or 0))
    return block.rows(mask)
