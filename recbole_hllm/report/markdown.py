"""The report as Markdown."""

import re

from recbole_hllm.report.examples import Example
from recbole_hllm.report.sections import Section, Table

# What Markdown, or HTML inside it, would read as more than text.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~&])")


def escaped(text: str) -> str:
    """A text that Markdown shows as it is, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def to_markdown(title: str, sections: list[Section], examples: list[Example], keys: str | None) -> str:
    """Sections under headings; examples and keys at the end."""
    blocks = [f"# {escaped(title)}"]
    for section in sections:
        if not section.sentences and not section.tables:  # figures alone
            continue
        blocks.append(f"## {escaped(section.title)}")
        blocks += ["\n".join(f"- {escaped(sentence)}" for sentence in section.sentences)] * bool(section.sentences)
        for table in section.tables:
            heading = [f"### {escaped(table.title)}"] if table.title != section.title else []
            blocks += [*heading, _table(table), *([escaped(table.note)] if table.note else [])]
    if examples:
        blocks += ["## Examples", *map(_example, examples)]
    if keys is not None:
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", keys)), default=0))
        blocks += ["## Keys", f"{fence}yaml\n{keys.rstrip()}\n{fence}"]
    return "\n\n".join(blocks) + "\n"


def _table(table: Table) -> str:
    lines = [list(map(escaped, table.columns)), ["---"] + ["---:"] * (len(table.columns) - 1)]
    for row in table.rows:
        lines.append([f"**{escaped(cell.text)}**" if cell.best else escaped(cell.text) for cell in row])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _example(example: Example) -> str:
    ranks = ", ".join(f"{row} {rank}" for row, rank in example.ranks.items())
    lines = [
        f"- user {example.user}, rank of the target: {ranks}",
        f"  had: {'; '.join(example.history) or 'nothing'}",
        f"  next: {'; '.join(example.targets)}",
        *(f"  {row} lists: {'; '.join(items)}" for row, items in example.lists.items()),
    ]
    return "\n".join(f"{line[:2]}{escaped(line[2:])}" + "  " * (line is not lines[-1]) for line in lines)
