"""Item texts become token ids: limits, special tokens, empty texts, cache and look-up."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from recbole_hllm.data.texts import catalogue as catalogue_module
from recbole_hllm.data.texts.catalogue import ItemCatalogue, RenderedTexts
from recbole_hllm.data.texts.item_texts import ItemTexts, TextTemplate
from recbole_hllm.data.texts.tokens import REFERENCE_BEHAVIOURS, TextTokenizer
from recbole_hllm.errors import DataError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[", "]", "CLS", "SEP", ":", "say", "title", "tag", *"abcdefgh"]
ID = {word: number for number, word in enumerate(WORDS)}
CLS, SEP, UNK = ID["[CLS]"], ID["[SEP]"], ID["[UNK]"]
TEMPLATE = TextTemplate(("title", "tag"), "say ", separator=" ")


def make_tokenizer(special=True):
    """Splits at white space and punctuation; [CLS] and [SEP] around the text if `special`."""
    tokenizer = Tokenizer(models.WordLevel(ID, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
        )
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]"} if special else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", **names)


def item_texts(*rows):
    """The padding item, then one item per row; None is an item without a row."""
    fields = [("", "")] + [row or ("", "") for row in rows]
    return ItemTexts(TEMPLATE.text_keys, fields, np.array([False] + [row is not None for row in rows]))


def build(texts, tokenizer=None, max_text_length=16, cache=None, template=TEMPLATE, **options):
    tokenizer = tokenizer or make_tokenizer()
    return ItemCatalogue.build(
        texts, template, tokenizer, max_text_length=max_text_length, cache=cache, **options
    )


def ids_of(catalogue):
    return [tokens.tolist() for tokens in np.split(catalogue.tokens, catalogue.offsets[1:-1])]


def ids(sentence):
    return [ID.get(word, UNK) for word in sentence.split()]


REFERENCE = frozenset(REFERENCE_BEHAVIOURS)


# --- tokens -------------------------------------------------------------------------------------------------


def test_every_item_in_id_order():
    catalogue = build(item_texts(("a b", "c"), ("", "d"), ("zzz", "")), batch_size=2)
    assert ids_of(catalogue) == [
        [CLS, SEP],
        ids("[CLS] say title : a b tag : c [SEP]"),
        ids("[CLS] say tag : d [SEP]"),
        ids("[CLS] say title : zzz [SEP]"),
    ]
    assert catalogue.n_items == 4
    assert catalogue.tokens.dtype == np.int32 and catalogue.offsets.dtype == np.int64
    assert list(catalogue.texts) == ["", "say title: a b tag: c", "say tag: d", "say title: zzz"]


def test_items_without_text_have_the_prompt_alone():
    catalogue = build(item_texts(("a", ""), None, ("", "")))
    assert ids_of(catalogue)[2:] == [ids("[CLS] say [SEP]")] * 2
    assert catalogue.report.without_row == 1 and catalogue.report.without_text == 1


def test_reference_gives_an_item_without_a_row_the_empty_text():
    catalogue = build(item_texts(("a", ""), None, ("", "")), reference=frozenset({"empty_text"}))
    assert ids_of(catalogue)[2:] == [[CLS, SEP], ids("[CLS] say [SEP]")]


def test_the_limit_keeps_the_special_tokens():
    catalogue = build(item_texts(("a b c d", "e"), ("a", "")), max_text_length=7)
    assert ids_of(catalogue)[1:] == [ids("[CLS] say title : a b [SEP]"), ids("[CLS] say title : a [SEP]")]
    assert catalogue.report.truncated == 1


def test_reference_cuts_whatever_is_at_the_end():
    texts = item_texts(("a b c d", "e"), ("a", ""))
    cut = build(texts, max_text_length=7, reference=frozenset({"truncation"}))
    assert ids_of(cut)[1:] == [ids("[CLS] say title : a b c"), ids("[CLS] say title : a [SEP]")]
    prompt_cut = build(texts, max_text_length=1, reference=frozenset({"truncation"}))
    assert ids_of(prompt_cut) == [[CLS], [CLS], [CLS]]
    assert prompt_cut.report.truncated == 2


@given(
    titles=st.lists(st.text(alphabet="abc ", max_size=30), min_size=1, max_size=5),
    limit=st.integers(4, 12),
)
def test_the_limit_is_that_of_the_tokenizer(titles, limit):
    """Cutting the plain result equals the tokenizer's own truncation."""
    tokenizer = make_tokenizer()
    catalogue = build(item_texts(*((title, "") for title in titles)), tokenizer, max_text_length=limit)
    expected = tokenizer(list(catalogue.texts), truncation=True, max_length=limit)["input_ids"]
    assert ids_of(catalogue) == expected


