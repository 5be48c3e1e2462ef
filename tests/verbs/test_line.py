"""A line's verb: named, or asked for by its keys."""

import subprocess
import sys

import pytest

from recbole_hllm import cli
from recbole_hllm.verbs.line import CommandLine

ON = ["--dataset=toy"]


@pytest.mark.parametrize(
    "verb, words",
    [
        ("run", ["--model=SASRec"]),
        ("run", ["--resume", "--run_dir=gone"]),
        ("compare", ["--model=SASRec,Pop"]),
        ("search", ["--model=SASRec,Pop", "--trials=2"]),
        ("stages", ["--model=HLLM", "--training_stage=[1,2]"]),
        ("plan", ["--model=SASRec,Pop", "--plan"]),
        ("plan", ["--model=SASRec", "--trials=2", "--plan"]),
        ("evaluate", ["--evaluate_only", "--run_dir=gone"]),
    ],
)
def test_keys_ask_for_a_verb(verb, words):
    assert CommandLine(words).asked == verb


@pytest.mark.parametrize("alone", [True, False], ids=["verb", "keys"])
@pytest.mark.parametrize(
    "verb, key, function",
    [
        ("run", None, "recbole_hllm.runs.run.run"),
        ("evaluate", "--evaluate_only=True", "recbole_hllm.runs.run.run"),
        ("compare", "--model=SASRec,Pop", "recbole_hllm.tables.side_by_side.compare"),
        ("search", "--trials=2", "recbole_hllm.tables.search.search"),
        ("stages", "--training_stage=1", "recbole_hllm.runs.stages.run_stages"),
    ],
)
def test_a_verb_is_what_its_keys_are(verb, key, function, alone, monkeypatch):
    calls = []
    monkeypatch.setattr(function, lambda *given, **named: calls.append((given, named)) or {"failed": []})
    monkeypatch.setattr("recbole_hllm.runs.plan.plan_text", str)
    words = [key or "--seed=3", "--run_dir=x", "--topk=[5]"] + ["--model=SASRec"] * (verb != "compare")
    named = [verb] if alone else []
    assert cli.main(named + [word for word in words if not (alone and verb == "evaluate" and word == key)]) == 0
    given, options = calls[0]
    assert options["run_dir"] == "x" and options["arguments"]["topk"] == "[5]" and "model" not in options["arguments"]
    assert options["arguments"].get("evaluate_only") == ("True" if verb == "evaluate" else None)
    models = {"compare": ["SASRec", "Pop"], "search": ["SASRec"]}.get(verb, "SASRec")
    assert given[0] == models


@pytest.mark.parametrize(
    "words, said",
    [
        (["comapre", *ON], "'comapre' is not a verb (run, compare, search, stages, plan, "),
        (["comapre", *ON], "did you mean 'compare'?"),
        (["run", "--model=SASRec,Pop", *ON], "run: more than one model asks for 'compare'"),
        (["run", "--model=SASRec", "--trials=2", *ON], "run: trials asks for 'search'"),
        (["compare", "--model=SASRec,Pop", "--plan", *ON], "compare: --plan asks for 'plan'"),
        (["evaluate", "--training_stage=1", *ON], "evaluate: training_stage asks for 'stages'"),
        (["search", "--model=SASRec", *ON], "trials: say how many"),
        (["plan", "--model=SASRec", "--trials=2", *ON], "leave trials out"),
        (["plan", "--model=HLLM", "--training_stage=1", *ON], "leave training_stage out"),
        (["plan", "--model=SASRec", "--Pop.seed=1", *ON], "'Pop' is not a model of this run"),
        (["evaluate"], "run_dir: name the folder"),
        (["run", "SASRec"], "'SASRec' belongs to no key"),
        (["--model=SASRec", "run"], "(several words in quotes); a verb is the first word"),
        (["stages", "--model=HLLM", *ON], "training_stage is not set: give --training_stage=[1,2,3]"),
        (["help", "HLLM"], "there is no verb named 'HLLM'; the keys of a model: help --model=NAME"),
        (["help", "pln"], "there is no verb named 'pln'; did you mean 'plan'?"),
    ],
)
def test_lines_that_contradict_themselves(words, said, capsys):
    assert cli.main(words) == 2
    assert said in capsys.readouterr().err


def test_each_verb_has_a_page_of_its_own(capsys):
    for verb in cli.VERBS:
        pages = []
        for words in (["help", verb], [verb, "--help"], ["-h", verb]):
            assert cli.main(words) == 0
            pages.append(capsys.readouterr().out)
        assert pages[0] == pages[1] == pages[2] and f"usage: recbole-hllm {verb} " in pages[0]
        assert max(map(len, pages[0].splitlines())) <= 120
        cli.main([])
        assert f"\n  {verb:<10} {pages[0].partition(chr(10))[0]}\n" in capsys.readouterr().out
    assert cli.main(["help", "run", "--model=Markov@other"]) == 0
    assert "\nsanity_rows" not in (page := capsys.readouterr().out) and "# ---- Markov@other ----" in page


def test_help_loads_neither_recbole_nor_torch():
    code = "import sys; from recbole_hllm.cli import main; main([]); main(['help', 'plan']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stdout.splitlines()[-1]
    assert "'recbole_hllm.verbs.plan'" in modules and "'torch'" not in modules and "'recbole'" not in modules
