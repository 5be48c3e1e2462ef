"""The contract's defaults, how a class of RecBole's is adopted, and that nothing else looks for a model's members."""

import ast
import inspect
from pathlib import Path

import pytest
import torch
from recbole.model.context_aware_recommender import FM
from recbole.model.general_recommender import BPR
from recbole.model.sequential_recommender import DIN, FDSA, GRU4Rec
from recbole.utils import InputType, init_seed

import recbole_hllm
from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.model.base import contract, servable
from recbole_hllm.model.base.contract import CatalogueScorer, LabelledScorer, Recommender, Weights, adopt
from recbole_hllm.registry import get_spec

PACKAGE = Path(recbole_hllm.__file__).parent
# Where something else than a recommender is asked for a name: text of what is asked.
ASKED = {
    "__init__.py": {"import_module(_PUBLIC[name])"},
    "allocator.py": {"library"},
    "config/parsing.py": {"torch.cpu"},
    "data/files/atomic.py": {"self"},
    "data/files/formats.py": {"FORMATS.load(path.suffix[1:])", "kind"},
    "data/protocol.py": {"settings", "split"},
    "data/raw/conversion.py": {"module", "CONVERTERS.load(form)"},
    "data/rows/dataset.py": {"self", "self.settings"},
    "data/rows/part.py": {"self.whole"},
    "data/rows/prefix.py": {"data"},
    "data/texts/tokens.py": {"self.tokenizer"},
    "doors.py": {"error.obj", "found"},
    "errors.py": {"frame"},
    "evaluation/metrics.py": {"metric"},  # RecBole's or a user's
    "model/base/next_item.py": {"self.settings"},
    "model/base/trained_run.py": {"settings"},
    "model/hllm/item_cache.py": {"settings"},
    "model/learn/learn.py": {"settings"},
    "model/slmrec/teacher_fit.py": {"made", "settings"},
    "own_models.py": {"model"},  # before it is adopted
    "registry.py": {"import_module(module)", "import_module(_MENDED[name])", "model"},
    "runs/plan.py": {"epoch"},
    "serving/__init__.py": {"import_module(_PUBLIC[name])"},
    "serving/service/limits.py": {"self"},
    "serving/service/server.py": {"signal"},
    "storage/files.py": {"error", "os", "value"},
    "training/engines/__init__.py": {"settings"},
    "training/engines/deepspeed.py": {"self.wrapped.optimizer", "weight"},  # DeepSpeed's marks
    "training/progress.py": {"trainer", "trainer.model"},  # COUNTERS
    "training/throughput.py": {"other", "self"},
    "training/work.py": {"self"},
    "verbs/help.py": {"module"},
    "verbs/serve.py": {"Limits"},
}


def test_nobody_looks_whether_a_model_has_a_member():
    """All but ``nn/``, whose language models are transformers', which have no contract."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        name = file.relative_to(PACKAGE).as_posix()
        if name.startswith("nn/") or name == "model/base/contract.py":
            continue
        calls = (node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
        asked = {ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func) in ("hasattr", "getattr")}
        if asked - ASKED.get(name, set()):
            found[name] = asked
    assert found == {}


def test_every_member_says_what_it_means():
    members = [member for module in (contract, servable) for member in inspect.getmembers(module, inspect.isclass)]
    families = {cls for _, cls in members if issubclass(cls, Recommender)}
    assert len(families) == 12
    for cls in families:
        described = inspect.getdoc(cls)
        for name, member in vars(cls).items():
            if not name.startswith("_"):
                text = inspect.getdoc(member) if callable(getattr(cls, name)) else None
                assert text or f"{name}:" in described, f"{cls.__name__}.{name}"
        for name in vars(cls).get("__annotations__", {}):
            assert f"{name}:" in described, f"{cls.__name__}.{name}"


# ---- classes of RecBole's ----

LABELLED = ("DIN", "FM")


@pytest.fixture
def build(settings_of):
    """(class, name) -> a model of that class with the weights of its seed, and its training loader."""

    def make(cls, name):
        labelled = {"dataset": "labelled", "metrics": ["AUC"], "valid_metric": "AUC"} if name in LABELLED else {}
        config = Config(name, config_dict={**settings_of(name), **labelled})
        train = data_preparation(config, create_dataset(config))[0]
        init_seed(config["seed"], config["reproducibility"])
        return cls(config, train._dataset), train

    return make


@pytest.mark.parametrize("cls", [FDSA, GRU4Rec, BPR, DIN, FM])
def test_an_adopted_class_is_the_same_model(build, cls):
    name = cls.__name__
    adopted = get_spec(name).model
    family = LabelledScorer if name in LABELLED else CatalogueScorer
    assert issubclass(adopted, (cls, family)) and adopt(adopted, family) is adopted and adopt(cls, family) is adopted
    assert (adopted.__name__, adopted.__module__, adopted.__doc__) == (name, cls.__module__, cls.__doc__)
    (plain, train), (model, _) = build(cls, name), build(adopted, name)
    assert not isinstance(plain, Recommender) and isinstance(model, Recommender) and type(model).__name__ == name
    expected, weights = plain.state_dict(), model.state_dict()
    assert list(weights) == list(expected) and all(torch.equal(weights[key], expected[key]) for key in weights)
    rows = next(iter(train))
    assert torch.equal(plain.eval().calculate_loss(rows), model.eval().calculate_loss(rows))
    assert torch.equal(plain.predict(rows), model.predict(rows))


def test_defaults_are_those_of_a_model_of_recbole(build):
    model, train = build(get_spec("GRU4Rec").model, "GRU4Rec")
    (group,) = model.parameter_groups()
    assert [id(weight) for weight in group["params"]] == [id(weight) for weight in model.parameters()]
    assert model.inference_parameters() == sum(weight.numel() for weight in model.parameters())
    assert model.positions_read(next(iter(train))) is None and model.item_reading() is None
    assert dict(model.loss_terms) == {} == dict(model.IMPLEMENTATIONS) and model.further_keys({}) == set()
    assert model.DRAWS_NEGATIVES and not model.NUMBERED_ROWS
    assert model.check_keys({}) is None and model.check_files({}) is None and model.training_rows({}) is None


@pytest.mark.parametrize(
    "name, histories, numbers, input_type",
    [("FM", False, True, InputType.POINTWISE), ("DIN", True, True, InputType.POINTWISE), ("SASRec", True, True, None),
     ("BPR", True, True, InputType.PAIRWISE), ("HLLMRanker", True, False, InputType.POINTWISE),
     ("LEARNRanker", True, True, InputType.POINTWISE)],
)  # fmt: skip
def test_what_is_read_of_a_row(name, histories, numbers, input_type):
    model = get_spec(name).model
    assert (model.READS_HISTORY, model.READS_NUMBERS) == (histories, numbers)
    assert model.fixed_input_type() == input_type


def test_a_class_that_keeps_to_the_contract_is_taken_as_it_is():
    class Mine(FDSA, CatalogueScorer):
        """A user's."""

    assert adopt(Mine, CatalogueScorer) is Mine


def test_weights_are_read_where_they_are_fresh_and_nowhere_else():
    assert [weights for weights in Weights if weights.are_read] == [Weights.FRESH]
