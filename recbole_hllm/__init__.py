"""LLM-based sequential recommenders as RecBole models, benchmarked beside RecBole's own."""

from typing import TYPE_CHECKING

import numpy as _np

# RecBole 1.2 names NumPy aliases that NumPy 1.24 removed; only what is missing is defined, before RecBole loads.
_NUMPY_ALIASES = {
    "bool": _np.bool_,
    "int": _np.int_,
    "float": _np.float64,
    "complex": _np.complex128,
    "object": _np.object_,
    "str": _np.str_,
    "long": _np.int_,
    "unicode": _np.str_,
    "float_": _np.float64,
    "complex_": _np.complex128,
}
for _name, _type in _NUMPY_ALIASES.items():
    if _name not in _np.__dict__:
        setattr(_np, _name, _type)

__version__ = "0.1.0"

_PUBLIC = {
    "Config": "recbole_hllm.config.config",
    "create_dataset": "recbole_hllm.data.rows.dataset",
    "data_preparation": "recbole_hllm.data.loader",
    "register_model": "recbole_hllm.registry",
    "register_metric": "recbole_hllm.evaluation.metrics",
    "run": "recbole_hllm.runs.run",
    "load_run": "recbole_hllm.runs.run",
    "run_stages": "recbole_hllm.runs.stages",
    "load_pretrained_hllm": "recbole_hllm.model.hllm.hllm",
}
__all__ = [*_PUBLIC, "__version__"]


if TYPE_CHECKING:
    from recbole_hllm.config.config import Config as Config
    from recbole_hllm.data.loader import data_preparation as data_preparation
    from recbole_hllm.data.rows.dataset import create_dataset as create_dataset
    from recbole_hllm.evaluation.metrics import register_metric as register_metric
    from recbole_hllm.model.hllm.hllm import load_pretrained_hllm as load_pretrained_hllm
    from recbole_hllm.registry import register_model as register_model
    from recbole_hllm.runs.run import load_run as load_run
    from recbole_hllm.runs.run import run as run
    from recbole_hllm.runs.stages import run_stages as run_stages
else:

    def __getattr__(name: str) -> object:
        """Public names are imported when first asked for, so that ``import recbole_hllm`` costs nothing."""
        if name not in _PUBLIC:
            raise AttributeError(f"module 'recbole_hllm' has no attribute '{name}'")
        from importlib import import_module

        value = getattr(import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
