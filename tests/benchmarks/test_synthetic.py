"""Synthetic data has the counts that its size names, and the same in every format."""

import csv
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet
import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "synthetic.py"
USERS, ITEMS, INTERACTIONS = 300, 120, 5_000  # of the size tiny
NAME = "synthetic-tiny"


def write(data, *words):
    command = [sys.executable, PROGRAM, "--size", "tiny", "--data", data, "--threads", "1", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def lines_of(path, separator="\t"):
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    return header, [line.split(separator) for line in lines]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder of the size tiny in all formats and both orders."""
    folder = tmp_path_factory.mktemp("data")
    write(folder)
    write(folder, "--order", "users", "--formats", "text")
    return folder


@pytest.fixture(scope="module")
def interactions(data):
    """Cells of each line of the shuffled text."""
    header, lines = lines_of(data / "shuffled" / "text" / NAME / f"{NAME}.inter")
    assert header == "user_id:token\titem_id:token\ttimestamp:float"
    return lines


def test_counts_are_exact_and_everybody_occurs(interactions):
    users, items, _ = zip(*interactions, strict=True)
    assert len(interactions) == INTERACTIONS
    assert set(users) == {f"u{number}" for number in range(1, USERS + 1)}
    assert set(items) == {f"i{number}" for number in range(1, ITEMS + 1)}
    lengths = Counter(users).values()
    assert min(lengths) == 3 and max(lengths) > 4 * INTERACTIONS / USERS, "heavy-tailed"


def test_popular_items_are_popular(interactions):
    counts = sorted(Counter(item for _, item, _ in interactions).values(), reverse=True)
    first, last = sum(counts[: ITEMS // 10]), sum(counts[-ITEMS // 10 :])
    assert first > 2.5 * last, "1 / (50 + rank): 0.17 to 0.06 of the interactions, and each item once more"


def test_times_rise_inside_a_user_and_lines_are_shuffled(data, interactions):
    _, grouped = lines_of(data / "users" / "text" / NAME / f"{NAME}.inter")
    users = [user for user, _, _ in grouped]
    assert users == sorted(users, key=lambda user: int(user[1:]))
    times = defaultdict(list)
    for user, _, time in grouped:
        times[user].append(int(time))
    assert all(early < late for seconds in times.values() for early, late in zip(seconds, seconds[1:], strict=False))
    assert 1_577_836_800 <= min(map(min, times.values())) and max(map(max, times.values())) < 2**31
    assert interactions != grouped and sorted(interactions) == sorted(grouped)


def test_formats_hold_the_same(data, interactions):
    parts = pyarrow.parquet.read_table(data / "shuffled" / "parquet" / NAME / f"{NAME}.inter.parquet")
    assert [list(map(str, row.values())) for row in parts.to_pylist()] == interactions
    header, raw = lines_of(data / "shuffled" / "raw" / NAME / "interaction.csv", ",")
    assert header == "item_id,user_id,timestamp"
    assert [[user, item, time] for item, user, time in raw] == interactions


def test_item_texts(data):
    header, rows = lines_of(data / "shuffled" / "text" / NAME / f"{NAME}.item")
    assert header == "item_id:token\ttitle:token_seq\ttag:token\tdescription:token_seq"
    assert [item for item, *_ in rows] == [f"i{number}" for number in range(1, ITEMS + 1)]
    with (data / "shuffled" / "raw" / NAME / "item_info.csv").open(newline="", encoding="utf-8") as file:
        raw = list(csv.reader(file))
    assert len(raw[0]) == 11 and [[row[0], *row[-3:]] for row in raw[1:]] == rows, "quoted where needed"
    missing = sum(not description for *_, description in rows) / ITEMS
    assert 0.1 < missing < 0.4 and sum(not title for _, title, *_ in rows) < 5
    words = [len(title.split()) for _, title, *_ in rows if title]
    assert 6 < sum(words) / len(words) < 12


def test_what_is_complete_stays_and_what_is_not_is_made_again(data):
    assert "was there" in write(data, "--formats", "text")
    folder = data / "shuffled" / "text" / NAME
    before = (folder / f"{NAME}.inter").read_bytes()
    (folder / f"{NAME}.inter").write_text("half")
    (folder / "synthetic.json").write_text(json.dumps({"version": 0}))
    assert "was there" not in write(data, "--formats", "text")
    assert (folder / f"{NAME}.inter").read_bytes() == before
    assert sorted(file.name for file in folder.parent.iterdir()) == [NAME], "no half folder"
