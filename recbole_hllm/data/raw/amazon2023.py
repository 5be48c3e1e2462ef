"""Amazon reviews of 2023: ratings, reviews or a ready split, and metadata, of one category.

usage: recbole-hllm convert amazon2023 FOLDER --to=dataset/NAME [--keep=NAME[,NAME...]] [--history] [--plain]

FOLDER holds the files of one category as they are downloaded, .gz or unpacked; --interactions=FILE and --items=FILE
name one of several.

  interactions              All_Beauty.csv: header user_id,parent_asin,rating,timestamp, of all ratings or of the
                            5-core; or All_Beauty.jsonl: JSON lines. Items are parent_asin, the product whatever its
                            colour or size; times are milliseconds and become seconds with a fraction
  a ready split             All_Beauty.train.csv, .valid.csv and .test.csv (last out or by time stamp) become
                            NAME.train.inter, NAME.valid.inter and NAME.test.inter, for
                            --benchmark_filename="['train', 'valid', 'test']"
  items                     meta_All_Beauty.jsonl: JSON lines; features, description and categories are lists of texts,
                            which are joined; store, price and others may be null

  --keep=store,categories   of features, store, categories, main_category and price, what is written beside title and
                            description
  --history                 writes the column history of a ready split as item_id_list, for a run with
                            --alias_of_item_id="['item_id_list']"; without it the histories are those of the training
                            file
  --plain                   leaves tags of HTML out of the texts, and scripts with their content
"""

from recbole_hllm.data.raw.amazon import INTERACTIONS, ITEM_COLUMNS, items_of
from recbole_hllm.data.raw.converters import Conversion, Raw, Table
from recbole_hllm.data.raw.files import RawFile
from recbole_hllm.data.raw.records import Record, id_of, number_of
from recbole_hllm.data.raw.tables import delimited_table, has_columns, is_named, record_table
from recbole_hllm.errors import ConfigError, DataError

OPTIONS: dict[str, str | bool] = {"keep": "", "history": False, "plain": False}
_MORE = ("features", "store", "categories", "main_category", "price")
_PARTS = ("train", "valid", "test")
_CSV = {"parent_asin": "item_id", "user_id": "user_id", "rating": "rating", "timestamp": "timestamp"}


def conversion(raw: Raw) -> Conversion:
    """Ratings, whole or split, and titles and descriptions."""
    more = raw.chosen("keep", {name: ITEM_COLUMNS[name] for name in _MORE})
    items = items_of(raw, "meta_.*jsonl", "parent_asin", ("title", "description", *more), bool(raw.options["plain"]))
    split = {part: raw.matching(is_named(rf".*\.{part}\.csv")) for part in _PARTS}
    if any(split.values()) and not raw.interaction_files:
        return Conversion({part: _ratings(raw, _only(part, files)) for part, files in split.items()}, items)
    if raw.options["history"]:
        raise ConfigError("--history: only the files of a ready split have a column history")
    ratings, reviews = has_columns("user_id", "parent_asin"), is_named(r"(?!meta_).*jsonl")
    file = raw.interactions("ratings (.csv) or reviews (.jsonl)", lambda file: ratings(file) or reviews(file))
    if file.stem.endswith(".csv"):
        return Conversion({"": _ratings(raw, file)}, items)
    return Conversion({"": record_table(raw, [file], INTERACTIONS, _review)}, items)


def _only(part: str, files: list[RawFile]) -> RawFile:
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise DataError(f"a ready split needs one file .{part}.csv beside the others, found: {found}")
    return files[0]


def _ratings(raw: Raw, file: RawFile) -> Table:
    wanted, kinds = dict(_CSV), dict(INTERACTIONS)
    if raw.options["history"]:
        wanted["history"], kinds["item_id_list"] = "item_id_list", "token_seq"
    return delimited_table(raw, file, wanted, kinds)


def _review(record: Record) -> list[str | None]:
    ids = (id_of(record.get(name)) for name in ("parent_asin", "user_id"))
    return [*ids, *(number_of(record.get(name)) for name in ("rating", "timestamp"))]
