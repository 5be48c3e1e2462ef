"""The wheel, the editable install and the plain clone all work from any folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PRINT_FOLDER = "from recbole_hllm.config.places import properties_folder; print(properties_folder())"


def command(*arguments, cwd, **environment) -> str:
    """Standard output of Python with these arguments; its standard error is shown when it fails.

    Of the variables that change what Python imports it has those given alone, whatever the tests were started with.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def pip(*arguments, cwd):
    return command("-m", "pip", "--isolated", "--disable-pip-version-check", *arguments, cwd=cwd)


def files_below(folder: Path, pattern: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern)}


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A copy of what git keeps, so that building leaves nothing behind and nothing old gets in."""
    clone = tmp_path_factory.mktemp("clone")
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, clone)
    for name in ("recbole_hllm", "properties"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    return clone


@pytest.fixture(scope="module")
def wheel(clone, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", clone, "--no-deps", "--no-build-isolation", "--wheel-dir", folder, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder that holds the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", wheel, "--no-deps", "--target", folder, cwd=folder)
    return folder


def test_wheel_holds_every_module_and_every_property_file(wheel):
    content = set(zipfile.ZipFile(wheel).namelist())
    modules = {f"recbole_hllm/{file}" for file in files_below(ROOT / "recbole_hllm", "*.py")}
    properties = {f"recbole_hllm/properties/{file}" for file in files_below(ROOT / "properties", "*.yaml")}
    page = {f"recbole_hllm/report/page.{kind}" for kind in ("css", "js")}
    page |= {f"recbole_hllm/serving/service/page.{kind}" for kind in ("css", "html", "js")}
    metadata = {file for file in content if ".dist-info/" in file}
    assert content - metadata == modules | properties | page | {"recbole_hllm/py.typed"}
    assert any(file.endswith("LICENSE") for file in metadata)


def test_installed_wheel_finds_its_own_property_files(installed, tmp_path):
    folder = command("-c", PRINT_FOLDER, cwd=tmp_path, PYTHONPATH=str(installed))
    assert Path(folder) == installed / "recbole_hllm" / "properties"
    assert files_below(Path(folder), "*.yaml") == files_below(ROOT / "properties", "*.yaml")


def test_clone_finds_its_own_property_files(clone, tmp_path):
    assert Path(command("-c", PRINT_FOLDER, cwd=tmp_path, PYTHONPATH=str(clone))) == clone / "properties"


def test_editable_install_finds_the_property_files_of_the_clone(clone, tmp_path):
    site = tmp_path / "site"
    pip("install", "--no-deps", "--no-build-isolation", "--target", site, "--editable", clone, cwd=tmp_path)
    # With -S no other editable install is active; the libraries are found after this one.
    libraries = sysconfig.get_path("purelib")
    activate = f"import site, sys; site.addsitedir({str(site)!r}); sys.path.append({libraries!r}); "
    assert Path(command("-S", "-c", activate + PRINT_FOLDER, cwd=tmp_path)) == clone / "properties"


def test_installed_wheel_runs_from_an_empty_folder(installed, tmp_path):
    line = ("-m", "recbole_hllm.cli", "--model=Pop", "--dataset=ml-100k", "--show_progress=False")
    command(*line, cwd=tmp_path, PYTHONPATH=str(installed))
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    (run,) = (tmp_path / "runs" / "ml-100k").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    with np.load(run / "ranks-test.npz") as ranks:
        assert len(ranks["rank"]) == 943
        assert metrics["test_result"]["recall@10"] == round(float(np.mean(ranks["rank"] <= 10)), 4) > 0.01


def test_installed_wheel_explains_itself_and_writes_nothing(installed, tmp_path):
    shown = command("-m", "recbole_hllm.cli", "--help", "--model=HLLM", cwd=tmp_path, PYTHONPATH=str(installed))
    assert shown.startswith("usage: ") and "item_pretrain_dir: package:" in shown
    assert list(tmp_path.iterdir()) == []
