"""ItemCatalogue: item id -> text -> token ids, tokenised once and memory-mapped."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch

from recbole_hllm.data.texts.item_texts import ItemTexts
from recbole_hllm.data.texts.template import TextTemplate
from recbole_hllm.data.texts.tokens import (
    EMOJI,
    NO_TEXT,
    NON_LATIN,
    REFERENCE_BEHAVIOURS,
    TRUNCATED,
    TextTokenizer,
    all_cores,
    rows_of,
    text_hashes,
)
from recbole_hllm.storage.cache import digest, newest_arrays
from recbole_hllm.storage.shards import made_in_shards

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 4  # raise it when the arrays or the way they are computed change
_ARRAYS = ("tokens", "lengths", "flags", "hashes")
SHARD = 8192  # items whose tokens are kept at a time
PARALLEL_FROM = 4096  # items; fewer are tokenised in a moment
ROW_BYTES = 256  # of an item in the cache, roughly


@dataclass(frozen=True)
class CatalogueReport:
    """Counts over the real items (the padding item is not counted)."""

    items: int
    without_row: int  # no row in the item file
    without_text: int  # a row whose text fields are all empty
    truncated: int  # texts longer than max_text_length tokens
    mean_tokens: float
    max_tokens: int
    non_latin: int  # texts with a letter outside the Latin script
    emoji: int  # texts with an emoji

    def __str__(self) -> str:
        return (
            f"{self.items} item texts, {self.mean_tokens:.1f} tokens on average, {self.max_tokens} at most; "
            f"{self.truncated} cut at the limit, {self.without_row} without a row, "
            f"{self.without_text} without any text, {self.non_latin} with non-Latin letters, "
            f"{self.emoji} with emoji"
        )


class RenderedTexts(Sequence[str]):
    """The texts handed to the tokenizer, rendered when asked for: a catalogue need not hold every text twice.

    The padding item 0 has the empty text. An item without a row or without any text has the prompt alone;
    with `row_needed` an item without a row has the empty text instead.
    """

    def __init__(self, item_texts: ItemTexts, template: TextTemplate, row_needed: bool) -> None:
        self.item_texts, self.template, self.row_needed = item_texts, template, row_needed

    def __len__(self) -> int:
        return len(self.item_texts.fields)

    @overload
    def __getitem__(self, item: int) -> str: ...

    @overload
    def __getitem__(self, item: slice) -> list[str]: ...

    def __getitem__(self, item: int | slice) -> str | list[str]:
        if isinstance(item, slice):
            return [self._render(one) for one in range(*item.indices(len(self)))]
        return self._render(range(len(self))[item])

    def _render(self, item: int) -> str:
        if item == 0 or (self.row_needed and not self.item_texts.has_row[item]):
            return ""
        return self.template.render(self.item_texts.fields[item])


@dataclass(frozen=True)
class ItemCatalogue:
    """Token ids of every item, in one flat array.

    Args:
        tokens: int32 (T,), the token ids of item 0, item 1, ... one after the other.
        offsets: int64 (n_items + 1,); item i owns `tokens[offsets[i]:offsets[i + 1]]`.
        texts: the n_items texts that were tokenised; the padding item 0 has the empty text.
        report: what the log says about them.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    texts: Sequence[str]
    report: CatalogueReport

    @property
    def n_items(self) -> int:
        """Number of items, the padding item included."""
        return len(self.offsets) - 1

    @classmethod
    def build(
        cls,
        item_texts: ItemTexts,
        template: TextTemplate,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        max_text_length: int,
        cache: Path | None,
        reference: frozenset[str] = frozenset(),
        batch_size: int = 2048,
        logger: logging.Logger | None = None,
    ) -> "ItemCatalogue":
        """Renders and tokenises every item, or takes the result from the cache.

        An interrupted call is gone on with by the next one. Where the cache holds a catalogue of the same settings,
        only texts that it lacks are tokenised.

        Args:
            item_texts: raw fields per item.
            template: how fields become a text.
            tokenizer: Hugging Face tokenizer; its state is left as it is.
            max_text_length: most tokens per item, the tokenizer's own special tokens included.
            cache: folder for cache entries; None keeps the arrays in memory.
            reference: behaviours of the official HLLM code to reproduce. "truncation": cut from the right,
                whatever is there, instead of keeping the tokenizer's special tokens. "special_tokens": a
                special token written out in a text is that token instead of plain text. "empty_text": an item
                without a row has the empty text instead of the prompt, and a text without any token stays so
                instead of getting one.
            batch_size: texts per call of the tokenizer.

        Raises:
            DataError: the prompt fills max_text_length, or the cache cannot be written.
        """
        reads = TextTokenizer(tokenizer, template.item_prompt, max_text_length, reference)
        texts = RenderedTexts(item_texts, template, row_needed="empty_text" in reference)
        settings = {
            "format": FORMAT,
            "template": dataclasses.asdict(template),
            "max_text_length": max_text_length,
            "reference": sorted(reference & REFERENCE_BEHAVIOURS),
        }
        stem = f"tokens-{digest(settings, reads.content())}"
        entry = Path(cache) / f"{stem}-{_content(texts)}" if cache else None
        work = _Tokenising(texts, reads, entry, stem, settings, batch_size)
        arrays = made_in_shards(
            entry,
            settings,
            len(texts),
            SHARD,
            work.shard,
            whole=lambda arrays: _whole(arrays) and len(arrays["lengths"]) == len(texts),
            what="tokenise items",
            row_bytes=ROW_BYTES,
        )
        lengths, flags = arrays["lengths"], arrays["flags"]
        report = _report(item_texts.has_row, lengths, flags)
        (logger or logging.getLogger(__name__)).info("%s", report)
        return cls(arrays["tokens"], _bounds(lengths), texts, report)

    def lookup(self, ids: np.ndarray | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens of the given items, one after the other, in the order given.

        Args:
            ids: internal item ids, any shape; repeats allowed.

        Returns:
            flat_tokens (sum of lengths,) and lengths (number of ids,), both on the CPU.
        """
        places, lengths = self._places(ids)
        return torch.from_numpy(self.tokens[places].astype(np.int64)), torch.from_numpy(lengths)

    def places(self, ids: np.ndarray | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``lookup``, with the places of the tokens in ``tokens`` instead of them."""
        places, lengths = self._places(ids)
        return torch.from_numpy(places), torch.from_numpy(lengths)

    def _places(self, ids: np.ndarray | torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        ids = (ids.cpu().numpy() if isinstance(ids, torch.Tensor) else np.asarray(ids)).reshape(-1)
        starts = np.asarray(self.offsets[ids])
        lengths = np.asarray(self.offsets[ids + 1]) - starts
        # From a place in the result to its place in `tokens`: one shift per item.
        shifts = starts - (np.cumsum(lengths) - lengths)
        return np.repeat(shifts, lengths) + np.arange(lengths.sum()), lengths


class _Tokenising:
    """The arrays of a catalogue, a shard at a time: ``tokens``, int32 (T,), and of each item ``lengths``, int32,
    ``flags``, uint8, and ``hashes`` of its text, uint8 (16,).

    Args:
        entry: that they are for; those of its folder whose names begin with ``stem`` are of the same settings.
        batch_size: texts per call of the tokenizer.
    """

    def __init__(
        self,
        texts: RenderedTexts,
        reads: TextTokenizer,
        entry: Path | None,
        stem: str,
        settings: dict[str, Any],
        batch_size: int,
    ) -> None:
        self.texts, self.reads, self.batch_size = texts, reads, batch_size
        self.entry, self.stem, self.settings = entry, stem, settings

    @cached_property
    def earlier(self) -> dict[str, np.ndarray] | None:
        """An earlier catalogue of the same settings, with ``bounds`` of its items."""
        found = newest_arrays(self.entry.parent, self.stem, self.settings, _whole) if self.entry else None
        return found and {**found, "bounds": _bounds(found["lengths"])}

    def shard(self, begin: int, end: int) -> dict[str, np.ndarray]:
        """The arrays of some items."""
        ranges = [(at, min(at + self.batch_size, end)) for at in range(begin, end, self.batch_size)]
        with all_cores() if len(self.texts) >= PARALLEL_FROM else nullcontext():
            batches = [self._batch(self.texts[first:last]) for first, last in ranges]
        return {name: np.concatenate([batch[name] for batch in batches]) for name in _ARRAYS}

    def _batch(self, texts: list[str]) -> dict[str, np.ndarray]:
        """Texts that the earlier catalogue has are not tokenised again."""
        hashes, earlier = text_hashes(texts), self.earlier
        if earlier is None:
            return {**self.reads.encode(texts), "hashes": hashes}
        rows = rows_of(hashes, earlier["hashes"])
        new = np.flatnonzero(rows < 0)
        arrays = {name: earlier[name][rows] for name in ("lengths", "flags")}
        tokens = [earlier["tokens"][first:last] for first, last in _ranges(earlier["bounds"], rows)]
        if len(new):
            encoded = self.reads.encode([texts[place] for place in new])
            bounds = _bounds(encoded["lengths"])
            for place, (first, last) in zip(new, _ranges(bounds, np.arange(len(new))), strict=True):
                tokens[place] = encoded["tokens"][first:last]
            for name in arrays:
                arrays[name][new] = encoded[name]
        return {**arrays, "tokens": np.concatenate(tokens), "hashes": hashes}


def _content(texts: RenderedTexts) -> str:
    """Hash of all texts; where it is known what they were read from, none of them is read."""
    if texts.item_texts.content is not None:
        return digest(texts.item_texts.content)
    return digest(*(text_hashes(texts[begin : begin + SHARD]) for begin in range(0, len(texts), SHARD)))


def _whole(arrays: Mapping[str, np.ndarray]) -> bool:
    return arrays.keys() == set(_ARRAYS)


def _bounds(lengths: np.ndarray) -> np.ndarray:
    """int64 (N + 1,): item i has the tokens from [i] to [i + 1]."""
    return np.concatenate([[0], lengths]).cumsum(dtype=np.int64)


def _ranges(bounds: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, int]]:
    return zip(bounds[rows].tolist(), bounds[rows + 1].tolist(), strict=True)


def _report(has_row: np.ndarray, lengths: np.ndarray, flags: np.ndarray) -> CatalogueReport:
    lengths, flags, has_row = lengths[1:], flags[1:], has_row[1:]
    return CatalogueReport(
        items=len(lengths),
        without_row=int((~has_row).sum()),
        without_text=int((has_row & (flags & NO_TEXT > 0)).sum()),
        truncated=int((flags & TRUNCATED > 0).sum()),
        mean_tokens=float(lengths.mean()) if len(lengths) else 0.0,
        max_tokens=int(lengths.max(initial=0)),
        non_latin=int((flags & NON_LATIN > 0).sum()),
        emoji=int((flags & EMOJI > 0).sum()),
    )
