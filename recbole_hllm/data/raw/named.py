"""Files whose columns the user names: what the formats csv, parquet and jsonl have in common."""

from collections.abc import Callable, Iterator

from recbole_hllm.data.raw.blocks import Block
from recbole_hllm.data.raw.converters import Conversion, Raw, Table
from recbole_hllm.data.raw.files import RawFile
from recbole_hllm.data.raw.report import Report
from recbole_hllm.errors import ConfigError, DataError

OPTIONS: dict[str, str | bool] = {
    "user": "user_id", "item": "item_id", "time": "timestamp", "rating": "", "keep": "", "texts": "", "items_id": "",
}  # fmt: skip
_TYPES = ("token", "token_seq", "float")
# Reads columns of a file, name in the file -> name in the blocks.
Reader = Callable[[RawFile, dict[str, str], Report], Iterator[Block]]


def conversion(raw: Raw, ending: str, reader: Reader) -> Conversion:
    """Interactions and items of files of one kind.

    Args:
        raw: the conversion, with at least the options of ``OPTIONS``.
        ending: of the files that are taken from folders.
        reader: reads one of them.

    Raises:
        ConfigError: a column is named twice, or texts without a file that has them.
        DataError: there is no file of interactions.
    """
    files = raw.interaction_files or [file for file in raw.files if file not in raw.item_files]
    files = [file for file in files if file.stem.endswith(ending)] if len(files) > 1 else files
    if not files:
        raise DataError(f"there are no interactions: no other file than --items, or none that ends in {ending}")
    kept = dict(name.partition(":")[::2] for name in raw.names("keep"))
    wanted = {raw.text("user"): "user_id", raw.text("item"): "item_id", raw.text("rating"): "rating",
              raw.text("time"): "timestamp", **{name: name for name in kept}}  # fmt: skip
    wanted.pop("", None)
    kinds = {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"}
    kinds = {name: kind for name, kind in kinds.items() if name in wanted.values()} | _with_types(kept)
    if len(wanted) != len(kinds) or not {"user_id", "item_id", "timestamp"} <= set(kinds):
        raise ConfigError("--user, --item, --time, --rating and --keep must name different columns of the interactions")
    return Conversion({"": _table(files, wanted, kinds, reader)}, _items(raw, reader))


def _items(raw: Raw, reader: Reader) -> Table | None:
    texts = dict(name.partition(":")[::2] for name in raw.names("texts"))
    if bool(texts) is not bool(raw.item_files):
        raise ConfigError(
            "--items=FILE and --texts=NAME,NAME need each other: the texts of the items, and their columns"
        )
    if not texts:
        return None
    item = raw.text("items_id") or raw.text("item")
    if item in texts:
        raise ConfigError(f"--texts: '{item}' is the column of the ids")
    kinds = {"item_id": "token", **_with_types(texts, "token_seq")}
    return _table(raw.item_files, {item: "item_id", **{name: name for name in texts}}, kinds, reader)


def _with_types(names: dict[str, str], usual: str = "token") -> dict[str, str]:
    """Name -> type, the usual one where none is given.

    Raises:
        ConfigError: there is no such type.
    """
    for name, kind in names.items():
        if kind and kind not in _TYPES:
            raise ConfigError(f"--keep and --texts: '{name}:{kind}' must have a type of {', '.join(_TYPES)}")
    return {name: kind or usual for name, kind in names.items()}


def _table(files: list[RawFile], wanted: dict[str, str], kinds: dict[str, str], reader: Reader) -> Table:
    def blocks(report: Report) -> Iterator[Block]:
        for file in files:
            yield from reader(file, wanted, report)

    return Table(kinds, files, blocks)
