"""Log lines of a run: on the console and in its folder."""

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recbole_hllm.errors import ConfigError, UserError
from recbole_hllm.processes import current
from recbole_hllm.storage.files import writing

_LEVELS = ("debug", "info", "warning", "error", "critical")
_LINE = "%(asctime)s %(levelname).1s %(message)s"
_OF_A_RUN = "recbole_hllm"  # name of a run's handlers
_ERROR_LINE = re.compile(r"\d\d:\d\d:\d\d E (.*)")


@contextmanager
def logging_to(file: Path, level: str | None) -> Iterator[None]:
    """Sends the root logger, which RecBole's code uses too, to the console and to a file while a run lasts.

    Of a run inside another, which needs it first, the lines go to its own file only. Of several processes the first one
    writes; the others have warnings and errors for the console only.

    Args:
        file: appended to.
        level: RecBole's ``state``: debug, info, warning, error or critical; None is info.

    Raises:
        ConfigError: another level, or a file that cannot be written.
    """
    level = str(level or "info").lower()
    if level not in _LEVELS:
        raise ConfigError(f"state: '{level}' is not one of {', '.join(_LEVELS)}")
    root, processes = logging.getLogger(), current()
    before, line, in_folder = root.level, _LINE, _in_folder(file)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr), in_folder]
    if not processes.is_first:
        line = f"process {processes.rank} of {processes.world_size}: {_LINE}"
        handlers[0].setLevel(logging.WARNING)
    outer = [handler for handler in root.handlers if handler.name == _OF_A_RUN]
    for handler in outer:
        root.removeHandler(handler)
    for handler in handlers:
        handler.name = _OF_A_RUN
        handler.setFormatter(logging.Formatter(line, "%H:%M:%S"))
        root.addHandler(handler)
    root.setLevel(level.upper())
    try:
        yield
    except Exception as error:
        # The console gets it from whoever catches it; the run's folder would otherwise not know why it ended.
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        trace = None if isinstance(error, UserError) else sys.exc_info()
        in_folder.emit(root.makeRecord(root.name, logging.ERROR, __file__, 0, message, (), trace))
        raise
    finally:
        root.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)
        for handler in outer:
            root.addHandler(handler)
        with suppress(OSError):  # a full disk: each line that is missing was complained of on the console
            in_folder.close()


def _in_folder(file: Path) -> logging.Handler:
    if not current().is_first:
        return logging.NullHandler()
    with writing(file):
        return logging.FileHandler(file, encoding="utf-8")


def last_error(file: Path) -> str | None:
    """The last error in a log file, in one line; None if there is none."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    errors = [match[1] for line in lines if (match := _ERROR_LINE.match(line))]
    return errors[-1] if errors else None


def check_wandb(config: Mapping[str, Any]) -> None:
    """Raises ConfigError where Weights and Biases is to log a run and is not installed."""
    if config["log_wandb"] and find_spec("wandb") is None:
        raise ConfigError("log_wandb: the package wandb is not installed: pip install wandb, or leave the key out")
