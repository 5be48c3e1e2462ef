"""The model table: which class and which rows a model name stands for."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from recbole.utils import ModelType, get_model
from scipy.sparse import dok_matrix

from recbole_hllm.errors import ConfigError

# Models of this package, by the module that holds them. Imported when used: transformers takes seconds to load.
_OURS = {"HLLM": "recbole_hllm.model.hllm"}

# RecBole models that need a data set, loader or trainer of their own, which this package does not reproduce.
_SPECIAL = {
    "S3Rec", "GRU4RecKG", "KSR", "DIN", "DIEN", "MultiDAE", "MultiVAE", "MacridVAE", "CDAE", "ENMF", "RaCT",
    "RecVAE", "DiffRec", "LDiffRec", "NCL", "FEARec", "lightgbm", "xgboost",
}  # fmt: skip

# LightGCN, NGCF, GCMC and SpectralCF fill a matrix by a method that SciPy 1.13 removed; defined only where missing.
if not hasattr(dok_matrix, "_update"):
    dok_matrix._update = lambda matrix, entries: matrix._dict.update(entries)

_SUPPORTED_TYPES = {ModelType.SEQUENTIAL, ModelType.GENERAL, ModelType.TRADITIONAL}


@dataclass(frozen=True)
class ModelSpec:
    """What ``run`` needs to know of a model.

    Attributes:
        model: the recommender class.
        rows: training rows, ``window`` (every position of a chunk is a target), ``prefix`` (one history, one
            target) or ``interaction`` (a user and an item, no history).
    """

    model: type
    rows: str


def get_spec(name: str) -> ModelSpec:
    """Looks a model up by name, ours first, then RecBole's.

    Raises:
        ConfigError: nobody has a model of that name, or it needs a pipeline this package does not have.
    """
    if name in _OURS:
        return ModelSpec(getattr(import_module(_OURS[name]), name), "window")
    if name not in model_names():
        raise ConfigError(f"model: there is no model named '{name}'{did_you_mean(name, model_names())}")
    # Special models are refused before their modules, which may need further packages, are imported.
    model = None if name in _SPECIAL else get_model(name)
    if model is None or model.type not in _SUPPORTED_TYPES:
        raise ConfigError(
            f"model: '{name}' of RecBole needs a data set, loader or trainer of its own and does not run through "
            "recbole_hllm; its sequential and general models do (SASRec, GRU4Rec, BERT4Rec, FDSA, Pop, ...)"
        )
    return ModelSpec(model, "prefix" if model.type == ModelType.SEQUENTIAL else "interaction")


@lru_cache(maxsize=1)
def model_names() -> tuple[str, ...]:
    """Every name ``get_spec`` can be asked for: ours, and each RecBole model that has a property file."""
    recbole = Path(find_spec("recbole").origin).parent
    return (*_OURS, "Random", *sorted(path.stem for path in (recbole / "properties" / "model").glob("*.yaml")))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name as the end of an error message, whatever its case; empty when none is near."""
    by_lower = {word.lower(): word for word in sorted(known)}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean '{by_lower[close[0]]}'?" if close else ""
