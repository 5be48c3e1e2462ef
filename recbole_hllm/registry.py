"""The model table: which class and which rows a model name stands for."""

import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module

from recbole.utils import ModelType

from recbole_hllm.config.places import recbole_folder
from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.interaction import InteractionRows
from recbole_hllm.data.rows.labelled import LabelledRows
from recbole_hllm.data.rows.prefix import PrefixRows
from recbole_hllm.data.rows.split import LabelledSplitRows, SplitRows
from recbole_hllm.data.rows.window import WindowRows
from recbole_hllm.errors import WRONG_VALUE, ConfigError, UserError, did_you_mean, words_of
from recbole_hllm.model.base.contract import CatalogueScorer, LabelledScorer, Recommender, Weights, adopt
from recbole_hllm.model.base.recbole_models import get_model

# Models of this package: the module that holds each, imported when used since transformers takes seconds to load,
# and its rows.
_OURS = {
    "E4SRec": ("recbole_hllm.model.slmrec.e4srec", WindowRows),
    "HLLM": ("recbole_hllm.model.hllm.hllm", WindowRows),
    "HLLMRanker": ("recbole_hllm.model.hllm.hllm_ranker", LabelledRows),
    "HSTU": ("recbole_hllm.model.baselines.hstu", WindowRows),
    "LEARN": ("recbole_hllm.model.learn.learn", SplitRows),
    "LEARNRanker": ("recbole_hllm.model.learn.learn_ranker", LabelledRows),
    "LEARNScorer": ("recbole_hllm.model.learn.learn_scorer", LabelledSplitRows),
    "LLMIDRec": ("recbole_hllm.model.baselines.llm_id_rec", WindowRows),
    "Pop": ("recbole_hllm.model.baselines.pop", InteractionRows),
    "PromptLLM": ("recbole_hllm.model.baselines.prompt_llm", PrefixRows),
    "PromptLLMTuned": ("recbole_hllm.model.baselines.prompt_llm_tuned", WindowRows),
    "SLMRec": ("recbole_hllm.model.slmrec.slmrec", WindowRows),
    "SASRecNCE": ("recbole_hllm.model.baselines.sasrec_nce", WindowRows),
    "Markov": ("recbole_hllm.model.baselines.markov", PrefixRows),
    "TextKNN": ("recbole_hllm.model.baselines.text_knn", PrefixRows),
}

_PIPELINE = (
    "needs a data set, loader or trainer of its own; the sequential and general models do not "
    "(SASRec, GRU4Rec, BERT4Rec, FDSA, Pop, ...)"
)
_STATE = "keeps its state outside tensors, where only a pickle could store it"
_SCIPY = "calls a method that SciPy 1.13 removed"
_REFUSED = {
    **dict.fromkeys(("S3Rec", "GRU4RecKG", "KSR", "NCL", "FEARec", "lightgbm", "xgboost"), _PIPELINE),
    **dict.fromkeys(("MultiDAE", "MultiVAE", "MacridVAE", "CDAE", "ENMF", "RaCT", "RecVAE"), _PIPELINE),
    **dict.fromkeys(("DiffRec", "LDiffRec"), _PIPELINE),
    "KD_DAGFM": "is trained in phases, each from a pickle of the one before",
    **dict.fromkeys(("ItemKNN", "AsymKNN", "EASE", "SLIMElastic"), _STATE),
    **dict.fromkeys(("LightGCN", "NGCF", "GCMC", "SpectralCF"), _SCIPY),
}
# Models of RecBole that are trained and tested on labelled interactions, besides the context-aware ones.
_LABELLED = {"DIN", "DIEN"}
# With a repair.
_MENDED = {name: f"recbole_hllm.model.baselines.{name.lower()}" for name in ("BERT4Rec", "DGCF", "DIEN", "LINE")}
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
_ROWS = {
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
        ours: a model of this package.
        losses: values of ``loss_type`` that the model has a loss for; empty where it reads no such key.
        batch_norm: it normalises over the rows of a batch, which needs two of them.
    """

    model: type[Recommender]
    rows: type[Rows]
    ours: bool = False
    losses: tuple[str, ...] = ()
    batch_norm: bool = False

    def build(self, config, dataset, weights: Weights = Weights.FRESH):
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
            if self.ours:
                raise
            raise ConfigError(f"{self.model.__name__} cannot be built with these keys: {words_of(error)}") from error

    def outline(self, config, dataset):
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


def _checked(recommender):
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
    if name not in model_names():
        raise ConfigError(f"model: there is no model named '{name}'{did_you_mean(name, model_names())}")
    # Refused models stay unimported: their modules may need further packages.
    reason, model = _REFUSED.get(name), None
    if reason is None:
        model = getattr(import_module(_MENDED[name]), name) if name in _MENDED else get_model(name)
        reason = None if model.type in _ROWS else _PIPELINE
    if reason:
        raise ConfigError(f"model: '{name}' of RecBole does not run through recbole_hllm: it {reason}")
    rows = LabelledRows if name in _LABELLED else _ROWS[model.type]
    losses = _LOSSES.get(name, ("CE", "BPR")) if model.type == ModelType.SEQUENTIAL else ()
    family = LabelledScorer if rows.labelled else CatalogueScorer
    return ModelSpec(adopt(model, family), rows, losses=losses, batch_norm=name in _BATCH_NORM)


def base_model(name: str) -> str:
    """The model of a row's name: ``HLLM`` of ``HLLM@scratch``, a variant with keys of its own."""
    return name.partition("@")[0]


@lru_cache(maxsize=1)
def model_names() -> tuple[str, ...]:
    """Every name ``get_spec`` can be asked for: ours, and each RecBole model that has a property file."""
    theirs = {path.stem for path in (recbole_folder() / "properties" / "model").glob("*.yaml")}
    return (*_OURS, *sorted(theirs - _OURS.keys() | {"Random"}))
