"""The plan of the house: who imports whom, and what no file may do."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import recbole_hllm
import recbole_hllm.serving

PACKAGE = Path(recbole_hllm.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# Room -> rooms it may import: verbs -> tables | description -> runs -> config.config -> registry -> training |
# evaluation | data | model -> nn. Errors, units, doors, and the schema, parsing and places of keys are for all but nn,
# which takes plain arguments. The contract says what the program asks of a model, and all that hold one may import it.
# Files of checkpoints stand below the models too: a model may be made of others that were trained.
COMMON = {"doors", "errors", "units"}
KEYS = COMMON | {"config"}
ARROWS = {
    "__init__": set(),  # the public names, imported when asked for
    "doors": {"errors"},
    "errors": set(),
    "own_models": {"doors", "errors"},
    "units": set(),
    "allocator": COMMON,
    "pipes": set(),
    "meeting": COMMON,
    "processes": COMMON | {"meeting"},
    "memory": {"processes"},
    "config": COMMON,
    "storage": KEYS | {"processes"},
    "nn": COMMON,
    "data": KEYS | {"texts", "allocator", "evaluation", "processes", "storage"},
    "evaluation": KEYS | {"processes", "storage"},
    "texts": COMMON,
    "serving": COMMON | {"nn", "storage", "texts"},
    "contract": {"config"},
    "servable": COMMON | {"contract", "nn", "serving"},
    "checkpoint": COMMON | {"processes", "storage"},
    "model": KEYS
    | {"checkpoint", "contract", "data", "evaluation", "memory", "nn", "processes", "servable", "serving", "storage"}
    | {"texts"},
    "training": KEYS | {"checkpoint", "contract", "data", "evaluation", "nn", "processes", "storage"},
    "registry": KEYS | {"own_models", "contract", "data", "model"},
    "config.config": KEYS | {"processes", "registry", "data", "evaluation"},
    "runs": KEYS
    | {"own_models", "memory", "processes", "config.config", "contract", "registry", "data", "evaluation", "training"}
    | {"checkpoint", "servable", "serving", "storage", "texts"},
    "tables": KEYS
    | {"own_models", "processes", "config.config", "data", "registry", "runs", "training", "evaluation", "storage"},
    "report": KEYS | {"data", "evaluation", "runs", "storage", "tables"},
    "description": KEYS | {"texts", "config.config", "data", "model", "nn", "runs", "storage"},
    # A table of verbs: it names their modules, and imports one when it is asked for.
    "cli": COMMON | {"allocator", "pipes", "processes"},
    "verbs": KEYS
    | {"evaluation", "cli", "config.config", "registry", "data", "runs", "serving", "tables", "description", "report"},
}
# Files that are rooms of their own: Config chooses the model and asks the data's files, the contract stands below all.
TWO_STOREYS = {
    "config/config.py": "config.config", "model/base/contract.py": "contract", "training/checkpoint.py": "checkpoint",
    "model/base/servable.py": "servable", "model/base/served_model.py": "servable", "data/texts/template.py": "texts",
}  # fmt: skip
# RecBole's own classes are subclassed here and nowhere else.
SUBCLASSED_IN = {
    "config/config.py", "data/batches.py", "data/files/atomic.py", "data/loader.py", "data/rows/part.py",
    "data/rows/lazy_interaction.py", "training/evaluation.py", "evaluation/topk.py", "evaluation/diversity.py",
    "evaluation/evaluator.py", "evaluation/value_metrics.py",
}  # fmt: skip

# Models in these read typed settings, and look nothing up in a config but keys whose names are values themselves.
TYPED = ("model/",)
LOOKED_UP = {  # keys of RecBole's models
    "model/base/recbole_models.py": {"config[key]"},
    "model/learn/learn_ranker.py": {"config[key]", "self.config[key]"},
}

# Has an unpickler that knows tensors only, for RecBole's checkpoints.
READS_PICKLES = "model/base/recbole_checkpoint.py"


def name_of(file):
    return file.relative_to(PACKAGE).as_posix()


def room_of(file):
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return TWO_STOREYS.get(name_of(file), parts[0])


def room_of_import(name):
    parts = name.split(".")[1:]
    files = ("/".join(parts[:length]) + ".py" for length in range(1, len(parts) + 1))
    return next((TWO_STOREYS[file] for file in files if file in TWO_STOREYS), parts[0])


def tree_of(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def for_type_checkers(tree):
    """The statements of ``if TYPE_CHECKING``, which are never run."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from node.body


