"""Reading <name>.item and rendering the text of an item."""

import html
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas._libs.parsers import STR_NA_VALUES

from recbole_hllm.data.texts.item_texts import read_item_texts
from recbole_hllm.data.texts.template import MISSING_WORDS, TextTemplate
from recbole_hllm.errors import ConfigError, DataError

KEYS = ("title", "tag", "description")
TOKENS = ["[PAD]", "a", "b", "c"]
HEADER = "item_id:token\ttitle:token_seq\ttag:token\n"


def template(**options):
    return TextTemplate(text_keys=KEYS, item_prompt="Say: ", **options)


def raw_template(**options):
    return template(separator="", unescape_html=False, missing_words_dropped=True, **options)


@pytest.fixture
def item_file(tmp_path):
    def write(content: str | bytes):
        path = tmp_path / "toy.item"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# --- the template -------------------------------------------------------------------------------------------


def test_fields_follow_the_prompt_in_order_without_the_empty_ones():
    assert template().render(["X", "Y", "Z"]) == "Say: title: X. tag: Y. description: Z"
    assert template().render(["X", "", "Z"]) == "Say: title: X. description: Z"
    assert template().render(["", "  \t", ""]) == "Say: "


def test_reference_style_has_no_separator():
    assert raw_template().render(["X", "Y", ""]) == "Say: title: Xtag: Y"


def test_reference_style_keeps_the_raw_value():
    assert raw_template().render([" A &amp; B\n ", "  ", ""]) == "Say: title:  A &amp; B\n tag:   "


def test_names_of_fields_can_be_left_out():
    assert template(field="{value}").render(["X {key}", "", "Z"]) == "Say: X {key}. Z"


def test_a_field_can_be_written_in_any_way():
    assert template(field="{{{key}}}={value!r}", separator=";").render(["X", "", "Z"]) == (
        "Say: {title}='X';{description}='Z'"
    )


@pytest.mark.parametrize(
    "field", ["", "{key}", "{val}: {value}", "{value", "{value} {0}", "{value.x}", "{value:>9}", "value", None]
)
def test_a_field_without_place_for_the_value_or_with_another_is_refused(field):
    with pytest.raises(ConfigError, match="text_field: .* must hold {value}"):
        template(field=field)


def test_missing_words_are_those_of_pandas():
    assert MISSING_WORDS | {""} == STR_NA_VALUES


@pytest.mark.parametrize("word", sorted(MISSING_WORDS))
def test_missing_words_are_text_unless_the_reference_is_followed(word):
    assert template().render([word, "Y", ""]) == f"Say: title: {word}. tag: Y"
    assert raw_template().render([word, "Y", ""]) == "Say: tag: Y"
    assert raw_template().render([word + "!", "", ""]) == f"Say: title: {word}!"


@pytest.mark.parametrize(
    "value, shown",
    [
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("13&quot; bag", '13" bag'),
        ("13&amp;quot; bag", '13" bag'),
        ("&#26085;&#x672C;", "日本"),
        ("<b>bold</b> &lt;i&gt;", "<b>bold</b> <i>"),
        ("pen&notebook ?a=1&copy=2 AT&T", "pen&notebook ?a=1&copy=2 AT&T"),
        ("a\u00a0 \n\tb\x00\x1fc\u2028d", "a b c d"),
        ("👩‍🍳 👍🏽 مرحبا בעולם 猫咪", "👩‍🍳 👍🏽 مرحبا בעולם 猫咪"),
        ('"quoted" start', '"quoted" start'),
    ],
)
def test_values_are_cleaned(value, shown):
    assert template().render([value, "", ""]) == f"Say: title: {shown}"


@given(st.lists(st.text(), min_size=3, max_size=3))
def test_no_field_is_lost_and_the_order_is_kept(fields):
    raw = TextTemplate(KEYS, "P: ", separator=" | ", unescape_html=False)
    expected = " | ".join(f"{key}: {value}" for key, value in zip(KEYS, fields, strict=True) if value != "")
    assert raw.render(fields) == "P: " + expected


@given(st.lists(st.text(), min_size=3, max_size=3))
def test_cleaning_loses_no_visible_character(fields):
    def visible(text):
        return "".join(c for c in text if not c.isspace() and c.isprintable())

    text = TextTemplate(KEYS, "", separator="").render([html.escape(field) for field in fields])
    for field in fields:
        assert visible(html.unescape(field)) in visible(text) or "&" in field


# --- the file -----------------------------------------------------------------------------------------------


