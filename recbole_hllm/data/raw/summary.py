"""The facts about a conversion as a person reads them."""

from typing import Any


def summary(facts: dict[str, Any]) -> str:
    """Lines of text: counts, units, what was left out and why, the first malformed lines, the files."""
    inter = facts["interactions"]
    lines = [f"{inter['written']:,} interactions of {facts['users']:,} users with {facts['items']:,} items"]
    lines += [f"times of {file}: {unit}" for file, unit in facts["times"].items()]
    lines += _left_out("interactions", inter)
    if "item_rows" in facts:
        rows, missing = facts["item_rows"], facts["item_rows"]["without_row"]
        lines.append(f"{rows['written']:,} rows of items")
        lines += _left_out("rows of items", rows)
        if missing["items"]:
            lines.append(
                f"{missing['items']:,} items without a row, with {missing['interactions']:,} interactions: kept"
            )
    return "\n".join([*lines, *(f"written: {path}" for path in facts["output"])])


def _left_out(what: str, counts: dict[str, Any]) -> list[str]:
    reasons = dict(counts["left_out"])
    lines = [f"{what} left out, {reason}: {number:,} of {counts['read']:,}" for reason, number in reasons.items()]
    if counts["malformed"]:
        lines.append(f"malformed lines of {what} left out: {counts['malformed']:,}")
    return lines + [f"  {line['file']}, line {line['line']}: {line['reason']}" for line in counts["lines"]]
