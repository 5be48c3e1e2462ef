"""NumPy names that RecBole uses and newer NumPy does not have."""

import subprocess
import sys

import numpy as np
import pytest


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_only_missing_names_are_defined():
    code = """
import numpy
before = dict(vars(numpy))
import recbole_hllm
after = vars(numpy)
print(all(after[name] is value for name, value in before.items()))
print(*sorted(set(after) - set(before)))
"""
    kept, defined = python(code).splitlines()
    assert kept == "True"
    names = {"bool", "int", "float", "complex", "object", "str", "long", "unicode", "float_", "complex_"}
    assert set(defined.split()) <= names
    if np.__version__ >= "2":
        assert not {"bool", "long"} & set(defined.split()), "NumPy 2 has them again"


@pytest.mark.parametrize(
    "name, kind",
    [("float", "float64"), ("int", "int_"), ("complex", "complex128"), ("object", "object_"), ("str", "str_"),
     ("bool", "bool_"), ("unicode", "str_"), ("float_", "float64"), ("complex_", "complex128")],
)  # fmt: skip
def test_names_mean_what_they_meant(name, kind):
    import recbole_hllm  # noqa: F401

    assert np.dtype(getattr(np, name)) == np.dtype(getattr(np, kind))


def test_importing_the_package_is_cheap():
    code = "import sys, recbole_hllm; print(*sys.modules)"
    assert not {"torch", "recbole", "transformers"} & set(python(code).split())


def test_recboles_metrics_and_interactions_that_use_them():
    import torch
    from recbole.data.interaction import Interaction
    from recbole.evaluator.metrics import MAP, MRR, NDCG, Precision, Recall

    import recbole_hllm  # noqa: F401

    hits = np.array([[True, False, False], [False, False, True]])
    positives = np.array([1, 2])
    assert MRR.metric_info(None, hits)[:, -1].tolist() == [1.0, pytest.approx(1 / 3)]
    assert Recall.metric_info(None, hits, positives)[:, -1].tolist() == [1.0, 0.5]
    assert Precision.metric_info(None, hits)[:, -1].tolist() == [pytest.approx(1 / 3)] * 2
    ideal = 1 + 1 / np.log2(3)
    assert NDCG.metric_info(None, hits, positives)[:, -1].tolist() == [1.0, pytest.approx(0.5 / ideal)]
    assert MAP.metric_info(None, hits, positives)[:, -1].tolist() == [1.0, pytest.approx(1 / 6)]
    assert Interaction({"x": np.array([1.0, 2.0], dtype=object).astype(float)})["x"].dtype == torch.float32
