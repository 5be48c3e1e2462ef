"""The schema: how settings are declared, what a key allows, and what is derived from it."""

import ast
import re
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.config import schema, scopes
from recbole_hllm.config.config import Config
from recbole_hllm.config.keys.pages import PAGES
from recbole_hllm.config.keys.run import LabelledKeys, RunKeys
from recbole_hllm.config.parsing import read_yaml
from recbole_hllm.config.places import properties_folder, recbole_folder
from recbole_hllm.config.schema import DECLARED, Key, Scope, Settings, default, key
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.next_item import NextItemRecommender
from recbole_hllm.model.base.user_items import ScoresUserItems
from recbole_hllm.registry import get_spec

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
NUMBERS = sorted(name for name, one in DECLARED.items() if {int, float} & set(one.types) and bool not in one.types)


@pytest.fixture(autouse=True)
def own_declarations(monkeypatch):
    """Keys that a test declares are forgotten after it."""
    monkeypatch.setattr(schema, "DECLARED", dict(DECLARED))


@pytest.fixture
def groups():
    class Texts(Settings):
        title = "Texts"

        words: int = key(64, "Most words.", least=1)
        mark: str = key("", "Written before.", written=True)

    class Training(Settings):
        title = "Training"

        rate: float = key(0.1, "Learning rate.", scope=Scope.TRAINING, least=0, most=1)
        names: bool | list[str] | None = key(None, "A switch or names.")

    return Texts, Training


# ---- declarations ----


def test_a_key_is_what_its_annotation_and_declaration_say(groups):
    texts, training = groups
    words, mark, rate, names = [*texts.keys.values(), *training.keys.values()]
    assert (words.types, words.default, words.least, words.most, words.optional) == ((int,), 64, 1, inf, False)
    assert mark.is_text and mark.written and not words.is_text
    assert (rate.scope, rate.title, rate.type_words) == (Scope.TRAINING, "Training", "float")
    assert (names.types, names.item, names.optional, names.type_words) == ((bool, list), str, True, "bool or list")


def test_settings_are_built_of_groups_with_other_defaults(groups):
    class Model(*groups):
        """A model."""

        rate: float = default(0.5, "Rate of the model.")

    assert list(Model.keys) == ["words", "mark", "rate", "names"]
    assert (Model.keys["rate"].default, Model.keys["rate"].meaning) == (0.5, "Rate of the model.")
    assert (Model.keys["rate"].most, Model.keys["rate"].title) == (1, "Training")
    assert groups[1].keys["rate"].default == 0.1, "the group's own default stays"
    assert schema.DECLARED["rate"] is groups[1].keys["rate"]


def test_a_group_with_a_title_keeps_its_keys_together(groups):
    class Last(Settings):
        title = "Last"

        words: int = default(3)

    class Model(Last, *groups):
        """A model."""

    assert [(name, one.title) for name, one in Model.keys.items()][0] == ("words", "Last")
    assert Model.keys["words"].default == 3, "as Python inherits: the first base wins"


def test_settings_are_read_only_values(groups):
    settings = groups[0].of({"words": 3, "mark": "!", "other": 1})
    assert (settings.words, settings.mark) == (3, "!")
    with pytest.raises(AttributeError, match="words: settings are read-only"):
        settings.words = 4


def test_a_key_is_declared_once():
    with pytest.raises(TypeError, match="key 'num_negatives' is declared already"):

        class Again(Settings):
            num_negatives: int = key(1, "Again.")


# ---- values ----


@pytest.mark.parametrize(
    "hint, arguments, value, result",
    [(int, {}, 3.0, 3), (int, {"least": 1}, 1, 1), (float, {}, 1, 1), (float, {}, inf, inf), (bool, {}, 1, True),
     (str, {}, 5, "5"), (int | None, {}, None, None), (int | list[int], {"least": 1}, [1, 2.0], [1, 2]),
     (bool | list[str], {}, ["a"], ["a"]), (bool | list[str], {}, False, False),
     (list[int], {"least": 1}, [4, 2.0], [4, 2]), (dict[str, int], {}, {"a": 1}, {"a": 1}),
     (str, {"choices": ("a", "b")}, "a", "a"), (list[str], {}, "a", "a"), (str, {"filled": False}, "", ""),
     (bool, {}, None, True), (str, {"written": True}, None, "")],
)  # fmt: skip
def test_a_value_is_brought_into_the_type_of_its_key(hint, arguments, value, result):
    default = True if hint is bool else None
    made = replace(_key(hint, **arguments), default=default).checked(value)
    assert made == result and type(made) is type(result)


@pytest.mark.parametrize(
    "hint, arguments, value, message",
    [(int, {}, 3.5, "3.5 is not a whole number"), (int, {"least": 1}, 0, "0 must be at least 1"),
     (float, {"most": 1}, 1.5, "1.5 must be at most 1"), (float, {"least": 0}, float("nan"), "nan is not a number"),
     (int, {}, True, "True is not a number"), (int, {}, "x", "'x' is not a number"),
     (int, {}, None, "must not be empty"),
     (int, {}, [1], r"\[1\] is not a number"), (int | list[int], {"least": 1}, [1, 0], "0 must be at least 1"),
     (list[int], {}, 4, "4 is not a list of int"), (list[int], {"least": 1}, [0], "0 must be at least 1"),
     (dict[str, int], {}, "a", "'a' is not a dict"),
     (bool, {}, 2, "2 is neither True nor False"), (bool, {}, "yes", "neither True nor False"),
     (str, {"choices": ("late", "early")}, "lat", r"'lat' is not one of late, early; did you mean 'late'\?"),
     (bool, {"filled": True}, None, "must not be empty"),
     (str, {"filled": True}, "", "must not be empty"), (list[str], {"filled": True}, [], "must not be empty")],
)  # fmt: skip
def test_a_value_that_a_key_does_not_allow_is_refused_by_name(hint, arguments, value, message):
    with pytest.raises(ConfigError, match=f"^it:? .*{message}"):
        _key(hint, **arguments).checked(value)