def test_a_prompt_without_room_is_refused():
    for limit in (1, 3):
        with pytest.raises(DataError, match=f"item_prompt takes 3 tokens and MAX_TEXT_LENGTH is {limit}"):
            build(item_texts(("a", "")), max_text_length=limit)
    assert ids_of(build(item_texts(("a", "")), max_text_length=4))[1] == ids("[CLS] say title [SEP]")


def test_special_tokens_in_a_text_are_plain_text():
    texts = item_texts(("a [SEP] b", ""))
    assert ids_of(build(texts))[1] == ids("[CLS] say title : a [ SEP ] b [SEP]")
    literal = build(texts, reference=frozenset({"special_tokens"}))
    assert ids_of(literal)[1] == ids("[CLS] say title : a [SEP] b [SEP]")


def test_a_special_token_at_the_end_of_a_text_is_cut_like_the_rest():
    cut = build(item_texts(("a b [SEP]", "")), max_text_length=6, reference=frozenset({"special_tokens"}))
    assert ids_of(cut)[1] == ids("[CLS] say title : a [SEP]")


def test_every_item_has_at_least_one_token():
    no_prompt = TextTemplate(("title", "tag"), "")
    plain = make_tokenizer(special=False)
    assert ids_of(build(item_texts(("", "")), plain, template=no_prompt)) == [[UNK], [UNK]]
    plain.eos_token = "h"
    assert ids_of(build(item_texts(("", "")), plain, template=no_prompt)) == [[ID["h"]], [ID["h"]]]
    empty = build(item_texts(("", "")), plain, template=no_prompt, reference=REFERENCE)
    assert ids_of(empty) == [[], []] and empty.tokens.dtype == np.int32


@pytest.mark.parametrize("reference", [frozenset(), REFERENCE])
def test_the_tokenizer_is_left_as_it_was(reference):
    tokenizer = make_tokenizer()
    tokenizer("a b c d", truncation=True, max_length=3, padding="max_length", split_special_tokens=True)
    before = tokenizer.backend_tokenizer.to_str()
    texts = item_texts(("a b c d", ""), ("a", ""))
    catalogue = build(texts, tokenizer, max_text_length=8, reference=reference)
    assert tokenizer.backend_tokenizer.to_str() == before
    assert tokenizer.split_special_tokens is False and tokenizer.backend_tokenizer.encode_special_tokens
    assert catalogue.report.max_tokens == 8, "truncation of an earlier call has no effect"
    assert len(ids_of(catalogue)[2]) == 6, "nor has its padding"


# --- report -------------------------------------------------------------------------------------------------


def test_the_report_counts_and_is_one_line_of_the_log(caplog):
    rows = [("a ™ ©", ""), ("猫咪 a", ""), ("🚀", ""), ("café ß", "❤️"), ("привет 👍🏽", ""), ("", ""), None]
    with caplog.at_level(logging.INFO):
        report = build(item_texts(*rows, ("a b c d e f g h", "")), max_text_length=12).report
    assert (report.items, report.without_row, report.without_text) == (8, 1, 1)
    assert (report.non_latin, report.emoji, report.truncated, report.max_tokens) == (2, 3, 1, 12)
    assert len(caplog.records) == 1 and caplog.records[0].getMessage() == str(report)
    assert "\n" not in str(report) and "2 with non-Latin letters, 3 with emoji" in str(report)


def test_mean_tokens_leave_the_padding_item_out():
    report = build(item_texts(("a", ""), ("a b c", ""))).report
    assert report.mean_tokens == 7.0 and report.max_tokens == 8


def test_a_given_logger_is_used(caplog):
    with caplog.at_level(logging.INFO):
        build(item_texts(("a", "")), logger=logging.getLogger("elsewhere"))
    assert [record.name for record in caplog.records] == ["elsewhere"]


def test_a_catalogue_of_no_items():
    report = build(item_texts()).report
    assert (report.items, report.mean_tokens, report.max_tokens) == (0, 0.0, 0)


# --- texts --------------------------------------------------------------------------------------------------


def test_rendered_texts_are_a_sequence():
    texts = RenderedTexts(item_texts(("a", "b"), None, ("c", "")), TEMPLATE, row_needed=False)
    assert len(texts) == 4
    assert texts[1:] == ["say title: a tag: b", "say ", "say title: c"]
    assert texts[-1] == "say title: c" and texts[np.int64(2)] == "say "
    assert texts[:2] == ["", "say title: a tag: b"]
    with pytest.raises(IndexError):
        texts[4]


