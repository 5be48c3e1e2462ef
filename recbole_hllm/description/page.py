"""A description as one HTML page that needs nothing else: styles and plots are inside, and it runs no code."""

import re
from html import escape
from typing import Any

from recbole_hllm.description.plots import drawn
from recbole_hllm.description.sections import Section, Table, sections_of

_KEY = re.compile(r"--[A-Za-z_]+(=\S*[^\s,.;:])?")
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; margin: 2rem auto; max-width: 60rem;
       padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid #bbb; }
a { color: #0b4f8a; } nav a { margin-right: 1rem; white-space: nowrap; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .3rem 0 .8rem; font-variant-numeric: tabular-nums; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; } code { white-space: nowrap; }
.pair { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: flex-start; }
th, td { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid #ddd; font-weight: normal; }
thead th { border-bottom: 2px solid #777; font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
figure { margin: .3rem 0; flex: 1 1 26rem; max-width: 38rem; } svg { width: 100%; height: auto; }
#look-at li { margin-bottom: .4rem; }
@media print { nav { display: none; } body { margin: 0; max-width: none; font-size: 11px; }
  .pair, .pair table { break-inside: avoid; } h2, h3 { break-after: avoid; } figure { max-width: 24rem; } }
""".strip()


def to_page(result: dict[str, Any]) -> str:
    """The page of what ``describe`` found."""
    sections = sections_of(result)
    title = f"{result['dataset']}: the data set"
    links = "".join(f'<a href="#{_anchor(section)}">{escape(section.title)}</a> ' for section in sections)
    keys = "".join(f", <code>{escape(f'{key}: {value}')}</code>" for key, value in result["keys"].items())
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>",
            f"<h1>{escape(title)}</h1>",
            f"<p>Read with the keys of {escape(result['model'])}{keys}.</p>",
            f"<nav>{links}</nav>\n<main>",
            *map(_section, sections),
            "</main>\n</body>\n</html>\n",
        ]
    )


def _anchor(section: Section) -> str:
    return section.title.lower().replace(" ", "-")


def _section(section: Section) -> str:
    sentences = "".join(f"<li>{_sentence(sentence)}</li>" for sentence in section.sentences)
    listed = f"<ul>{sentences}</ul>" if sentences else ""
    tables = "\n".join(map(_table, section.tables))
    return f'<section id="{_anchor(section)}">\n<h2>{escape(section.title)}</h2>\n{listed}\n{tables}\n</section>'


def _table(table: Table) -> str:
    """A table, beside its plot where it has one."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in table.rows
    )
    heading = f"<h3>{escape(table.title)}</h3>\n" if table.title else ""
    figure = f"<figure>\n{drawn(table)}\n</figure>\n" if table.plot else ""
    inside = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>"
    return f'{heading}<div class="pair">\n{figure}<div class="scroll"><table>{inside}</table></div>\n</div>'


def _sentence(text: str) -> str:
    """A sentence, keys of the command line as code."""
    return _KEY.sub(r"<code>\g<0></code>", escape(text, quote=False))
