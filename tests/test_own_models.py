"""Recommenders of others: by place, registered, installed; their keys; what is refused."""

import sys
from importlib import import_module
from textwrap import dedent

import pytest
import yaml
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import ModelType

from recbole_hllm import Config, cli, doors, load_run, own_models, register_model, run
from recbole_hllm.data.rows.interaction import InteractionRows
from recbole_hllm.data.rows.labelled import LabelledRows
from recbole_hllm.data.rows.prefix import PrefixRows
from recbole_hllm.data.rows.window import WindowRows
from recbole_hllm.errors import ConfigError
from recbole_hllm.evaluation import metrics
from recbole_hllm.registry import get_spec, known_name, model_names
from recbole_hllm.tables.side_by_side import compare

SOURCE = dedent(
    """
    import torch
    from recbole.evaluator.base_metric import TopkMetric
    from recbole.model.abstract_recommender import GeneralRecommender
    from recbole.model.context_aware_recommender.fm import FM
    from recbole.model.sequential_recommender.sasrec import SASRec
    from recbole.utils import InputType
    from recbole_hllm.model.base.item_table import ItemTableRecommender
    from recbole_hllm.model.baselines.sasrec_nce import SASRecNCE

    class Wide(SASRec):
        def __init__(self, config, dataset):
            super().__init__(config, dataset)
            self.wide = torch.nn.Linear(config["units"], 1)

    class Further(Wide):
        pass

    class Own(GeneralRecommender):
        input_type = InputType.PAIRWISE

    class OwnFM(FM):
        pass

    class OwnNCE(SASRecNCE):
        pass

    class Mean(ItemTableRecommender):
        def __init__(self, config, dataset):
            super().__init__(config, dataset, width=8)

        def read_history(self, vectors, history):
            return vectors.cumsum(1)

    class Broken(SASRec):
        def __init__(self, config, dataset):
            super().__init__(config, dataset)
            {}["nothing"]

    class Found(TopkMetric):
        def calculate_metric(self, dataobject):
            return self.topk_result("found", self.used_info(dataobject)[0].cumsum(axis=1))

    class Pop(GeneralRecommender):
        pass

    number = 5
    """
)
WIDE = "# A wider SASRec.\nunits: 8                        # (int) How wide.\nn_layers: 1\n"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a test makes known is forgotten after it."""
    monkeypatch.setattr(own_models, "_registered", {})
    monkeypatch.setattr(metrics, "_added", {})


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of a package `ours_<n>` with the module `models`, found in the current folder."""
    folder = tmp_path / f"ours_{tmp_path.name}"
    folder.mkdir()
    (folder / "models.py").write_text(SOURCE)
    (folder / "Wide.yaml").write_text(WIDE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return folder


def place(package, name):
    return f"{package.name}.models:{name}"


# ---- specs ----


@pytest.mark.parametrize(
    "name, rows, losses",
    [
        ("Wide", PrefixRows, ("CE", "BPR")),
        ("Own", InteractionRows, ()),
        ("OwnFM", LabelledRows, ()),
        ("OwnNCE", WindowRows, ()),
        ("Mean", WindowRows, ()),
    ],
)
def test_rows_and_losses_are_those_of_what_it_is_built_on(package, name, rows, losses):
    assert known_name(place(package, name)) == name and known_name(f"{place(package, name)}@small") == f"{name}@small"
    spec = get_spec(name)
    assert (spec.rows, spec.losses, spec.own, spec.model.__name__) == (rows, losses, True, name)
    assert name in model_names() and spec.ours == (rows is WindowRows)


def test_keys_are_those_of_its_file_and_of_what_it_is_built_on(package, settings_of):
    keys = {**settings_of("SASRec"), "model": place(package, "Further")}
    config = Config(config_dict=keys)
    assert (config["model"], config["units"], config["n_layers"], config["loss_type"]) == ("Further", 8, 1, "CE")
    config = Config(config_dict={**keys, "units": "16", "Further.n_layers": 2})
    assert (config["units"], config["n_layers"], config.settings["model"]) == (16, 2, "Further")
    with pytest.raises(ConfigError, match="unknown key 'unit'; did you mean 'units'"):
        Config(config_dict={**keys, "unit": 3})
    with pytest.raises(ConfigError, match="units: 'many' is not a number"):
        Config(config_dict={**keys, "units": "many"})
    with pytest.raises(ConfigError, match="n_layers: 'many' is not a number"):
        Config(config_dict={**keys, "n_layers": "many"})
    (package / "Wide.yaml").write_text("units: 8\nfusion: sum\nblocks: [1, 2]\n")
    assert Config(config_dict=keys)["fusion"] == "sum", "not HLLMRanker's"
    assert Config(config_dict={**keys, "blocks": "[3]"})["blocks"] == [3]
    (package / "Wide.yaml").write_text("units: 8\ntopk: [3]\n")
    with pytest.raises(ConfigError, match="Wide.yaml: 'topk' is shared by all rows of a table"):
        Config(config_dict=keys)


# ---- what is refused ----


@pytest.mark.parametrize(
    "given, message",
    [
        ("nothing_here.models:Wide", "there is no module 'nothing_here' in the current folder or in PYTHONPATH"),
        ("{package}.nothing:Wide", "there is no module '{package}.nothing' in the current folder"),
        ("{package}.models:Widd", "{package}.models has no 'Widd'; did you mean 'Wide'?"),
        ("{package}.models:number", "5 is not a RecBole recommender: derive the class from SequentialRec"),
        ("{package}.models:Found", "Found is not a RecBole recommender"),
        ("{package}.models:Pop", "there is a model named 'Pop' already, of RecBole or this package; rename {package}"),
        ("{package}.wrong:Wide", "{package}.wrong cannot be imported: {folder}/wrong.py, line 2: ZeroDivisionError"),
        ("{package}.needs:Wide", "{package}.needs cannot be imported: {folder}/needs.py, line 1: ModuleNotFoundError"),
        ("{package}.script:Wide", "{package}.script cannot be imported: {folder}/script.py, line 2: SystemExit: 3"),
        ("{package}.typo:Wide", "{package}.typo cannot be imported: {folder}/typo.py, line 3: "),
        ("{package}/models.py:Wide", "is neither a name nor NAME@VARIANT of letters, digits, - and _, nor package.mod"),
    ],
)
def test_places_without_a_recommender(package, given, message, capsys):
    (package / "wrong.py").write_text("x = 1\n1 / 0\n")
    (package / "script.py").write_text("import sys\nsys.exit(3)\n")
    (package / "needs.py").write_text("import nothing_like_it\n")
    (package / "typo.py").write_text("x = 1\n\ndef f(:\n")
    names = {"package": package.name, "folder": package}
    assert cli.main([f"--model={given.format(**names)}", "--dataset=toy"]) == 2
    assert message.format(**names) in capsys.readouterr().err


def test_a_type_without_rows_is_refused():
    class Graph(SequentialRecommender):
        type = ModelType.KNOWLEDGE

    register_model(Graph)
    with pytest.raises(ConfigError, match="'Graph' needs a data set, loader or trainer of its own"):
        get_spec("Graph")


def test_a_name_stands_for_one_class(package):
    known_name(place(package, "Wide"))
    with pytest.raises(ConfigError, match="there is a model named 'Wide' already, of ours_.*models:Wide; rename"):
        register_model(type("Wide", (SequentialRecommender,), {}))


def test_an_error_in_its_code_keeps_its_traceback(package, settings_of, tmp_path):
    with pytest.raises(KeyError, match="nothing"):
        run(place(package, "Broken"), config_dict=settings_of("SASRec"), run_dir=tmp_path / "run")


# ---- runs ----


def test_a_folder_names_the_class_and_imports_nothing(package, settings_of, tmp_path):
    folder, given = tmp_path / "run", place(package, "Wide")
    run(given, config_dict={**settings_of("SASRec"), "metrics": ["MRR", place(package, "Found")]}, run_dir=folder)
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["model"] == "Wide" and saved["metrics"] == ["MRR", "Found"]
    model = get_spec("Wide").model
    own_models._registered.clear()
    metrics._added.clear()
    with pytest.raises(ConfigError, match="is a run of Wide, and a folder never imports code: give the class again"):
        load_run(folder)
    with pytest.raises(ConfigError, match="no metric named 'Found'"):
        load_run(folder, model=given)
    assert cli.main(["evaluate", f"--run_dir={folder}", f"--model={given}", "--metrics=MRR"]) == 0
    imports = f"--imports={given} {place(package, 'Found')}"
    assert cli.main(["evaluate", f"--run_dir={folder}", imports]) == 0
    assert load_run(folder, model=import_module(given.partition(":")[0]).Wide).config.spec.model is model
    (folder / "config.yaml").write_text(yaml.safe_dump({**saved, "model": given}))
    with pytest.raises(ConfigError, match="config.yaml: model: .*:Wide: a file must not name code to import"):
        load_run(folder)


def test_rows_of_a_table_in_processes_of_their_own(package, settings_of, tmp_path, monkeypatch):
    """Each process knows the keys of the other rows, and the metric."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    keys = {**settings_of("SASRec"), "metrics": ["MRR", place(package, "Found")], "sanity_rows": False}
    monkeypatch.chdir("/")
    sys.path.append(str(package.parent))
    keys |= {"Wide.units": 4, "units": 5}
    table = compare([place(package, "Wide"), "Pop"], config_dict=keys, run_dir=tmp_path / "t")
    assert table["failed"] == [] and [row["model"] for row in table["rows"]] == ["Wide", "Pop"]
    assert all("found@3" in row["test_result"] for row in table["rows"])
    assert yaml.safe_load((tmp_path / "t" / "Wide" / "config.yaml").read_text())["units"] == 4


def test_the_folder_that_a_class_is_imported_from(package):
    """Not that of the package itself, whose modules would stand before those of Python's library."""
    (package / "__init__.py").write_text("from recbole.model.sequential_recommender.sasrec import SASRec\n"
                                         "class Inner(SASRec):\n    pass\n")  # fmt: skip
    sys.path.append(str(package.parent))
    for name in (f"{package.name}:Inner", place(package, "Wide")):
        assert doors.folder_of(doors.load_place(name, "model")) == package.parent


def test_a_class_that_no_other_process_can_import(settings_of, tmp_path):
    class Inner(SequentialRecommender):
        pass

    with pytest.raises(ConfigError, match="each row of a table is a process of its own, which imports the class"):
        compare([Inner, "Pop"], config_dict={**settings_of("SASRec"), "loss_type": "CE"}, run_dir=tmp_path / "t")


def test_help_shows_its_keys(package, capsys):
    assert cli.main(["help", "run", f"--model={place(package, 'Further')}"]) == 0
    page = capsys.readouterr().out
    assert "units: 8                        # (int) How wide." in page and "inner_size: 256" in page


@pytest.mark.parametrize("words, message", [
    (["--imports=Wide"], "--imports: 'Wide' is not package.module:Class"),
    (["--imports=json:loads"], "loads is not a RecBole recommender"),
])  # fmt: skip
def test_imports_that_are_no_classes(words, message, capsys):
    assert cli.main([*words, "--dataset=toy"]) == 2
    assert message in capsys.readouterr().err


# ---- installed packages ----


@pytest.fixture
def installed(package):
    """Installs the package with entry points, for one test."""

    def install(**points):
        information = package.parent / f"{package.name}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.name}\nVersion: 1.0\n")
        lines = [f"{name} = {place(package, cls)}" for name, cls in points.items()]
        (information / "entry_points.txt").write_text("\n".join(["[recbole_hllm.models]", *lines, ""]))
        sys.path.append(str(package.parent))
        doors._installed.cache_clear()

    yield install
    doors._installed.cache_clear()


def test_a_model_of_an_installed_package_goes_by_its_name(installed, settings_of):
    installed(Wide="Wide")
    config = Config("Wide", config_dict={**settings_of("SASRec"), "Wide.units": 4})
    assert config["units"] == 4
    Config("Pop", config_dict={**settings_of("Pop"), "Wide.units": 4})


@pytest.mark.parametrize(
    "points, name, message",
    [
        ({"SASRec": "Wide"}, "nothing", "adds a model named 'SASRec', and there is one already"),
        ({"Tall": "Wide"}, "Tall", "models:Wide must have the name of its entry point, 'Tall'"),
        ({"Tall": "Tall"}, "Tall", "model 'Tall' of the package ours_.* has no 'Tall'"),
    ],
)
def test_entry_points_that_cannot_be_used(installed, points, name, message):
    installed(**points)
    with pytest.raises(ConfigError, match=message):
        get_spec(name)
