"""Property files and the key reference, written from the schema: ``python -m recbole_hllm.config.property_files``."""

import inspect
import json
from math import inf
from pathlib import Path
from typing import Any

import yaml

from recbole_hllm.config.keys.pages import PAGES
from recbole_hllm.config.places import properties_folder
from recbole_hllm.config.schema import Key, Scope, Settings

# Column where comments begin.
_COMMENTS = 32


def page(settings: type[Settings], *known: type[Settings]) -> str:
    """A property file: what it is for, then every key in its group with its default, type and meaning.

    Args:
        settings: the keys of the page.
        known: keys that stand in another file, and here only where their default differs from all of them.
    """
    lines, title = [_comment(inspect.getdoc(settings) or "")], None
    for one in listed(settings, *known):
        if one.title != title:
            lines += ["", f"# {one.title}"]
            title = one.title
        lines += _entry(one)
    return "\n".join(lines) + "\n"


def listed(settings: type[Settings], *known: type[Settings]) -> list[Key]:
    """The keys of a page, without those that stand so in another file."""
    return [one for name, one in settings.keys.items() if not any(other.keys.get(name) is one for other in known)]


def _comment(text: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in text.splitlines())


def _entry(one: Key) -> list[str]:
    first, *further = _value(one)
    start = f"{one.name}: {first}".rstrip()
    return [f"{start:<{_COMMENTS - 2}}  # ({one.type_words}) {one.meaning}", *further]


def _value(one: Key) -> list[str]:
    """The default as YAML: on the line of its key, or, for a dict of several entries, on lines of its own."""
    if isinstance(one.default, dict) and len(one.default) > 1:
        return ["", *(f"  {name}: {_inline(part)}" for name, part in one.default.items())]
    return [_inline(one.default)]


def _inline(value: Any) -> str:
    if value is None:
        return "~"
    if isinstance(value, float) and 1e-7 < value < 1e-4:
        return f"{value:.7f}".rstrip("0")  # 5e-05 is harder to read
    if isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_inline(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, str) and "\n" in value:
        return json.dumps(value)
    return yaml.safe_dump(value, width=10_000, allow_unicode=True).removesuffix("\n").removesuffix("\n...")


# ---- the documentation's key reference ----

_SCOPES = {
    Scope.PROTOCOL: "of the protocol: one value for all rows of a table",
    Scope.PLACE: "of a place: this machine and its disk; another value gives the same numbers",
    Scope.CALL: "of one call: not kept with the run",
    Scope.MODEL: "of the model: what it is made of and reads",
    Scope.TRAINING: "of training: how its weights come to be",
}


def reference() -> str:
    """The key reference as Markdown: every key of every property file with type, bounds, default, scope and meaning."""
    lines = ["# Keys", "", _INTRODUCTION, ""]
    lines += [f"- *{scope.value}*: {text}." for scope, text in _SCOPES.items()]
    for name, (settings, *known) in PAGES.items():
        lines += ["", f"## {name.removeprefix('model/')}", "", _first_paragraph(settings)]
        title = None
        for one in listed(settings, *known):
            if one.title != title:
                lines += ["", f"### {one.title}", "", *_HEAD]
                title = one.title
            lines.append(_row(one))
    return "\n".join(lines) + "\n"


_INTRODUCTION = (
    "Every key of this package, and those of RecBole that have another default here. `--help --model=NAME` prints the "
    "same in a terminal. Give a key in a YAML file, on the command line (`--key=value`) or in Python "
    "(`config_dict`); `NAME.key` is for one model. The scope of a key says where it may differ and when it may change:"
)
_HEAD = ("| key | type | default | scope | meaning |", "| --- | --- | --- | --- | --- |")


def _first_paragraph(settings: type[Settings]) -> str:
    return (inspect.getdoc(settings) or "").split("\n\n")[0].split("\n- ")[0].replace("\n", " ")


def _row(one: Key) -> str:
    default = " ".join(_inline(one.default).split())
    cells = (f"`{one.name}`", _limits(one), "" if one.default is None else f"`{default}`", one.scope.value, one.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def _limits(one: Key) -> str:
    """Type and bounds; words to choose from stand in the meaning."""
    least = [] if one.least == -inf else [f"at least {one.least:g}"]
    most = [] if one.most == inf else [f"at most {one.most:g}"]
    return ", ".join([one.type_words, *least, *most, *(["or empty"] if one.optional else [])])


def main() -> None:
    """Writes every property file whose keys the schema declares and, in a clone, the key reference."""
    for name, classes in PAGES.items():
        Path(properties_folder(), f"{name}.yaml").write_text(page(*classes), encoding="utf-8")
    manual = properties_folder().parent / "docs"
    if manual.is_dir():
        (manual / "keys.md").write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
