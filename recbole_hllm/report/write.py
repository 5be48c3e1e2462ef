"""write_report(): a table's folder as Markdown, CSV, LaTeX, JSON and one HTML page."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recbole_hllm.errors import ConfigError, did_you_mean
from recbole_hllm.report.compared import Compared, compare_users
from recbole_hllm.report.content import Content, read_content
from recbole_hllm.report.figures import Figure, figures_of, fronts
from recbole_hllm.report.latex import to_latex
from recbole_hllm.report.markdown import to_markdown
from recbole_hllm.report.page import to_page
from recbole_hllm.report.plots import check_plots, write_plots
from recbole_hllm.report.sections import sections_of
from recbole_hllm.runs.folder import make_folder
from recbole_hllm.storage.files import finite, json_text, write_whole
from recbole_hllm.tables.table import to_csv

NAME = "report"
EXAMPLES = 3


def write_report(
    folder: str | Path,
    to: str | Path | None = None,
    against: str | None = None,
    examples: int = EXAMPLES,
    plots: Sequence[str] = (),
) -> list[Path]:
    """Writes ``report.html``, ``.md``, ``.csv``, ``.tex`` and ``.json`` of a table, and figures as files.

    Everything comes from the table's folder; texts of items from the data set, where it is on this machine, and lists
    from the weights, where they are kept. A report that is there is written again.

    Args:
        folder: of a table or a search.
        to: folder of the report; None: that of the table.
        against: the row that is compared with each other user by user; None: the one that leads.
        examples: how many users are shown where that row is furthest ahead of the best other, and how many where it is
            furthest behind. More than 0 reads the data and the weights of both rows.
        plots: formats of files of figures: svg, png, pdf. Needs the extra ``plots``.

    Returns:
        The files written.

    Raises:
        ConfigError: there is no table, no such row or format, or a file cannot be written.
        MissingExtra: matplotlib is not installed.
    """
    check_plots(plots)
    if examples < 0:
        raise ConfigError(f"examples: {examples} is less than 0")
    content = read_content(Path(folder))
    names = [row["model"] for row in content.rows]
    if against is not None and against not in names:
        raise ConfigError(
            f"against: '{against}' is not a row of this table ({', '.join(names)}){did_you_mean(against, names)}"
        )
    compared = compare_users(content, against, examples)
    target = Path(to) if to is not None else content.folder
    make_folder(target)
    figures, title = figures_of(content), f"{content.header.get('dataset') or content.folder.name}: results"
    sections = sections_of(content, compared)
    texts = {
        "html": to_page(title, sections, figures, compared.examples, content.keys),
        "md": to_markdown(title, sections, compared.examples, content.keys),
        "csv": to_csv(content.rows),
        "tex": to_latex([table for section in sections for table in section.tables if table.ranked]),
        "json": json_text(finite(_numbers(content, figures, compared))),
    }
    written = [target / f"{NAME}.{kind}" for kind in texts]
    for path, text in zip(written, texts.values(), strict=True):
        write_whole(path, text)
    if plots:
        make_folder(target / "figures")
    return [*written, *write_plots(target / "figures", figures, plots)]


def _numbers(content: Content, figures: Sequence[Figure], compared: Compared) -> dict[str, Any]:
    """Everything that the report says, as plain values."""
    return {
        "header": content.header,
        "rows": content.rows,
        "metric": content.metric,
        "pareto_fronts": fronts(content),
        "curves": {name: run.curve for name, run in content.runs.items() if run.curve},
        "figures": [asdict(figure) for figure in figures],
        "compared_with_others": compared.named,
        "users": [asdict(one) for one in compared.wins],
        "examples": [asdict(one) for one in compared.examples],
        "versions": {name: run.versions for name, run in content.runs.items() if run.versions},
        "keys": content.keys,
    }
