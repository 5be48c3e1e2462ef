"""Doors: tables of what the program has by name, verbs, metrics, file formats, to which installed packages may add.

A row is a name and where to find what it stands for, ``package.module`` or ``package.module:Name``, which is imported
when it is used. An installed package adds rows with an entry point of the door's group.
"""

import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from recbole_hllm.errors import ConfigError, did_you_mean

_PLACE = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"


class Door:
    """The things of one kind, by name.

    Args:
        kind: what an error calls one of them, such as ``verb``.
        rows: name -> its place.
        group: entry points of installed packages that add rows; one that takes a name of ``rows`` is an error.
    """

    def __init__(self, kind: str, rows: dict[str, str], group: str) -> None:
        self.kind, self.rows, self.group = kind, rows, group

    def __contains__(self, name: object) -> bool:
        return name in self.rows or name in self.installed()

    def __iter__(self) -> Iterator[str]:
        return iter((*self.rows, *self.installed()))

    def installed(self) -> dict[str, EntryPoint]:
        """Rows that installed packages add.

        Raises:
            ConfigError: two of them, or one and this package, have the same name.
        """
        return _installed(self.kind, self.group, frozenset(self.rows))

    def load(self, name: str) -> Any:
        """What a name stands for.

        Raises:
            ConfigError: there is no such row, or its module cannot be imported.
        """
        if name not in self:
            raise ConfigError(f"there is no {self.kind} named '{name}'{did_you_mean(name, self)}")
        if name in self.rows:
            return _load(self.rows[name])
        point = self.installed()[name]
        return load_place(point.value, f"{self.kind} '{name}' of the package {package_of(point)}")


@lru_cache
def _installed(kind: str, group: str, ours: frozenset[str]) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        other = "recbole-hllm" if point.name in ours else point.name in found and package_of(found[point.name])
        if other:
            raise ConfigError(
                f"the package {package_of(point)} adds a {kind} named '{point.name}', a name that {other} has already; "
                "rename it, or uninstall one of the two"
            )
        found[point.name] = point
    return found


def package_of(point: EntryPoint) -> str:
    """The installed package that an entry point is of."""
    return point.dist.name if point.dist else point.value


def is_place(name: object) -> bool:
    """Whether a name says where something is to be imported from: ``package.module:Name``."""
    return isinstance(name, str) and re.fullmatch(_PLACE, name) is not None


def place_of(thing: type) -> str:
    """Where a class is imported from, ``package.module:Name``."""
    return f"{thing.__module__}:{thing.__qualname__}"


def is_importable(thing: type) -> bool:
    """Whether another process can import a class: one of a script, a notebook or a function it cannot."""
    return thing.__module__ != "__main__" and is_place(place_of(thing))


def folder_of(thing: type) -> Path:
    """The folder from which the module of a class is imported, one of ``sys.path``."""
    file = Path(inspect.getfile(thing)).resolve()
    return file.parents[thing.__module__.count(".") + (file.stem == "__init__")]


def load_place(place: str, where: str) -> Any:
    """What ``package.module:Name`` or ``package.module`` of somebody else names; modules of the current folder are
    found, too.

    Args:
        where: begins every error: a key, or what it is.

    Raises:
        ConfigError: no such module, no such name in it, or the import fails; says the line that fails.
    """
    module = place.partition(":")[0]
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return _load(place)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{where}: there is no module '{error.name}' in the current folder or in PYTHONPATH, and no such "
                "package is installed"
            ) from error
        raise _failed(where, module, error) from error
    except AttributeError as error:
        names = getattr(error.obj, "__dict__", {}) if getattr(error.obj, "__name__", None) == module else None
        if names is None:
            raise _failed(where, module, error) from error
        wanted = place.partition(":")[2]
        public = [name for name in names if not name.startswith("_")]
        raise ConfigError(f"{where}: {module} has no '{wanted}'{did_you_mean(wanted, public)}") from error
    except (Exception, SystemExit) as error:  # a script that reads its own words when imported, say
        raise _failed(where, module, error) from error


def _failed(where: str, module: str, error: BaseException) -> ConfigError:
    if isinstance(error, SyntaxError):
        return ConfigError(f"{where}: {module} cannot be imported: {error.filename}, line {error.lineno}: {error.msg}")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    last = [frame for frame in frames if "importlib" not in frame.filename][-1:] or frames[-1:]
    line = f"{last[0].filename}, line {last[0].lineno}: " if last else ""
    return ConfigError(f"{where}: {module} cannot be imported: {line}{type(error).__name__}: {error}")


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    found = import_module(module)
    return getattr(found, name) if name else found
