"""What is kept of finished runs: enough for a report and to reproduce them, and nothing of the machine."""

import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from keep_runs import keep, without_places  # noqa: E402

from recbole_hllm.runs.reproduce import found  # noqa: E402


def a_run(folder: Path, *files: str) -> None:
    folder.mkdir(parents=True)
    keys = {"data_path": "/home/me", "epochs": 3, "cache_dir": "/home/me/cache"}
    (folder / "config.yaml").write_text(yaml.safe_dump(keys))
    for name in ("metrics.json", *files):
        (folder / name).write_text(name)


def test_finished_runs_are_kept_without_weights_and_places(tmp_path):
    source, to = tmp_path / "runs", tmp_path / "kept"
    a_run(source / "SASRec" / "seed-1", "costs.json", "ranks-test.npz", "ranks-valid.npz", "run.log")
    a_run(source / "SASRec" / "seed-2")  # not finished
    a_run(source / "HLLM" / "trial-1", "costs.json")
    names = f'{{"{source.absolute()}/HLLM": "{source.absolute()}-more"}}'
    (source / "SASRec" / "seed-1" / "costs.json").write_text(names)
    (source / "table.md").write_text("table")
    (source / "keys.yaml").write_text(yaml.safe_dump({"SASRec.gpu_id": "1", "SASRec.n_layers": 1, "data_path": "/x"}))
    assert keep(source, to) == [to / "SASRec" / "seed-1"]
    files = {path.relative_to(to).as_posix() for path in to.rglob("*") if path.is_file()}
    run = {f"SASRec/seed-1/{name}" for name in ("config.yaml", "metrics.json", "costs.json", "ranks-test.npz")}
    assert files == {"keys.yaml", "table.md", *run}
    assert yaml.safe_load((to / "SASRec" / "seed-1" / "config.yaml").read_text()) == {"epochs": 3}
    assert yaml.safe_load((to / "keys.yaml").read_text()) == {"SASRec.n_layers": 1}
    assert found(str(to / "SASRec" / "seed-1")) == to / "SASRec" / "seed-1"
    costs = (to / "SASRec" / "seed-1" / "costs.json").read_text()
    assert costs == f'{{"{to.as_posix()}/HLLM": "{source.absolute()}-more"}}'
    assert keep(source, to, trials=True) == [to / "HLLM" / "trial-1", to / "SASRec" / "seed-1"]


@pytest.mark.parametrize("given", ["named", "beside the data", "relative", "of the user"])
def test_a_run_that_was_trained_first_is_named_without_its_place_and_trained_again(tmp_path, monkeypatch, given):
    """In the cache_dir of the run, or where it is without one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    cache_dir = {"named": str(tmp_path / "c"), "beside the data": None, "relative": "c", "of the user": "~/c"}[given]
    cache = tmp_path / ("c" if cache_dir else "data/.recbole_hllm_cache")
    source, to = tmp_path / "runs", tmp_path / "kept"
    a_run(source / "E4SRec")
    table = f"{cache}/SASRec-1"
    keys = {"item_table": table, "teacher": f"{cache}-of-old", "teacher_keys": {"item_table": table, "lora_r": 4}}
    of_machine = {"cache_dir": cache_dir, "data_path": str(tmp_path / "data")}
    (source / "E4SRec" / "config.yaml").write_text(yaml.safe_dump(keys | of_machine))
    (source / "E4SRec" / "costs.json").write_text(f'{{"{table}": 1}}')
    keep(source, to)
    kept = yaml.safe_load((to / "E4SRec" / "config.yaml").read_text())
    of_teacher = {"item_table": None, "lora_r": 4}
    assert kept == {"item_table": None, "teacher": f"{cache}-of-old", "teacher_keys": of_teacher}
    assert (to / "E4SRec" / "costs.json").read_text() == '{"cache/SASRec-1": 1}'


@pytest.mark.parametrize("to", ["runs", "runs/kept", "."])
def test_folders_that_lie_in_each_other_are_refused(tmp_path, to):
    a_run(tmp_path / "runs" / "A", "costs.json")
    with pytest.raises(SystemExit, match="lie in each other"):
        keep(tmp_path / "runs", tmp_path / to)
    assert (tmp_path / "runs" / "A" / "config.yaml").read_text().count("data_path") == 1  # as it was


def test_a_folder_without_finished_runs_is_refused(tmp_path):
    a_run(tmp_path / "runs" / "A")
    for folder in (tmp_path / "runs", tmp_path / "gone"):
        with pytest.raises(SystemExit, match="there is no finished run in"):
            keep(folder, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_keys_of_results_stay():
    keys = {"data_path": "a", "HLLM.cache_dir": "b", "seed": 1, "dataset": "c", "HLLM.item_llm_tuning": "frozen"}
    assert without_places(keys) == {"seed": 1, "dataset": "c", "HLLM.item_llm_tuning": "frozen"}
