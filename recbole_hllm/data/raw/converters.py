"""Converters: the forms of raw files by name, and what a converter returns.

A converter is a module with ``conversion(raw)``; its docstring is the page that ``convert FORMAT --help`` prints, the
first line a summary. ``OPTIONS``, where it has them, are its own options and their defaults, as text or as a flag.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from recbole_hllm.data.raw.blocks import Block
from recbole_hllm.data.raw.files import Progress, RawFile, find_files
from recbole_hllm.data.raw.report import Report
from recbole_hllm.doors import Door
from recbole_hllm.errors import ConfigError, DataError, did_you_mean

CONVERTERS = Door(
    "raw format",
    {
        "pixelrec": "recbole_hllm.data.raw.pixelrec",
        "amazon2014": "recbole_hllm.data.raw.amazon2014",
        "amazon2018": "recbole_hllm.data.raw.amazon2018",
        "amazon2023": "recbole_hllm.data.raw.amazon2023",
        "movielens": "recbole_hllm.data.raw.movielens",
        "yelp": "recbole_hllm.data.raw.yelp",
        "steam": "recbole_hllm.data.raw.steam",
        "yambda": "recbole_hllm.data.raw.yambda",
        "s3rec": "recbole_hllm.data.raw.s3rec",
        "csv": "recbole_hllm.data.raw.csv",
        "parquet": "recbole_hllm.data.raw.parquet",
        "jsonl": "recbole_hllm.data.raw.jsonl",
    },
    group="recbole_hllm.converters",
)


@dataclass(frozen=True)
class Table:
    """A table of the output, and how it is read.

    Attributes:
        columns: name -> ``token``, ``token_seq`` or ``float``, in the order of the output. Interactions need
            ``user_id``, ``item_id`` and ``timestamp``, items ``item_id``.
        files: those that are read.
        blocks: reads them from their beginning; called once for every pass. Columns of a block are texts.
    """

    columns: dict[str, str]
    files: list[RawFile]
    blocks: Callable[[Report], Iterator[Block]]


@dataclass(frozen=True)
class Conversion:
    """What a converter returns.

    Attributes:
        interactions: part -> table; the part is ``""``, or ``train``, ``valid`` and ``test`` of a ready split.
        items: None where there are no texts.
    """

    interactions: dict[str, Table]
    items: Table | None = None


@dataclass
class Raw:
    """The files and options of one conversion, as a converter sees them.

    Attributes:
        files: everything that the sources hold, files of folders and archives included.
        options: those of the converter, filled with its defaults.
        interaction_files, item_files: those that the options ``--interactions`` and ``--items`` name.
        progress: to be called with the number of bytes read.
        catalogue: while items are read, the ids of those that are wanted; None: all. A converter may leave others out.
    """

    files: list[RawFile]
    options: dict[str, str | bool]
    interaction_files: list[RawFile] = field(default_factory=list)
    item_files: list[RawFile] = field(default_factory=list)
    progress: Progress | None = None
    catalogue: set[str] | None = None

    @classmethod
    def of(cls, sources: list[str], options: dict[str, str | bool], interactions: str = "", items: str = "") -> "Raw":
        """The files under some paths.

        Raises:
            DataError: a path is missing or holds nothing.
        """
        named = [find_files(paths.split(",")) if paths else [] for paths in (interactions, items)]
        return cls(find_files(sources), options, named[0], named[1])

    def chosen(self, option: str, known: dict[str, str]) -> dict[str, str]:
        """Name -> type of the columns that an option names.

        Raises:
            ConfigError: one is not known.
        """
        for name in self.names(option):
            if name not in known:
                raise ConfigError(f"--{option}: '{name}' is none of {', '.join(known)}{did_you_mean(name, known)}")
        return {name: known[name] for name in self.names(option)}

    def text(self, option: str) -> str:
        """The value of an option that is not a flag."""
        return str(self.options[option])

    def names(self, option: str) -> list[str]:
        """The value of an option that lists names, separated by commas."""
        return [name.strip() for name in self.text(option).split(",") if name.strip()]

    def interactions(self, what: str, fits: Callable[[RawFile], bool]) -> RawFile:
        """The one file of interactions.

        Args:
            what: how messages describe it.
            fits: whether a file looks like it.

        Raises:
            DataError: there is none, or several.
        """
        found = self.interaction_files or self.matching(fits)
        return self._only(found, what, "interactions")

    def items(self, what: str, fits: Callable[[RawFile], bool]) -> RawFile | None:
        """The one file of items; None where there is none.

        Raises:
            DataError: there are several.
        """
        found = self.item_files or self.matching(fits)
        return self._only(found, what, "items") if found else None

    def matching(self, fits: Callable[[RawFile], bool]) -> list[RawFile]:
        """Files that look like something."""
        return [file for file in self.files if fits(file)]

    def _only(self, found: list[RawFile], what: str, option: str) -> RawFile:
        if len(found) != 1:
            there = ", ".join(file.name for file in (found or self.files)[:8])
            problem = f"{len(found)} files look like {what}" if found else f"no file looks like {what}"
            raise DataError(f"{problem} (of: {there}); name one with --{option}=FILE")
        return found[0]
