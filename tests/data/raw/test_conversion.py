"""What every conversion does: options, ids, repeated rows, files that appear whole or not at all."""

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recbole_hllm.data.files.reader import read_table
from recbole_hllm.data.raw.conversion import convert
from recbole_hllm.data.raw.output import _locked
from recbole_hllm.errors import ConfigError, DataError

INTER = "user_id,item_id,timestamp\nu1,i1,1000000000\nu1,i2,1000000001\n"
ITEMS = "item_id,title\ni1,One\ni2,Two\n"
TEXTS = {"texts": "title"}


@pytest.fixture
def shop(converted, tmp_path):
    """A conversion of two CSV files."""

    def run(inter=INTER, items=ITEMS, **options):
        files = {"inter.csv": inter, "items.csv": items}
        return converted("csv", files, items=str(tmp_path / "raw" / "items.csv"), **(TEXTS | options))

    return run


def test_facts(shop, tmp_path):
    found = shop()
    facts = json.loads((found.folder / "shop.json").read_text())
    assert facts["dataset"] == "shop" and facts["format"] == "csv" and facts["recbole_hllm"] == "0.1.0"
    assert [(Path(file["file"]).name, file["bytes"]) for file in facts["files"]] == [
        ("inter.csv", len(INTER)), ("items.csv", len(ITEMS)),
    ]  # fmt: skip
    assert all(len(file["sha256"]) == 64 for file in facts["files"])
    assert facts["options"] == {"items": str(tmp_path / "raw" / "items.csv"), "texts": "title"}
    assert facts["interactions"] == {"read": 2, "written": 2, "malformed": 0, "left_out": {}, "lines": []}


def test_parquet_has_the_columns_of_the_atomic_file(shop):
    found = shop(items='item_id,title\ni1,"One\ttwo\n three"\ni2,\n', **{"as": "parquet"})
    assert found.files == ["shop.inter.parquet", "shop.item.parquet", "shop.json"]
    inter = pq.read_table(found.folder / "shop.inter.parquet").to_pydict()
    assert inter == {"user_id:token": ["u1", "u1"], "item_id:token": ["i1", "i2"], "timestamp:float": [1e9, 1e9 + 1]}
    items = pq.read_table(found.folder / "shop.item.parquet").to_pydict()
    assert items == {"item_id:token": ["i1", "i2"], "title:token_seq": ["One two three", None]}


def test_ids_stay_texts(shop):
    ids = ["007", "a b", ' "x" ', "é", "x" * 200, "NA", "7"]
    rows = "".join(f'u{number},"{item.replace(chr(34), chr(34) * 2)}",1000000000\n' for number, item in enumerate(ids))
    found = shop("user_id,item_id,timestamp\n" + rows, items="item_id,title\n007,x\n")
    assert [line.split("\t")[1] for line in found.inter[1:]] == ids
    table = read_table(found.folder / "shop.inter", ["item_id"])
    assert table["item_id"].tolist() == ids


def test_ids_that_cannot_stand_in_a_line(shop):
    found = shop(INTER + 'u1,"a\tb",1000000000\n"u\n2",i1,1000000000\n,i1,1000000000\n')
    assert len(found.inter) == 3
    counts = found.facts["interactions"]
    assert (counts["read"], counts["malformed"]) == (5, 3)
    assert [(line["line"], line["reason"]) for line in counts["lines"]] == [
        (4, "item_id 'a\\tb' holds a tab, a line break or a null"),
        (5, "user_id 'u\\n2' holds a tab, a line break or a null"),
        (7, "user_id is empty"),
    ]  # fmt: skip


def test_the_first_of_two_rows_of_an_item_is_kept(shop):
    found = shop(items="item_id,title\ni1,One\ni1,Other\ni2,Two\n")
    assert found.item == ["item_id:token\ttitle:token_seq", "i1\tOne", "i2\tTwo"]
    assert found.facts["item_rows"]["left_out"] == {"repeated": 1}
    (line,) = found.facts["item_rows"]["lines"]
    assert (line["line"], line["reason"]) == (3, "item 'i1' stands in line 2, whose row is kept")


def test_items_without_interactions_where_they_are_asked_for(shop):
    items = ITEMS + "i3,Three\n"
    assert len(shop(items=items).item) == 3
    assert shop(items=items, all_items=True, overwrite=True).item[-1] == "i3\tThree"


def test_ratings_that_are_no_numbers(shop):
    found = shop(
        "user_id,item_id,timestamp,stars\nu1,i1,1000000000,4.5\nu1,i1,1000000000,\nu1,i2,1000000000,good\n",
        rating="stars",
    )
    assert found.inter[1:] == ["u1\ti1\t4.5\t1000000000", "u1\ti1\t\t1000000000"]
    assert found.facts["interactions"]["lines"][0]["reason"] == "rating 'good' is not a number"


@pytest.mark.parametrize(
    "inter, match",
    [
        ("", "inter.csv is empty"),
        ("user_id,item_id,timestamp\n", "no interaction of .*inter.csv is left: 0 rows were read"),
        (INTER.replace("10000000", "x"), "is left: 2 lines are malformed; .*, line 2: timestamp 'x00' is neither"),
        (INTER + "u1,i1\n", None),
        ("user,item,time\na,b,1\n", r"no column 'user_id' \(there are: user, item, time\)"),
        (INTER + "u1,i1,1000000000000\n", "the time of line 2 is in seconds, that of line 4 in milliseconds"),
    ],
)
def test_a_failed_conversion_leaves_nothing(shop, tmp_path, inter, match):
    with pytest.raises(DataError, match=match):
        shop(inter, strict=match is None)
    assert not list((tmp_path / "out").glob("shop/*")) and not list((tmp_path / "out").glob("shop/.*"))


