"""The model table: which class and which rows a model name stands for; ours, RecBole's and those of others."""

import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from recbole.utils import ModelType

from recbole_hllm import own_models
from recbole_hllm.config.parsing import read_yaml
from recbole_hllm.config.places import properties_folder, recbole_folder
from recbole_hllm.config.schema import DECLARED
from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.interaction import InteractionRows
from recbole_hllm.data.rows.labelled import LabelledRows
from recbole_hllm.data.rows.prefix import PrefixRows
from recbole_hllm.data.rows.split import LabelledSplitRows, SplitRows
from recbole_hllm.data.rows.user import UserRows
from recbole_hllm.data.rows.whole import WholeRows
from recbole_hllm.data.rows.window import WindowRows
from recbole_hllm.doors import is_place, load_place, package_of
from recbole_hllm.errors import WRONG_VALUE, ConfigError, UserError, did_you_mean, words_of
from recbole_hllm.model.base.contract import CatalogueScorer, LabelledScorer, Recommender, Weights, adopt
from recbole_hllm.model.base.recbole_models import get_model

# Models of this package: the module that holds each, imported when used since transformers takes seconds to load,
# and its rows.
_OURS: dict[str, tuple[str, type[Rows]]] = {
    "Blend": ("recbole_hllm.model.blend.blend", WholeRows),
    "E4SRec": ("recbole_hllm.model.slmrec.e4srec", WindowRows),
    "FMLPRec": ("recbole_hllm.model.baselines.fmlp_rec", PrefixRows),
    "HLLM": ("recbole_hllm.model.hllm.hllm", WindowRows),
    "HLLMRanker": ("recbole_hllm.model.hllm.hllm_ranker", LabelledRows),
    "HSTU": ("recbole_hllm.model.baselines.hstu", WindowRows),
    "LEARN": ("recbole_hllm.model.learn.learn", SplitRows),
    "LEARNRanker": ("recbole_hllm.model.learn.learn_ranker", LabelledRows),
    "LEARNScorer": ("recbole_hllm.model.learn.learn_scorer", LabelledSplitRows),
    "LRURec": ("recbole_hllm.model.baselines.lru_rec", WindowRows),
    "LLMIDRec": ("recbole_hllm.model.baselines.llm_id_rec", WindowRows),
    "Pop": ("recbole_hllm.model.baselines.pop", InteractionRows),
    "PromptLLM": ("recbole_hllm.model.baselines.prompt_llm", PrefixRows),
    "PromptLLMTuned": ("recbole_hllm.model.baselines.prompt_llm_tuned", WindowRows),
    "SLMRec": ("recbole_hllm.model.slmrec.slmrec", WindowRows),
    "SASRecCE": ("recbole_hllm.model.baselines.sasrec_losses", WindowRows),
    "SASRecNCE": ("recbole_hllm.model.baselines.sasrec_nce", WindowRows),
    "SASRecSS": ("recbole_hllm.model.baselines.sasrec_losses", WindowRows),
    "UniSRec": ("recbole_hllm.model.baselines.text_sasrec", WindowRows),
    "WhitenRec": ("recbole_hllm.model.baselines.text_sasrec", WindowRows),
    "eSASRec": ("recbole_hllm.model.baselines.esasrec", WindowRows),
    "gSASRec": ("recbole_hllm.model.baselines.sasrec_losses", WindowRows),
    "Markov": ("recbole_hllm.model.baselines.markov", PrefixRows),
    "TextKNN": ("recbole_hllm.model.baselines.text_knn", PrefixRows),
}

