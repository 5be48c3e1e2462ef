"""Tables of the report as LaTeX with booktabs, to be read into a paper with its input command."""

import re
from collections.abc import Sequence

from recbole_hllm.report.sections import Cell, Table

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$", "–": "--", "×": r"$\times$",
}  # fmt: skip
# A table wider than the page is made as wide as it; graphicx.
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
_ANY = re.compile("|".join(map(re.escape, _SPECIAL)))


def escaped(text: str) -> str:
    """A text that LaTeX prints as it is, in one line. A bracket at its start is kept from being an option."""
    text = _ANY.sub(lambda match: _SPECIAL[match[0]], " ".join(text.split()))
    return "{[}" + text[1:] if text.startswith("[") else text


def to_latex(tables: Sequence[Table]) -> str:
    """A ``table`` for each table, in the encoding UTF-8; the preamble needs booktabs, graphicx for wide ones, and
    fontenc T1 for quotes."""
    head = "% \\usepackage{booktabs,graphicx} \\usepackage[T1]{fontenc}\n"
    return head + "\n".join(map(_table, tables))


def _table(table: Table) -> str:
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(table.title)}}}",
        _FITTED,
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"\toprule",
        " & ".join(map(escaped, table.columns)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_cell, row)) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _cell(cell: Cell) -> str:
    return rf"\textbf{{{escaped(cell.text)}}}" if cell.best else escaped(cell.text)
