"""The model table."""

import pytest
from recbole.model.general_recommender import BPR, DGCF, LINE, Pop
from recbole.model.sequential_recommender import DIEN, FDSA, BERT4Rec, GRU4Rec, SASRec, SASRecF
from recbole.utils import ModelType

from recbole_hllm.data.rows.interaction import InteractionRows
from recbole_hllm.data.rows.labelled import LabelledRows
from recbole_hllm.data.rows.prefix import PrefixRows
from recbole_hllm.data.rows.window import WindowRows
from recbole_hllm.errors import ConfigError
from recbole_hllm.registry import did_you_mean, get_spec, model_names


@pytest.mark.parametrize("model", [SASRec, GRU4Rec, FDSA, SASRecF])
def test_sequential_models_of_recbole_train_on_prefixes(model):
    spec = get_spec(model.__name__)
    assert issubclass(spec.model, model) and spec.rows is PrefixRows


@pytest.mark.parametrize("model", [Pop, BPR])
def test_general_models_of_recbole_train_on_interactions(model):
    spec = get_spec(model.__name__)
    assert issubclass(spec.model, model) and spec.rows is InteractionRows  # our Pop mends RecBole's


@pytest.mark.parametrize(
    "model, rows", [(BERT4Rec, PrefixRows), (DGCF, InteractionRows), (LINE, InteractionRows), (DIEN, LabelledRows)]
)
def test_models_of_recbole_with_a_repair(model, rows):
    spec = get_spec(model.__name__)
    mended = spec.model.__bases__[0]
    assert mended.__bases__ == (model,) and spec.rows is rows and not spec.ours


@pytest.mark.parametrize("name", ["DIN", "DIEN", "DeepFM", "FM", "HLLMRanker"])
def test_rankers_train_on_labelled_interactions(name):
    assert get_spec(name).rows is LabelledRows and get_spec(name).model.__name__ == name


def test_our_models_train_on_windows():
    spec = get_spec("HLLM")
    assert spec.model.__module__ == "recbole_hllm.model.hllm.hllm" and spec.rows is WindowRows


def test_a_model_with_a_pipeline_of_its_own_is_refused():
    assert "KGAT" in model_names()
    with pytest.raises(ConfigError, match="'KGAT' of RecBole does not run .* of its own"):
        get_spec("KGAT")


def test_every_other_name_has_a_class_of_that_name():
    kinds = set()
    for name in model_names():
        try:
            spec = get_spec(name)
        except ConfigError:
            continue
        assert spec.model.__name__ == name
        kinds.add(spec.model.type)
    assert kinds == {ModelType.SEQUENTIAL, ModelType.GENERAL, ModelType.TRADITIONAL, ModelType.CONTEXT}


def test_no_other_model_of_recbole_has_a_trainer_or_data_set_of_its_own():
    """RecBole finds both by name; our trainer and data set would silently take their place."""
    import recbole.data.dataset
    import recbole.trainer

    special = []
    for name in model_names():
        if hasattr(recbole.trainer, f"{name}Trainer") or hasattr(recbole.data.dataset, f"{name}Dataset"):
            special.append(name)
    # LabelledDataset has the items that RecBole's data set draws for DIEN; begin_epoch does what three trainers do.
    for name in set(special) - {"DIEN", "NCL", "RecVAE", "S3Rec"}:
        with pytest.raises(ConfigError):
            get_spec(name)
    assert {"S3Rec", "RaCT", "RecVAE", "NCL", "KSR", "DIEN"} <= set(special)


@pytest.mark.parametrize(
    "name, nearest",
    [("SASRek", "SASRec"), ("sasrec", "SASRec"), ("hllm", "HLLM"), ("Bert4rec", "BERT4Rec"), ("POP", "Pop"),
     ("LightGNC", "LightGCN")],
)  # fmt: skip
def test_an_unknown_model_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(ConfigError, match=f"no model named '{name}'; did you mean '{nearest}'"):
        get_spec(name)


def test_nothing_near_is_no_name():
    assert did_you_mean("qqqqqq", ["epochs", "seed"]) == ""
    with pytest.raises(ConfigError, match="no model named 'qqqqqq'; a class of your own is given as"):
        get_spec("qqqqqq")


@pytest.mark.parametrize(
    "name, reason",
    [("RaCT", "in three stages"), ("KD_DAGFM", "in phases"), ("KSR", "knowledge graph"),
     ("GRU4RecKG", "knowledge graph"), ("lightgbm", "trees"), ("xgboost", "trees")],
)
def test_a_refused_model_says_why(name, reason):
    with pytest.raises(ConfigError, match=f"'{name}' of RecBole does not run.*{reason}"):
        get_spec(name)
