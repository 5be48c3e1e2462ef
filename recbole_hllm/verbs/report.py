"""Writes the report of a table: one HTML page, Markdown, CSV, LaTeX and JSON, and figures as files.

Everything comes from the folder of the table, and of texts and lists from data and weights where they are there.

usage: recbole-hllm report FOLDER [--to FOLDER] [--against ROW] [--examples N] [--plots svg,png]

  FOLDER                    of a table or a search: it has table.json, and the folders of its runs
  --to FOLDER               of the report; default that of the table
  --against ROW             the row that is compared with each other user by user; default the one that leads
  --examples N              users that are shown where that row wins most, and where it loses most; default 3; 0 reads
                            neither data nor weights
  --plots svg,png           figures as files, too: svg, png or pdf; needs the extra plots
"""

from recbole_hllm.errors import ConfigError, did_you_mean
from recbole_hllm.verbs.line import parse_arguments

_OPTIONS = ("to", "against", "examples", "plots")


def main(words: list[str]) -> int:
    """One report."""
    words = list(words)
    if not words or words[0].startswith("-"):
        raise ConfigError("report: name the folder of a table: recbole-hllm report FOLDER")
    folder, given = words.pop(0), parse_arguments(words)
    for name, value in given.items():
        if name not in _OPTIONS:
            raise ConfigError(f"report: there is no --{name}{did_you_mean(name, _OPTIONS)}")
        if value == "True":
            raise ConfigError(f"report: --{name} needs a value")
    number = given.get("examples")
    if number is not None and not number.isdecimal():
        raise ConfigError(f"report: --examples={number} is not a number")
    from recbole_hllm.report.write import EXAMPLES, write_report

    plots = [name.strip() for name in given.get("plots", "").split(",") if name.strip()]
    examples = EXAMPLES if number is None else int(number)
    for path in write_report(folder, given.get("to"), given.get("against"), examples, plots):
        print(path)
    return 0