def test_a_very_long_text():
    catalogue = build(item_texts(("a " * 200_000, "")), max_text_length=16)
    assert len(ids_of(catalogue)[1]) == 16 and len(catalogue.texts[1]) > 300_000


# --- cache --------------------------------------------------------------------------------------------------

ROWS = [("a b", "c"), None, ("猫 🚀", ""), ("a b c d e f g h", "a b c d e f g h")]


def entries(cache):
    return sorted(path.name for path in cache.iterdir() if not path.name.startswith("."))


def test_a_cache_hit_equals_a_fresh_catalogue(tmp_path, monkeypatch):
    fresh = build(item_texts(*ROWS))
    first = build(item_texts(*ROWS), cache=tmp_path)
    monkeypatch.setattr(TextTokenizer, "encode", lambda *args: pytest.fail("tokenised again"))
    hit = build(item_texts(*ROWS), cache=tmp_path)
    for catalogue in (first, hit):
        assert isinstance(catalogue.tokens, np.memmap) and catalogue.offsets.dtype == np.int64
        assert ids_of(catalogue) == ids_of(fresh)
        assert catalogue.report == fresh.report
        assert list(catalogue.texts) == list(fresh.texts)
    assert len(entries(tmp_path)) == 1


def test_the_cache_does_not_care_how_the_tokenizer_was_used_before(tmp_path):
    build(item_texts(*ROWS), cache=tmp_path)
    used = make_tokenizer()
    used("a b c", truncation=True, max_length=3, padding="max_length")
    build(item_texts(*ROWS), used, cache=tmp_path)
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"template": TextTemplate(("title", "tag"), "say ", separator=". ")},
        {"template": TextTemplate(("title", "tag"), "say ", separator=" ", missing_words_dropped=True)},
        {"max_text_length": 15},
        {"reference": frozenset({"truncation"})},
        {"tokenizer": make_tokenizer(special=False)},
    ],
)
def test_another_setting_has_another_key(tmp_path, change):
    build(item_texts(*ROWS), cache=tmp_path)
    build(item_texts(*ROWS), cache=tmp_path, **change)
    assert len(entries(tmp_path)) == 2


def test_another_text_or_another_order_has_another_key(tmp_path):
    build(item_texts(*ROWS), cache=tmp_path)
    build(item_texts(*ROWS[::-1]), cache=tmp_path)
    build(item_texts(*ROWS[:-1]), cache=tmp_path)
    build(item_texts(*ROWS, ("", "")), cache=tmp_path)
    assert len(entries(tmp_path)) == 4


@pytest.mark.parametrize("array", ["tokens", "lengths", "flags", "hashes"])
@pytest.mark.parametrize("damage", [lambda content: content[:-8], lambda content: content[:-1] + b"\x7f"])
def test_a_damaged_cache_is_made_again(tmp_path, array, damage):
    fresh = build(item_texts(*ROWS), cache=tmp_path)
    expected, report = ids_of(fresh), fresh.report
    (entry,) = (tmp_path / name for name in entries(tmp_path))
    content = (entry / f"{array}.npy").read_bytes()
    (entry / f"{array}.npy").write_bytes(damage(content))
    again = build(item_texts(*ROWS), cache=tmp_path)
    assert ids_of(again) == expected and again.report == report
    assert (entry / f"{array}.npy").read_bytes() == content and entries(tmp_path) == [entry.name]


# --- look-up ------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, len(ROWS))))
def test_lookup_equals_a_loop(wanted):
    catalogue = build(item_texts(*ROWS))
    flat, lengths = catalogue.lookup(np.array(wanted, dtype=np.int64))
    tokens = ids_of(catalogue)
    assert flat.tolist() == [token for item in wanted for token in tokens[item]]
    assert lengths.tolist() == [len(tokens[item]) for item in wanted]
    assert flat.dtype == lengths.dtype == torch.int64


def test_lookup_takes_tensors_of_any_shape_and_a_memory_mapped_catalogue(tmp_path):
    catalogue = build(item_texts(*ROWS), cache=tmp_path)
    wanted = torch.tensor([[4, 0], [1, 4]])
    flat, lengths = catalogue.lookup(wanted)
    expected = catalogue.lookup(wanted.flatten().numpy().astype(np.int32))
    assert torch.equal(flat, expected[0]) and torch.equal(lengths, expected[1])
    assert lengths.shape == (4,) and flat.shape == (int(lengths.sum()),)
