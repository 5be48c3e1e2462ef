"""Report: how many rows of a table were read and written, and which lines and rows were left out, and why."""

from collections import Counter

from recbole_hllm.errors import DataError

# Why a row of an item is left out that occurs in no interaction.
UNUSED = "no interactions"
# Malformed lines, and repeated rows, that are shown.
_SHOWN = 5


class Report:
    """What happened to the rows of a table.

    Attributes:
        rows: rows that could be read.
        written: rows of the output.
        malformed: lines that could not be read.
        left_out: reason -> rows that could be read and are not in the output.
        shown: the first malformed lines and repeated rows: file, line and reason.

    Args:
        strict: the first malformed line is an error.
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.rows = self.written = self.malformed = 0
        self.left_out: Counter[str] = Counter()
        self.shown: list[dict[str, object]] = []
        self._malformed_shown = self._noted_shown = 0

    def refuse(self, file: str, line: int, reason: str, lines: int = 1) -> None:
        """Counts a malformed line, or several, the first of them given.

        Raises:
            DataError: the conversion is strict.
        """
        if self.strict:
            raise DataError(f"{file}, line {line}: {reason}; without --strict such lines are counted and left out")
        self.malformed += lines
        if self._malformed_shown < _SHOWN:
            self._malformed_shown += 1
            self._show(file, line, reason)

    def leave_out(self, reason: str, rows: int) -> None:
        """Counts rows that are not written."""
        if rows:
            self.left_out[reason] += rows

    def note(self, file: str, line: int, what: str) -> None:
        """Shows something about a line that is no malformed one, if it is among the first of such."""
        if self._noted_shown < _SHOWN:
            self._noted_shown += 1
            self._show(file, line, what)

    def _show(self, file: str, line: int, reason: str) -> None:
        self.shown.append({"file": file, "line": line, "reason": reason})

    def summary(self) -> dict[str, object]:
        """The numbers, as they stand in a JSON file."""
        return {
            "read": self.rows, "written": self.written, "malformed": self.malformed,
            "left_out": dict(self.left_out), "lines": self.shown,
        }  # fmt: skip
