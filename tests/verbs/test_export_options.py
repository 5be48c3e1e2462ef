"""The options of export: what they do, and what is wrong with them."""

import json

import pytest

from recbole_hllm import run
from recbole_hllm.errors import ConfigError, MissingExtra, ModelError
from recbole_hllm.serving import onnx_model
from recbole_hllm.verbs.export import main


@pytest.fixture(scope="module")
def finished(settings_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    run("SASRec", config_dict={**settings_of("SASRec"), "epochs": 1}, run_dir=folder)
    return str(folder)


def test_rounded_vectors_with_what_they_cost(finished, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--dtype=int8", "--licence=mit", "--data_licence=cc-by-4.0"]
    assert main([finished, str(out), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    quality = json.loads((out / "recommender.json").read_text())["quality"]
    assert lines[0].startswith("vectors of items as int8, ") and lines[-1] == str(out)
    assert [line.split()[0] for line in lines[1:-1]] == list(quality["float32"])
    assert float(lines[1].split()[2]) == pytest.approx(quality["written"]["recall@1"], abs=5e-5)
    card = (out / "README.md").read_text()
    assert "license: mit" in card and "## Rounded vectors" in card and "The data `toy`: cc-by-4.0" in card


def test_float32_measures_nothing(finished, tmp_path, capsys):
    assert main([finished, str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    assert "quality" not in json.loads((tmp_path / "out" / "recommender.json").read_text())
    assert "Rounded" not in (tmp_path / "out" / "README.md").read_text()


def test_onnx_is_written_and_a_failure_leaves_nothing(finished, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("recbole_hllm.runs.export_parts.write_onnx", lambda served, path: written.append(path.name))
    monkeypatch.setattr(onnx_model, "import_module", lambda name: None)
    assert main([finished, str(tmp_path / "out"), "--onnx"]) == 0
    assert written == ["user_model.onnx"]

    def refuse(*_):
        raise ModelError("--onnx: other vectors")

    monkeypatch.setattr("recbole_hllm.runs.export_parts.write_onnx", refuse)
    with pytest.raises(ModelError, match="other vectors"):
        main([finished, str(tmp_path / "other"), "--onnx"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_onnx_without_its_packages(finished, tmp_path, monkeypatch):
    def import_module(name):
        raise ImportError(name)

    monkeypatch.setattr(onnx_model, "import_module", import_module)
    with pytest.raises(MissingExtra, match="pip install 'recbole-hllm"):
        main([finished, str(tmp_path / "out"), "--onnx"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words, error", [
    (["--onnx=yes"], "--onnx takes no value, not 'yes'"),
    (["--licence=My Licence"], "licence of the weights: 'My Licence' is no identifier"),
    (["--llm_licence=MIT"], "licence of the language_model: 'MIT' is no identifier"),
    (["--licens=mit"], "export: there is no --licens; did you mean 'licence'"),
])  # fmt: skip
def test_wrong_words(words, error, tmp_path):
    with pytest.raises(ConfigError, match=error):
        main([str(tmp_path / "run"), str(tmp_path / "out"), *words])
