"""The conversion of raw files: rows are checked and written block by block, whatever their format."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.compute as pc
from tqdm import tqdm

import recbole_hllm
from recbole_hllm.data.raw.blocks import Block, clean_text, id_check, number_check, shortened, trimmed
from recbole_hllm.data.raw.converters import CONVERTERS, Conversion, Raw, Table
from recbole_hllm.data.raw.files import sha256_of
from recbole_hllm.data.raw.filters import FILTERS
from recbole_hllm.data.raw.ids import Counts, Distinct
from recbole_hllm.data.raw.output import Output
from recbole_hllm.data.raw.report import UNUSED, Report
from recbole_hllm.data.raw.times import Clock
from recbole_hllm.errors import ConfigError, DataError, did_you_mean

USER, ITEM, TIME = "user_id", "item_id", "timestamp"
Options = dict[str, str | bool]
# Options of every format, and their defaults; a flag is a bool.
_OPTIONS: Options = {
    "to": "", "as": "atomic", "filter": "", "interactions": "", "items": "", "time_unit": "", "all_items": False,
    "strict": False, "overwrite": False,
}  # fmt: skip


def options_of(form: str) -> Options:
    """Every option of a format, and its default.

    Raises:
        ConfigError: there is no such format.
    """
    return _OPTIONS | getattr(CONVERTERS.load(form), "OPTIONS", {})


def convert(form: str, sources: list[str], **given: str | bool) -> dict[str, Any]:
    """Converts raw files to a data set: its interactions, its items, and a JSON file of facts about both.

    Args:
        form: a name of ``CONVERTERS``.
        sources: files, or folders that hold them.
        given: options; ``to`` names the folder of the data set, which has its name.

    Returns:
        The facts.

    Raises:
        ConfigError, DataError: an option or a file cannot be used; no file is there under its final name then.
    """
    options = _checked(form, given)
    module: ModuleType = CONVERTERS.load(form)
    own = {name: options[name] for name in getattr(module, "OPTIONS", {})}
    output = Output(Path(str(options["to"])), str(options["as"]), bool(options["overwrite"]))
    raw = Raw.of(sources, own, str(options["interactions"]), str(options["items"]))
    run = _Run(raw, module.conversion(raw), options, output)
    output.spare(file.path for file in run.files)
    with output, tqdm(total=run.bytes, unit="B", unit_scale=True, disable=None, desc=output.name) as bar:
        raw.progress = bar.update
        run.interactions()
        run.items()
        bar.close()
        facts = run.facts(form, given)
        facts["output"] = [str(path) for path in output.finish(facts)]
    return facts


@dataclass
class _Run:
    """One conversion under way."""

    raw: Raw
    tables: Conversion
    options: Options
    output: Output
    users: Distinct = field(default_factory=Distinct)
    ids: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self.inter_report, self.item_report = (Report(bool(self.options["strict"])) for _ in range(2))
        self.clock = Clock(str(self.options["time_unit"]))
        self.without_row = {"items": 0, "interactions": 0}
        if self.options["filter"] and list(self.tables.interactions) != [""]:
            raise ConfigError("--filter: a ready split is not filtered")

    @property
    def files(self) -> list[Any]:
        """The raw files that are read."""
        tables = [*self.tables.interactions.values(), *filter(None, [self.tables.items])]
        return list(dict.fromkeys(file for table in tables for file in table.files))

    @property
    def bytes(self) -> int:
        """Bytes of the files, as often as they are read."""
        again = [file for table in self.tables.interactions.values() for file in table.files]
        return sum(file.size for file in [*self.files, *(again * 2 if self.options["filter"] else ())])

    def interactions(self) -> None:
        """Writes the interactions."""
        for part, table in self.tables.interactions.items():
            kept = self._filter(table)
            name = ".".join(filter(None, (part, "inter")))
            self.output.open(name, table.columns)
            for block in self._checked(table, self.inter_report):
                if kept:
                    stays = kept(block)
                    self.inter_report.leave_out(f"filter {self.options['filter']}", len(block) - pc.sum(stays).as_py())
                    block = block.rows(stays)
                self._count_and_write(name, block)
            if not self.inter_report.written:
                raise DataError(_nothing(table, self.inter_report))

    def _count_and_write(self, name: str, block: Block) -> None:
        if len(block):
            self.users.add(block.columns[USER])
            self.ids.add(block.columns[ITEM])
            self.inter_report.written += len(block)
            self.output.write(name, block.columns)

    def _filter(self, table: Table) -> Any:
        name = str(self.options["filter"])
        return FILTERS[name](lambda: self._checked(table, Report(self.inter_report.strict))) if name else None

    def _checked(self, table: Table, report: Report) -> Iterator[Block]:
        """The rows of interactions that are well formed."""
        for block in table.blocks(report):
            for name, kind in table.columns.items():
                if name not in (USER, ITEM):
                    block = trimmed(block, name) if kind == "float" else _cleaned(block, name)
            numbers = [name for name, kind in table.columns.items() if kind == "float" and name != TIME]
            checks = [
                *(id_check(block, name) for name in (USER, ITEM)),
                *(number_check(block, name) for name in numbers),
            ]
            yield self.clock.seconds(block.only([*checks, self.clock.check(block)], report))

    def items(self) -> None:
        """Writes a row of each item; unless all are wanted, of those with interactions."""
        table = self.tables.items
        if table is None:
            return
        self.output.open("item", table.columns)
        wanted = self.ids.ids()
        catalogue = set(wanted.to_pylist())
        self.raw.catalogue = None if self.options["all_items"] else catalogue
        seen: dict[str, tuple[str, int]] = {}
        numbers = [name for name, kind in table.columns.items() if kind == "float"]
        for block in table.blocks(self.item_report):
            for name in numbers:
                block = trimmed(block, name)
            checks = [id_check(block, ITEM), *(number_check(block, name) for name in numbers)]
            block = block.only(checks, self.item_report)
            block = block.rows(self._new(block, catalogue, seen))
            for name in table.columns:
                block = block if name in (ITEM, *numbers) else _cleaned(block, name)
            if len(block):
                self.item_report.written += len(block)
                self.output.write("item", block.columns)
        missing = wanted.filter(np.array([item not in seen for item in wanted.to_pylist()], bool))
        if not self.item_report.written:
            raise DataError(self._no_item(table, wanted[0].as_py()))
        self.without_row = {"items": len(missing), "interactions": self.ids.rows_of(missing)}

    def _no_item(self, table: Table, example: str) -> str:
        files = ", ".join(file.name for file in table.files)
        first = self.item_report.shown[0] if self.item_report.shown else None
        why = f"; {first['file']}, line {first['line']}: {first['reason']}" if first else ""
        return (
            f"no row of {files} is of an item with interactions, such as {shortened(example)}: do the ids of the two "
            f"files mean the same?{why}"
        )

    def _new(self, block: Block, catalogue: set[str], seen: dict[str, tuple[str, int]]) -> np.ndarray:
        """(rows,) whether it is the first row of an item that is wanted."""
        mask, report = np.zeros(len(block), bool), self.item_report
        for row, item in enumerate(block.columns[ITEM].to_pylist()):
            line = int(block.lines[row])
            if item not in catalogue and not self.options["all_items"]:
                report.leave_out(UNUSED, 1)
            elif item in seen:
                report.leave_out("repeated", 1)
                file, first = seen[item]
                of = "" if file == block.file else f" of {file}"
                report.note(block.file, line, f"item {shortened(item)} stands in line {first}{of}, whose row is kept")
            else:
                seen[item] = (block.file, line)
                mask[row] = True
        return mask

    def facts(self, form: str, given: Options) -> dict[str, Any]:
        """What the JSON file says."""
        paths = dict.fromkeys(file.path for file in self.files)
        facts: dict[str, Any] = {
            "dataset": self.output.name,
            "format": form,
            "recbole_hllm": recbole_hllm.__version__,
            "options": {name: value for name, value in given.items() if name not in ("to", "overwrite")},
            "files": [
                {"file": str(path), "bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in paths
            ],
            "times": {file: self.clock.name_of(file) for file in self.clock.units},
            "users": len(self.users),
            "items": len(self.ids),
            "interactions": self.inter_report.summary(),
        }  # fmt: skip
        if self.tables.items is not None:
            facts["item_rows"] = {**self.item_report.summary(), "without_row": self.without_row}
        return facts


def _cleaned(block: Block, name: str) -> Block:
    return block.with_column(name, clean_text(block.columns[name]))


def _checked(form: str, given: Options) -> Options:
    """All options, those that are not given at their defaults.

    Raises:
        ConfigError: one does not exist, or has no such value.
    """
    options = options_of(form)
    for name, value in given.items():
        if name not in options:
            raise ConfigError(f"convert {form}: there is no option --{name}{did_you_mean(name, options)}")
        if isinstance(value, bool) is not isinstance(options[name], bool):
            raise ConfigError(f"--{name} {'takes no value' if isinstance(options[name], bool) else 'needs a value'}")
    options |= given
    if not Path(str(options["to"])).name:
        raise ConfigError(f"convert {form}: --to=FOLDER must name the folder of the data set, such as dataset/shop")
    if options["filter"] and options["filter"] not in FILTERS:
        raise ConfigError(f"--filter={options['filter']} must be one of {', '.join(FILTERS)}")
    return options


def _nothing(table: Table, report: Report) -> str:
    """The error about files without a single interaction."""
    files = ", ".join(file.name for file in table.files)
    first = report.shown[0] if report.shown else None
    why = f"; {first['file']}, line {first['line']}: {first['reason']}" if first else ""
    rows = f"{report.malformed} lines are malformed" if report.malformed else f"{report.rows} rows were read"
    return f"no interaction of {files} is left: {rows}{why}"