def test_rows_are_aligned_to_the_ids(item_file):
    path = item_file(HEADER + 'b\t"Quoted" start\tNone\nz\tnot used\t\na\t猫 🚀\t1, 2\r\n\nc\t\t\n')
    texts = read_item_texts(path, ["tag", "title"], TOKENS)
    assert list(texts.fields) == [("", ""), ("1, 2", "猫 🚀"), ("None", '"Quoted" start'), ("", "")]
    assert texts.has_row.tolist() == [False, True, True, True]
    assert texts.keys == ("tag", "title") and texts.without_row == 0


def test_tokens_may_be_a_numpy_array_and_ids_are_never_numbers(item_file):
    path = item_file("item_id:token\ttitle:token_seq\n007\tBond\n7\tSeven\n")
    texts = read_item_texts(path, ["title"], np.array(["[PAD]", "7", "007"]))
    assert list(texts.fields) == [("",), ("Seven",), ("Bond",)]


def test_the_padding_token_has_no_row(item_file):
    path = item_file("item_id:token\ttitle:token_seq\n[PAD]\tpad\na\tA\n")
    texts = read_item_texts(path, ["title"], ["[PAD]", "a"])
    assert list(texts.fields) == [("",), ("A",)] and not texts.has_row[0]


def test_other_separator_encoding_and_item_field(item_file):
    path = item_file("sku:token|name:token_seq\na|Café\n".encode("latin-1"))
    texts = read_item_texts(path, ["name"], ["[PAD]", "a"], "sku", field_separator="|", encoding="latin-1")
    assert texts.fields[1] == ("Café",)


def test_byte_order_mark_and_line_separators_inside_texts(item_file):
    path = item_file("\ufeff" + HEADER + "a\tone\u2028two\rthree\tx\n")
    assert read_item_texts(path, ["title"], ["[PAD]", "a"]).fields[1] == ("one\u2028two\rthree",)


def test_a_very_long_text_is_whole(item_file):
    long = "word " * 300_000
    path = item_file(HEADER + f"a\t{long}\tx\n")
    assert read_item_texts(path, ["title"], ["[PAD]", "a"]).fields[1] == (long,)


def test_items_without_a_row_are_counted_and_warned_about(item_file, caplog):
    path = item_file(HEADER + "a\tA\t\n")
    with caplog.at_level(logging.WARNING):
        texts = read_item_texts(path, ["title"], TOKENS)
    assert texts.without_row == 2 and texts.has_row.tolist() == [False, True, False, False]
    assert "2 of 3 items" in caplog.text and "b, c" in caplog.text
    with pytest.raises(DataError, match=r"toy.item: 2 of 3 items .* no row: b, c.*strict_data"):
        read_item_texts(path, ["title"], TOKENS, strict=True)


def test_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"absent.item: no such file. The texts .* 'item_id:token'"):
        read_item_texts(tmp_path / "absent.item", ["title"], TOKENS)


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "is empty: its first line"),
        ("\n", "is empty: its first line"),
        (HEADER, "a header but no item"),
        ("item_id:token\ttitle\na\tA\n", "line 1: column 'title' must be name:type"),
        ("item_id:token\ttitle:text\na\tA\n", "line 1: column 'title:text'.*token_seq"),
        ("item_id:token,title:token_seq\na,A\n", r"separated by '\\t' \(field_separator\)"),
        ("id:token\ttitle:token_seq\na\tA\n", r"line 1: no column 'item_id' \(the item column\).*id, title"),
        ("item_id:token\ttitles:token_seq\na\tA\n", r"'title' \(text_keys\).*'titles'\?; there are item_id"),
        (HEADER + "a\tA\tx\nb\tB\n", "line 3: 2 columns, but the header has 3"),
        (HEADER + "a\tA\tB\tx\n", "line 2: 4 columns, but the header has 3"),
        (HEADER + "a\tA\t\nb\tB\t\n\na\tC\t\n", r"line 5: item 'a' \(column 'item_id'\) .* line 2"),
        (HEADER.encode() + b"a\tA\t\nb\t\xff\xfe\t\n", "line 3: not valid utf-8"),
    ],
)
def test_bad_files_are_refused_with_their_line(item_file, content, message):
    with pytest.raises(DataError, match=rf"toy.item.*{message}"):
        read_item_texts(item_file(content), ["title"], TOKENS)


def test_the_undecodable_line_is_found_far_into_the_file(item_file):
    lines = [HEADER.encode()] + [f"i{n}\ttitle {n}\tx\n".encode() for n in range(20_000)]
    lines[15_000] = b"bad\t\xe9t\xe9\tx\n"
    with pytest.raises(DataError, match="line 15001: not valid utf-8"):
        read_item_texts(item_file(b"".join(lines)), ["title"], TOKENS)
