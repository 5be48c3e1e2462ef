"""The template that joins the fields of an item into one text."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from recbole_hllm.errors import ConfigError

# What pandas.read_csv takes for a missing value by default.
MISSING_WORDS = frozenset(
    ["#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"]
    + ["N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"]
)

# Entities must end with a semicolon: html.unescape alone would turn "pen&notebook" into "pen¬ebook".
_ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


def _unescape(text: str) -> str:
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


@dataclass(frozen=True)
class TextTemplate:
    """How the fields of an item become one text: the prompt, then each value that is not empty, after its key.

    Args:
        text_keys: names of the fields, in the order in which they are written.
        item_prompt: written before the fields.
        separator: written between two fields; the official HLLM code writes nothing.
        unescape_html: clean each value: entities (also escaped twice, `&amp;quot;`) become characters, runs
            of white space and control characters become one space; tags stay. False keeps the raw value.
        missing_words_dropped: leave out a value that pandas reads as missing ("None", "NA", "nan", ...),
            as the official code does by accident.
        field: how one field is written, with the places `{key}` and `{value}`; `{value}` alone leaves names out.

    Raises:
        ConfigError: `field` has no place for the value, or another place than these two.
    """

    text_keys: tuple[str, ...]
    item_prompt: str
    separator: str = ". "
    unescape_html: bool = True
    missing_words_dropped: bool = False
    field: str = "{key}: {value}"

    def __post_init__(self) -> None:
        try:
            places = {(name, form) for _, name, form, _ in Formatter().parse(self.field) if name is not None}
        except (TypeError, ValueError):
            places = set()
        # A format, as in {value:>9}, could ask for any number of characters.
        if ("value", "") not in places or not places <= {("value", ""), ("key", "")}:
            raise ConfigError(
                f"text_field: {self.field!r} must hold {{value}} and may hold {{key}}, such as '{{key}}: {{value}}'; "
                "a brace that is meant as such is written twice"
            )

    def render(self, fields: Sequence[str]) -> str:
        """The text of one item; `fields` are its raw values in the order of `text_keys`."""
        values = (self._value(field) for field in fields)
        pairs = zip(self.text_keys, values, strict=True)
        written = (self.field.format(key=key, value=value) for key, value in pairs if value)
        return self.item_prompt + self.separator.join(written)

    def text_of(self, fields: Mapping[str, Any]) -> str:
        """The same of fields by their name; those that are missing are empty."""
        return self.render([str(fields.get(key, "")) for key in self.text_keys])

    def _value(self, field: str) -> str:
        if self.missing_words_dropped and field in MISSING_WORDS:
            return ""
        if not self.unescape_html:
            return field
        if "&" in field:
            field = _unescape(_unescape(field))
        if "  " in field or not field.isprintable():  # of white space only the plain space is printable
            field = _BLANK.sub(" ", field)
        return field.strip()
