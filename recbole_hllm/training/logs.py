"""Log lines of a run: on the console and in its folder."""

import logging
import sys
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def logging_to(file: Path, level: str | None):
    """Sends the root logger, which RecBole's code uses too, to the console and to a file while a run lasts.

    Args:
        file: appended to.
        level: RecBole's ``state``: debug, info, warning, error or critical.
    """
    root = logging.getLogger()
    before = root.level
    handlers = [logging.StreamHandler(sys.stderr), logging.FileHandler(file, encoding="utf-8")]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
        root.addHandler(handler)
    root.setLevel((level or "info").upper())
    try:
        yield
    except Exception as error:
        # The console gets it from whoever catches it; the run's folder would otherwise not know why it ended.
        record = root.makeRecord(root.name, logging.ERROR, __file__, 0, f"{error}", (), None)
        handlers[1].emit(record)
        raise
    finally:
        root.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close() if isinstance(handler, logging.FileHandler) else handler.flush()
