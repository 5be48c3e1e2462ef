"""The schema of keys: what each key is, declared once; checks, property files and documentation are made from it.

A class of settings declares keys as annotated attributes::

    class TextKeys(Settings):
        title = "Item texts"

        MAX_TEXT_LENGTH: int = key(64, "Most tokens of a text.", least=1)

A model's settings are made of such groups, and may have other defaults than they::

    class MySettings(TextKeys):
        MAX_TEXT_LENGTH: int = default(20)

``MySettings.of(config)`` is then read by the model as ``settings.MAX_TEXT_LENGTH``.
"""

import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import inf
from typing import Any, ClassVar, TypeVar

from recbole_hllm.errors import ConfigError, did_you_mean


class Scope(Enum):
    """What a key is of, which decides where it may differ and when it may change."""

    PROTOCOL = "protocol"  # of all rows of a table: data, split, candidates, metrics
    PLACE = "place"  # of a machine: where files lie, on which device; another place gives the same numbers
    CALL = "call"  # of one call of the program; not kept with the run
    MODEL = "model"  # of the model: its parts, and what they read
    TRAINING = "training"  # of how its weights come to be


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        name: as users write it.
        types: the types of its values; several for a key such as ``reference``, which is a switch or names.
        item: the type of the elements, where a value is a list.
        optional: it may be empty (None).
        default: its value where nobody gives one; ``...`` for RecBole's keys, which have RecBole's.
        meaning: one line for property files, help and documentation.
        scope: see ``Scope``.
        least, most: bounds of a number, which are allowed themselves; of each number of a list.
        choices: the words it may be.
        written: its text is written into texts, so that '' and '~' are texts as well and do not mean "empty"; None is
            ''.
        source: it names a file, a folder or a hub id; two places that hold the same are the same value.
        filled: '' and [] are empty as well.
        reported: it only chooses what is reported or how fast, so that the same weights come of another value.
        inherited: a prerequisite run has its value from the run that needs it, as it has those of the protocol.
        one_for_all: no row of a table has one of its own; None where the scope says so.
        title: heading of the group that declares it.
    """

    name: str
    types: tuple[type, ...]
    item: type | None
    optional: bool
    default: Any
    meaning: str
    scope: Scope
    least: float = -inf
    most: float = inf
    choices: tuple[str, ...] = ()
    written: bool = False
    source: bool = False
    filled: bool = False
    reported: bool = False
    inherited: bool = False
    one_for_all: bool | None = None
    title: str = ""

    @property
    def is_text(self) -> bool:
        """A value that reads like a number or a list is text all the same."""
        return self.types == (str,)

    @property
    def shared(self) -> bool:
        """All rows of a table have the same value."""
        return self.scope is Scope.PROTOCOL if self.one_for_all is None else self.one_for_all

    @property
    def decides_weights(self) -> bool:
        """Another value may give other weights."""
        return not self.reported and self.scope not in (Scope.PLACE, Scope.CALL)

    @property
    def type_words(self) -> str:
        """``int``, ``list of str``, ``bool or list``, as property files and help say it; one element may stand for a
        list of it."""
        names = [kind.__name__ for kind in self.types if kind is not self.item]
        if self.item is not None and bool not in self.types:
            names = [name.replace("list", f"list of {self.item.__name__}") for name in names]
        return " or ".join(names)

    def checked(self, value: Any) -> Any:
        """A value in the key's type; whole numbers as int where the key wants them, a single element as a list of one
        where only a list will do stays as it is.

        Raises:
            ConfigError: it is empty, of another type, out of bounds, or not one of the choices.
        """
        if value is None and self.optional:
            return None
        if value is None and self.types == (bool,) and not self.filled:  # an empty switch is as by default
            return None if self.default is ... else self.default
        if value is None and self.written:  # an empty text
            return ""
        if value is None or (self.filled and value in ("", [], {})):
            raise ConfigError(f"{self.name} must not be empty")
        if bool in self.types:
            return self._checked_switch(value)
        if float in self.types or int in self.types or self.item in (float, int):
            return self._checked_numbers(value)
        if self.types == (dict,) and not isinstance(value, dict):
            raise ConfigError(f"{self.name}: {value!r} is not a dict")
        if self.is_text and not self.choices:
            return str(value)
        return self._checked_choice(value)

    def _checked_switch(self, value: Any) -> Any:
        if self.choices and not isinstance(value, int):  # or one of some words
            if value in self.choices:
                return value
            raise ConfigError(f"{self.name}: {value!r} is neither True, False nor {' or '.join(self.choices)}")
        if len(self.types) > 1 and not self.choices:  # or names, which the code that knows them checks
            return value
        if isinstance(value, int) and value in (0, 1):
            return bool(value)
        raise ConfigError(f"{self.name}: {value!r} is neither True nor False")

    def _checked_numbers(self, value: Any) -> Any:
        if list in self.types and isinstance(value, list):
            return [self._checked_number(one) for one in value]
        if self.types == (list,):
            raise ConfigError(f"{self.name}: {value!r} is not a {self.type_words}")
        return self._checked_number(value)

    def _checked_number(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            raise ConfigError(f"{self.name}: {value!r} is not a number")
        whole = int in (*self.types, self.item)
        if whole and value % 1 != 0:
            raise ConfigError(f"{self.name}: {value!r} is not a whole number")
        if not value >= self.least:
            raise ConfigError(f"{self.name}: {value!r} must be at least {self.least}")
        if value > self.most:
            raise ConfigError(f"{self.name}: {value!r} must be at most {self.most}")
        return int(value) if whole else value

    def _checked_choice(self, value: Any) -> Any:
        if self.choices and value not in self.choices:
            hint = did_you_mean(str(value), self.choices)
            raise ConfigError(f"{self.name}: {value!r} is not one of {', '.join(self.choices)}{hint}")
        return value


@dataclass(frozen=True)
class _Declaration:
    """What ``key`` and ``default`` leave in a class body until its name and type are known."""

    values: dict[str, Any]
    of_new_key: bool


def key(
    default: Any,
    meaning: str,
    *,
    scope: Scope = Scope.MODEL,
    least: float = -inf,
    most: float = inf,
    choices: Sequence[str] = (),
    written: bool = False,
    source: bool = False,
    filled: bool = False,
    reported: bool = False,
    inherited: bool = False,
    one_for_all: bool | None = None,
) -> Any:
    """Declares a key; see ``Key`` for the arguments. Its type is the attribute's annotation."""
    return _Declaration({**locals(), "choices": tuple(choices)}, of_new_key=True)


