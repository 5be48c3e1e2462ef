"""The table of metrics: names, what each reads, and metrics of others."""

import sys

import numpy as np
import pytest
from recbole.evaluator.base_metric import AbstractMetric, LossMetric, TopkMetric
from recbole.evaluator.register import metrics_dict
from recbole.utils import EvaluatorType

from recbole_hllm import doors, run
from recbole_hllm.errors import ConfigError
from recbole_hllm.evaluation import metrics as table
from recbole_hllm.evaluation.metrics import find_metric, is_smaller_better, metric_names, register_metric


@pytest.fixture(autouse=True)
def own(monkeypatch):
    monkeypatch.setattr(table, "_added", added := {})
    return added


class Misses(TopkMetric):
    """Targets per row that the list lacks."""

    smaller = True

    def calculate_metric(self, dataobject):
        hits, lengths = self.used_info(dataobject)
        return self.topk_result("misses", lengths[:, None] - hits.cumsum(axis=1))


class Bias(LossMetric):
    """Mean score minus mean label."""

    def calculate_metric(self, dataobject):
        return self.output_metric("bias", dataobject)

    def metric_info(self, preds, trues):
        return np.mean(preds) - np.mean(trues)


def test_every_metric_of_recbole_and_ours_has_a_row():
    for name, metric in metrics_dict.items():
        assert find_metric(name.upper(), metric.metric_type == EvaluatorType.VALUE) is metric
    assert find_metric("GAUC", labelled=True) is not find_metric("gauc", labelled=False)
    assert find_metric("UAUC", labelled=False) is None and find_metric("Recall", labelled=True) is None
    assert {"Recall", "Gini", "GAUC"} <= {*metric_names(False)} and "Gini" not in metric_names(True)
    needs = {need for labelled in (True, False) for need in table.needed_by(metric_names(labelled), labelled)}
    assert needs == {need for all_needs in table.NEEDS.values() for need in all_needs}


@pytest.mark.parametrize("name", ["Gini@5", "giniindex", "RMSE", "logloss", "AveragePopularity@10"])
def test_smaller_is_better(name):
    assert is_smaller_better(name) and not is_smaller_better("NDCG@10") and not is_smaller_better("nosuch")


def test_a_registered_metric_is_one_of_the_table(settings_of, tmp_path):
    register_metric(Misses)
    assert register_metric(Misses) is Misses and is_smaller_better("misses@3")
    keys = {**settings_of("SASRec"), "metrics": ["Recall", "Misses"], "topk": [3, 12], "valid_metric": "Misses@3"}
    result = run("SASRec", config_dict=keys, run_dir=tmp_path / "run")
    assert result["valid_score_bigger"] is False
    test = result["test_result"]
    assert test["misses@3"] == pytest.approx(1 - test["recall@3"], abs=1e-4) and test["misses@12"] == 0
    with pytest.raises(ConfigError, match="topk: 20 is more than the 12 items"):
        run("SASRec", config_dict={**keys, "topk": [3, 20], "metrics": ["Misses"]}, run_dir=tmp_path / "long")


def test_a_metric_of_labelled_rows(own):
    from recbole_hllm.evaluation.value_metrics import value_metrics

    register_metric(Bias)
    labels, scores = np.array([1, 0]), np.array([0.75, 0.75])
    assert value_metrics(["bias"], np.array([1, 1]), labels, scores) == {"bias": 0.25}
    with pytest.raises(ConfigError, match=r"metrics: \['Bias'\] need labels"):
        table.check_metrics(["Bias"], labelled=False, model="SASRec")
    with pytest.raises(ConfigError, match=r"labelled rows of DIN have .*, WUAUC, Bias only"):
        table.check_metrics(["Recall"], labelled=True, model="DIN")


def made(name="Mine", base=AbstractMetric, **attributes):
    return type(name, (base,), attributes)


@pytest.mark.parametrize(
    "metric, message",
    [
        (made("NDCG", TopkMetric), "there is a metric named 'NDCG' already"),
        (made("uauc", LossMetric), "there is a metric named 'uauc' already"),
        (dict, "dict is not a metric: derive it from TopkMetric"),
        (made(), "Mine: metric_type must be EvaluatorType.RANKING or .VALUE"),
        (made(metric_type=EvaluatorType.RANKING), "metric_need a list of what it reads, out of rec.topk, rec.items"),
        (made(base=LossMetric, metric_need=["rec.topk"]), "out of rec.score, data.label, data.users"),
    ],
)
def test_classes_that_are_no_metric_of_the_table(metric, message):
    with pytest.raises(ConfigError, match=message):
        register_metric(metric)


def test_another_name_of_the_values_is_said(settings_of, tmp_path):
    def calculate_metric(self, dataobject):
        return {"mean@3": 1.0}

    register_metric(made(base=TopkMetric, calculate_metric=calculate_metric))
    keys = {**settings_of("Pop"), "metrics": ["Mine"], "topk": [3], "valid_metric": "Mine@3"}
    with pytest.raises(ConfigError, match="Mine must name its values 'mine', or 'mine@k', .* there are mean@3"):
        run("Pop", config_dict=keys, run_dir=tmp_path / "run")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package with an entry point, as pip would, for one test."""

    def installed(source: str, entry: str, group: str = "recbole_hllm.metrics"):
        name = f"further_{len(list(tmp_path.iterdir()))}"
        (tmp_path / f"{name}.py").write_text(source)
        information = tmp_path / f"{name}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[{group}]\n{entry.format(module=name)}\n")
        doors._installed.cache_clear()

    monkeypatch.syspath_prepend(tmp_path)
    yield installed
    doors._installed.cache_clear()
    for module in [module for module in sys.modules if module.startswith("further_")]:
        del sys.modules[module]


SOURCE = """
from recbole.evaluator.base_metric import TopkMetric

class Places(TopkMetric):
    def calculate_metric(self, dataobject):
        hits, lengths = self.used_info(dataobject)
        return self.topk_result("places", hits.cumsum(axis=1))
"""


def test_a_metric_of_an_installed_package(install):
    install(SOURCE, "Places = {module}:Places")
    assert "Places" in metric_names(False) and not sys.modules.keys() & {"further_0"}
    table.check_metrics(["recall", "PLACES"], labelled=False, model="SASRec")
    assert find_metric("places", False).__module__ == "further_0" and find_metric("places", True) is None


@pytest.mark.parametrize(
    "source, entry, message",
    [
        ("", "Places = {module}:Places", "metric 'Places' of the package further_0: further_0 has no 'Places'"),
        ("import nothing_like_it", "Places = {module}:P", "further_0.py, line 1: ModuleNotFoundError"),
        ("x = 1\n1 / 0", "Places = {module}:P", "further_0.py, line 2: ZeroDivisionError: division by zero"),
        ("x = = 1", "Places = {module}:P", "further_0.py, line 1: invalid syntax"),
        ("Placer = 1", "Places = {module}:Places", "has no 'Places'; did you mean 'Placer'?"),
        ("", "Places = nothing_at_all:Places", "there is no module 'nothing_at_all' in the current folder"),
        (SOURCE, "Spaces = {module}:Places", "further_0:Places must have the name of its entry point, 'Spaces'"),
        ("", "Gini = {module}:Gini", "further_0 adds a metric named 'Gini', a name that recbole-hllm has already"),
        (SOURCE.replace("Places", "MRR"), "MRR = {module}:MRR", "there is a metric named 'MRR' already"),
    ],
)
def test_an_installed_package_that_cannot_be_used(install, source, entry, message):
    install(source, entry)
    with pytest.raises(ConfigError, match=message):
        find_metric(entry.split()[0], False)
