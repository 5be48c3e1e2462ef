"""Output into a pipe that nobody reads any more, as after ``| head``: work goes on without it."""

import io
import os
import stat
import sys
from typing import Any


def outlive_readers() -> None:
    """Makes standard output and error of this process go nowhere once the program behind their pipe has ended.

    Python would raise BrokenPipeError at whatever is printed next, a line of progress say, and a training would be
    lost. The command line calls it at its start. Streams that are no pipes stay as they are.
    """
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)


def _is_pipe(stream: Any) -> bool:
    """Whether it writes text into a pipe or a socket; another program's stream, as of tests or notebooks, does not."""
    if type(stream) is not io.TextIOWrapper:
        return False
    try:
        kind = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)


def _lasting(stream: Any) -> Any:
    """The same output by another stream; one that is no pipe as it is."""
    if not _is_pipe(stream):
        return stream
    stream.flush()
    pipe: Any = _Pipe(stream.fileno(), "wb", closefd=False)
    unbuffered = isinstance(stream.buffer, io.RawIOBase)  # python -u
    return io.TextIOWrapper(
        pipe if unbuffered else io.BufferedWriter(pipe),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Pipe(io.FileIO):
    """Whose number is that of nowhere as soon as it is broken, for programs that are started then, too."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)
