"""Ctrl-C and SIGTERM during a training, which ends once it is saved."""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TOLD = b"\nstopping once this step is saved; a second time: at once\n"


class Interruption:
    """A context in which the first signal is noted only; a second one ends the program at once.

    A signal that is ignored, as Ctrl-C is in the background, stays ignored. Outside the main thread, where Python
    takes no signals, nothing changes.

    Attributes:
        asked: the signal that came; None: none did.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._process = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        self.asked, self._process = None, os.getpid()
        if threading.current_thread() is threading.main_thread():
            taken = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) or signal.SIG_DFL for number in taken}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a process that makes batches ends with the one that it works for
            return
        if self.asked is not None:
            self.end(number)
        self.asked = number
        with suppress(OSError):  # nobody may read it any more, such as a pipe's end that the same signal has ended
            os.write(2, _TOLD)

    @staticmethod
    def end(number: int) -> NoReturn:
        """Ends the program as a signal asks for: with the code 130 or 143."""
        if number == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt
