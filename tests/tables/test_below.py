"""What stands below a table of real runs."""

import pytest

from recbole_hllm import Config, run
from recbole_hllm.tables.below import below
from recbole_hllm.tables.side_by_side import read_row

MODELS = ["Pop", "SASRec", "Markov"]


@pytest.fixture(scope="module")
def table(settings_of, tmp_path_factory):
    """(rows, folders) of three runs of the toy data."""
    folders = {model: tmp_path_factory.mktemp("below") / model for model in MODELS}
    for model, folder in folders.items():
        run(model, config_dict={**settings_of(model), "stopping_step": 0, "epochs": 9}, run_dir=folder)
    return [read_row(model, folder) for model, folder in folders.items()], folders


def blocks(settings_of, table, **keys):
    rows, folders = table
    configs = {row["model"]: Config(row["model"], config_dict={**settings_of("Pop"), **keys}) for row in rows}
    return below(rows, configs, {model: [folder] for model, folder in folders.items()})


def test_the_reading_is_of_the_metric_that_chose_the_epochs(settings_of, table):
    """Markov knows every step of the walk."""
    ((lead, chance, _, training),) = blocks(settings_of, table)
    assert lead.startswith("Markov leads in mrr@10 with 1.0000, ") and lead.endswith(" and ndcg@10 too.")
    assert chance.endswith(" standard errors over 14 test users, more than the choice of test users explains.")
    assert training.startswith("Markov trains nothing (it counts which item directly followed which), and no trained")


def test_recommendations_are_of_the_first_trained_row(settings_of, table):
    _, (heading, last, following), listed = blocks(settings_of, table, show_recommendations=7)
    assert heading == "Recommendations of SASRec for user u0, the first of the test; what the user had is left out."
    assert last == "The user's last items: 0 red; 1 blue; 2 green; 3 grey; 4 red."
    assert following.startswith("The next, held out: 5 blue (")
    assert [line.partition(". ")[0] for line in listed] == [str(place) for place in range(1, 8)]
    others = {"5 blue", "6 green", "7 grey", "8 red", "9 blue", "10 green", "11 grey"}
    assert {line.partition(". ")[2] for line in listed} == others


def test_ratios_come_between(settings_of, table):
    reading, heading, ratios, *_ = blocks(settings_of, table, ratios_to="Pop", show_recommendations=1)
    assert reading[0].startswith("Markov leads") and heading[0].startswith("Relative to Pop") and len(ratios) == 5


def test_rows_without_a_result(settings_of, table):
    rows, folders = table
    failed = [{**row, "error": "not comparable"} for row in rows]
    assert blocks(settings_of, (failed, folders), show_recommendations=3) == []
    trained = [rows[0], failed[1], rows[2]]
    (read,) = blocks(settings_of, (trained, folders), show_recommendations=3)
    assert read[0].startswith("Markov leads in mrr@10 with 1.0000") and len(read) == 3


def test_recommendations_of_a_row_that_was_chosen_by_the_masked_column(settings_of, tmp_path):
    keys = {**settings_of("SASRec"), "mask_history": "both", "valid_metric": "MRR@10-masked", "epochs": 1}
    run("SASRec", config_dict=keys, run_dir=tmp_path)
    configs = {"SASRec": Config("SASRec", config_dict={**keys, "show_recommendations": 3})}
    *_, listed = below([read_row("SASRec", tmp_path)], configs, {"SASRec": [tmp_path]})
    assert [line.partition(". ")[0] for line in listed] == ["1", "2", "3"]