def imports_of(tree):
    """Dotted names of everything that a file imports anywhere when it is run."""
    never_run = set(for_type_checkers(tree))
    yield from imported_by(node for node in ast.walk(tree) if node not in never_run)


def imported_by(nodes):
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.fixture(params=FILES, ids=name_of)
def file(request):
    return request.param


def test_imports_follow_the_arrows(file):
    room = room_of(file)
    assert room in ARROWS, f"where does {room} stand?"
    imported = {room_of_import(name) for name in imports_of(tree_of(file)) if name.startswith("recbole_hllm.")}
    assert imported - {room} <= ARROWS[room]


def test_type_checkers_alone_import_no_room_but_the_public_names(file):
    names = {name for name in imported_by(for_type_checkers(tree_of(file))) if name.startswith("recbole_hllm.")}
    places = {"__init__.py": recbole_hllm._PUBLIC, "serving/__init__.py": recbole_hllm.serving._PUBLIC}
    assert names == {f"{module}.{name}" for name, module in places.get(name_of(file), {}).items()}


def test_nn_knows_nothing_of_recbole_and_nobody_of_its_quick_start(file):
    imported = set(imports_of(tree_of(file)))
    assert not any(name.startswith(("recbole.quick_start", "ray")) for name in imported)
    if room_of(file) in ("nn", "errors", "units") or name_of(file) == "config/places.py":
        assert not any(name == "recbole" or name.startswith("recbole.") for name in imported)


def test_recboles_sequential_models_are_imported_in_one_place(file):
    """Theirs changes torch for everybody, and RecBole's get_model imports them too."""
    watched = ("recbole.model.sequential_recommender", "recbole.utils.get_model")
    found = {name for name in imports_of(tree_of(file)) if name.startswith(watched)}
    assert not found or name_of(file) == "model/base/recbole_models.py"


def test_arrows_have_no_circle():
    seen = set()
    while len(seen) < len(ARROWS):
        free = {room for room, below in ARROWS.items() if room not in seen and below - {room} <= seen}
        assert free, set(ARROWS) - seen
        seen |= free


def module_of(file):
    parts = ("recbole_hllm", *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def imported_files(tree, modules):
    """Files of the package that a file imports anywhere, inside functions too; module names in texts do not count."""
    for name in imports_of(tree):
        while name and name not in modules:  # a name out of a file
            name = name.rpartition(".")[0]
        if name:
            yield name


def in_a_circle(graph):
    """Nodes that can be reached from themselves, each with the others of its circle."""
    reached = {}
    for start in graph:
        found, ahead = set(), set(graph[start])
        while ahead:
            found |= ahead
            ahead = set().union(*(graph[node] for node in ahead)) - found
        reached[start] = found
    circles = {node: sorted(other for other in reached[node] if node in reached[other]) for node in graph}
    return {node: circle for node, circle in circles.items() if circle}


def test_no_file_imports_in_a_circle():
    modules = {module_of(file) for file in FILES}
    graph = {module_of(file): set(imported_files(tree_of(file), modules)) for file in FILES}
    assert sum(map(len, graph.values())) > 2 * len(graph), "imports are found"
    assert in_a_circle(graph) == {}


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}}
    assert in_a_circle(graph) == {"b": ["b", "c"], "c": ["b", "c"], "e": ["e"]}
    lazy = ast.parse("def later():\n    from recbole_hllm.runs import plan\n    import recbole_hllm.registry")
    modules = {"recbole_hllm", "recbole_hllm.runs", "recbole_hllm.runs.plan", "recbole_hllm.registry"}
    assert list(imported_files(lazy, modules)) == ["recbole_hllm.runs.plan", "recbole_hllm.registry"]


