"""Tables of what was tested."""

from recbole_hllm.tables.verdicts import verdict_lines
from recbole_hllm.units import MISSING


def found(difference, p, said, effect=0.2):
    return {"difference": difference, "low": difference - 0.01, "high": difference + 0.01, "effect": effect, "p": p,
            "p_holm": 2 * p, "users": 1234, "verdict": said}  # fmt: skip


ROWS = [
    {"model": "Base", "test_result": {"mrr@10": 0.1, "hit@10": 0.2}},
    {"model": "Good|er", "test_result": {"mrr@10": 0.15, "hit@10": 0.2},
     "tests": {"mrr@10": found(0.05, 1e-6, "better"), "hit@10": found(0.0, 0.5, "no difference found", None)}},
    {"model": "Failed", "error": "no memory", "tests": {}},
    {"model": "Slow", "test_result": {"mrr@10": 0.05, "hit@10": 0.1},
     "tests": {"mrr@10": found(-0.05, 0.011, "not converged"), "hit@10": found(-0.1, 0.01, "not converged")}},
]  # fmt: skip


def test_two_tables():
    heading, matrix, further, whole = verdict_lines(ROWS, "Base", "wilcoxon", "hit@10")
    assert heading[0].startswith("Against Base, user by user: mean difference and verdict. Paired Wilcoxon signed-rank")
    assert "over 1,234 test users" in heading[0] and "(Holm) for 4 tests" in heading[0] and "below 0.05" in heading[0]
    assert matrix == [
        "| model | mrr@10 | hit@10 |",
        "| --- | ---: | ---: |",
        "| Good\\|er | +0.0500 better | +0.0000 no difference found |",
        "| Slow | -0.0500 not converged | -0.1000 not converged |",
    ]
    assert further[0].startswith("The same in hit@10, with the interval (bootstrap over users)")
    assert whole[0] == "| model | difference | 95 % interval | effect size | p | p (Holm) | verdict |"
    good = f"+0.0000 | -0.0100 to +0.0100 | {MISSING} | 0.5000 | 1.0000 | no difference found"
    assert whole[2] == f"| Good\\|er | {good} |"
    assert whole[3] == "| Slow | -0.1000 | -0.1100 to -0.0900 | +0.200 | 0.0100 | 0.0200 | not converged |"


def test_small_p_values_and_a_metric_that_no_user_has():
    *_, further, whole = verdict_lines(ROWS, "Base", "t-test", "itemcoverage@10")
    assert "in mrr@10" in further[0] and "| < 0.0001 | < 0.0001 | better |" in whole[2]


def test_nothing_found():
    assert verdict_lines(ROWS[:1], "Base", "t-test", "mrr@10") == []
