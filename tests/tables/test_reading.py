"""Sentences that read a table, with every number in them."""

import numpy as np
import pytest

from recbole_hllm.tables.reading import reading

SEEDS = "Each row is one run with one seed: before you name a winner, repeat the rows with other seeds."


def row(model, stop_reason="early stopping", **result):
    result = {name.replace("_at_", "@"): value for name, value in result.items()}
    return {"model": model, "test_result": result, "costs": {"stop_reason": stop_reason}}


def rule(model, **result):
    return row(model, "counted once", **result)


TABLE = [
    row("HLLM", recall_at_10=0.14, ndcg_at_10=0.07),
    row("SASRec", recall_at_10=0.13, ndcg_at_10=0.0625),
    rule("Pop", recall_at_10=0.05, ndcg_at_10=0.02),
    rule("Markov", recall_at_10=0.12, ndcg_at_10=0.05),
]


def test_a_trained_row_leads():
    assert reading(TABLE, "ndcg@10") == [
        "HLLM leads in ndcg@10 with 0.0700, 12 % above SASRec (0.0625), and in recall@10 too.",
        SEEDS,
        "The best row that trains nothing is Markov (it counts which item directly followed which): HLLM is 40 % above "
        "Markov (0.0500); SASRec passes it too.",
    ]


@pytest.mark.parametrize(
    "model, does, meaning",
    [
        ("Markov", "it counts which item directly followed which", "the last item alone says as much about the"),
        ("Pop", "it counts interactions", "popularity alone says as much about the next item"),
        ("TextKNN", "it compares texts", "similar texts alone say as much about"),
        ("TextKNN@title", "it compares texts", "similar texts alone say"),
        ("PromptLLM", "a rule without training", "the rule alone says as much about the next item"),
    ],
)
def test_a_rule_leads(model, does, meaning):
    rows = [row("HLLM", ndcg_at_10=0.04), row("SASRec", ndcg_at_10=0.05), rule(model, ndcg_at_10=0.0502)]
    lead, _, training = reading(rows, "ndcg@10")
    assert lead == f"{model} leads in ndcg@10 with 0.0502, 0.4 % above SASRec (0.0500)."
    assert training.startswith(f"{model} trains nothing ({does}), and no trained row passes it: {meaning}")


def test_a_trained_row_that_is_level_with_a_rule_does_not_pass_it():
    rows = [row("A", ndcg_at_10=0.05), rule("Pop", ndcg_at_10=0.05), row("B", ndcg_at_10=0.01)]
    lead, seeds, training = reading(rows, "ndcg@10")
    assert (lead, seeds) == ("A and Pop tie in ndcg@10 with 0.0500, 400 % above B (0.0100).", SEEDS)
    assert "Pop trains nothing (it counts interactions), and no trained row passes it" in training
    rows.append(row("C", ndcg_at_10=0.06))
    assert reading(rows, "ndcg@10")[-1].endswith("C is 20 % above Pop (0.0500); A and B do not pass it.")


def test_what_leads_elsewhere_is_named():
    rows = [
        row("A", ndcg_at_10=0.3, recall_at_10=0.4, recall_at_50=0.5, mrr_at_10=0.2, hit_at_10=0.0),
        row("B", ndcg_at_10=0.2, recall_at_10=0.5, recall_at_50=0.6, mrr_at_10=0.2, hit_at_10=0.0),
    ]
    assert reading(rows, "ndcg@10")[0] == (  # all have the same mrr and hit
        "A leads in ndcg@10 with 0.3000, 50 % above B (0.2000); "
        "B leads in recall@10 and recall@50."
    )


def test_what_the_leader_leads_too_and_ties_elsewhere():
    rows = [row("A", ndcg=0.3, mrr=0.4, hit=0.5), row("B", ndcg=0.2, mrr=0.3, hit=0.5), row("C", ndcg=0.1, hit=0.4)]
    assert reading(rows, "ndcg")[0] == (
        "A leads in ndcg with 0.3000, 50 % above B (0.2000), and in mrr too; A and B tie in hit."
    )


def test_the_smaller_value_leads_where_less_is_better():
    rows = [row("DIN", logloss=0.64, auc=0.7), row("DeepFM", logloss=0.608, auc=0.71), row("Lost", auc=0.6)]
    lead, seeds = reading(rows, "logloss")
    assert lead == "DeepFM leads in logloss (less is better) with 0.6080, 5.0 % below DIN (0.6400), and in auc too."
    assert seeds == SEEDS
    rows.append(rule("Rule", logloss=0.62))
    assert reading(rows, "logloss")[-1] == (
        "The best row that trains nothing is Rule (a rule without training): DeepFM is 1.9 % below Rule (0.6200); DIN "
        "does not pass it."
    )


