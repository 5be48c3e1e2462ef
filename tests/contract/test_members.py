"""Every model against the written contract (model/base/contract.py), in both directions."""

import ast
import inspect
from pathlib import Path

import pytest
from recbole.model.abstract_recommender import AbstractRecommender

import recbole_hllm
from recbole_hllm import Config
from recbole_hllm.model.base import contract, servable
from recbole_hllm.model.base.contract import (
    CatalogueScorer,
    Factorised,
    LabelledScorer,
    NeedsRuns,
    Picked,
    ReadsRuns,
    ReadsWeights,
    Recommender,
)
from recbole_hllm.model.base.servable import Exports, Servable, Staged
from recbole_hllm.registry import model_names

PACKAGE = Path(recbole_hllm.__file__).parent
FAMILIES = [
    cls
    for module in (contract, servable)
    for _, cls in inspect.getmembers(module, inspect.isclass)
    if issubclass(cls, Recommender) and cls.__module__ == module.__name__
]
DECLARED = {name for cls in FAMILIES for name in (*vars(cls), *cls.__annotations__) if not name.startswith("_")}
# How the program names a model, or its class.
HOLDS_A_MODEL = ("model", "model_class", "recommender", "spec.model", "self.model", "trainer.model", "finished.model")
OURS = {
    "Blend": (Factorised, ReadsRuns, Picked, Servable),
    "E4SRec": (Factorised, NeedsRuns, Exports, Servable),
    "HLLM": (Factorised, ReadsWeights, Staged, Servable),
    "HLLMRanker": (Factorised, LabelledScorer, ReadsWeights, Staged, Servable),
    "HSTU": (Factorised, Servable),
    "LEARN": (Factorised, ReadsWeights, Servable),
    "LEARNRanker": (CatalogueScorer, LabelledScorer, NeedsRuns),
    "LEARNScorer": (Factorised, LabelledScorer, ReadsWeights, Servable),
    "LLMIDRec": (Factorised, Servable),
    "Markov": (CatalogueScorer,),
    "Pop": (CatalogueScorer,),
    "PromptLLM": (Factorised, ReadsWeights),
    "PromptLLMTuned": (Factorised, ReadsWeights),
    **dict.fromkeys(("SASRecNCE", "SASRecCE", "SASRecSS", "gSASRec"), (Factorised, ReadsRuns, Servable)),
    **dict.fromkeys(("eSASRec", "LRURec", "FMLPRec"), (Factorised, Servable)),
    **dict.fromkeys(("WhitenRec", "UniSRec"), (Factorised, ReadsWeights, Servable)),
    "SLMRec": (Factorised, NeedsRuns, Exports, Servable),
    "TextKNN": (Factorised, ReadsWeights, Servable),
}


def ancestors(families):
    return {cls for family in families for cls in family.__mro__ if cls in FAMILIES}


def test_the_program_asks_a_model_for_declared_members_only():
    asked = set()
    for file in PACKAGE.rglob("*.py"):
        if file.relative_to(PACKAGE).parts[0] in ("model", "nn", "serving"):  # who serves holds no model of RecBole's
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).removeprefix("config.") in HOLDS_A_MODEL:
                asked.add(node.attr)
    assert len(asked & DECLARED) > 15
    assert asked - DECLARED - {*dir(AbstractRecommender), *dir(type), *dir(str)} == set()  # some are names of models


def test_every_model_is_a_recommender(specs):
    for name, spec in specs.items():
        assert issubclass(spec.model, (CatalogueScorer, LabelledScorer)), name
        assert issubclass(spec.model, LabelledScorer) == (spec.rows.labelled), name


def test_every_model_of_ours_is_in_its_families(specs):
    assert {name for name, spec in specs.items() if spec.ours} == OURS.keys()
    for name, families in OURS.items():
        assert {cls for cls in specs[name].model.__mro__ if cls in FAMILIES} == ancestors(families), name


def parameters_of(member):
    return [name for name in inspect.signature(member).parameters if name != "self"]


def test_members_are_called_as_the_contract_says(specs):
    """A model's own form of a member takes what the contract's takes, in that order, and may take more after it."""
    for name, spec in specs.items():
        families = [cls for cls in spec.model.__mro__ if cls in FAMILIES]
        for family in families:
            for member in vars(family):
                own = inspect.getattr_static(spec.model, member)
                if member.startswith("_") or not isinstance(own, (classmethod, staticmethod, type(parameters_of))):
                    continue
                declared, given = parameters_of(getattr(family, member)), parameters_of(getattr(spec.model, member))
                if spec.ours:
                    assert given[: len(declared)] == declared, f"{name}.{member}"
                else:  # RecBole's own names
                    assert len(given) == len(declared), f"{name}.{member}"


def test_models_of_recbole_have_no_members_of_these_names_by_chance(specs):
    """A class of RecBole's with an own ``needs``, say, would be asked for runs."""
    theirs = DECLARED - {"type", "calculate_loss", "predict", "full_sort_predict"}
    for name, spec in specs.items():
        if not spec.ours:
            own = [cls for cls in spec.model.__mro__ if cls.__module__.startswith("recbole.") and cls not in FAMILIES]
            assert not {member for cls in own[1:] for member in vars(cls)} & theirs, name


@pytest.mark.parametrize("name", [name for name, families in OURS.items() if NeedsRuns in families])
def test_what_is_needed_are_models_with_keys_and_a_key_for_each(settings_of, name):
    config = Config(name, config_dict=settings_of(name))
    needed = config.spec.model.needs(config)
    assert needed
    for key, (model, keys) in needed.items():
        assert key in config.internal_config_dict and f"{key}_keys" in config.internal_config_dict
        assert model in model_names() and isinstance(keys, dict)
