"""The pages of docs/extending: their files are written into a copy of the program, their commands run there, and no
other file changes."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = ("recommender", "next-item", "metric", "format", "converter", "verb")
# A path in backticks, perhaps with what is meant in it, and its block.
BLOCK = re.compile(r"(?ms)^`([\w./]+)`[^\n]*:\n\n```(python|yaml|diff)\n(.*?)^```")
LINES = re.compile(r"(?m)^python run_recbole_hllm\.py (.*)$")
DRIVER = """
import sys
from recbole_hllm.cli import main
for words in eval(sys.stdin.read()):
    code = main(words)
    assert code == 0, (code, words)
"""


def text_of(page):
    return (ROOT / "docs" / "extending" / f"{page}.md").read_text(encoding="utf-8")


def files_of(page):
    return [path for path, _, _ in BLOCK.findall(text_of(page))]


def write(house, path, kind, text):
    """A new file, or the changed lines of one that is there."""
    file = house / path
    if kind != "diff":
        assert not file.exists(), path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return
    lines, content = text.splitlines(keepends=True), file.read_text(encoding="utf-8")
    before, after = ("".join(line[1:] for line in lines if line[0] in signs) for signs in (" -", " +"))
    assert content.count(before) == 1, (path, before)
    file.write_text(content.replace(before, after), encoding="utf-8")


def snapshot(house):
    files = [file for file in house.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    return {file.relative_to(house).as_posix(): file.read_bytes() for file in files}


def words_of(line, data):
    """The words of a command, on small data."""
    words = shlex.split(line)
    if words[0] in ("help", "count"):
        return words
    if words[0] == "convert":
        return [word.replace("FOLDER", str(data / "raw")).replace("dataset", str(data)) for word in words]
    keys = ["--epochs=1", "--show_progress=False", "--sanity_rows=False", "--state=error"]
    return [word.replace("ml-100k", "toy") for word in words] + [f"--data_path={data}", *keys]


def as_csv(folder, target):
    """The toy data set with commas, and quotes where they are needed."""
    target.mkdir(parents=True)
    for kind in ("inter", "item"):
        rows = [line.split("\t") for line in (folder / f"toy.{kind}").read_text(encoding="utf-8").splitlines()]
        quoted = [",".join(f'"{cell}"' if " " in cell else cell for cell in row) for row in rows]
        (target / f"shop.{kind}.csv").write_text("\n".join(quoted) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def house(tmp_path_factory, toy_data):
    """A copy of the program with the files of all pages, after their commands; what they printed."""
    house, data = tmp_path_factory.mktemp("house"), tmp_path_factory.mktemp("data")
    for folder in ("recbole_hllm", "properties"):
        shutil.copytree(ROOT / folder, house / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(toy_data) / "toy", data / "toy")
    as_csv(data / "toy", data / "shop")
    (data / "raw").mkdir()
    (data / "raw" / "userid-timestamp-artid-artname-traid-traname.tsv").write_text(
        "u1\t2009-05-04T23:08:57Z\ta1\tDeep Dish\tt1\tTrack\nu1\t2009-05-04T13:54:10Z\ta2\t坂本\tt2\tComp\n",
        encoding="utf-8",
    )
    before = snapshot(house)
    for page in PAGES:
        for block in BLOCK.findall(text_of(page)):
            write(house, *block)
    commands = [words_of(line, data) for page in PAGES for line in LINES.findall(text_of(page))]
    done = subprocess.run([sys.executable, "-c", DRIVER], cwd=house, env=_environment(house), text=True,
                          input=repr(commands), capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    after = snapshot(house)
    changed = {name for name in after if after[name] != before.get(name) and not name.startswith("runs/")}
    return house, done.stdout, changed, data


def _environment(house):
    import os

    return {**os.environ, "PYTHONPATH": str(house)}


def test_the_examples_touch_the_files_that_the_pages_name(house):
    named = {path for page in PAGES for path in files_of(page)}
    assert house[2] == named
    assert len(files_of("next-item")) == len(files_of("format")) == len(files_of("verb")) == 2, "a file and a row"
    assert len(files_of("converter")) == 2
    assert not any(path.startswith("recbole_hllm/") for page in ("recommender", "metric") for path in files_of(page))


def test_an_own_recommender(house):
    run, table = house[0] / "runs" / "last", house[0] / "runs" / "table"
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert (settings["model"], settings["last_items"], settings["embedding_size"]) == ("LastItems", 2, 32)
    assert "recall@5" in json.loads((run / "evaluation-1.json").read_text())["test_result"]
    assert "# (int) How many items count." in house[1]
    rows = json.loads((table / "table.json").read_text())["rows"]
    assert [row["model"] for row in rows] == ["LastItems", "Markov"] and not any("error" in row for row in rows)
    assert yaml.safe_load((table / "LastItems" / "config.yaml").read_text())["last_items"] == 5
    assert yaml.safe_load((table / "keys.yaml").read_text())["model"] == ["LastItems", "Markov"]


def test_a_next_item_model(house):
    costs = json.loads((house[0] / "runs" / "gru" / "costs.json").read_text())
    assert costs["parameters_trained"] == 64 * 13 + 2 * 3 * 64 * (64 + 1)


def test_a_metric(house):
    result = json.loads((house[0] / "runs" / "novel" / "metrics.json").read_text())["test_result"]
    assert 0 < result["novelty@10"] < 10
    assert yaml.safe_load((house[0] / "runs" / "novel" / "config.yaml").read_text())["metrics"] == ["MRR", "Novelty"]


def test_a_format(house, toy_data):
    (run,) = (house[0] / "runs" / "shop").iterdir()
    protocol = json.loads((run / "protocol.json").read_text())
    assert protocol["statistics"]["items"] == 12


def test_a_converter(house):
    (inter,) = house[3].glob("lastfm1k/*.inter")
    assert inter.read_text(encoding="utf-8").splitlines()[1:] == ["u1\ta1\t1241478537", "u1\ta2\t1241445250"]
    assert inter.with_suffix(".item").read_text(encoding="utf-8").splitlines()[1:] == ["a1\tDeep Dish", "a2\t坂本"]


def test_a_verb(house):
    page = text_of("verb")
    expected = re.search(r"(?ms)^```text\n(.*?)^```", page)[1]
    assert expected in house[1] and "usage: recbole-hllm count" in house[1]