def _key(hint, **arguments) -> Key:
    namespace = {"__annotations__": {"it": hint}, "it": key(None, "Meaning.", **arguments)}
    return type("Group", (Settings,), namespace).keys["it"]


@given(st.sampled_from(NUMBERS), PLAIN)
def test_a_number_is_kept_or_refused_by_key(name, value):
    one = DECLARED[name]
    try:
        made = one.checked(value)
    except ConfigError as error:
        assert str(error).startswith(name)
        return
    assert made == value and (made is not None or one.optional)
    for number in made if isinstance(made, list) else [made]:
        assert number is None or one.least <= number <= one.most
        assert number is None or type(number) is int or float in one.types


def test_numbers_of_every_property_file_are_allowed():
    for folder in (recbole_folder() / "properties", properties_folder()):
        for file in folder.glob("**/*.yaml"):
            for name, value in read_yaml(file).items():
                if name in NUMBERS:
                    assert DECLARED[name].checked(value) == value, (file, name)


# ---- the keys there are ----


def test_every_default_is_allowed_by_its_own_key():
    for settings in (LabelledKeys, *(classes[0] for classes in PAGES.values())):
        for name, one in settings.keys.items():
            if one.default is not ...:
                made = one.checked(one.default)
                assert made == one.default and type(made) is type(one.default), (settings, name)


def test_every_key_says_what_it_means():
    for one in DECLARED.values():
        assert one.meaning[0].isupper() or one.meaning.split()[0] in (*one.choices, one.meaning.split()[0])
        assert one.meaning.endswith((".", ")")) and "\n" not in one.meaning, one.name


def test_a_model_has_the_keys_of_its_page_or_of_the_model_it_is_built_on():
    shared = {NextItemRecommender.__name__, ScoresUserItems.__name__}  # by several models
    names = {page.removeprefix("model/") for page in PAGES if "/" in page} - shared
    own = {name: get_spec(name).model for name in names}
    assert {name: model.Keys for name, model in own.items()} == {name: PAGES[f"model/{name}"][0] for name in own}
    assert type("Further", (own["HLLM"],), {}).Keys is own["HLLM"].Keys
    assert NextItemRecommender.Keys is PAGES["model/NextItemRecommender"][0]
    assert ScoresUserItems.Keys is PAGES["model/ScoresUserItems"][0]
    assert (get_spec("GRU4Rec").model.Keys, get_spec("DIN").model.Keys) == (RunKeys, LabelledKeys)


def test_settings_of_a_run_have_its_device(settings_of):
    config = Config("HLLM", config_dict=settings_of("HLLM"))
    settings = config.spec.model.Keys.of(config)
    assert (settings.device, settings.num_negatives, settings.epochs) == (config["device"], 8, 2)
    assert (settings.item_llm.pretrain_dir, settings.item_llm.layers) == (settings_of("HLLM")["item_pretrain_dir"], 1)
    assert settings.is_default("negatives") and not settings.is_default("num_negatives")


# ---- what is derived ----


def test_scopes_say_what_rows_share_and_runs_keep():
    assert {"dataset", "data_path", "eval_args", "topk", "resume", "sanity_rows"} <= scopes.SHARED
    assert not scopes.SHARED & {"seed", "learning_rate", "cache_dir", "num_negatives", "trust_remote_code", "reference"}
    assert scopes.NOT_SAVED == {"resume", "evaluate_only", "trust_remote_code"}
    assert {"data_path", "cache_dir", "gpu_id", "worker", "item_vector_cache"} <= scopes.MAY_CHANGE
    assert not scopes.MAY_CHANGE & {"epochs", "seed", "precision", "metrics"}
    assert {"item_pretrain_dir", "pretrained_hllm"} <= scopes.SOURCES
    assert {"topk", "show_progress", "eval_batch_size"} <= scopes.WITHOUT_WEIGHT
    assert not scopes.WITHOUT_WEIGHT & {"valid_metric", "seed", "epochs", "mask_history"}
    assert {"mask_history", "reference", "text_keys", "max_training_minutes"} <= scopes.INHERITED


def test_every_key_is_read_by_some_code():
    """As an attribute of settings, ``settings.num_negatives``, or by its name."""
    package = Path(schema.__file__).parents[1]
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in package.rglob("*.py")}
    read = {node.attr for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    nodes = [node for file, tree in trees.items() if file.parent.name != "keys" for node in ast.walk(tree)]
    read |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    made = [node.values for node in nodes if isinstance(node, ast.JoinedStr)]  # f"{part}_llm_init"
    texts = ["".join(getattr(part, "value", "") if isinstance(part, ast.Constant) else r"\w+" for part in of)
             for of in made]  # fmt: skip
    patterns = [re.compile(text) for text in texts if re.fullmatch(r"(\w|\\w\+)*[a-z]{3}(\w|\\w\+)*", text)]
    ours = {name for name, one in DECLARED.items() if one.default is not ...}
    assert [name for name in sorted(ours - read) if not any(pattern.fullmatch(name) for pattern in patterns)] == []
