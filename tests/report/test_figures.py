"""What is drawn."""

from recbole_hllm.report.content import read_content
from recbole_hllm.report.figures import FRONT, costs_of, figures_of, fronts


def by_name(folder):
    return {figure.name: figure for figure in figures_of(read_content(folder))}


def test_numbers_are_those_of_the_table(write_table):
    folder = write_table()
    content, figure = read_content(folder), by_name(folder)["quality-seconds-to-best"]
    drawn = {series.name: series.points for series in figure.series if series.name != FRONT}
    assert drawn == {
        row["model"]: ((row["costs"]["seconds_to_best"], row["test_result"]["ndcg@10"]),) for row in content.rows
    }
    assert figure.logarithmic and figure.up == "ndcg@10"
    assert "HLLM: ndcg@10 0." in figure.series[0].notes[0] and "1m 40s" in figure.series[0].notes[0]


def test_the_front_is_that_of_its_definition(write_table):
    def change(table):
        table["rows"][2]["costs"]["flops_to_best"] = 1e12
        table["rows"][4]["test_result"]["ndcg@10"] = 0.0

    content = read_content(write_table(names=("A", "B", "C", "D", "E", "F"), change=change))
    points = {row["model"]: (row["costs"]["flops_to_best"], row["test_result"]["ndcg@10"]) for row in content.rows}
    plain = {
        name for name, (cost, value) in points.items()
        if not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points.values())
    }  # fmt: skip
    assert set(fronts(content)["flops_to_best"]) == plain and len(plain) == 4
    line = by_name(content.folder)["quality-flops-to-best"].series[-1]
    assert line.name == FRONT and [(x, y) for x, y in line.points] == sorted(points[name] for name in plain)


def test_of_a_metric_where_less_is_better_the_lower_are_on_the_front(write_table):
    def change(table):
        table["header"]["valid_metric"] = "LogLoss"
        for row, loss in zip(table["rows"], (0.3, 0.5, 0.4), strict=True):
            row["test_result"] = {"logloss": loss}

    assert fronts(read_content(write_table(change=change)))["seconds_to_best"] == ["Pop", "HLLM"]


def test_what_costs_nothing_is_named(write_table):
    def change(table):
        table["rows"][2]["costs"]["flops_to_best"] = 0.0

    figures = by_name(write_table(change=change))
    assert figures["quality-flops-to-best"].note == "Not drawn, as it is 0 there: Pop."
    assert figures["quality-seconds-to-best"].note == ""


def test_only_memory_is_counted_in_bytes(write_table):
    assert [name for name, figure in by_name(write_table()).items() if figure.of_bytes] == ["quality-peak-memory-bytes"]


def test_tables_of_earlier_versions_are_drawn_by_their_training(write_table):
    def change(table):
        for row in table["rows"]:
            row["costs"] = {"training_seconds": 3.0, "peak_memory_bytes": None}

    names = set(by_name(write_table(change=change)))
    assert {name for name in names if name.startswith("quality")} == {"quality-training-seconds"}


def test_a_failed_row_is_not_drawn_and_the_others_keep_their_colours(write_table):
    def change(table):
        table["rows"][0]["error"] = "no memory"

    content = read_content(write_table(change=change))
    rows = [series for figure in figures_of(content) for series in figure.series if series.name != FRONT]
    assert {(series.name, series.number) for series in rows} == {("SASRec", 1), ("Pop", 2)}
    assert set(costs_of(content.rows, ["seconds_to_best"])[1]) == {"SASRec", "Pop"}
    assert {series.name for figure in figures_of(content) for series in figure.series} == {"SASRec", "Pop", FRONT}


def test_curves_by_epoch_by_time_and_of_the_loss(write_table):
    figures = by_name(write_table())
    (one, two) = figures["validation-epochs"].series
    assert (one.name, two.name) == ("HLLM", "SASRec") and one.line  # Pop has a single point
    assert [x for x, _ in one.points] == [1, 2, 3, 4] and one.points[3][1] == 0.08
    assert [x for x, _ in figures["validation-seconds"].series[0].points] == [1.5, 3.0, 4.5, 6.0]
    assert [y for _, y in figures["loss"].series[0].points] == [1, 1 / 2, 1 / 3, 1 / 4]
    assert one.notes[3] == "HLLM: epoch 4, 0.0800 (highest)"


def test_a_table_of_failures_has_no_figure(write_table):
    def change(table):
        table["rows"] = [{"model": "HLLM", "error": "no memory"}]

    assert by_name(write_table(change=change)) == {}