def test_tables_with_little_to_say():
    failed = {"model": "C", "error": "not comparable", "test_result": {"ndcg@10": 0.9}}
    untested = {"model": "D", "test_result": None}
    only_a = ["Only A has a value of ndcg@10: there is nothing to compare it with."]
    assert reading([row("A", ndcg_at_10=0.1)], "ndcg@10") == []
    assert reading([failed, untested], "ndcg@10") == []
    assert reading([row("A", ndcg_at_10=0.1), failed, untested], "ndcg@10") == only_a
    assert reading([row("A", ndcg_at_10=0.1), row("B", ndcg_at_10=float("nan"))], "ndcg@10") == only_a
    nothing_found = [row("A", ndcg_at_10=0.0), row("B", ndcg_at_10=0)]
    assert reading(nothing_found, "ndcg@10") == ["Every row has 0 in ndcg@10: it does not distinguish the rows."]
    level = [row("A", ndcg_at_10=0.1), row("B", ndcg_at_10=0.1), row("C", ndcg_at_10=0.1)]
    assert reading(level, "ndcg@10") == ["A, B and C tie in ndcg@10 with 0.1000.", SEEDS]
    rules = [rule("Pop", ndcg_at_10=0.1), rule("Markov", ndcg_at_10=0.2)]
    assert reading(rules, "ndcg@10") == ["Markov leads in ndcg@10 with 0.2000, 100 % above Pop (0.1000).", SEEDS]


def test_a_metric_without_values_gives_way_to_the_first_of_the_table():
    assert reading(TABLE, "mrr@10")[0].startswith("HLLM leads in recall@10 with 0.1400, 7.7 % above SASRec (0.1300)")


def test_distances_that_no_percent_can_say():
    assert "with 0.1000, 0.1000 above B (0.0000)" in reading([row("A", auc=0.1), row("B", auc=0.0)], "auc")[0]
    assert "with 0.1000, 0.2000 above B (-0.1000)" in reading([row("A", auc=0.1), row("B", auc=-0.1)], "auc")[0]
    close = reading([row("A", auc=0.5001), row("B", auc=0.5)], "auc")[0]
    assert "with 0.5001, less than 0.1 % above B (0.5000)" in close


def test_standard_errors_compare_user_by_user():
    """Four users, one row each: differences of 1, 0, 0 and 0 have mean 1/4 and standard error 1/4."""
    rows = [row("A", ndcg_at_10=0.75), row("B", ndcg_at_10=0.5), rule("Pop", ndcg_at_10=0.25)]
    one = np.ones(4)
    by_user = {
        "A": np.stack([[1, 1, 1, 0], one]),
        "B": np.stack([[0, 1, 1, 0], one]),
        "Pop": np.stack([[0, 0, 1, 0], one]),
    }
    assert reading(rows, "ndcg@10", by_user) == [
        "A leads in ndcg@10 with 0.7500, 50 % above B (0.5000).",
        "The difference is 1.0 standard errors over 4 test users, which may be chance.",
        SEEDS,
        "The best row that trains nothing is Pop (it counts interactions): A is 200 % above Pop (0.2500), 1.7 standard "
        "errors; B passes it too.",
    ]
    del by_user["Pop"]
    assert reading(rows, "ndcg@10", by_user)[-1].endswith("A is 200 % above Pop (0.2500); B passes it too.")
    by_user["B"] = by_user["A"] - [[0.5], [0]]  # by as much for every user: nothing varies
    assert reading(rows, "ndcg@10", by_user)[1] == SEEDS


def test_a_difference_that_few_choices_of_users_would_undo():
    by_user = {"A": np.stack([np.tile([1, 0], 500), np.ones(1000)]), "B": np.stack([np.zeros(1000), np.ones(1000)])}
    said = reading([row("A", hit_at_1=0.5), row("B", hit_at_1=0.0)], "hit@1", by_user)
    # 0.5 / sqrt(0.25 / 999), as the standard error of a mean of 1,000 values of 0 and 1
    assert said[1] == (
        "The difference is 31.6 standard errors over 1,000 test users, more than the choice of test users explains."
    )


def test_users_with_more_rows_count_for_more():
    """One user with three rows, all found, and one with one row, missed: 3/4 and a residual of 3/4 each."""
    by_user = {"A": np.array([[3.0, 0], [3, 1]]), "B": np.array([[0.0, 0], [3, 1]])}
    said = reading([row("A", hit_at_1=0.75), row("B", hit_at_1=0.1)], "hit@1", by_user)
    # 3/4 over sqrt(2 * (0.75 ** 2 + 0.75 ** 2)) / 4
    assert said[1].startswith("The difference is 2.0 standard errors over 2 test users, more than")


def test_a_sum_of_trained_rows_is_no_rule():
    rows = [rule("Blend", ndcg_at_10=0.06), row("SASRec", ndcg_at_10=0.05), rule("Markov", ndcg_at_10=0.04)]
    assert reading(rows, "ndcg@10")[-1] == (
        "The best row that trains nothing is Markov (it counts which item directly followed which): Blend is 50 % "
        "above Markov (0.0400); SASRec passes it too."
    )
