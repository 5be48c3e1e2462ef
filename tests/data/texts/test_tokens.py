"""Texts become token ids: a fast tokenizer asked itself gives what Hugging Face's call gives; hashes of texts."""

import os
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from recbole_hllm.data.texts.tokens import TextTokenizer, all_cores, joined_hashes, rows_of, text_hashes

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"]


def make_tokenizer():
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


@pytest.mark.parametrize("reference", [frozenset(), frozenset({"special_tokens"})])
@given(texts=st.lists(st.text(alphabet="abz é[]CLSEP ", max_size=20), min_size=1, max_size=5))
def test_ids_are_those_of_the_tokenizers_own_call(texts, reference):
    tokenizer = make_tokenizer()
    encoded = TextTokenizer(tokenizer, "", 8, reference).encode(texts)
    tokenizer.split_special_tokens = not reference
    expected = tokenizer(texts, truncation=True, max_length=8)["input_ids"]
    assert encoded["lengths"].tolist() == [len(ids) for ids in expected]
    assert encoded["tokens"].tolist() == sum(expected, [])
    assert (encoded["tokens"].dtype, encoded["lengths"].dtype, encoded["flags"].dtype) == ("i4", "i4", "u1")


@pytest.mark.parametrize("before, after", [("true", "true"), ("false", "false"), (None, "false")])
def test_all_cores_are_used_meanwhile_only(monkeypatch, before, after):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    if before:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)
    with pytest.raises(KeyError), all_cores():
        assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
        raise KeyError
    assert os.environ["TOKENIZERS_PARALLELISM"] == after
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # put back by monkeypatch


def test_hashes_are_of_each_text():
    hashes = text_hashes(["a", "", "é"])
    assert hashes.dtype == np.uint8 and hashes.shape == (3, 16)
    assert bytes(hashes[2]) == blake2b("é".encode(), digest_size=16).digest()
    assert text_hashes([]).shape == (0, 16)


@given(st.lists(st.integers(0, 8), max_size=10), st.lists(st.integers(0, 8), max_size=10))
def test_rows_of_equal_hashes_are_found(wanted, there):
    def hashes(numbers):
        return joined_hashes(blake2b(bytes([n]), digest_size=16).digest() for n in numbers)

    rows = rows_of(hashes(wanted), hashes(there))
    assert len(rows) == len(wanted)
    for number, row in zip(wanted, rows, strict=True):
        assert there[row] == number if number in there else row == -1


def test_hashes_that_only_begin_alike_are_different():
    there = joined_hashes([b"12345678abcdefgh"])
    assert rows_of(joined_hashes([b"12345678abcdefgi", b"12345678abcdefgh"]), there).tolist() == [-1, 0]
