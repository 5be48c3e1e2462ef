"""Item texts become token ids: limits, special tokens, empty texts, cache and look-up."""

import logging
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from recbole_hllm.data.texts import catalogue as catalogue_module
from recbole_hllm.data.texts.catalogue import ItemCatalogue, RenderedTexts
from recbole_hllm.data.texts.item_rows import ItemFile
from recbole_hllm.data.texts.item_texts import ItemTexts, read_item_texts
from recbole_hllm.data.texts.template import TextTemplate
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


def counted(monkeypatch):
    """Texts that are tokenised from now on."""
    seen, encode = [], TextTokenizer.encode
    monkeypatch.setattr(TextTokenizer, "encode", lambda self, texts: (seen.extend(texts), encode(self, texts))[1])
    return seen


FIELDS = st.tuples(st.text(alphabet="abc 猫[SEP]", max_size=12), st.sampled_from(["", "d"]))


@settings(max_examples=30, deadline=None)
@given(
    first=st.lists(FIELDS | st.none(), max_size=12),
    second=st.lists(FIELDS | st.none(), max_size=12),
    kept=st.lists(st.integers(0, 11), max_size=12),
    shard=st.integers(1, 6),
    batch=st.integers(1, 4),
)
def test_with_an_earlier_catalogue_it_equals_a_fresh_one(tmp_path_factory, first, second, kept, shard, batch):
    """Items may have moved, gone, changed and come."""
    cache = tmp_path_factory.mktemp("cache")
    later = [first[place] for place in kept if place < len(first)] + second
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue_module, "SHARD", shard)
        build(item_texts(*first), cache=cache, batch_size=batch, max_text_length=8)
        seen = counted(patch)
        again = build(item_texts(*later), cache=cache, batch_size=batch, max_text_length=8)
    fresh = build(item_texts(*later), max_text_length=8)
    for name in ("tokens", "offsets"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fresh, name))
        assert getattr(again, name).dtype == getattr(fresh, name).dtype
    assert again.report == fresh.report
    known = set(RenderedTexts(item_texts(*first), TEMPLATE, row_needed=False))
    assert sorted(seen) == sorted(text for text in fresh.texts if text not in known)


def test_only_new_and_changed_texts_are_tokenised(tmp_path, monkeypatch):
    build(item_texts(("a", ""), ("b", ""), ("c", "")), cache=tmp_path)
    seen = counted(monkeypatch)
    build(item_texts(("c", ""), ("a b", ""), ("b", ""), ("d", "")), cache=tmp_path)
    assert seen == ["say title: a b", "say title: d"]
    build(item_texts(("c", "")), cache=tmp_path, max_text_length=15)
    assert seen[2:] == ["", "say title: c"], "other settings have other tokens"


def test_an_interrupted_catalogue_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue_module, "SHARD", 2)
    rows = [("a", ""), ("b c", ""), ("d", ""), None]
    encode = TextTokenizer.encode

    def interrupted(self, texts):
        if "say title: d" in texts:
            raise KeyboardInterrupt
        return encode(self, texts)

    with monkeypatch.context() as patch:
        patch.setattr(TextTokenizer, "encode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(item_texts(*rows), cache=tmp_path)
    assert entries(tmp_path) == []
    seen = counted(monkeypatch)
    catalogue = build(item_texts(*rows), cache=tmp_path)
    assert seen == ["say title: b c", "say title: d", "say "]
    assert ids_of(catalogue) == ids_of(build(item_texts(*rows)))


def test_on_all_cores_the_tokens_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    rows = [("a b", "c"), None, ("猫 🚀", "")] * 20
    alone = build(item_texts(*rows))
    monkeypatch.setattr(catalogue_module, "PARALLEL_FROM", 1)
    together = build(item_texts(*rows), batch_size=16)
    np.testing.assert_array_equal(together.tokens, alone.tokens)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


# --- from a file --------------------------------------------------------------------------------------------


@pytest.fixture
def item_file(tmp_path):
    path = tmp_path / "toy.item"
    path.write_text("item_id:token\ttitle:token_seq\ttag:token\ny\ta b\tc\nx\t猫\t\n")
    return path


def of_file(path, cache, ids=("[PAD]", "x", "y", "z"), **options):
    texts = read_item_texts(path, TEMPLATE.text_keys, ids, cache=cache, **options)
    return build(texts, cache=cache)


def test_of_the_same_file_no_text_is_read_again(item_file, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = of_file(item_file, cache)
    assert list(first.texts) == ["", "say title: 猫", "say title: a b tag: c", "say "]
    monkeypatch.setattr(TextTemplate, "render", lambda *args: pytest.fail("rendered again"))
    monkeypatch.setattr(ItemFile, "find", lambda *args: pytest.fail("read again"))
    again = of_file(item_file, cache)
    assert ids_of(again) == ids_of(first) and again.report == first.report
    assert again.report.without_row == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text(path.read_text().replace("a b", "a c")),
        lambda path: path.write_text(path.read_text() + "z\tb\t\n"),
    ],
)
def test_a_changed_file_is_read_again(item_file, tmp_path, monkeypatch, change):
    cache = tmp_path / "cache"
    of_file(item_file, cache)
    change(item_file)
    seen = counted(monkeypatch)
    changed = of_file(item_file, cache)
    assert len(seen) == 1
    assert ids_of(changed) == ids_of(of_file(item_file, tmp_path / "other"))


def test_other_ids_or_columns_of_the_same_file_are_another_catalogue(item_file, tmp_path):
    cache = tmp_path / "cache"
    of_file(item_file, cache)
    assert of_file(item_file, cache, ids=("[PAD]", "y", "x")).texts[1] == "say title: a b tag: c"
    swapped = read_item_texts(item_file, ("tag", "title"), ("[PAD]", "x", "y", "z"), cache=cache)
    assert build(swapped, cache=cache, template=TextTemplate(("tag", "title"), "say ")).n_items == 4
    both = read_item_texts(item_file, ("title", "title"), ("[PAD]", "x", "y", "z"), cache=cache)
    assert list(build(both, cache=cache).texts)[1] == "say title: 猫 tag: 猫"


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
