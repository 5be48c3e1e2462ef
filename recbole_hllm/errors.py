"""Errors that are the user's to fix: the command line prints their message without a traceback."""

import linecache
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

# How models of RecBole end where a value is wrong, checked or not.
WRONG_VALUE = (ValueError, AssertionError, NotImplementedError, LookupError, TypeError, ZeroDivisionError)


class UserError(ValueError):
    """What is wrong, where (file, line, key), and what to do about it."""


class ConfigError(UserError):
    """A key, value or name in the configuration is wrong."""


class DataError(UserError):
    """A data file is missing or its content cannot be used."""


class ModelError(UserError):
    """A language model, tokenizer or checkpoint cannot be used."""


class Damaged(ModelError):
    """A file of a checkpoint is missing, or not as it was written."""


class MissingExtra(UserError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, why: str) -> None:
        super().__init__(f"{why} needs the package '{package}': pip install 'recbole-hllm[{extra}]'")


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Says in an error of what is done inside, whatever its kind, where it is: a key, a stage or a model."""
    try:
        yield
    except UserError as error:
        error.args = (f"{where}: {error}",)
        raise


def words_of(error: Exception) -> str:
    """What an exception says; the code that it comes from where it says nothing, or little alone."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    last = getattr(frame, "end_lineno", None) or frame.lineno  # not known before Python 3.11
    lines = linecache.getlines(frame.filename)[frame.lineno - 1 : last] if frame.lineno else []
    code = " ".join(" ".join(lines).split())
    if isinstance(error, (LookupError, TypeError)):
        return f"{type(error).__name__} in '{code}': {error}"
    return str(error) or code


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name as the end of an error message, whatever its case; empty when none is near."""
    by_lower = {word.lower(): word for word in sorted(known)}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean '{by_lower[close[0]]}'?" if close else ""