def test_a_file_is_a_page(file):
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 400
    assert max(map(len, text.splitlines()), default=0) <= 120
    assert ast.get_docstring(tree_of(file)), "what is in this room?"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)


def test_public_functions_and_classes_say_what_they_do(file):
    public = [
        node
        for node in tree_of(file).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    ]
    silent = [node.name for node in public if not ast.get_docstring(node)]
    assert silent == []


def test_models_read_typed_settings(file):
    """A model looks no key up in a config: ``settings.num_negatives``, with the key's type."""
    if not name_of(file).startswith(TYPED):
        return
    found = {
        ast.unparse(node) for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("config")
        or isinstance(node, ast.Call) and ast.unparse(node.func).endswith("config.get")
    }  # fmt: skip
    assert found <= LOOKED_UP.get(name_of(file), set())


def test_nothing_loaded_can_run_code(file):
    tree = tree_of(file)
    imported = {name.split(".")[0] for name in imports_of(tree)}
    if name_of(file) == READS_PICKLES:
        used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert {name for name in used if name.startswith("pickle.")} == {"pickle.Unpickler"}
        assert not any(name.endswith("find_class") for name in used), "it would import what a file names"
        imported -= {"pickle"}
    assert not imported & {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "cloudpickle"}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert name not in ("eval", "exec", "compile", "__import__"), name
        assert name != "torch.save"
        if name == "torch.load":
            assert options.get("weights_only") == "True"
        if name in ("np.load", "numpy.load"):
            assert options.get("allow_pickle", "False") == "False"
        if name.endswith(("read_pickle", "to_pickle", "load_dataset")) or name.startswith("yaml.unsafe"):
            raise AssertionError(name)
        if name == "yaml.load":
            assert options.get("Loader") == "YamlLoader"
        assert options.get("trust_remote_code", "False") != "True"


def test_recbole_is_never_patched(file):
    """No assignment, setattr, update or del goes to a module of RecBole or to one of its classes."""
    tree = tree_of(file)
    foreign = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "recbole":
            foreign |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            foreign |= {alias.asname or alias.name for alias in node.names if alias.name.split(".")[0] == "recbole"}
    changed = []
    for node in ast.walk(tree):
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete)):
            changed += [target for target in targets if isinstance(target, (ast.Attribute, ast.Subscript))]
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr"):
            changed.append(node.args[0])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "update":
            changed.append(node.func.value)
    owners = {ast.unparse(target).split(".")[0].split("[")[0] for target in changed}
    assert not owners & foreign


def test_recboles_classes_are_subclassed_in_their_rooms_only():
    found = set()
    for module_info in pkgutil.walk_packages([str(PACKAGE)], "recbole_hllm."):
        module = importlib.import_module(module_info.name)
        for _, cls in inspect.getmembers(module, inspect.isclass):
            own = cls.__module__ == module.__name__
            if own and any(base.__module__.split(".")[0] == "recbole" for base in cls.__bases__):
                found.add(name_of(Path(module.__file__)))
    models = {name_of(path) for path in PACKAGE.glob("model/*/*.py")}
    assert found - models == SUBCLASSED_IN


def test_tests_mirror_the_package():
    """A test file stands where the file it tests does, or in a folder of that file's name beside others of it."""
    tests = Path(__file__).parent
    for test in tests.rglob("test_*.py"):
        folder = test.parent.relative_to(tests)
        if folder.parts[:1] in [("benchmarks",), ("contract",), ("docs",), ("golden",), ("end_to_end",)]:
            continue
        room = PACKAGE / folder
        if not room.is_dir():
            assert (PACKAGE / folder).with_suffix(".py").is_file(), test
            room = room.parent
        modules = {path.stem for path in room.glob("*.py")} | {"architecture", "lint", "packaging", "numpy_names"}
        assert any(test.stem.removeprefix("test_").startswith(module) for module in modules), test
