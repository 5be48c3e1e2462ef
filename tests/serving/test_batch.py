"""Files of recommendations."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_export import write_export

from recbole_hllm.errors import ConfigError, DataError, ModelError
from recbole_hllm.serving import Recommender, batch, output
from recbole_hllm.serving.batch import recommend_file

UNKNOWN = {"user": "new", "items": ["i1", "x", "i2"], "among": ["i7", "i8", "y"]}


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("export"), users=12)


@pytest.fixture
def source(tmp_path):
    return write_lines(tmp_path / "in.jsonl", histories(50))


def histories(count):
    return [
        {"id": f"h{row}", "items": [f"i{1 + (row * step) % 60}" for step in range(1, 2 + row % 9)]}
        for row in range(count)
    ]


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# ---- what is written ----


def test_a_line_for_each_history_as_the_recommender_answers_it(export, source, tmp_path):
    counts = recommend_file(export, source, tmp_path / "out.jsonl", k=4, batch=7)
    lines, recommender = read_lines(tmp_path / "out.jsonl"), Recommender.from_pretrained(export)
    assert [line["user"] for line in lines] == [f"h{row}" for row in range(50)]
    for line, history in zip(lines, histories(50), strict=True):
        answer = recommender.recommend(items=history["items"], k=4)
        assert line["items"] == [item.id for item in answer]
        assert line["scores"] == pytest.approx([item.score for item in answer], rel=1e-5, abs=1e-5)
    assert counts == output.Counts(histories=50, items=200)
    assert counts.in_words() == "50 histories, 200 items recommended"
    assert hidden(tmp_path) == []


def test_fields_of_a_line_are_those_of_a_request(export, tmp_path):
    lines = [
        {"user": "u3"},
        {"user": "u3", "items": ["i9"], "k": 3},
        {"user": "somebody", "items": ["i9"], "k": 2},
        {"items": ["i9"], "among": ["i9", "i10", "i11"], "filter_seen": False},
        {"id": "own", "user": "u3", "exclude": ["i1", "unknown"], "k": 60},
    ]
    recommend_file(export, write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl", k=5)
    found, recommender = read_lines(tmp_path / "out.jsonl"), Recommender.from_pretrained(export)
    wanted = [
        recommender.recommend(user="u3", k=5),
        recommender.recommend(user="u3", items=["i9"], k=3),
        recommender.recommend(items=["i9"], k=2),
        recommender.recommend(items=["i9"], among=["i9", "i10", "i11"], filter_seen=False, k=5),
        recommender.recommend(user="u3", exclude=["i1"], k=60),
    ]
    assert [line["user"] for line in found] == ["u3", "u3", "somebody", "4", "own"]
    assert [line["items"] for line in found] == [[item.id for item in answer] for answer in wanted]
    assert len(found[3]["items"]) == 3 and "i1" not in found[4]["items"]


def test_parquet_in_and_out_hold_the_same(export, source, tmp_path):
    pq.write_table(pa.Table.from_pylist(histories(50)), tmp_path / "in.parquet", row_group_size=20)
    names = [("in.jsonl", "a.jsonl"), ("in.parquet", "b.jsonl"), ("in.jsonl", "c.parquet"), ("in.parquet", "d.parquet")]
    for read, written in names:
        recommend_file(export, tmp_path / read, tmp_path / written, k=3)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert (tmp_path / "c.parquet").read_bytes() == (tmp_path / "d.parquet").read_bytes()
    table = pq.read_table(tmp_path / "c.parquet")
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("user_id", "string"), ("item_id", "string"), ("score", "float"), ("rank", "int32"),
    ]  # fmt: skip
    rows = table.to_pylist()
    wanted = [
        (line["user"], item, rank)
        for line in read_lines(tmp_path / "a.jsonl")
        for rank, item in enumerate(line["items"], start=1)
    ]
    assert [(row["user_id"], row["item_id"], row["rank"]) for row in rows] == wanted
    scores = [score for line in read_lines(tmp_path / "a.jsonl") for score in line["scores"]]
    assert table["score"].to_pylist() == pa.array(scores, pa.float32()).to_pylist()


def test_parquet_has_row_groups_and_the_schema_where_nothing_is_recommended(export, source, tmp_path, monkeypatch):
    monkeypatch.setattr(output, "_ROW_GROUP", 40)
    recommend_file(export, source, tmp_path / "out.parquet", k=3)
    assert pq.ParquetFile(tmp_path / "out.parquet").metadata.num_row_groups == 4
    recommend_file(export, write_lines(tmp_path / "none.jsonl", []), tmp_path / "none.parquet")
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0


def test_an_index_finds_the_same(export, source, tmp_path):
    pytest.importorskip("faiss")
    for index in ("exact", "flat"):
        recommend_file(export, source, tmp_path / f"{index}.jsonl", k=4, index=index)
    exact, flat = (read_lines(tmp_path / f"{index}.jsonl") for index in ("exact", "flat"))
    assert [line["items"] for line in exact] == [line["items"] for line in flat]


# ---- unknown items ----


def test_unknown_items_end_it_with_the_line(export, tmp_path):
    source = write_lines(tmp_path / "in.jsonl", [{"items": ["i1"]}, UNKNOWN])
    with pytest.raises(DataError, match=r"in.jsonl, line 2: items: not in the catalogue: 'x', 'y'.*--unknown=skip"):
        recommend_file(export, source, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_unknown_items_are_left_out_and_counted(export, tmp_path):
    lines = [UNKNOWN, {"items": ["x"]}, {"user": "nobody"}, {"items": []}, {"user": "u1", "items": ["x"], "k": 2}]
    source = write_lines(tmp_path / "in.jsonl", lines)
    counts = recommend_file(export, source, tmp_path / "out.jsonl", unknown="skip")
    found, recommender = read_lines(tmp_path / "out.jsonl"), Recommender.from_pretrained(export)
    assert sorted(found[0]["items"]) == ["i7", "i8"]
    assert [line["items"] for line in found[1:4]] == [[], [], []]
    assert found[4]["items"] == [item.id for item in recommender.recommend(user="u1", k=2)]
    assert counts == output.Counts(histories=5, items=4, unknown=4, empty=3)
    words = (
        "5 histories, 4 items recommended; 4 unknown ids were left out; 3 histories had no known item and got nothing"
    )
    assert counts.in_words() == words


def test_times_of_items_that_are_left_out_are_left_out(export, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Recommender, "recommend_many", lambda self, requests: asked.extend(requests) or [[]])
    line = {"items": ["x", "i1", "y", "i2"], "texts": ["a"], "times": [1, 2, 3, 4, 5]}
    recommend_file(export, write_lines(tmp_path / "in.jsonl", [line]), tmp_path / "out.jsonl", unknown="skip")
    assert (asked[0].items, asked[0].times) == (("i1", "i2"), (2.0, 4.0, 5.0))


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ({"items": []}, DataError, "line 3: the history is empty"),
        ({"user": "nobody"}, DataError, "line 3: user: 'nobody' has no history"),
        ({"texts": ["a"]}, ModelError, "line 3: SASRec knows items by id"),
        ({"item": ["a"]}, DataError, "line 3: a line has no 'item'"),
    ],
)
def test_a_line_that_cannot_be_answered_is_named(export, tmp_path, line, error, message):
    source = write_lines(tmp_path / "in.jsonl", [{"items": ["i1"]}, {"items": ["i2"]}, line, {"items": ["i3"]}])
    with pytest.raises(error, match=message):
        recommend_file(export, source, tmp_path / "out.jsonl")


# ---- going on ----


class Killed(Exception):
    """Stands for a kill."""


def stopped_after(batches, monkeypatch):
    """What is not kept at once is lost with the process; here all is kept, and the next batch ends it."""
    monkeypatch.setattr(output, "_KEPT_EVERY", -1)
    answers, done = batch._Job.answers, []

    def some(self, lines):
        if len(done) == batches:
            raise Killed
        done.append(lines)
        return answers(self, lines)

    monkeypatch.setattr(batch._Job, "answers", some)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("batches", [0, 1, 4])
def test_it_goes_on_where_it_was_stopped_with_the_same_bytes(export, source, tmp_path, ending, batches):
    whole, target = tmp_path / f"whole.{ending}", tmp_path / f"out.{ending}"
    wanted = recommend_file(export, source, whole, batch=8)
    with pytest.MonkeyPatch.context() as patch:
        stopped_after(batches, patch)
        with pytest.raises(Killed):
            recommend_file(export, source, target, batch=8)
    assert not target.exists()
    part = tmp_path / f".out.{ending}.part"
    assert len(part.read_bytes().splitlines()) == 8 * batches
    with part.open("ab") as file:
        file.write(b'{"user": "half a li')
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        answers = batch._Job.answers
        patch.setattr(batch._Job, "answers", lambda self, lines: seen.extend(lines) or answers(self, lines))
        assert recommend_file(export, source, target, batch=8) == wanted
    assert len(seen) == 50 - 8 * batches
    assert target.read_bytes() == whole.read_bytes()
    assert hidden(tmp_path) == []


def test_a_time_that_is_not_given_is_that_of_the_first_start(export, source, tmp_path, monkeypatch):
    times = []
    known = batch._Job._known

    def watched(self, request):
        times.append(request.at)
        return known(self, request)

    monkeypatch.setattr(batch._Job, "_known", watched)
    with pytest.MonkeyPatch.context() as patch:
        stopped_after(2, patch)
        with pytest.raises(Killed):
            recommend_file(export, source, tmp_path / "out.jsonl", batch=8)
    recommend_file(export, source, tmp_path / "out.jsonl", batch=8)
    assert len(times) == 50 and len(set(times)) == 1


def test_what_was_begun_in_another_way_is_not_gone_on_with(export, source, tmp_path):
    target = tmp_path / "out.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        stopped_after(1, patch)
        with pytest.raises(Killed):
            recommend_file(export, source, target, batch=8)
    with pytest.raises(ConfigError, match=r"out.jsonl was begun with another options; remove .*out.jsonl.part and"):
        recommend_file(export, source, target, batch=8, k=3)
    os.utime(source, (1, 1))
    with pytest.raises(ConfigError, match="was begun with another source;"):
        recommend_file(export, source, target, batch=8)
    progress = tmp_path / ".out.jsonl.progress"
    for content in ("[]", "{}", '{"asked": 3}'):
        progress.write_text(content)
        with pytest.raises(ConfigError, match="was begun in a way that cannot be read"):
            recommend_file(export, source, target, batch=8)
    progress.unlink()
    recommend_file(export, source, target, batch=8)
    assert len(read_lines(target)) == 50


def test_a_part_that_was_shortened_is_not_gone_on_with(export, source, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        stopped_after(3, patch)
        with pytest.raises(Killed):
            recommend_file(export, source, tmp_path / "out.jsonl", batch=8)
    (tmp_path / ".out.jsonl.part").write_bytes(b"")
    with pytest.raises(ConfigError, match="lost a part since"):
        recommend_file(export, source, tmp_path / "out.jsonl", batch=8)


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on(export, tmp_path):
    source = write_lines(tmp_path / "in.jsonl", histories(50) * 400)
    words = [sys.executable, "-m", "recbole_hllm.cli", "recommend", str(export), "--in", str(source), "--batch=16"]
    subprocess.run([*words, "--out", str(tmp_path / "whole.jsonl")], check=True)
    command = [*words, "--out", str(tmp_path / "out.jsonl")]
    process = subprocess.Popen(command)
    while not (tmp_path / ".out.jsonl.progress").exists():
        assert process.poll() is None, "it was done before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command, check=True)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


# ---- what is refused ----


def test_files_that_are_there_are_not_overwritten(export, source, tmp_path):
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(ConfigError, match="out.jsonl is there already, and is not overwritten"):
        recommend_file(export, source, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_a_file_that_another_program_writes_meanwhile_stays(export, source, tmp_path, monkeypatch):
    answers = batch._Job.answers

    def writing(self, lines):
        (tmp_path / "out.jsonl").write_text("mine")
        return answers(self, lines)

    monkeypatch.setattr(batch._Job, "answers", writing)
    with pytest.raises(ConfigError, match="was written by another program meanwhile"):
        recommend_file(export, source, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_two_do_not_write_the_same_file(export, source, tmp_path):
    from recbole_hllm.storage.locks import held

    with held(tmp_path / ".out.jsonl.lock"), pytest.raises(ConfigError, match="another program writes"):
        recommend_file(export, source, tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"target": "out.csv"}, "out: .*out.csv must end in .jsonl or .parquet"),
        ({"source": "in.csv"}, "in: .*in.csv must end in .jsonl or .parquet"),
        ({"target": "none/out.jsonl"}, "out: there is no folder"),
        ({"unknown": "drop"}, "unknown: 'drop' is not one of error, skip"),
        ({"k": 0}, "k: 0 must be at least 1"),
        ({"batch": 0}, "batch: 0 1 to 4096"),
        ({"batch": 5000}, "batch: 5000 1 to 4096"),
        ({"index": "best"}, "index: 'best' is not one of"),
    ],
)
def test_options_out_of_bounds(export, source, tmp_path, changed, message):
    options = {"source": source, "target": "out.jsonl", **changed}
    source, target = (tmp_path / options.pop(name) for name in ("source", "target"))
    with pytest.raises(ConfigError, match=message):
        recommend_file(export, source, target, **options)
    assert hidden(tmp_path) == []


def test_nothing_is_written_into_an_export(export, source):
    with pytest.raises(ConfigError, match="is inside the export"):
        recommend_file(export, source, Path(export) / "out.parquet")
