"""The page: complete, whole in itself, and safe for any text."""

import re
from html.parser import HTMLParser

import pytest

from recbole_hllm.description.page import to_page
from recbole_hllm.description.sections import sections_of

EMPTY = {"meta", "br", "line", "rect", "circle", "polyline"}


class Reader(HTMLParser):
    """Checks that elements are closed in order, and keeps what is in them."""

    def __init__(self):
        super().__init__()
        self.open, self.cells, self.headings, self.attributes, self.plots = [], [], [], [], 0

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        self.plots += tag == "svg"
        if tag not in EMPTY or tag == "rect" or tag == "circle":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] in (["td"], ["th"]):
            self.cells.append(data)
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_the_page_needs_nothing_else(hand):
    page = to_page(hand())
    assert not re.search(r"https?:|//|<script|<link|@import|url\(", page)
    names = dict(read(page).attributes).keys()
    assert not names & {"src", "onclick", "onload"}
    assert all(value.startswith("#") for name, value in read(page).attributes if name == "href")


def test_every_number_of_the_tables_is_in_it_and_every_plot_has_a_table(hand):
    found = hand()
    page, sections = read(to_page(found)), sections_of(found)
    assert page.headings == [section.title for section in sections]
    tables = [table for section in sections for table in section.tables]
    cells = [cell for table in tables for row in (table.columns, *table.rows) for cell in row if cell]
    assert [cell for cell in page.cells if cell] == cells
    assert page.plots == sum(table.plot is not None for table in tables) > 5


def test_links_lead_to_the_sections(hand):
    attributes = read(to_page(hand())).attributes
    links = {value[1:] for name, value in attributes if name == "href"}
    assert links == {value for name, value in attributes if name == "id"} and "look-at" in links


def test_keys_in_sentences_are_code(hand):
    page = to_page(hand())
    assert "<code>--rm_dup_inter=first</code> keeps" in page
    assert '<code>--item_inter_num_interval="[k,inf)"</code>, again' in page


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "\"quoted\" & 'so'", "–—ü漢"])
def test_texts_of_the_data_stay_texts(hand, text):
    found = hand()
    found["texts"]["file"] = found["dataset"] = text
    found["look_at"] = [text]
    page = to_page(found)
    assert "<script" not in page
    reader = read(page)
    assert f"rows of {text}" in reader.cells
