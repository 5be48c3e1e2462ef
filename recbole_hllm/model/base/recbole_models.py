"""RecBole's models. Every import of a sequential one goes through here, since theirs changes torch for everybody."""

from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from recbole.utils import get_model

__all__ = ["get_model", "recbole_values", "sequential_recommender"]


def _sequential_recommender() -> ModuleType:
    """RecBole's SINE switches torch's anomaly detection on when it is imported, and RecBole imports it with any other.

    Each backward pass of every model would then search all gradients for NaN, and a GPU would be waited for after each
    operation. Here the switch stays as it was: on for a user who wants it.
    """
    before = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
    try:
        return import_module("recbole.model.sequential_recommender")
    finally:
        torch.autograd.set_detect_anomaly(*before)


sequential_recommender: Any = _sequential_recommender()


def recbole_values(config: Any, *names: str) -> tuple[Any, ...]:
    """Values of keys of one of RecBole's models, in place of settings: the names mean other things in other models, so
    that no class can declare them for all."""
    return tuple(config[key] for key in names)
