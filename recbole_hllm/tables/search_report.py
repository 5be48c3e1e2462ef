"""Trials of a search as Markdown, CSV and JSON; nothing of the test, by which nobody should choose.

Everything here is a pure function of plain dicts. A trial is what ``trial_of`` makes of a table's row; the header is a
dict: ``dataset``, ``trials`` (of each model), ``valid_metric``, ``seed`` and ``spaces``, the values of each key of each
model.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from recbole_hllm.storage.files import json_text
from recbole_hllm.units import MISSING, format_seconds

_COSTS = ("epochs", "best_epoch", "converged", "stop_reason", "training_seconds")


def trial_of(row: dict[str, Any], picked: bool) -> dict[str, Any]:
    """What is reported of a trial.

    Args:
        row: of a table, with ``trial`` and ``keys``.
        picked: it is the best of its model.
    """
    failed = "error" in row
    return {
        "model": row["model"],
        "trial": row["trial"],
        "picked": picked,
        "keys": row["keys"],
        "valid_score": None if failed else row["best_valid_score"],
        "valid_result": None if failed else row["best_valid_result"],
        **{cost: row.get("costs", {}).get(cost) for cost in _COSTS},
        **({"error": row["error"]} if failed else {}),
    }


def in_words(keys: Mapping[str, Any]) -> str:
    """learning_rate 0.001, n_layers 2."""
    return ", ".join(f"{key} {value}" for key, value in keys.items())


def to_json(trials: list[dict[str, Any]], header: dict[str, Any]) -> str:
    """Header and trials as they are."""
    return json_text({"header": header, "trials": trials})


def to_csv(trials: list[dict[str, Any]], header: dict[str, Any]) -> str:
    """A line for each trial, with a column for each key that any model searches; values that are no numbers as JSON."""
    searched = list(dict.fromkeys(key for space in header["spaces"].values() for key in space))
    lines = [
        {
            **{name: trial[name] for name in ("model", "trial", "picked")},
            **{key: _cell(trial["keys"][key]) if key in trial["keys"] else None for key in searched},
            "valid_score": trial["valid_score"],
            **{cost: trial[cost] for cost in _COSTS},
            "error": trial.get("error"),
        }
        for trial in trials
    ]
    # dtype object: a missing value does not turn a column of counts into floats.
    return pd.DataFrame(lines, dtype=object).to_csv(index=False, lineterminator="\n")


def _cell(value: Any) -> str | int | float:
    return value if isinstance(value, (int, float, str)) else json.dumps(value, ensure_ascii=False)


def to_markdown(trials: list[dict[str, Any]], header: dict[str, Any]) -> str:
    """Spaces above, a line for each trial, the picked one of each model bold, and what failed below."""
    metric = header["valid_metric"]
    above = [
        f"- data set: {header['dataset']}",
        f"- trials of each model: {header['trials']}",
        f"- picked by: {metric} on validation",
        f"- drawn from seed: {header['seed']}",
        *(f"- {model}.search: {_space_in_words(space)}" for model, space in header["spaces"].items()),
    ]
    names = ["model", "trial", "keys", f"{metric} (validation)", "picked", "epochs", "stopped", "training"]
    lines = [names, ["---", "---:", "---", "---:", "---", "---:", "---", "---:"], *map(_line, trials)]
    table = ["| " + " | ".join(line) + " |" for line in lines]
    times: dict[str, float] = {}
    for trial in trials:
        times[trial["model"]] = times.get(trial["model"], 0.0) + (trial["training_seconds"] or 0.0)
    below = ["- Training of all trials: " + ", ".join(f"{model} {format_seconds(t)}" for model, t in times.items())]
    below += [
        f"- {trial['model']}, trial {trial['trial']} failed with {in_words(trial['keys'])}: "
        f"{' '.join(trial['error'].split())}"
        for trial in trials
        if "error" in trial
    ]
    return "\n\n".join("\n".join(block) for block in (above, table, below)) + "\n"


def _space_in_words(space: Mapping[str, list[Any]]) -> str:
    combinations = math.prod(map(len, space.values()))
    return f"{in_words(space)} ({combinations} combination{'s' if combinations != 1 else ''})"


def _line(trial: dict[str, Any]) -> list[str]:
    score = MISSING if trial["valid_score"] is None else f"{trial['valid_score']:.4f}"
    cells = [
        trial["model"],
        str(trial["trial"]),
        in_words(trial["keys"]),
        f"**{score}**" if trial["picked"] else score,
        "yes" if trial["picked"] else "",
        MISSING if trial["epochs"] is None else str(trial["epochs"]),
        "failed" if "error" in trial else str(trial["stop_reason"]),
        format_seconds(trial["training_seconds"]),
    ]
    return [cell.replace("|", "\\|") for cell in cells]
