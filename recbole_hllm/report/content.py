"""What a table's folder holds, read back: rows, header, keys, and the run of each row."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recbole_hllm.config.parsing import read_yaml
from recbole_hllm.config.schema import DECLARED, Scope
from recbole_hllm.errors import ConfigError, UserError
from recbole_hllm.report.curves import curve_of
from recbole_hllm.runs.folder import KEYS
from recbole_hllm.storage.files import read_json
from recbole_hllm.tables.table import metric_names, value_of

TABLE = "table.json"


@dataclass(frozen=True)
class RowRun:
    """The run of a row, or its runs with several seeds.

    Attributes:
        folders: of the runs, first seed first; none where they are not in the table's folder.
        curve: points of the first run: ``x``-values ``epoch`` and ``training_seconds`` (None where not kept), ``loss``
            and ``score``, that of the table's metric in validation; either may be None.
        versions: of the program and its libraries, and ``finished``; empty where not kept.
    """

    folders: list[Path]
    curve: list[dict[str, Any]]
    versions: dict[str, str]


@dataclass(frozen=True)
class Content:
    """What a report is made of.

    Attributes:
        folder: of the table.
        header: what all rows share.
        rows: as ``tables.table`` has them.
        metric: the one to read, in small letters; None where no row has a result.
        keys: what made the table, as YAML, without folders of the machine; None where it is not kept.
        runs: row -> its run.
    """

    folder: Path
    header: dict[str, Any]
    rows: list[dict[str, Any]]
    metric: str | None
    keys: str | None
    runs: dict[str, RowRun]

    def row(self, name: str) -> dict[str, Any]:
        """The row of that name."""
        return self.rows[self.number(name)]

    def number(self, name: str) -> int:
        """Its place in the table, from 0."""
        return next(number for number, row in enumerate(self.rows) if row["model"] == name)


def read_content(folder: Path) -> Content:
    """Reads a table's folder.

    Raises:
        ConfigError: there is no table in it, or what is called table.json is none.
        Damaged: its table.json is no JSON.
    """
    if not (folder / TABLE).is_file():
        raise ConfigError(f"report: there is no table in {folder}: no {TABLE}; 'compare' and 'search' make one")
    table = read_json(folder / TABLE)
    rows = table.get("rows") if isinstance(table, dict) else None
    sound = isinstance(rows, list) and rows and all(isinstance(row, dict) and row.get("model") for row in rows)
    if rows is None or not sound or not isinstance(table.get("header", {}), dict):
        raise ConfigError(f"report: {folder / TABLE} is not a table of this program: it has no rows with a model")
    header = table.get("header", {})
    metric = _metric(rows, str(header.get("valid_metric")).lower())
    runs = {row["model"]: _run(folder, row, metric) for row in rows}
    return Content(folder, header, rows, metric, _keys(folder / KEYS), runs)


def _metric(rows: list[dict[str, Any]], chosen: str) -> str | None:
    known = [name for name in metric_names(rows) if any(value_of(row, name) is not None for row in rows)]
    return chosen if chosen in known else next(iter(known), None)


def _keys(file: Path) -> str | None:
    """The keys of a table that make it anywhere."""
    if not file.is_file():
        return None
    kept = {key: value for key, value in read_yaml(file).items() if not _of_machine(key)}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def _of_machine(key: str) -> bool:
    name = key.rpartition(".")[2]
    return name in DECLARED and DECLARED[name].scope in (Scope.PLACE, Scope.CALL)


def _run(folder: Path, row: dict[str, Any], metric: str | None) -> RowRun:
    """The run of a row: in its folder; of a search that of the trial picked; of seeds those that the row is of."""
    name = str(row["model"])
    own = folder / name if Path(name).name == name else folder / "-"  # a name that leads elsewhere is no row's
    parts = [f"trial-{row['trial']}"] if "trial" in row else [f"seed-{seed}" for seed in row.get("seeds", [])]
    folders = [one for one in ([own / part for part in parts] or [own]) if (one / "config.yaml").is_file()]
    if not folders or "error" in row:
        return RowRun(folders, [], {})
    return RowRun(folders, curve_of(folders[0], metric), _versions(folders[0] / "versions.json"))


def _versions(file: Path) -> dict[str, str]:
    try:
        kept = read_json(file)
    except UserError:  # a run of an earlier version
        return {}
    return {str(name): str(value) for name, value in kept.items()} if isinstance(kept, dict) else {}
