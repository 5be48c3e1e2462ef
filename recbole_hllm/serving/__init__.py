"""Serving: recommendations from an exported model, without RecBole and without training data."""

from typing import TYPE_CHECKING

_PUBLIC = {"Recommender": "recbole_hllm.serving.recommender", "Request": "recbole_hllm.serving.requests"}
__all__ = [*_PUBLIC]

if TYPE_CHECKING:
    from recbole_hllm.serving.recommender import Recommender as Recommender
    from recbole_hllm.serving.requests import Request as Request
else:

    def __getattr__(name: str) -> object:
        """Public names are imported when first asked for."""
        if name not in _PUBLIC:
            raise AttributeError(f"module 'recbole_hllm.serving' has no attribute '{name}'")
        from importlib import import_module

        return getattr(import_module(_PUBLIC[name]), name)
