"""Tables of other formats stand in the place of atomic files, and give the same data."""

import json
import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from recbole.utils import FeatureType

from recbole_hllm import Config, create_dataset, load_run, run
from recbole_hllm.data.files import formats
from recbole_hllm.data.files.formats import find_table, is_atomic, read_header, read_table
from recbole_hllm.data.texts.item_texts import read_item_texts
from recbole_hllm.errors import ConfigError, DataError
from recbole_hllm.runs.recommend import item_names


def read_json_header(path, separator, encoding):
    return json.loads(path.read_text())["header"]


def read_json_table(path, columns, separator, encoding):
    table = pd.DataFrame(json.loads(path.read_text())["columns"])[columns]
    floats = [name for name in columns if read_json_header(path, None, None)[name] == "float"]
    return table.astype(dict.fromkeys(floats, np.float64))


@pytest.fixture
def as_json(monkeypatch):
    """A format of JSON for one test, and a function that writes an atomic file anew in it."""
    module = ModuleType("json_tables")
    module.read_header, module.read_table = read_json_header, read_json_table
    monkeypatch.setitem(sys.modules, "json_tables", module)
    monkeypatch.setitem(formats.FORMATS.rows, "json", "json_tables")

    def convert(path):
        header = read_header(path)
        columns = read_table(path, list(header)).astype(object)
        columns = {name: [None if pd.isna(cell) else cell for cell in columns[name]] for name in header}
        kinds = {name: kind.value for name, kind in header.items()}
        path.with_name(f"{path.name}.json").write_text(json.dumps({"header": kinds, "columns": columns}))
        path.unlink()

    return convert


@pytest.fixture
def shop(write_dataset, tmp_path):
    rows = [(user, item, time) for user in "uvw" for time, item in enumerate("abcde")]
    items = [("a", "Steel ruler", "Acme"), ("b", "", ""), ("c", "Label maker", "Acme")]
    return write_dataset(tmp_path, "shop", rows, items=("item_id:token\ttitle:token_seq\tbrand:token", items))


def test_items_have_titles_in_any_format(as_json, shop, settings_of, tmp_path):
    keys = {**settings_of("Pop"), "data_path": str(tmp_path), "dataset": "shop", "topk": [3], "valid_metric": "MRR@3"}
    run("Pop", config_dict=keys, run_dir=tmp_path / "run")
    as_json(shop / "shop.item")
    assert item_names(load_run(tmp_path / "run"))["a"] == "Steel ruler"


def built(folder, **keys):
    config = Config("SASRec", "shop", config_dict={"data_path": str(folder.parent), **keys})
    data = create_dataset(config)
    return data, data.build()


def test_a_data_set_of_another_format_is_the_same(shop, as_json):
    load = {"load_col": {"inter": "*", "item": "*"}}
    atomic, parts = built(shop, **load)
    texts = read_item_texts(find_table(shop / "shop.item"), ["title"], atomic.field2id_token["item_id"])
    fields = list(texts.fields)
    for table in ("inter", "item"):
        as_json(shop / f"shop.{table}")
    assert sorted(path.name for path in shop.iterdir()) == ["shop.inter.json", "shop.item.json"]
    other, other_parts = built(shop, **load)
    assert other.field2type == atomic.field2type and other.field2seqlen == atomic.field2seqlen
    assert other.field2source == atomic.field2source
    for name, tokens in atomic.field2id_token.items():
        assert list(other.field2id_token[name]) == list(tokens)
    for mine, theirs in zip(other_parts, parts, strict=True):
        assert mine[:].interaction.keys() == theirs[:].interaction.keys()
        assert all((mine[:][name] == theirs[:][name]).all() for name in theirs[:].interaction)
    file = find_table(shop / "shop.item")
    assert not is_atomic(file) and read_header(file)["title"] == FeatureType.TOKEN_SEQ
    again = read_item_texts(file, ["title"], other.field2id_token["item_id"])
    assert list(again.fields) == fields and (again.has_row == texts.has_row).all()


def test_one_file_of_a_table(shop, as_json):
    atomic = (shop / "shop.inter").read_text()
    as_json(shop / "shop.inter")
    (shop / "shop.inter").write_text(atomic)
    with pytest.raises(DataError, match="shop.inter and shop.inter.json both exist; keep one"):
        built(shop)


def test_ready_made_histories_of_another_format(write_dataset, tmp_path, as_json):
    header = "user_id:token\titem_id:token\titem_id_list:token_seq"
    rows = [("u", "c", "a b"), ("v", "b", "a")]
    keys = {"benchmark_filename": ["train", "valid", "test"], "alias_of_item_id": ["item_id_list"], "load_col": None}
    for part in ("train", "valid", "test"):
        folder = write_dataset(tmp_path, "shop", rows, header=header, suffix=f"{part}.inter")
    before, _ = built(folder, **keys)
    as_json(folder / "shop.valid.inter")
    after, _ = built(folder, **keys)
    assert after.statistics() == before.statistics() and after.field2seqlen == before.field2seqlen


@pytest.mark.parametrize(
    "content, message",
    [
        ({"header": {"user_id": "text"}}, "shop.inter.json: column 'user_id:text' must be name:type with a type of"),
        ({"header": {}}, "shop.inter.json: column '' must be name:type"),
        ({"header": {"user_id": "token"}}, "shop.inter.json, line 1: no column 'item_id'"),
        ("{", "shop.inter.json cannot be read: Expecting property name"),
    ],
)
def test_a_file_that_a_format_cannot_read(shop, as_json, content, message):
    as_json(shop / "shop.inter")
    text = content if isinstance(content, str) else json.dumps(content)
    (shop / "shop.inter.json").write_text(text)
    with pytest.raises((ConfigError, DataError), match=message):
        built(shop)
