"""The HTML page, read as a browser reads it."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from recbole_hllm.report.content import read_content
from recbole_hllm.report.examples import Example
from recbole_hllm.report.page import to_page
from recbole_hllm.report.sections import Section
from recbole_hllm.report.write import write_report

EMPTY = {"meta", "path", "circle", "br"}


class Page(HTMLParser):
    """Tags with their attributes, texts by the tag they stand in, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def within(self, tag):
        return [text for name, text in self.texts if name == tag]


@pytest.fixture
def page_of(write_table):
    def make(**arguments):
        folder = write_table(**arguments)
        write_report(folder, examples=0)
        return (folder / "report.html").read_text(encoding="utf-8")

    return make


def test_numbers_are_those_of_the_table(page_of, tmp_path):
    text = page_of()
    page, content = Page(text), read_content(tmp_path / "table")
    for row in content.rows:
        for value in row["test_result"].values():
            assert f"{value:.4f}" in page.within("td")
    values = [tag[1]["data-value"] for tag in page.tags if tag[0] == "td" and "data-value" in tag[1]]
    assert {repr(row["test_result"]["ndcg@10"]) for row in content.rows} <= set(values)
    assert page.within("h2") == [
        "Results", "Quality and cost", "Curves", "Segments", "User by user", "Protocol", "Keys",
    ]  # fmt: skip


def test_nothing_is_loaded_from_anywhere(page_of):
    text = page_of()
    page = Page(text)
    assert not re.search(r"https?:|//\w|@import|url\(", text)
    assert {tag for tag, _ in page.tags} & {"img", "link", "iframe", "object", "embed", "base", "form"} == set()
    links = [attributes[name] for _, attributes in page.tags for name in ("src", "href") if name in attributes]
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert links and {link.removeprefix("#") for link in links} == ids


def test_only_the_pages_own_script_may_run(page_of):
    text = page_of()
    page = Page(text)
    (policy,) = (attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes)
    (script,) = page.within("script")
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'") and f"script-src 'sha256-{hashed}'" in policy
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_texts_of_others_are_text(page_of, hostile):
    name = hostile.replace("/", "")  # of a folder

    def change(table):
        table["header"]["dataset"] = hostile
        table["rows"][0]["costs"]["stop_reason"] = hostile
        table["rows"][0]["segments"]["history_length"][0]["segment"] = hostile
        table["rows"][1]["verdict"] = hostile
        table["rows"][2]["error"] = hostile

    text = page_of(names=(name, "SASRec", "Pop"), change=change)
    assert text.count("<script>") == 1 and text.count("&lt;script&gt;") > 8
    page = Page(text)
    assert page.within("h1") == [f"{hostile}: results"] and name in page.within("th")


def test_examples_with_names_of_items(hostile):
    example = Example("<u>", False, [hostile, "b"], ["t"], {"A": 2000, "B": 1}, {"A": ["x", "t"], "B": []})
    sections = [Section("User by user", examples=True)]
    text = to_page("title", sections, [], [example], None)
    page = Page(text)
    assert page.within("h4") == ["B ranks it 1, A 2,000"] and text.count("<script>") == 1
    assert page.within("dd") == ["<u>", f"{hostile}; b", "t"] and page.within("li") == ["x", "t"]
    assert [attributes.get("class") for tag, attributes in page.tags if tag == "li"] == [None, "hit"]


def test_tables_can_be_sorted_and_scrolled_by_keys(page_of):
    page = Page(page_of())
    regions = [attributes for tag, attributes in page.tags if attributes.get("role") == "region"]
    assert regions and all(one["tabindex"] == "0" and one["aria-label"] for one in regions)
    tables = [attributes["class"] for tag, attributes in page.tags if tag == "table"]
    assert tables.count("ranked") == 6 and tables.count("plain") == 1
    assert {attributes["scope"] for tag, attributes in page.tags if tag == "th"} == {"col", "row"}


def test_a_large_table_is_a_small_page(page_of):
    names = [f"Model@variant{number}" for number in range(40)]
    assert len(page_of(names=names).encode()) < 400_000
