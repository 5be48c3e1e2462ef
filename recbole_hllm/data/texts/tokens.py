"""Texts -> token ids, and what is counted of each text."""

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import regex

from recbole_hllm.errors import DataError
from recbole_hllm.storage.cache import digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REFERENCE_BEHAVIOURS = frozenset({"truncation", "special_tokens", "empty_text"})

# Bits of `flags`, one byte per item.
TRUNCATED, NO_TEXT, NON_LATIN, EMOJI = 1, 2, 4, 8

HASH_BYTES = 16
_PARALLELISM = "TOKENIZERS_PARALLELISM"

_NON_LATIN_LETTER = regex.compile(r"(?V1)[\p{L}--[\p{Script=Latin}\p{Script=Common}]]")
_EMOJI = regex.compile(r"\p{Emoji_Presentation}|\p{Emoji}\uFE0F")  # shown as a picture, so not (c), (R) or TM


class TextTokenizer:
    """A tokenizer with a limit on the tokens of a text.

    Args:
        tokenizer: Hugging Face tokenizer; its state is left as it is.
        prompt: that every text begins with.
        max_text_length: most tokens of a text, the tokenizer's own special tokens included.
        reference: see ``ItemCatalogue.build``.

    Raises:
        DataError: the prompt fills max_text_length.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", prompt: str, max_text_length: int, reference: frozenset[str]
    ) -> None:
        self.tokenizer = _private_copy(tokenizer, split_special_tokens="special_tokens" not in reference)
        self.prompt, self.max_text_length = prompt, max_text_length
        self.cut_anywhere, self.filled = "truncation" in reference, "empty_text" not in reference
        if not self.cut_anywhere:
            self._check_room()

    def _check_room(self) -> None:
        length = len(self.tokenizer(self.prompt)["input_ids"])
        if length >= self.max_text_length:
            raise DataError(
                f"item_prompt takes {length} tokens and MAX_TEXT_LENGTH is {self.max_text_length}: no room is left "
                f"for the item's text. Shorten item_prompt ({self.prompt!r}) or raise MAX_TEXT_LENGTH above {length}."
            )

    def content(self) -> str:
        """Hash of everything of the tokenizer that decides the token ids."""
        tokenizer = self.tokenizer
        if tokenizer.is_fast:
            return digest(tokenizer.backend_tokenizer.to_str(), self._filler())
        name = type(tokenizer).__qualname__
        return digest(name, tokenizer.get_vocab(), tokenizer("")["input_ids"], self._filler())

    def encode(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Of N texts: ``tokens``, int32 (T,), the ids of all texts one after the other; ``lengths``, int32 (N,); and
        ``flags``, uint8 (N,)."""
        kept, cut = self._encode(texts)
        lengths = np.fromiter(map(len, kept), dtype=np.int32, count=len(kept))
        tokens = np.fromiter(chain.from_iterable(kept), dtype=np.int32, count=int(lengths.sum()))
        flags = _flags(texts, self.prompt) | np.array(cut, bool) * np.uint8(TRUNCATED)
        return {"tokens": tokens, "lengths": lengths, "flags": flags}

    def _encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Token ids of each text, within the limit, and whether it was longer."""
        limit, kept, cut = self.max_text_length, [], []
        for ids, special in self._encodings(list(texts)):
            if self.filled and not ids:
                ids = [self._filler()]
            cut.append(len(ids) > limit)
            if cut[-1]:
                ids = ids[:limit] if self.cut_anywhere else _cut(ids, special(), limit)
            kept.append(ids)
        return kept, cut

    def _encodings(self, texts: list[str]) -> Iterator[tuple[list[int], Callable[[], list[int]]]]:
        """All token ids of each text, and what gives its mask of special tokens."""
        if self.tokenizer.is_fast:  # asked itself: of Hugging Face's wrapper nothing else is needed
            for encoding in self.tokenizer.backend_tokenizer.encode_batch_fast(texts):
                yield encoding.ids, partial(getattr, encoding, "special_tokens_mask")
            return
        encoded = self.tokenizer(
            texts,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_special_tokens_mask=True,
            verbose=False,  # says once that a text is longer than the model takes: it is cut here
        )
        for ids, mask in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
            yield ids, partial(list, mask)

    def _filler(self) -> int:
        """The token that stands for a text without tokens: an item must have something to be encoded from."""
        names = ("eos_token_id", "sep_token_id", "bos_token_id", "unk_token_id")
        candidates = (getattr(self.tokenizer, name, None) for name in names)
        return next((token for token in candidates if token is not None), 0)


@contextmanager
def all_cores() -> Iterator[None]:
    """Tokenizers run on all cores meanwhile, RAYON_NUM_THREADS at most.

    Afterwards the library's variable has its former value, "false" if it had none: the library warns where a process
    that has used several cores is forked, as loaders do, and the variable is not set.
    """
    before = os.environ.get(_PARALLELISM, "false")
    os.environ[_PARALLELISM] = "true"
    try:
        yield
    finally:
        os.environ[_PARALLELISM] = before


def text_hashes(texts: Sequence[str]) -> np.ndarray:
    """uint8 (N, 16): a hash of each text."""
    encoded = (text.encode("utf-8", "surrogatepass") for text in texts)
    return joined_hashes(blake2b(text, digest_size=HASH_BYTES).digest() for text in encoded)


def joined_hashes(hashes: Iterable[bytes]) -> np.ndarray:
    """uint8 (N, 16) of N hashes of 16 bytes."""
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, HASH_BYTES)


def rows_of(hashes: np.ndarray, among: np.ndarray) -> np.ndarray:
    """int64 (N,): a row of ``among`` that equals each of N hashes, -1 where none is found.

    Args:
        hashes: uint8 (N, 16).
        among: uint8 (M, 16). Of two that differ and begin with the same 8 bytes one is perhaps not found.
    """
    if not len(among):
        return np.full(len(hashes), -1)
    begins, wanted = (np.ascontiguousarray(part[:, :8]).view(np.uint64)[:, 0] for part in (among, hashes))
    order = np.argsort(begins, kind="stable")
    places = np.searchsorted(begins, wanted, sorter=order)
    rows = order[np.minimum(places, len(order) - 1)]
    return np.where((among[rows] == hashes).all(axis=1), rows, -1)


def _private_copy(tokenizer: "PreTrainedTokenizerBase", split_special_tokens: bool) -> "PreTrainedTokenizerBase":
    """A fast tokenizer keeps the options of its last call: work on a copy and leave the caller's alone."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.split_special_tokens = split_special_tokens
    tokenizer("", padding=False, truncation=False)  # forgets what an earlier call or its file may have set
    return tokenizer


def _cut(ids: list[int], special: list[int], max_text_length: int) -> list[int]:
    """Drops the last tokens of a text that is too long, never those the tokenizer put around it."""
    excess, end = len(ids) - max_text_length, len(ids)
    while special[end - 1]:
        end -= 1
    return ids[: end - excess] + ids[end:]


def _flags(texts: Sequence[str], prompt: str) -> np.ndarray:
    def flag(text: str) -> int:
        text = text.removeprefix(prompt)
        if not text:
            return NO_TEXT
        if text.isascii():
            return 0
        return NON_LATIN * bool(_NON_LATIN_LETTER.search(text)) | EMOJI * bool(_EMOJI.search(text))

    return np.fromiter(map(flag, texts), dtype=np.uint8, count=len(texts))
