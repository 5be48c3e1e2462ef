"""What stands below a table: its reading, the second table of ratios, and recommendations of one row."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_hllm.config.config import Config
from recbole_hllm.errors import UserError
from recbole_hllm.runs.run import load_run
from recbole_hllm.tables.examples import example_lines
from recbole_hllm.tables.ratios import ratio_lines
from recbole_hllm.tables.reading import reading
from recbole_hllm.tables.significance import mean_by_user
from recbole_hllm.tables.table import results_of
from recbole_hllm.tables.verdicts import verdict_lines
from recbole_hllm.training.stopping import COUNTED_ONCE

Folders = Mapping[str, Sequence[Path]]


def below(rows: list[dict[str, Any]], configs: Mapping[str, Config], folders: Folders) -> list[list[str]]:
    """Blocks of lines of Markdown, for a table's file and for the console. What cannot be read any more is left out, or
    a line says why: the table has its numbers all the same.

    Args:
        rows: of the table, with their ``tests``.
        configs: that of each row.
        folders: those of each row's runs.
    """
    shared = configs[rows[0]["model"]]
    metric, reference = str(shared["valid_metric"]).lower(), shared["compare_to"]
    verdicts = verdict_lines(rows, reference, shared["compare_test"], metric) if reference else []
    ratios = ratio_lines(rows, shared["ratios_to"]) if shared["ratios_to"] else []
    blocks = [_reading(rows, metric, folders), *verdicts, *ratios]
    try:
        blocks += _examples(rows, configs, folders)
    except UserError as error:  # the weights or the data are gone
        blocks.append([f"Recommendations are not shown: {error}"])
    return [block for block in blocks if block]


def _reading(rows: list[dict[str, Any]], metric: str, folders: Folders) -> list[str]:
    values = {row["model"]: _values(folders[row["model"]], metric) for row in rows if "error" not in row}
    return reading(rows, metric, {model: sums for model, sums in values.items() if sums is not None})


def _values(folders: Sequence[Path], metric: str) -> Any:
    try:
        return mean_by_user(folders, metric)
    except UserError:  # damaged: the row is read without standard errors
        return None


def _examples(rows: list[dict[str, Any]], configs: Mapping[str, Config], folders: Folders) -> list[list[str]]:
    """Recommendations of the first trained row that ranks items, where ``show_recommendations`` asks for them; of
    several runs by the first."""
    for row in rows:
        config, trains_nothing = configs[row["model"]], row.get("costs", {}).get("stop_reason") == COUNTED_ONCE
        wanted = config["show_recommendations"] and not config.spec.rows.labelled
        if wanted and results_of(row) and not trains_nothing:
            # Whatever was evaluated and chosen by, nobody is recommended what they had; this is no run to log.
            keys = {"mask_history": True, "evaluate_only": True, "log_wandb": False}
            keys |= {"trust_remote_code": True} if config["trust_remote_code"] else {}
            return example_lines(row["model"], load_run(folders[row["model"]][0], keys), config["show_recommendations"])
    return []
