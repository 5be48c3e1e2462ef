"""The verb ``export``."""

import pytest

from recbole_hllm import cli, run
from recbole_hllm.serving.recommender import Recommender


@pytest.fixture(scope="module")
def finished(settings_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    run("SASRec", config_dict={**settings_of("SASRec"), "epochs": 1}, run_dir=folder)
    return folder


def test_an_export_and_where_it_is(finished, tmp_path, capsys):
    words = ["--histories", "--dtype=bfloat16", "--vectors", "parquet"]
    assert cli.main(["export", str(finished), str(tmp_path / "out"), *words]) == 0
    *cost, folder = capsys.readouterr().out.splitlines()
    assert folder == str(tmp_path / "out") and any("bfloat16" in line for line in cost)
    assert (tmp_path / "out" / "vectors" / "item_vectors.parquet").is_file()
    recommender = Recommender.from_pretrained(tmp_path / "out")
    assert recommender.manifest["served"]["dtype"] == "bfloat16" and recommender.recommend(user="u3", k=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "export: name a run and a new folder"),
        (["{run}"], "export: name a run and a new folder"),
        (["--histories", "{run}", "{new}"], "export: name a run and a new folder"),
        (["{run}", "{new}", "--history"], "export: there is no --history; did you mean 'histories'?"),
        (["{run}", "{new}", "--dtype=int4"], "dtype: 'int4' is not one of"),
        (["{run}", "{new}", "--vectors=csv"], "vectors: 'csv' is not one of npy, parquet"),
        (["{new}/nothing", "{new}"], "nothing"),
    ],
)
def test_wrong_words(finished, tmp_path, capsys, words, message):
    assert cli.main(["export", *(word.format(run=finished, new=tmp_path / "new") for word in words)]) == 2
    assert message in capsys.readouterr().err
