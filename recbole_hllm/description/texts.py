"""Numbers of the items' texts: how many there are, how long they are, and which several items share."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from recbole_hllm.data.texts.item_texts import ItemTexts
from recbole_hllm.data.texts.template import TextTemplate
from recbole_hllm.description.numbers import spread

# Most items whose tokens are counted, and texts for one call of the tokenizer.
SAMPLE, TOGETHER = 20_000, 2048
SHOWN = 80  # most characters of an example


def describe_texts(
    texts: ItemTexts, template: TextTemplate, tokenizer: Any = None, limit: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Numbers of the texts of all items, and of each of their fields.

    Args:
        texts: raw fields of every item; item 0 is padding.
        template: how they become one text.
        tokenizer: of the language model that reads them; None counts characters and words alone.
        limit: most tokens of a text that it reads, the tokenizer's special tokens included.
        seed: draws the items whose tokens are counted where there are more than ``SAMPLE``.

    Returns:
        items; without_row and without_text (a row, and nothing in its fields), as numbers of items; whole: lengths of
        the text that a model reads, of items that have one; fields: the same of each, its name first; shared: items
        whose text another has too, how many texts that are, and the most frequent one; token_sample: items whose
        tokens were counted; too_long: how many of these have more tokens than ``limit``.
    """
    items = len(texts.has_row) - 1
    read = [template.render(texts.fields[item]) for item in range(1, items + 1)]
    filled = [text for text in read if text != template.item_prompt]
    sample = _sample(items, seed)
    tokens = None if tokenizer is None else _tokens(_chosen(read, sample, template.item_prompt), tokenizer, True)
    return {
        "items": items,
        "without_row": texts.without_row,
        "without_text": items - texts.without_row - len(filled),
        "whole": _lengths(filled, tokens),
        "fields": [_field(texts, place, template, tokenizer, sample) for place in range(len(texts.keys))],
        "shared": _shared(filled),
        "token_sample": None if tokens is None else len(tokens),
        "limit": limit,
        "too_long": None if tokens is None or limit is None else int((tokens > limit).sum()),
    }


def _sample(items: int, seed: int) -> np.ndarray:
    """Places of the items whose tokens are counted."""
    if items <= SAMPLE:
        return np.arange(items)
    return np.sort(np.random.default_rng(seed).choice(items, SAMPLE, replace=False))


def _chosen(values: Sequence[str], sample: np.ndarray, empty: str) -> list[str]:
    return [values[place] for place in sample if values[place] != empty]


def _field(texts: ItemTexts, place: int, template: TextTemplate, tokenizer: Any, sample: np.ndarray) -> dict[str, Any]:
    """Of one field, as it is written into a text."""
    alone = TextTemplate(
        (texts.keys[place],), "", "", template.unescape_html, template.missing_words_dropped, field="{value}"
    )
    values = [alone.render(texts.fields[item][place : place + 1]) for item in range(1, len(texts.has_row))]
    tokens = None if tokenizer is None else _tokens(_chosen(values, sample, ""), tokenizer, False)
    return {"name": texts.keys[place], **_lengths([value for value in values if value], tokens)}


def _lengths(values: list[str], tokens: np.ndarray | None) -> dict[str, Any]:
    """How many there are, and their lengths; no numbers of tokens where these were not counted."""
    words = np.fromiter((len(value.split()) for value in values), dtype=np.int64, count=len(values))
    return {
        "filled": len(values),
        "characters": spread(np.fromiter(map(len, values), dtype=np.int64, count=len(values))),
        "words": spread(words),
        "tokens": None if tokens is None else spread(tokens),
    }


def _tokens(values: list[str], tokenizer: Any, special: bool) -> np.ndarray:
    """Tokens of each text, with those the tokenizer puts around it or without."""
    lengths: list[int] = []
    for together in _batches(values):
        encoded = tokenizer(
            together,
            add_special_tokens=special,
            return_attention_mask=False,
            return_token_type_ids=False,
            padding=False,
            truncation=False,
            verbose=False,  # says that a text is longer than the model takes
        )
        lengths += map(len, encoded["input_ids"])
    return np.array(lengths, dtype=np.int64)


def _batches(values: list[str]) -> Iterator[list[str]]:
    left = iter(values)
    while together := list(islice(left, TOGETHER)):
        yield together


def _shared(values: list[str]) -> dict[str, Any]:
    """Texts that several items have."""
    several = {text: number for text, number in Counter(values).items() if number > 1}
    most = max(several, key=lambda text: several[text], default=None)
    return {
        "items": sum(several.values()),
        "texts": len(several),
        "most": None if most is None else {"text": _short(most), "items": several[most]},
    }


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
