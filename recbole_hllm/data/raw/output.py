"""Output: the files of a converted data set, which appear together under their names, or not at all."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from recbole_hllm.errors import ConfigError, DataError, UserError
from recbole_hllm.storage.files import json_text, read_json

FORMS = {"atomic": "", "parquet": ".parquet"}
_PARTS = ("", ".train", ".valid", ".test")
_TYPES = {"token": pa.string(), "token_seq": pa.string(), "float": pa.float64()}


class Output:
    """The files of a data set, under hidden temporary names until ``finish``.

    Args:
        folder: of the data set; its name is the data set's.
        form: ``atomic`` or ``parquet``.
        overwrite: files of the data set that exist may be replaced.

    Raises:
        ConfigError: no such form.
        DataError: files exist, or another conversion writes into the folder.
    """

    def __init__(self, folder: Path, form: str = "atomic", overwrite: bool = False) -> None:
        if form not in FORMS:
            raise ConfigError(f"--as={form} must be one of {', '.join(FORMS)}")
        self.folder, self.form = folder, form
        self.name = folder.name
        self._tables: dict[str, _AtomicWriter | _ParquetWriter] = {}
        there = [path for path in self._possible() if path.exists()]
        if there and not overwrite:
            raise DataError(
                f"{there[0]} exists; --overwrite replaces the files of the data set, or choose another --to"
            )

    def spare(self, sources: Iterable[Path]) -> None:
        """Raises DataError where the conversion would replace or remove a file that it reads."""
        own = {path.resolve() for path in self._possible()}
        for source in sources:
            if source.resolve() in own:
                raise DataError(f"{source} is read and would be replaced; choose another --to")

    def __enter__(self) -> "Output":
        with self._writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._facts = _locked(self._hidden(f"{self.name}.json"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for table in self._tables.values():
            table.abandon()
        for name in [*self._tables, f"{self.name}.json"]:
            self._hidden(name).unlink(missing_ok=True)
        _close(self._facts)

    def open(self, table: str, columns: dict[str, str]) -> None:
        """Begins a table.

        Args:
            table: ``inter``, ``train.inter``, ``item``.
            columns: name -> type, in order.
        """
        name = self._file_of(table)
        writer = _ParquetWriter if self.form == "parquet" else _AtomicWriter
        with self._writing(self.folder / name):
            self._tables[name] = writer(self._hidden(name), columns)

    def write(self, table: str, columns: dict[str, pa.Array]) -> None:
        """Adds rows.

        Raises:
            DataError: the disk is full, say.
        """
        name = self._file_of(table)
        with self._writing(self.folder / name):
            self._tables[name].write(columns)

    def finish(self, about: dict[str, Any]) -> list[Path]:
        """Gives the files their names, that with the facts about them last.

        Args:
            about: content of the JSON file.

        Returns:
            The files.

        Raises:
            DataError: the disk is full, say.
        """
        facts = self.folder / f"{self.name}.json"
        for name, table in self._tables.items():
            with self._writing(self.folder / name):
                table.close()
        with self._writing(facts):
            self._facts.write(json_text({**about, "tables": [*self._tables]}).encode())
            self._facts.flush()
            replaced = self._replaced(facts)
            facts.unlink(missing_ok=True)  # until the new one is there, nothing says that the files belong together
        files = [self.folder / name for name in self._tables]
        for file in files:
            with self._writing(file):
                os.replace(self._hidden(file.name), file)
        for old in replaced:
            old.unlink(missing_ok=True)
        with self._writing(facts):
            self._facts.close()
            os.replace(self._hidden(facts.name), facts)
        self._tables = {}
        return [*files, facts]

    def _replaced(self, facts: Path) -> set[Path]:
        """Files that the new ones take the place of, beside those of the same names: what the conversion before wrote,
        and the same tables in another form. Others are the user's."""
        forms = {name.removesuffix(FORMS[self.form]) + ending for name in self._tables for ending in FORMS.values()}
        before = None
        with suppress(UserError):  # damaged, or none
            before = read_json(facts) if facts.is_file() else None
        names = forms | set(before.get("tables", []) if isinstance(before, dict) else [])
        return {path for path in self._possible() if path.name in names - self._tables.keys() - {facts.name}}

    def _file_of(self, table: str) -> str:
        return f"{self.name}.{table}{FORMS[self.form]}"

    def _hidden(self, name: str) -> Path:
        return self.folder / f".{name}.part"

    def _possible(self) -> list[Path]:
        """Every file that a conversion to this folder may write."""
        tables = [f"{self.name}{part}.inter" for part in _PARTS] + [f"{self.name}.item"]
        names = [f"{table}{ending}" for table in tables for ending in FORMS.values()]
        return [self.folder / name for name in [*names, f"{self.name}.json"]]

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"cannot write {path}: {error.strerror or error}; the unfinished files were removed"
            ) from error


class _AtomicWriter:
    """RecBole's atomic file: a header of ``name:type``, cells separated by tabs."""

    def __init__(self, path: Path, columns: dict[str, str]) -> None:
        self._names = list(columns)
        self._stream = open(path, "wb")
        self._stream.write(("\t".join(f"{name}:{kind}" for name, kind in columns.items()) + "\n").encode())

    def write(self, columns: dict[str, pa.Array]) -> None:
        cells = [columns[name] for name in self._names]
        filled = dict(null_handling="replace", null_replacement="")
        cells[-1] = pc.binary_join_element_wise(cells[-1], "", "\n", **filled)
        lines = pc.binary_join_element_wise(*cells, "\t", **filled)
        ends = np.frombuffer(lines.buffers()[1], np.int32)[lines.offset :]
        self._stream.write(memoryview(lines.buffers()[2])[ends[0] : ends[len(lines)]])

    def close(self) -> None:
        self._stream.close()

    def abandon(self) -> None:
        _close(self._stream)


class _ParquetWriter:
    """A Parquet file whose columns are called as those of the atomic file."""

    def __init__(self, path: Path, columns: dict[str, str]) -> None:
        self._columns = columns
        self._schema = pa.schema([(f"{name}:{kind}", _TYPES[kind]) for name, kind in columns.items()])
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, columns: dict[str, pa.Array]) -> None:
        arrays = [_as_type(columns[name], _TYPES[kind]) for name, kind in self._columns.items()]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()

    def abandon(self) -> None:
        _close(self._writer)


def _close(opened: Any) -> None:
    """What could not be written is of no more use."""
    with suppress(OSError):
        opened.close()


def _as_type(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if kind == pa.float64():
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    return column.cast(kind)


def _locked(path: Path) -> Any:
    """The file, open and locked until it is closed; the system frees it when the process ends.

    Raises:
        DataError: another process has it.
    """
    stream = open(path, "ab")  # what another process has written stays
    try:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(stream.fileno()), os.stat(path)):
            raise FileExistsError(f"{path} was given its own name meanwhile")
    except ImportError:  # Windows
        pass
    except OSError as error:
        stream.close()
        raise DataError(f"another conversion writes into {path.parent}; wait for its end") from error
    stream.truncate(0)
    return stream
