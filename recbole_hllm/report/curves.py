"""The curve of a training: what each validation found, from ``curve.json`` or, of earlier versions, TensorBoard."""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any


def curve_of(folder: Path, metric: str | None) -> list[dict[str, Any]]:
    """Points of a run's training in order: epoch, training_seconds, loss and score of the metric in validation.

    What is not known of a point is None. No points where nothing is kept, or what is kept cannot be read: a report of
    other rows is no worse for it.
    """
    file = folder / "curve.json"
    if not file.is_file():
        return _from_events(folder / "tensorboard", metric)
    with suppress(OSError, ValueError, AttributeError, TypeError, KeyError):
        points = json.loads(file.read_text(encoding="utf-8"))
        return [
            {
                "epoch": int(point["epoch"]),
                "training_seconds": _number(point.get("training_seconds")),
                "loss": _number(point.get("loss")),
                "score": _number((point.get("valid") or {}).get(metric)),
            }
            for point in points
        ]
    return []


def _from_events(folder: Path, metric: str | None) -> list[dict[str, Any]]:
    if not any(folder.glob("events.out.tfevents.*")):
        return []
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    with suppress(Exception):  # damage shows as errors of many kinds, and as fewer points
        events.Reload()
    tags = events.Tags()["scalars"]
    found: dict[str, dict[int, float]] = {
        name: {event.step: event.value for event in events.Scalars(tag)} if tag in tags else {}
        for name, tag in (("loss", "train/epoch_loss"), ("score", f"valid/{metric}"))
    }
    if found["score"] and not set(found["score"]) <= set(found["loss"]) | {-1}:
        found["loss"] = {}  # validated after steps, not after epochs: the two have no places in common
    epochs = sorted(found["loss"].keys() | found["score"].keys())
    values = [{name: _number(at.get(epoch)) for name, at in found.items()} for epoch in epochs]
    return [{"epoch": epoch, "training_seconds": None, **one} for epoch, one in zip(epochs, values, strict=True)]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
