"""Prompts of whole histories, put together from the token ids of item texts."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recbole_hllm.data.texts.catalogue import ItemCatalogue
from recbole_hllm.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class HistoryPrompts:
    """Writes ``head item separator item ... item tail``, the oldest item first.

    Items are those of the catalogue, without the special tokens that a tokenizer puts around every text ([CLS] and
    [SEP], or <s>): a prompt has these once. Token ids are joined, not texts: a tokenizer that merges words across
    borders could read the joined text a little differently.

    Args:
        catalogue: token ids of every item.
        bounds: int64 (n_items, 2), begin and end of each item in ``catalogue.tokens``, special tokens left out.
        head, separator, tail: int32 token ids.
        max_length: most tokens of a prompt.
    """

    catalogue: ItemCatalogue
    bounds: np.ndarray
    head: np.ndarray
    separator: np.ndarray
    tail: np.ndarray
    max_length: int

    @classmethod
    def build(
        cls,
        catalogue: ItemCatalogue,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        text_before: str,
        separator: str,
        max_length: int,
    ) -> "HistoryPrompts":
        """Prompts in the form a tokenizer gives a text.

        Args:
            text_before: text before the first item.
            separator: text between two items.

        Raises:
            ConfigError: not any two items fit into a prompt.
        """
        before, after = _special_tokens(tokenizer)
        opening, between = (
            tokenizer(text, add_special_tokens=False)["input_ids"] if text else [] for text in (text_before, separator)
        )
        head, middle, tail = (np.array(ids, np.int32) for ids in (before + opening, between, after))
        prompts = cls(catalogue, _bounds(catalogue, before, after), head, middle, tail, max_length)
        longest = int(np.diff(prompts.bounds).max(initial=0))
        if 2 * longest + len(middle) > prompts._room:
            raise ConfigError(
                f"MAX_PROMPT_LENGTH: of {max_length} tokens {prompts._room} are left for items, and two of the longest "
                f"texts with the separator take {2 * longest + len(middle)}; raise it, or lower MAX_TEXT_LENGTH"
            )
        return prompts

    def all_tokens(self) -> np.ndarray:
        """int32 token ids of all that prompts are made of."""
        return np.concatenate([self.catalogue.tokens, self.head, self.separator, self.tail])

    @property
    def _room(self) -> int:
        return self.max_length - len(self.head) - len(self.tail)

    def _that_fit(self, items: np.ndarray) -> int:
        """How many of the items, in this order, fit into a prompt; always the first two."""
        tokens = np.cumsum(np.diff(self.bounds[items])[:, 0] + len(self.separator)) - len(self.separator)
        return int((tokens <= self._room).sum())

    def write(self, items: np.ndarray) -> np.ndarray:
        """int32 token ids of the prompt of (L,) items, all of them."""
        parts = [self.head]
        for place, (begin, end) in enumerate(self.bounds[items]):
            parts += [self.separator] * (place > 0) + [self.catalogue.tokens[begin:end]]
        return np.concatenate([*parts, self.tail])

    def of_histories(self, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """A prompt of each history; where it is too long the oldest items are left out, each as a whole.

        Args:
            items: (B, L) item ids, oldest first, padded on the right.
            lengths: (B,) how many of them are real, perhaps none.

        Returns:
            (T,) token ids of the B prompts, one after the other, and (B,) tokens of each, on the CPU.
        """
        rows = (row[:length] for row, length in zip(items.cpu().numpy(), lengths.tolist(), strict=True))
        return _flat(self.write(row[len(row) - self._that_fit(row[::-1]) :]) for row in rows)

    def of_windows(self, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Every item of each window: one that is too long for a prompt gives several, which overlap by an item.

        The first item of a prompt is for reading: in the prompt before it was the last, if there is one.

        Args:
            items: (B, S) item ids, oldest first, padded on the right with 0; at least two of each row are real.

        Returns:
            (T,) token ids of N prompts, (N,) tokens of each, and (N,) how many of these come before the second item and
            its separator; on the CPU.
        """
        pieces = [piece for row in items.cpu().numpy() for piece in self._pieces(row[row != 0])]
        first = np.diff(self.bounds[[piece[0] for piece in pieces]])[:, 0]
        return *_flat(map(self.write, pieces)), torch.from_numpy(len(self.head) + first)

    def _pieces(self, items: np.ndarray) -> Iterator[np.ndarray]:
        start = 0
        while start < len(items) - 1:
            count = self._that_fit(items[start:])
            yield items[start : start + count]
            start += count - 1

    def in_own_words(self) -> tuple["HistoryPrompts", int]:
        """The same with tokens renumbered, for a language model that knows no other words.

        Returns:
            the prompts, with a catalogue of such tokens, and how many different tokens there are.
        """
        parts = self.catalogue.tokens, self.head, self.separator, self.tail
        words = np.unique(np.concatenate(parts))
        tokens, head, separator, tail = (np.searchsorted(words, part).astype(np.int32) for part in parts)
        catalogue = replace(self.catalogue, tokens=tokens)
        return replace(self, catalogue=catalogue, head=head, separator=separator, tail=tail), len(words)


def _flat(prompts: Iterable[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Prompts one after the other, and the length of each."""
    prompts = list(prompts)
    return torch.from_numpy(np.concatenate(prompts).astype(np.int64)), torch.tensor([len(prompt) for prompt in prompts])


def _special_tokens(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """What a tokenizer puts before and after every text."""
    read = tokenizer("a", return_special_tokens_mask=True)
    ids, special = read["input_ids"], read["special_tokens_mask"]
    own = [place for place, is_special in enumerate(special) if not is_special]
    return ids[: own[0]], ids[own[-1] + 1 :]


def _bounds(catalogue: ItemCatalogue, before: list[int], after: list[int]) -> np.ndarray:
    """(n_items, 2) begin and end of each item without special tokens, which a text cut in the official code's way may
    lack."""
    begin, end = catalogue.offsets[:-1].copy(), catalogue.offsets[1:].copy()
    for token in before:
        begin += (begin < end) & (catalogue.tokens[np.minimum(begin, len(catalogue.tokens) - 1)] == token)
    for token in reversed(after):
        end -= (begin < end) & (catalogue.tokens[end - 1] == token)
    return np.stack([begin, end], axis=1)
