"""The measuring program runs on the smallest size, and names its numbers as it says."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "data_scale.py"
NUMBERS = {
    "first_load_seconds", "first_load_peak_gb", "cached_load_seconds", "cached_resident_gb", "window_rows_per_second",
    "prefix_rows_per_second", "speedup_vs_recbole", "memory_vs_recbole", "growth_exponent", "eval_speedup_vs_recbole",
    "eval_memory_vs_recbole",
}  # fmt: skip


def words(folder, *more):
    """A command line for the size tiny, and the file that it writes."""
    line = ["--size", "tiny", "--data", folder / "data", "--threads", "1", "--json", folder / "numbers.json"]
    return [*map(str, line), "--epoch", "0.1", *more]


@pytest.fixture
def in_process(monkeypatch):
    """The program as a module, whose processes for loads are calls here: imports are most of their time."""
    monkeypatch.syspath_prepend(PROGRAM.parent)
    load_data, program = importlib.import_module("load_data"), importlib.import_module("data_scale")

    def load(measurements, name, data, dataset, model, *words):
        keys = {key: yaml.safe_load(value) for key, value in (word[2:].split("=") for word in words)}
        epoch = keys.pop("epoch")
        return load_data.measure(load_data.Ours, model, dataset, {"data_path": str(data), **keys}, epoch)

    monkeypatch.setattr(program.Measurements, "load", load)
    return program


def test_loads(in_process, tmp_path, monkeypatch, capsys):
    more = ["--sizes", "", "--formats", "text", "--parts", "loading"]
    monkeypatch.setattr(sys, "argv", ["data_scale.py", *words(tmp_path, *more)])
    in_process.main()
    found = json.loads((tmp_path / "numbers.json").read_text())
    assert found.keys() >= NUMBERS
    assert [load["interactions"] for load in found["loading"]] == [5_000] * 3
    assert {(load["users"], load["items"]) for load in found["loading"]} == {(300, 120)}
    several = {"first_load_seconds", "first_load_peak_gb", "window_rows_per_second", "prefix_rows_per_second"}
    assert all(found[name] > 0 for name in several)
    assert found["first_load_peak_gb"] >= found["loading"][0]["imports_gb"] > 0.1
    assert NUMBERS - found["notes"].keys() == {name for name in NUMBERS if found[name] is not None}
    assert found["speedup_vs_recbole"] is None and "speedup_vs_recbole" in found["notes"]
    assert "| tiny | text | first | window | 5,000 |" in capsys.readouterr().out


def load(interactions, seconds, **more):
    return {"interactions": interactions, "load_seconds": seconds, "first": True, "format": "text", **more}


def test_growth_is_the_slope_of_the_large_sizes(in_process):
    growth = in_process.headline.__globals__["growth"]
    large = [load(10**6, 2.0), load(10**7, 2 * 10**1.1), load(10**8, 2 * 10**2.2)]
    again = load(10**8, 1.0, rows_per_second=5)
    assert growth([load(10**5, 5.0), *large, again, load(10**7, 9.0, format="parquet")]) == pytest.approx(1.1)
    assert growth([load(10**5, 5.0), load(10**6, 5.0)]) == pytest.approx(0)
    assert growth(large[:1]) is None


@pytest.mark.slow
def test_everything_is_measured(tmp_path):
    subprocess.run([sys.executable, PROGRAM, *words(tmp_path, "--size", "1m", "--sizes", "100k")], check=True)
    found = json.loads((tmp_path / "numbers.json").read_text())
    assert {name: found["notes"].get(name) for name in NUMBERS if not found[name]} == {}


def test_an_unknown_size_is_named(in_process, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["data_scale.py", *words(tmp_path, "--sizes", "1m,huge")])
    with pytest.raises(SystemExit):
        in_process.main()
    assert "--sizes: huge unknown; there are tiny, 100k" in capsys.readouterr().err
