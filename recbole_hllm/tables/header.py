"""What stands above a table: what its rows share, and whether they do."""

import logging
from typing import Any

_NO_MASK = "none (RecBole's for sequential models)"
_MASKING = {
    True: "whole history",
    False: _NO_MASK,
    "both": f"of metrics with -masked after their names the whole history; of the others {_NO_MASK}",
}


def header_of(rows: list[dict[str, Any]], dataset: str | None) -> dict[str, Any]:
    """What all rows share; a row with other data, by a mistake in its files or of this program, is marked."""
    done = [row for row in rows if "error" not in row]
    if not done:
        return {"dataset": dataset}
    first = done[0]["protocol"]
    for row in done[1:]:
        mark_incomparable(row, first, done[0]["model"])
    left = [row for row in done if "error" not in row]
    mode = first["eval_args"]["mode"]
    drawn = {"full": "whole catalogue", "labeled": "labelled interactions"}
    return {
        "dataset": dataset,
        **first["statistics"],
        "split": f"{first['eval_args']['split']}, order {first['eval_args']['order']}",
        **({"targets": "those of a user together, as one row"} if first.get("eval_targets") == "together" else {}),
        **({"evaluated": f"{sample:,} users, drawn from the seed"} if (sample := first.get("eval_users")) else {}),
        "masking": _MASKING[first["mask_history"]],
        "candidates": drawn.get(mode["test"], f"{mode['test']}, drawn once from the seed"),
        "metrics": "RecBole's Evaluator, " + one_or_each({row["model"]: _weights(row) for row in left}),
        "history_length": history_lengths(left),
        **{key: one_or_each({row["model"]: row["protocol"][key] for row in left}) for key in ("seed", "precision")},
    }


def _weights(row: dict[str, Any]) -> str:
    """Which weights of a run are tested."""
    return "weights of the last epoch (no validation)" if row["best_valid_score"] is None else "best validation weights"


def mark_incomparable(row: dict[str, Any], protocol: Any, name: str) -> None:
    """A row without the data, targets or candidates of ``name``, which has that protocol, loses its results."""
    other = row["protocol"]["fingerprint"]
    differing = [key for key, value in protocol["fingerprint"].items() if other.get(key) != value]
    if differing:
        row["error"] = f"not comparable with {name}: {', '.join(differing)} differ"
        for result in ("test_result", "best_valid_result", "best_valid_score"):
            row.pop(result, None)
        logging.getLogger().error(f"{row['model']}: {row['error']}")


def one_or_each(values: dict[str, Any]) -> Any:
    """The one value that all rows have; the value of each in words where they differ."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{model} {value}" for model, value in values.items())


def history_lengths(rows: list[dict[str, Any]]) -> int | str | None:
    """The one length of all rows, in training and evaluation; those of each row where they differ."""
    lengths = {
        row["model"]: (row["protocol"]["history_length"], row["protocol"]["history_length_test"]) for row in rows
    }
    lengths = {model: pair for model, pair in lengths.items() if pair != (None, None)}  # Pop reads no history
    different = {length for pair in lengths.values() for length in pair}
    if len(different) <= 1:
        return next(iter(different), None)
    return ", ".join(
        f"{model} {trained}" + (f" ({tested} in evaluation)" if tested != trained else "")
        for model, (trained, tested) in lengths.items()
    )
