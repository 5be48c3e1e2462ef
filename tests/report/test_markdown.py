"""The report as Markdown."""

import markdown

from recbole_hllm.report.examples import Example
from recbole_hllm.report.markdown import escaped, to_markdown
from recbole_hllm.report.sections import Cell, Section, Table

TABLE = Table("T", ("model", "x"), ((Cell("A|B"), Cell("0.2", 0.2, True)), (Cell("C"), Cell("0.1", 0.1))), "a note")


def test_sections_and_tables():
    text = to_markdown("t", [Section("S", ("said",), (TABLE,)), Section("Curves", figures=("loss",))], [], "a: 1\n")
    assert text == (
        "# t\n\n## S\n\n- said\n\n### T\n\n| model | x |\n| --- | ---: |\n| A\\|B | **0.2** |\n| C | 0.1 |\n\n"
        "a note\n\n"
        "## Keys\n\n```yaml\na: 1\n```\n"
    )


def test_texts_of_others_are_text(hostile):
    html = markdown.markdown(escaped(hostile))
    assert "<script" not in html and "<em>" not in html and "<code>" not in html
    example = Example("u", True, [hostile], [hostile], {"A": 1, "B": 9}, {"A": [hostile]})
    html = markdown.markdown(to_markdown(hostile, [], [example], None))
    assert "<script" not in html and "rank of the target: A 1, B 9" in html


def test_a_fence_that_the_keys_cannot_end():
    assert "\n````yaml\na: '```'\n````\n" in to_markdown("t", [], [], "a: '```'\n")