def default(value: Any, meaning: str | None = None, *, choices: Sequence[str] | None = None) -> Any:
    """Another default, and perhaps another line of meaning or other choices, of a key that some class declares."""
    given = {"meaning": meaning, "choices": None if choices is None else tuple(choices)}
    return _Declaration({"default": value, **{k: v for k, v in given.items() if v is not None}}, of_new_key=False)


# Name -> key as it was declared, of every class of settings that was imported.
DECLARED: dict[str, Key] = {}

S = TypeVar("S", bound="Settings")


class Settings:
    """Values of keys, read-only and typed; subclasses declare which.

    Attributes:
        keys: name -> key, of this class and those it is built on, in the order of a property file.
        title: heading of the keys that a class itself declares.
        derived: further values, which the program sets and no user.
    """

    keys: ClassVar[dict[str, Key]] = {}
    title: ClassVar[str] = ""
    derived: ClassVar[tuple[str, ...]] = ()
    _own: ClassVar[dict[str, Key]] = {}

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        hints = typing.get_type_hints(cls)
        declared = {name: value for name, value in vars(cls).items() if isinstance(value, _Declaration)}
        cls._own = {name: _key_of(cls, name, hints[name], value) for name, value in declared.items()}
        for name in declared:
            delattr(cls, name)
        cls.keys = _in_order(cls)

    def __init__(self, values: Mapping[str, Any]) -> None:
        for name in (*self.keys, *self.derived):
            self.__dict__[name] = values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name}: settings are read-only")

    @classmethod
    def of(cls: type[S], config: Any) -> S:
        """The values of these keys in a Config, or another object with ``[name]``; None where it has no such key."""
        return cls({name: config[name] for name in (*cls.keys, *cls.derived)})

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values of some keys, those of these keys in their types; see ``Key.checked``.

        Raises:
            ConfigError: a value that cannot be used.
        """
        return {name: cls.keys[name].checked(value) if name in cls.keys else value for name, value in values.items()}

    def is_default(self, name: str) -> bool:
        """Whether a key has the value that it has where nobody gives one."""
        return bool(self.__dict__[name] == self.keys[name].default)


def _key_of(cls: type[Settings], name: str, hint: Any, declaration: _Declaration) -> Key:
    title = {"title": cls.__dict__["title"]} if "title" in cls.__dict__ else {}
    if not declaration.of_new_key:
        owners = (base._own for base in _bases(cls)[1:] if name in base._own)
        declared = next(owners, DECLARED)  # not inherited: another class's key, taken over with a default of its own
        types_of, item, optional = _read_hint(hint)
        if (types_of, item) != (declared[name].types, declared[name].item):
            raise TypeError(f"key '{name}' of {cls.__name__} has another type than where it is declared")
        return replace(declared[name], optional=optional, **declaration.values, **title)
    if name in DECLARED:
        raise TypeError(f"key '{name}' is declared already; {cls.__name__} can give it another default()")
    types_of, item, optional = _read_hint(hint)
    DECLARED[name] = Key(name=name, types=types_of, item=item, optional=optional, **declaration.values, **title)
    return DECLARED[name]


def _in_order(cls: type[Settings]) -> dict[str, Key]:
    """Keys as Python inherits them, in the order of a page: bases from left to right before what is built on them; a
    group with a title has its keys together."""
    keys: dict[str, Key] = {}
    for group in dict.fromkeys(_walk(cls)):
        for name in group._own:
            if "title" in group.__dict__:
                keys.pop(name, None)
            keys[name] = next(base._own[name] for base in _bases(cls) if name in base._own)
    return keys


def _bases(cls: type[Settings]) -> list[type[Settings]]:
    return [base for base in cls.__mro__ if issubclass(base, Settings)]


def _walk(cls: type[Settings]) -> Iterator[type[Settings]]:
    for base in cls.__bases__:
        if issubclass(base, Settings):
            yield from _walk(base)
    yield cls


def _read_hint(hint: Any) -> tuple[tuple[type, ...], type | None, bool]:
    """``list[int] | None`` as its types, the type of its elements, and whether it may be None."""
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [part for part in parts if part is not type(None)]
    items = [typing.get_args(kind) for kind in kinds if typing.get_origin(kind) is list]
    plain = tuple(typing.get_origin(kind) or kind for kind in kinds)
    return plain, items[0][0] if items else None, len(kinds) < len(parts)


def names(wanted: Callable[[Key], bool]) -> frozenset[str]:
    """Names of the declared keys that ``wanted`` says yes to."""
    return frozenset(name for name, one in DECLARED.items() if wanted(one))
