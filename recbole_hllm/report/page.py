"""The report as one HTML page that needs nothing else: styles, script and figures are inside, and nothing is loaded."""

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from recbole_hllm.report.examples import Example
from recbole_hllm.report.figures import Figure
from recbole_hllm.report.sections import Cell, Section, Table
from recbole_hllm.report.svg import drawn, legend

_TWO_COLUMNS = 2  # of a table of names and values, which nobody sorts


def to_page(
    title: str, sections: Sequence[Section], figures: Sequence[Figure], examples: Sequence[Example], keys: str | None
) -> str:
    """The page; all texts of the data and of names are escaped, and its own script is the only one that may run."""
    style, script = (files("recbole_hllm.report").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    parts = [_section(section, figures, examples) for section in sections]
    links = [(_anchor(section.title), section.title) for section in sections]
    if keys is not None:
        parts.append(f'<section id="keys">\n<h2>Keys</h2>\n<pre tabindex="0">{escape(keys)}</pre>\n</section>')
        links.append(("keys", "Keys"))
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hashed}'; base-uri 'none'"
    navigation = "".join(f'<a href="#{anchor}">{escape(name)}</a> ' for anchor, name in links)
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>",
            f"<h1>{escape(title)}</h1>\n<nav>{navigation}</nav>\n<main>",
            *parts,
            f"</main>\n<script>{script}</script>\n</body>\n</html>\n",
        ]
    )


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _section(section: Section, figures: Sequence[Figure], examples: Sequence[Example]) -> str:
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in section.sentences)
    shown = [figure for figure in figures if figure.name.startswith(section.figures)] if section.figures else []
    parts = [
        f'<section id="{_anchor(section.title)}">\n<h2>{escape(section.title)}</h2>',
        f'<ul class="said">{sentences}</ul>' if sentences else "",
        f'<div class="figures">\n{"".join(map(_figure, shown))}</div>' if shown else "",
        *(_table(table, table.title if table.title != section.title else "") for table in section.tables),
        _examples(examples) if section.examples else "",
        "</section>",
    ]
    return "\n".join(filter(None, parts))


def _figure(figure: Figure) -> str:
    note = f'<p class="soft">{escape(figure.note)}</p>' if figure.note else ""
    return (
        f"<figure>\n<figcaption>{escape(figure.title)}</figcaption>\n{drawn(figure)}\n{legend(figure)}{note}</figure>\n"
    )


def _table(table: Table, title: str) -> str:
    heading = f"<h3>{escape(title)}</h3>\n" if title else ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(row[0].text)}</th>{"".join(map(_cell, row[1:]))}</tr>' for row in table.rows
    )
    kind = "plain" if len(table.columns) == _TWO_COLUMNS else "ranked"
    note = f'\n<p class="soft">{escape(table.note)}</p>' if table.note else ""
    return (
        f'{heading}<div class="scroll" role="region" aria-label="{escape(table.title)}" tabindex="0">'
        f'<table class="{kind}"><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>{note}'
    )


def _cell(cell: Cell) -> str:
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    return f"<td{value}{' class=best' if cell.best else ''}>{escape(cell.text)}</td>"


def _examples(examples: Sequence[Example]) -> str:
    return f'<div class="examples">\n{"".join(map(_example, examples))}</div>' if examples else ""


def _example(example: Example) -> str:
    (named, rank), (other, others) = example.ranks.items()
    ahead, behind = ((named, rank), (other, others))[:: 1 if example.won else -1]
    heading = f"{ahead[0]} ranks it {ahead[1]:,}, {behind[0]} {behind[1]:,}"
    entries = [
        ("user", escape(example.user)),
        ("last items", escape("; ".join(example.history) or "nothing")),
        ("next, held out", escape("; ".join(example.targets))),
        *((f"{row} lists", _list(items, example.targets)) for row, items in example.lists.items()),
    ]
    body = "".join(f"<dt>{escape(label)}</dt><dd>{value}</dd>" for label, value in entries)
    return f'<div class="example">\n<h4>{escape(heading)}</h4>\n<dl>{body}</dl>\n</div>\n'


def _list(items: Sequence[str], targets: Sequence[str]) -> str:
    entries = (f"<li{' class=hit' if item in targets else ''}>{escape(item)}</li>" for item in items)
    return f"<ol>{''.join(entries)}</ol>"