# The base of models that learn from every position of a window.
_NEXT_ITEM = "recbole_hllm.model.base.next_item"
_PIPELINE = (
    "needs a data set, loader or trainer of its own; the sequential and general models do not "
    "(SASRec, GRU4Rec, BERT4Rec, FDSA, Pop, ...)"
)
_KNOWLEDGE = "reads a knowledge graph, which the data sets of a table do not have; SASRec and GRU4RecF read items alone"
_TREES = "is trees of a library with a trainer of its own; DeepFM and the other context-aware models read the same"
_REFUSED = {
    **dict.fromkeys(("GRU4RecKG", "KSR"), _KNOWLEDGE),
    **dict.fromkeys(("lightgbm", "xgboost"), _TREES),
    "RaCT": "is trained in three stages, each from a pickle of the one before; the first of them is MultiVAE",
    "KD_DAGFM": "is trained in phases, each from a pickle of the one before",
}
# Models of RecBole that are trained and tested on labelled interactions, besides the context-aware ones.
_LABELLED = {"DIN", "DIEN"}
# Trained on one row for each user.
_USERS = {"CDAE", "DiffRec", "ENMF", "LDiffRec", "MacridVAE", "MultiDAE", "MultiVAE", "RecVAE"}
# With a repair, a way to run here, or, SASRec, keys of ours.
_MODULES = {
    **{name: name.lower() for name in ("BERT4Rec", "DGCF", "DIEN", "EASE", "ENMF", "FEARec")},
    **{name: name.lower() for name in ("LINE", "NCL", "RepeatNet", "S3Rec", "SASRec", "SLIMElastic")},
    **dict.fromkeys(("CDAE", "MacridVAE", "MultiDAE", "MultiVAE", "RecVAE"), "autoencoders"),
    **dict.fromkeys(("DiffRec", "LDiffRec"), "diffusion"),
    **dict.fromkeys(("GCMC", "LightGCN", "NGCF", "SGL", "SpectralCF"), "graphs"),
    **dict.fromkeys(("AsymKNN", "ItemKNN"), "neighbours"),
}
_MENDED = {name: f"recbole_hllm.model.baselines.{module}" for name, module in _MODULES.items()}
# Values of `loss_type` that a sequential model of RecBole has a loss for, where they are not those of most.
_LOSSES = {
    "CORE": ("CE",),
    "FPMC": ("BPR",),
    "GRU4RecCPR": ("CE",),
    "SASRecCPR": ("CE",),
    "SINE": ("CE", "BPR", "NLL"),
    **dict.fromkeys(("DIEN", "DIN", "RepeatNet", "TransRec"), ()),
}
_BATCH_NORM = {"DCN", "DCNV2", "DIEN", "DIN", "DSSM", "NFM"}
_ROWS: dict[ModelType, type[Rows]] = {
    ModelType.SEQUENTIAL: PrefixRows,
    ModelType.GENERAL: InteractionRows,
    ModelType.TRADITIONAL: InteractionRows,
    ModelType.CONTEXT: LabelledRows,
}


@dataclass(frozen=True)
class ModelSpec:
    """What ``run`` needs to know of a model.

    Attributes:
        model: the recommender class, which keeps to the contract in ``model/base/contract.py``.
        rows: the kind of its training and evaluation rows, a class of ``data/rows``.
        ours: a model of this package, or built on one.
        own: a model of others.
        losses: values of ``loss_type`` that the model has a loss for; empty where it reads no such key.
        batch_norm: it normalises over the rows of a batch, which needs two of them.
    """

    model: type[Recommender]
    rows: type[Rows]
    ours: bool = False
    own: bool = False
    losses: tuple[str, ...] = ()
    batch_norm: bool = False

    def build(self, config: Any, dataset: Any, weights: Weights = Weights.FRESH) -> Recommender:
        """The model, with weights of the present random state.

        Args:
            config: the run's Config.
            dataset: the training part of a SequenceDataset.
            weights: what is read for them.

        Raises:
            ConfigError: keys that a model of RecBole cannot be built with.
            ModelError: what is trained of a language model in it is not what its tuning key says.
            UserError: what a model of this package refuses.
        """
        try:
            return _checked(self.model.construct(config, dataset, weights))
        except UserError:
            raise
        except WRONG_VALUE as error:
            if self.traced:
                raise
            raise ConfigError(f"{self.model.__name__} cannot be built with these keys: {words_of(error)}") from error

    @property
    def traced(self) -> bool:
        """An error in the model's code is shown with its traceback; those of RecBole's models are of wrong values."""
        return self.ours or self.own

    def outline(self, config: Any, dataset: Any) -> Recommender:
        """The model without memory for its weights, as ``build`` would make it; RecBole's that cannot be made so are
        small.

        Raises:
            UserError: as ``build``.
        """
        from torch import device

        try:
            with device("meta"):
                return _checked(self.model.construct(config, dataset, Weights.OUTLINE))
        except UserError:
            raise
        except (RuntimeError, *WRONG_VALUE):
            return self.build(config, dataset, Weights.OUTLINE)


def _checked(recommender: Recommender) -> Recommender:
    if "transformers" in sys.modules:  # without it there is no language model
        import_module("recbole_hllm.nn.tuning").check_tuning(recommender)
    return recommender


def get_spec(name: str) -> ModelSpec:
    """Looks a model up by name, ours first, then RecBole's.

    Raises:
        ConfigError: nobody has a model of that name, or it needs a pipeline this package does not have.
    """
    if name in _OURS:
        module, rows = _OURS[name]
        return ModelSpec(getattr(import_module(module), name), rows, ours=True)
    if name not in _stock_names() and (model := own_models.find(name)) is not None:
        return _own_spec(model)
    if name not in model_names():
        hint = did_you_mean(name, model_names()) or "; a class of your own is given as package.module:Class"
        raise ConfigError(f"model: there is no model named '{name}'{hint}")
    # Refused models stay unimported: their modules may need further packages.
    reason, model = _REFUSED.get(name), None
    if reason is None:
        model = getattr(import_module(_MENDED[name]), name) if name in _MENDED else get_model(name)
        reason = None if model.type in _ROWS else _PIPELINE
    if reason:
        raise ConfigError(f"model: '{name}' of RecBole does not run through recbole_hllm: it {reason}")
    return _recboles_spec(model, name)


