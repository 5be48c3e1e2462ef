"""ItemCatalogue: item id -> text -> token ids, tokenised once and memory-mapped."""

import copy
import dataclasses
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import regex
import torch
from tqdm import tqdm

from recbole_hllm.data.texts.item_texts import ItemTexts, TextTemplate
from recbole_hllm.errors import DataError
from recbole_hllm.storage.cache import digest, read_arrays, write_arrays

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REFERENCE_BEHAVIOURS = frozenset({"truncation", "special_tokens", "empty_text"})

FORMAT = 3  # raise it when the arrays or the way they are computed change
TEXTS_PER_DIGEST = 4096
_ARRAYS = ("tokens", "offsets", "flags")
PROGRESS_FROM = 50_000  # items; below that tokenising takes a moment

logger = logging.getLogger(__name__)

# Bits of `flags`, one byte per item.
TRUNCATED, NO_TEXT, NON_LATIN, EMOJI = 1, 2, 4, 8

_NON_LATIN_LETTER = regex.compile(r"(?V1)[\p{L}--[\p{Script=Latin}\p{Script=Common}]]")
_EMOJI = regex.compile(r"\p{Emoji_Presentation}|\p{Emoji}\uFE0F")  # shown as a picture, so not (c), (R) or TM


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
        tokenizer = _private_copy(tokenizer, split_special_tokens="special_tokens" not in reference)
        if "truncation" not in reference:
            _check_room(tokenizer, template.item_prompt, max_text_length)
        texts = RenderedTexts(item_texts, template, row_needed="empty_text" in reference)
        settings = {
            "format": FORMAT,
            "template": dataclasses.asdict(template),
            "max_text_length": max_text_length,
            "reference": sorted(reference & REFERENCE_BEHAVIOURS),
        }
        key = digest(settings, _content(tokenizer), *_text_digests(texts))
        entry = Path(cache) / f"tokens-{key}" if cache else None
        arrays = _read(entry, settings) if entry else None
        if arrays is None:
            arrays = _tokenise(texts, template.item_prompt, tokenizer, max_text_length, reference, batch_size)
            if entry:
                shutil.rmtree(entry, ignore_errors=True)  # what is there is not what its name says
                write_arrays(entry, arrays, settings)
                arrays = _read(entry, settings) or arrays
        report = _report(item_texts.has_row, arrays["offsets"], arrays["flags"])
        (logger or logging.getLogger(__name__)).info("%s", report)
        return cls(arrays["tokens"], arrays["offsets"], texts, report)

    def lookup(self, ids: np.ndarray | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens of the given items, one after the other, in the order given.

        Args:
            ids: internal item ids, any shape; repeats allowed.

        Returns:
            flat_tokens (sum of lengths,) and lengths (number of ids,), both on the CPU.
        """
        ids = (ids.cpu().numpy() if isinstance(ids, torch.Tensor) else np.asarray(ids)).reshape(-1)
        starts = np.asarray(self.offsets[ids])
        lengths = np.asarray(self.offsets[ids + 1]) - starts
        # From a place in the result to its place in `tokens`: one shift per item.
        shifts = starts - (np.cumsum(lengths) - lengths)
        places = np.repeat(shifts, lengths) + np.arange(lengths.sum())
        return torch.from_numpy(self.tokens[places].astype(np.int64)), torch.from_numpy(lengths)


def _read(entry: Path, settings: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """An entry that holds what it should; None for any other."""
    arrays = read_arrays(entry, settings)
    if arrays is None or arrays.keys() == set(_ARRAYS):
        return arrays
    logger.warning("%s: the cache is incomplete and is made again", entry)
    return None


def _private_copy(tokenizer: "PreTrainedTokenizerBase", split_special_tokens: bool) -> "PreTrainedTokenizerBase":
    """A fast tokenizer keeps the options of its last call: work on a copy and leave the caller's alone."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.split_special_tokens = split_special_tokens
    tokenizer("", padding=False, truncation=False)  # forgets what an earlier call or its file may have set
    return tokenizer


def _check_room(tokenizer: "PreTrainedTokenizerBase", prompt: str, max_text_length: int) -> None:
    length = len(tokenizer(prompt)["input_ids"])
    if length >= max_text_length:
        raise DataError(
            f"item_prompt takes {length} tokens and MAX_TEXT_LENGTH is {max_text_length}: no room is left "
            f"for the item's text. Shorten item_prompt ({prompt!r}) or raise MAX_TEXT_LENGTH above {length}."
        )


def _content(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Everything of a tokenizer that decides the token ids."""
    if tokenizer.is_fast:
        return digest(tokenizer.backend_tokenizer.to_str(), _filler(tokenizer))
    name = type(tokenizer).__qualname__
    return digest(name, tokenizer.get_vocab(), tokenizer("")["input_ids"], _filler(tokenizer))


def _text_digests(texts: RenderedTexts) -> Iterator[str]:
    """A few hashes instead of all texts at once in memory."""
    yield str(len(texts))
    for start in range(0, len(texts), TEXTS_PER_DIGEST):
        yield digest(*texts[start : start + TEXTS_PER_DIGEST])


def _filler(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The token that stands for a text without tokens: an item must have something to be encoded from."""
    names = ("eos_token_id", "sep_token_id", "bos_token_id", "unk_token_id")
    candidates = (getattr(tokenizer, name, None) for name in names)
    return next((token for token in candidates if token is not None), 0)


def _tokenise(
    texts: RenderedTexts,
    prompt: str,
    tokenizer: "PreTrainedTokenizerBase",
    max_text_length: int,
    reference: frozenset[str],
    batch_size: int,
) -> dict[str, np.ndarray]:
    """`tokens`, `offsets` (see ItemCatalogue) and `flags`, uint8 (n_items,)."""
    tokens, lengths, flags = [], [], []
    n_items = len(texts)
    with tqdm(total=n_items, desc="tokenise items", unit="item", disable=n_items <= PROGRESS_FROM) as bar:
        for start in range(0, n_items, batch_size):
            batch = texts[start : start + batch_size]
            full, kept = _encode(batch, tokenizer, max_text_length, reference)
            lengths.append(np.fromiter(map(len, kept), dtype=np.int64, count=len(kept)))
            tokens.append(np.fromiter(chain.from_iterable(kept), dtype=np.int32, count=lengths[-1].sum()))
            too_long = np.fromiter(map(len, full), dtype=np.int64, count=len(full)) > max_text_length
            flags.append(_flags(batch, prompt) | too_long * np.uint8(TRUNCATED))
            bar.update(len(batch))
    offsets = np.concatenate([[0], *lengths]).cumsum(dtype=np.int64)
    return {"tokens": np.concatenate(tokens), "offsets": offsets, "flags": np.concatenate(flags)}


def _encode(
    texts: list[str], tokenizer: "PreTrainedTokenizerBase", max_text_length: int, reference: frozenset[str]
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of each text, all of them and those kept within the limit."""
    encoded = tokenizer(
        texts,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_special_tokens_mask=True,
        verbose=False,  # says once that a text is longer than the model takes: it is cut below
    )
    full = encoded["input_ids"]
    if "empty_text" not in reference:
        full = [ids or [_filler(tokenizer)] for ids in full]
    if "truncation" in reference:
        return full, [ids[:max_text_length] for ids in full]
    masks = encoded["special_tokens_mask"]
    return full, [_cut(ids, mask, max_text_length) for ids, mask in zip(full, masks, strict=True)]


def _cut(ids: list[int], special: list[int], max_text_length: int) -> list[int]:
    """Drops the last tokens of the text, never those the tokenizer put around it."""
    excess = len(ids) - max_text_length
    if excess <= 0:
        return ids
    end = len(ids)
    while special[end - 1]:
        end -= 1
    return ids[: end - excess] + ids[end:]


def _flags(texts: list[str], prompt: str) -> np.ndarray:
    def flag(text: str) -> int:
        text = text.removeprefix(prompt)
        if not text:
            return NO_TEXT
        if text.isascii():
            return 0
        return NON_LATIN * bool(_NON_LATIN_LETTER.search(text)) | EMOJI * bool(_EMOJI.search(text))

    return np.fromiter(map(flag, texts), dtype=np.uint8, count=len(texts))


def _report(has_row: np.ndarray, offsets: np.ndarray, flags: np.ndarray) -> CatalogueReport:
    lengths, flags, has_row = np.diff(offsets)[1:], flags[1:], has_row[1:]
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
