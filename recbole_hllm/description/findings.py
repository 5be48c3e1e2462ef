"""What is unusual in the numbers of a data set, as sentences with the key that helps."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from recbole_hllm.data.clock import UNITS
from recbole_hllm.description.times import OTHER, POSITIONS

# Shares from which a finding is worth a sentence.
FEW, SOME, MANY, MOST = 0.001, 0.01, 0.1, 0.5
# With fewer test targets the noise of a metric is told.
FEW_TARGETS = 5_000
_PHASES = {"valid": "validation", "test": "test"}


def findings(result: dict[str, Any]) -> list[str]:
    """Sentences about the numbers of ``describe``, what decides most first; none where nothing is unusual."""
    return [*_of_split(result), *_of_times(result), *_of_pairs(result), *_of_items(result), *_of_texts(result)]


def percent(share: float) -> str:
    """``31 %``, ``4.7 %``, ``0.031 %``; never 0 % or 100 % of what is neither."""
    value = 100 * share
    text = f"{value:.0f}" if value >= 9.95 else np.format_float_positional(value, 2, fractional=False, trim="-")
    return "almost 100 %" if text == "100" and share < 1 else f"{text} %"


def _filter(result: dict[str, Any], advice: str) -> str:
    """A sentence about a filter, after a blank; nothing where files are read that are not filtered."""
    return "" if result["ready_split"] else f" {advice}"


def _of_split(result: dict[str, Any]) -> Iterator[str]:
    if result["split_error"]:
        yield f"No model can be tested: {result['split_error']}."
        return
    users, parts = result["users"], {name: result["split"][phase] for phase, name in _PHASES.items()}
    for name in (name for name, part in parts.items() if not part["targets"]):
        yield f"There is no {name} target, split by {result['split_by']}."
    short = {name: users - part["users"] for name, part in parts.items() if part["targets"] and result["each_user"]}
    if max(short.values(), default=0) > FEW * users:
        counts = " and ".join(f"{count:,} ({percent(count / users)}) no {name} target" for name, count in short.items())
        yield (
            f"Of {users:,} users, {counts.replace('no', 'have no', 1)}: they are too short for the split. "
            '--user_inter_num_interval="[4,inf)" leaves users with fewer than 4 interactions out.'
        )
    yield from _of_targets(result, parts)
    if 0 < (number := parts["test"]["targets"]) < FEW_TARGETS:
        error = (0.1 * 0.9 / number) ** 0.5
        yield (
            f"There are {number:,} test targets: the standard error of a recall of 0.1 is {error:.3f}, so smaller "
            "differences between models are noise."
        )


def _of_targets(result: dict[str, Any], parts: dict[str, dict[str, Any]]) -> Iterator[str]:
    once = "--rm_dup_inter=first keeps the first interaction of each user and item."
    rare = '--item_inter_num_interval="[5,inf)" leaves rare items out.'
    meanings = {
        "tied": (
            "have the same time as the item before: their order is that of the file, and which of these is the target "
            "is chance."
        ),
        "leaked": f"are already in the history: a model may score by repeating it.{_filter(result, once)}",
        "cold": (
            "are items without any training interaction: no model of ids can learn them, one that reads texts "
            f"can.{_filter(result, rare)}"
        ),
        "new_users": (
            "are of users without any training interaction: models with a vector for each user cannot know them."
        ),
    }
    for kind, meaning in meanings.items():
        shares = {name: (part[kind] or 0) / max(part["targets"], 1) for name, part in parts.items()}
        if max(shares.values()) > SOME:
            told = " and ".join(f"{percent(share)} of the {name} targets" for name, share in shares.items())
            yield f"{told} {meaning}"


def _of_times(result: dict[str, Any]) -> Iterator[str]:
    times = result["times"]
    kind, main = times["kind"], times["kinds"][times["kind"]]["share"]
    if times["constant"]:
        yield "All timestamps are the same: the order inside a user is that of the file. TIME_FIELD names the column."
        return
    if 1 - main > FEW:
        shares = ", ".join(f"{percent(one['share'])} {name}" for name, one in times["kinds"].items())
        yield (
            f"The timestamps are mixed: {shares}. Bring them to one unit, seconds since 1970, before anything depends "
            "on them."
        )
    elif kind in (POSITIONS, OTHER):
        what = "positions inside each user" if kind == POSITIONS else "no times since 1970 in any unit"
        yield (
            f"The timestamps are {what}, not clock times: they order a user's items, but a split by time (TS, or RS "
            "with group_by none), split_by: time and time_num mean nothing."
        )
    elif kind != "seconds":
        yield (
            f"The timestamps are {kind}: the order is right, but split_by: time and time_num need seconds. Divide "
            f"the column by {UNITS[kind]:,}."
        )
    if times["same"] > MANY:
        yield (
            f"{percent(times['same'])} of the interactions have the same time as the one before of the same user: "
            "their order is that of the file."
        )


def _of_pairs(result: dict[str, Any]) -> Iterator[str]:
    share = result["repeated_pairs"] / result["interactions"]
    if share > SOME:
        once = _filter(result, "--rm_dup_inter=first keeps the first of each.")
        yield f"{percent(share)} of the interactions repeat an earlier one of the same user and item.{once}"
    if result["longer_than_history"] > MANY * result["users"]:
        yield (
            f"{percent(result['longer_than_history'] / result['users'])} of the users have more than "
            f"{result['history_length']} interactions before their last: models read the last "
            f"{result['history_length']}. --MAX_ITEM_LIST_LENGTH={result['lengths']['quantiles']['p95']} would cover "
            "95 % of the users."
        )


def _of_items(result: dict[str, Any]) -> Iterator[str]:
    top = next(row for row in result["popularity"]["top"] if row["share"] == SOME)
    if top["interactions"] > MOST and SOME * result["items"] >= 1:
        yield (
            f"{percent(top['interactions'])} of the interactions are of the most popular 1 % of the items: rankings "
            "that put these first for everybody look good. Compare with Pop, and by segments_item."
        )
    once = sum(row["count"] for row in result["popularity"]["spread"]["histogram"] if row["to"] == 1)
    if once > MANY * result["items"]:
        yield f"{percent(once / result['items'])} of the items have one interaction."


def _of_texts(result: dict[str, Any]) -> Iterator[str]:
    texts = result["texts"]
    if texts is None:
        yield "There is no .item file: models that read texts cannot run."
        return
    if not texts["fields"]:
        yield f"{texts['file']} has no column of texts (token_seq). --text_keys names columns of another type."
        return
    items = texts["items"]
    if texts["without_row"]:
        yield (
            f"{texts['without_row']:,} of {items:,} items ({percent(texts['without_row'] / items)}) have no row in "
            f"{texts['file']}, so they have no text. --strict_data=True refuses such data."
        )
    if texts["without_text"]:
        yield (
            f"{texts['without_text']:,} of {items:,} items ({percent(texts['without_text'] / items)}) have a row, and "
            "nothing in its text columns: a model reads the prompt alone. --text_keys names more columns."
        )
    if texts["shared"]["items"] > SOME * items:
        most = texts["shared"]["most"]
        yield (
            f"{percent(texts['shared']['items'] / items)} of the items share their text with another, "
            f"{most['items']:,} of them '{most['text']}': a model that reads texts alone cannot tell them apart. "
            "--text_keys names more columns, or the model gets ids too (input_item_id)."
        )
    if texts["rows_without_interaction"] > MOST * texts["rows"]:
        yield (
            f"{percent(texts['rows_without_interaction'] / texts['rows'])} of the rows of {texts['file']} are of items "
            "without interactions: these are no candidates."
        )
    if texts["no_tokens"]:
        yield f"Tokens are not counted: {texts['no_tokens']}."
    elif texts["token_sample"] and texts["too_long"] > MANY * texts["token_sample"]:
        yield (
            f"{percent(texts['too_long'] / texts['token_sample'])} of the texts are cut at {texts['limit']} tokens. "
            f"--MAX_TEXT_LENGTH={texts['whole']['tokens']['quantiles']['p95']} would keep 95 % of them whole."
        )