def _recboles_spec(model: Any, name: str, own: bool = False) -> ModelSpec:
    """The spec of a class that is RecBole's model of that name, or is built on it."""
    rows = LabelledRows if name in _LABELLED else UserRows if name in _USERS else _ROWS[model.type]
    losses = _LOSSES.get(name, ("CE", "BPR")) if model.type == ModelType.SEQUENTIAL else ()
    family = LabelledScorer if rows.labelled else CatalogueScorer
    return ModelSpec(adopt(model, family), rows, own=own, losses=losses, batch_norm=name in _BATCH_NORM)


def _own_spec(model: Any) -> ModelSpec:
    """Of a class of others: rows and losses are those of the model that it is built on, or of its RecBole type."""
    for ancestor in model.__mro__:
        if _OURS.get(ancestor.__name__, ("",))[0] == ancestor.__module__:
            return ModelSpec(adopt(model, CatalogueScorer), _OURS[ancestor.__name__][1], ours=True, own=True)
    if getattr(model, "type", None) not in _ROWS:
        raise ConfigError(f"model: '{model.__name__}' {_PIPELINE}")
    if (base := recbole_base(model)) is not None:
        return _recboles_spec(model, base, own=True)
    spec = _recboles_spec(model, model.__name__, own=True)
    if any(cls.__module__ == _NEXT_ITEM for cls in model.__mro__):
        return replace(spec, rows=WindowRows, ours=True, losses=())
    reads_loss = model.type == ModelType.SEQUENTIAL and spec.model.fixed_input_type() is None
    return replace(spec, losses=("CE", "BPR") if reads_loss else ())


def recbole_base(model: type) -> str | None:
    """The nearest model of RecBole's that a class is, or is built on."""
    names = (cls.__name__ for cls in model.__mro__ if cls.__module__.startswith("recbole.model."))
    return next((name for name in names if name in _stock_names()), None)


def property_files(model: type) -> list[Path]:
    """The YAML files with the keys of a model, those of the models it is built on first: RecBole's, ours, and, of a
    class of others, the file of its name beside its module."""
    files = []
    for cls in reversed(model.__mro__):
        folders = recbole_folder() / "properties" / "model", properties_folder() / "model"
        files += [file for folder in folders if (file := folder / f"{cls.__name__}.yaml").is_file()]
        files += filter(None, [own_models.own_property_file(cls)])
    return list(dict.fromkeys(files))


def own_files(model: type) -> list[Path]:
    """Those of ``property_files`` that stand beside modules of others."""
    return list(filter(None, dict.fromkeys(map(own_models.own_property_file, reversed(model.__mro__)))))


def keys_of_its_own(model: type[Recommender]) -> set[str]:
    """Keys of a class of others that go by a name which a model of ours has for a key too, with another meaning."""
    named = {key for file in own_files(model) for key in read_yaml(file)} - model.Keys.keys.keys()
    return {key for key in named if key in DECLARED and DECLARED[key].default is not ...}  # those are RecBole's


def own_keys() -> set[str]:
    """Keys in the property files of all models of others."""
    models = filter(None, map(own_models.find, own_models.names()))
    return {key for model in models for file in own_files(model) for key in read_yaml(file)}


def register_model(model: type) -> type:
    """Makes a recommender known by the name of its class, for this process; also a decorator.

    Raises:
        ConfigError: it is no recommender, or there is a model of that name.
    """
    own_models.register(model, _stock_names())
    return model


def known_name(model: str | type) -> str:
    """The name of a model that is given by name, as ``package.module:Class``, both with ``@variant``, or as a class.

    Raises:
        ConfigError: there is no such module or class, it is no recommender, or its name is taken.
    """
    if isinstance(model, type):
        return register_model(model).__name__
    place, at, variant = model.partition("@")
    if not is_place(place):
        return model
    return register_model(load_place(place, f"model: {place}")).__name__ + at + variant


def base_model(name: str) -> str:
    """The model of a row's name: ``HLLM`` of ``HLLM@scratch``, a variant with keys of its own."""
    return name.partition("@")[0]


def model_names() -> tuple[str, ...]:
    """Every name ``get_spec`` can be asked for: ours, each RecBole model that has a property file, and those of others.

    Raises:
        ConfigError: an installed package adds a model under a name of ours or RecBole's.
    """
    stock, own = _stock_names(), own_models.names()
    if taken := [name for name in own if name in stock]:
        package = package_of(own_models.MODELS.installed()[taken[0]])
        raise ConfigError(f"the package {package} adds a model named '{taken[0]}', and there is one already; rename it")
    return (*stock, *own)


@lru_cache(maxsize=1)
def _stock_names() -> tuple[str, ...]:
    theirs = {path.stem for path in (recbole_folder() / "properties" / "model").glob("*.yaml")}
    return (*_OURS, *sorted(theirs - _OURS.keys() | {"Random"}))