def test_existing_files_are_not_replaced_unasked(shop, tmp_path):
    before = shop()
    with pytest.raises(DataError, match="shop.inter exists; --overwrite replaces"):
        shop(INTER + "u2,i2,1000000003\n")
    assert (tmp_path / "out" / "shop" / "shop.inter").read_text().splitlines() == before.inter
    after = shop(INTER + "u2,i2,1000000003\n", overwrite=True, **{"as": "parquet"})
    assert after.files == ["shop.inter.parquet", "shop.item.parquet", "shop.json"], "two files for a table are an error"


def test_files_of_the_users_stay(shop, tmp_path):
    """What an earlier conversion wrote goes, what somebody else did does not."""
    folder = shop().folder
    (folder / "shop.test.inter").write_text("mine")
    convert("csv", [str(tmp_path / "raw" / "inter.csv")], to=str(folder), overwrite=True)
    assert not (folder / "shop.item").exists()
    (folder / "shop.item").write_text("item_id:token\tcolour:token\ni1\tred\n")
    convert("csv", [str(tmp_path / "raw" / "inter.csv")], to=str(folder), overwrite=True)
    assert "red" in (folder / "shop.item").read_text() and (folder / "shop.test.inter").read_text() == "mine"


def test_a_failed_conversion_keeps_the_old_files(shop, tmp_path):
    before = shop()
    with pytest.raises(DataError, match="malformed"):
        shop("user_id,item_id,timestamp\nu1,i1,never\n", overwrite=True)
    assert (tmp_path / "out" / "shop" / "shop.inter").read_text().splitlines() == before.inter
    assert (tmp_path / "out" / "shop" / "shop.json").is_file()


@pytest.mark.parametrize("form", ["atomic", "parquet"])
def test_a_file_that_is_read_is_not_replaced(tmp_path, form):
    source = tmp_path / "shop" / "shop.inter"
    source.parent.mkdir()
    source.write_text(INTER)
    with pytest.raises(DataError, match=r"shop\.inter is read and would be replaced; choose another --to"):
        convert("csv", [str(source)], to=str(source.parent), overwrite=True, **{"as": form})
    assert source.read_text() == INTER and list(source.parent.iterdir()) == [source]


@pytest.mark.parametrize("finished", [True, False])
def test_a_second_conversion_leaves_what_the_first_has_written(tmp_path, monkeypatch, finished):
    hidden = tmp_path / ".shop.json.part"
    with open(hidden, "wb") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        first.write(b"facts")
        first.flush()
        if finished:  # between the second's opening the file and its locking it
            monkeypatch.setattr(fcntl, "flock", lambda *_: hidden.rename(tmp_path / "shop.json"))
        with pytest.raises(DataError, match="another conversion writes into"):
            _locked(hidden)
    assert (tmp_path / "shop.json" if finished else hidden).read_bytes() == b"facts"


@pytest.mark.parametrize("form", ["atomic", "parquet"])
def test_a_full_disk(shop, tmp_path, form):
    rows = "".join(f"user{number * 7919},item{number % 9},{1000000000 + number * 31}\n" for number in range(30_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "inter.csv").write_text("user_id,item_id,timestamp\n" + rows)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"cannot write .*shop\.inter.*File too large; the unfinished"):
            convert("csv", [str(raw / "inter.csv")], to=str(tmp_path / "out" / "shop"), **{"as": form})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


STOPPED = """
import sys
from recbole_hllm.cli import main
from recbole_hllm.data.raw import conversion
write = conversion.Output.write
def slow(self, table, columns):
    write(self, table, columns)
    print("writing", flush=True)
    sys.stdin.read()
conversion.Output.write = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("how, code, left", [(signal.SIGINT, 130, False), (signal.SIGKILL, -9, True)])
def test_an_interrupted_conversion_leaves_no_file_under_its_name(tmp_path, how, code, left):
    raw, out = tmp_path / "inter.csv", tmp_path / "out" / "shop"
    raw.write_text(INTER)
    words = [sys.executable, "-c", STOPPED, "convert", "csv", str(raw), f"--to={out}"]
    program = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout.readline() == b"writing\n"
    with pytest.raises(DataError, match="another conversion writes into .*shop"):
        convert("csv", [str(raw)], to=str(out))
    os.kill(program.pid, how)
    program.communicate(timeout=60)
    assert program.returncode == code
    assert all(path.name.startswith(".") for path in out.iterdir())
    assert bool(list(out.iterdir())) is left
    convert("csv", [str(raw)], to=str(out))
    assert sorted(path.name for path in out.iterdir()) == ["shop.inter", "shop.json"], "a rerun clears up"


@pytest.mark.parametrize(
    "options, match",
    [
        ({"item": "user_id"}, "must name different columns"),
        ({"texts": ""}, "--items=FILE and --texts=NAME,NAME need each other"),
        ({"texts": "item_id"}, "--texts: 'item_id' is the column of the ids"),
        ({"texts": "title:word"}, "'title:word' must have a type of token, token_seq, float"),
        ({"filter": "often"}, "--filter=often must be one of hllm_books"),
        ({"as": "csv"}, "--as=csv must be one of atomic, parquet"),
        ({"strickt": True}, "there is no option --strickt; did you mean 'strict'"),
        ({"strict": "1"}, "--strict takes no value"),
        ({"time_unit": "hours"}, "--time_unit=hours must be one of"),
        ({"separator": '"'}, "--separator"),
    ],
)
def test_wrong_options(shop, options, match):
    with pytest.raises(ConfigError, match=match):
        shop(**options)


def test_a_folder_must_be_named(tmp_path):
    with pytest.raises(ConfigError, match="--to=FOLDER must name the folder"):
        convert("csv", [str(tmp_path)])
