"""The text on the console."""

import pytest

from recbole_hllm.description.findings import percent
from recbole_hllm.description.sections import Plot, Section, Table, sections_of, to_console


@pytest.mark.parametrize(
    "share, text",
    [
        (0, "0 %"), (1, "100 %"), (0.5, "50 %"), (0.196, "20 %"), (0.0472, "4.7 %"), (0.00031, "0.031 %"),
        (0.9999, "almost 100 %"), (1e-7, "0.00001 %"), (0.099, "9.9 %"), (0.0996, "10 %"),
    ],
)  # fmt: skip
def test_shares(share, text):
    assert percent(share) == text


def test_columns_are_aligned_and_bars_as_long_as_their_values(hand):
    lines = to_console(hand()).splitlines()
    at = lines.index("Users by their number of interactions")
    assert lines[at + 1 : at + 6] == [
        "interactions  users  share",
        "1                 1   25 %  ###############",
        "2                 0    0 %",
        "3                 1   25 %  ###############",
        "4-5               2   50 %  ##############################",
    ]


def test_every_table_has_a_cell_for_each_column_and_every_plot_a_value_for_each_row(hand):
    for section in sections_of(hand()):
        assert isinstance(section, Section) and (section.tables or section.sentences)
        for table in section.tables:
            assert isinstance(table, Table) and table.rows
            assert {len(row) for row in table.rows} == {len(table.columns)}
            assert table.plot is None or len(table.plot.values) == len(table.rows)


def test_a_plot_of_zeros_has_no_bars():
    plot = Plot("bars", (0.0, 0.0), "x", "y")
    assert "#" not in "".join(line for line in _lines(Table("t", ("x", "y"), (("a", "0"), ("b", "0")), plot)))


def _lines(table):
    from recbole_hllm.description.sections import _aligned

    return _aligned(table).splitlines()
