"""Serving: recommendations from an exported model, without RecBole and without training data."""

from typing import TYPE_CHECKING

__all__ = ["Recommender", "Request"]

if TYPE_CHECKING:
    from recbole_hllm.serving.recommender import Recommender as Recommender
    from recbole_hllm.serving.requests import Request as Request
else:

    def __getattr__(name: str) -> object:
        """Public names are imported when first asked for."""
        from importlib import import_module

        places = {"Recommender": "recbole_hllm.serving.recommender", "Request": "recbole_hllm.serving.requests"}
        if name not in places:
            raise AttributeError(f"module 'recbole_hllm.serving' has no attribute '{name}'")
        return getattr(import_module(places[name]), name)
