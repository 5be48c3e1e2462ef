from pathlib import Path

import pytest

from recbole_hllm.config import places as properties_path
from recbole_hllm.errors import ConfigError


def package_in(folder: Path, monkeypatch) -> Path:
    """Lets the module believe that it lies in folder/recbole_hllm."""
    package = folder / "recbole_hllm"
    package.mkdir()
    monkeypatch.setattr(properties_path, "__file__", str(package / "config" / "places.py"))
    return package


def test_beside_the_package(tmp_path, monkeypatch):
    package_in(tmp_path, monkeypatch)
    (tmp_path / "properties").mkdir()
    (tmp_path / "properties" / "overall.yaml").touch()
    assert properties_path.properties_folder() == tmp_path / "properties"


def test_inside_the_package_comes_first(tmp_path, monkeypatch):
    package = package_in(tmp_path, monkeypatch)
    for folder in (tmp_path / "properties", package / "properties"):
        folder.mkdir()
        (folder / "overall.yaml").touch()
    assert properties_path.properties_folder() == package / "properties"


def test_another_package_of_that_name_beside_it_is_not_taken(tmp_path, monkeypatch):
    package_in(tmp_path, monkeypatch)
    (tmp_path / "properties").mkdir()
    with pytest.raises(ConfigError, match="install recbole-hllm again"):
        properties_path.properties_folder()
