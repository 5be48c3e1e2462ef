"""Property files and the key reference, written from the schema: ``python -m recbole_hllm.config.property_files``."""

import inspect
import json
from pathlib import Path
from typing import Any

import yaml

from recbole_hllm.config.keys.pages import PAGES
from recbole_hllm.config.places import properties_folder
from recbole_hllm.config.schema import Key, Settings

# Column where comments begin.
_COMMENTS = 32


def page(settings: type[Settings], *known: type[Settings]) -> str:
    """A property file: what it is for, then every key in its group with its default, type and meaning.

    Args:
        settings: the keys of the page.
        known: keys that stand in another file, and here only where their default differs from all of them.
    """
    lines, title = [_comment(inspect.getdoc(settings) or "")], None
    for name, one in settings.keys.items():
        if any(other.keys.get(name) is one for other in known):
            continue
        if one.title != title:
            lines += ["", f"# {one.title}"]
            title = one.title
        lines += _entry(one)
    return "\n".join(lines) + "\n"


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


def main() -> None:
    """Writes every property file whose keys the schema declares."""
    for name, classes in PAGES.items():
        Path(properties_folder(), f"{name}.yaml").write_text(page(*classes), encoding="utf-8")


if __name__ == "__main__":
    main()
