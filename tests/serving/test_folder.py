"""The folder of an export: the same when read again, and whatever is wrong with it named."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_served import N_ITEMS, blend, hstu, markov, numbers_of, recommender, sasrec, table, z_scores

from recbole_hllm.errors import ConfigError, Damaged, ModelError
from recbole_hllm.serving import folder as files
from recbole_hllm.serving.recommender import Recommender
from recbole_hllm.serving.rows import Rows

ROWS = Rows.of([[1], [2, 3, 4, 5, 6]], [[5.0], [1.0, 2.0, 30.0, 400.0, 5000.0]], [1e4, 2e4])
USERS = ["u1", "7", "a\u2028b\rc", "last"]


def write(folder, served):
    described = files.write_served(served, folder)
    files.write_items(folder, [f"i{number}" for number in range(1, N_ITEMS + 1)], [{"title": "Tïtle\u2028"}] * N_ITEMS)
    items, offsets = torch.tensor([1, 2, 3, 12, 12]), torch.tensor([0, 2, 2, 3, 5])
    files.write_histories(folder, files.UserHistories.of(USERS, items, torch.arange(5.0).double(), offsets))
    files.write_manifest(folder, {"program": "test", "model": "SASRec", "served": described, "template": None})
    return folder


@pytest.fixture
def export(tmp_path):
    return write(tmp_path / "out", blend())


def change(folder, **values):
    """``served__parts__0__length=4`` is ``manifest["served"]["parts"][0]["length"] = 4``."""
    manifest = json.loads((folder / files.MANIFEST).read_text())
    for key, value in values.items():
        *places, last = (int(place) if place.isdigit() else place for place in key.split("__"))
        inner = manifest
        for place in places:
            inner = inner[place]
        inner[last] = value
    (folder / files.MANIFEST).write_text(json.dumps(manifest))


def change_arrays(file, **arrays):
    save_file({**load_file(file), **arrays}, file)


@pytest.mark.parametrize("served", [sasrec(), sasrec(cosine=True, scale=4.0), hstu(), blend(), z_scores()])
def test_what_is_read_scores_as_what_was_written(served, tmp_path):
    again = files.read_served(tmp_path, files.write_served(served, tmp_path))
    torch.testing.assert_close(again.users(ROWS), served.users(ROWS), rtol=0, atol=1e-7)
    torch.testing.assert_close(again.items, served.items, rtol=0, atol=1e-7)
    assert (again.scale, again.length, again.reads_times) == (served.scale, served.length, served.reads_times)
    if (beside := served.beside(ROWS)) is not None:
        assert all(torch.equal(*pair) for pair in zip(again.beside(ROWS), beside, strict=True))


def test_smaller_vectors_are_read(tmp_path):
    served = sasrec()
    for dtype, most in (("bfloat16", 2**-8), ("int8", 1 / 127)):
        folder = tmp_path / dtype
        again = files.read_served(folder, files.write_served(served, folder, dtype))
        off = (again.items - served.items).abs().max() / served.items.abs().max()
        assert 0 < off < most


def test_a_recommender_is_read_with_items_and_users(export):
    read = Recommender.from_pretrained(export)
    assert list(read.histories.users) == USERS
    assert read.histories.of_user("u1") == ([1, 2], [0.0, 1.0]) and read.histories.of_user("7") == ([], [])
    asked = recommender(blend())
    for request in ({"items": ["i3", "i4"]}, {"items": ["i12"]}):
        wanted = [(item.id, pytest.approx(item.score, abs=1e-6)) for item in asked.recommend(**request)]
        assert [(item.id, item.score) for item in read.recommend(**request)] == wanted
    assert read.recommend(["i1"])[0].fields == {"title": "Tïtle\u2028"}
    assert read.recommend(user="last") == read.recommend(["i12", "i12"])
    assert numbers_of([read.catalogue.ids[-1]]) == [N_ITEMS]


def test_the_precision_is_that_of_what_is_read(tmp_path):
    described = files.write_served(sasrec(), tmp_path)
    half = files.read_served(tmp_path, described, "bfloat16")
    whole = files.read_served(tmp_path, described)
    off = (half.users(ROWS) - whole.users(ROWS)).abs().max()
    assert 1e-4 < off < 0.1 and half.users(ROWS).dtype == torch.float32
    for wrong in ({"precision": "float16"}, {"device": "nowhere"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            files.read_served(tmp_path, described, **wrong)


# ---- damage ----


@pytest.mark.parametrize(
    "name", ["recommender.json", "items.jsonl", "user_model.safetensors", "parts/0/vectors.safetensors",
             "parts/1/user_model.safetensors", "parts/2/vectors.safetensors", "users.txt"],
)  # fmt: skip
@pytest.mark.parametrize("how", ["missing", "empty", "cut"])
def test_a_file_that_is_missing_or_cut_is_named(export, name, how):
    file = export / name
    content = file.read_bytes()
    file.unlink()
    if how != "missing":
        file.write_bytes(content[: len(content) // 2 - 3] if how == "cut" else b"")
    if name == "users.txt" and how == "cut":
        file.write_bytes(b"u1\n")
    with pytest.raises(ModelError, match="damaged|no export|no item|lines of 0") as told:
        Recommender.from_pretrained(export)
    assert str(export) in str(told.value)


@pytest.mark.parametrize(
    "values",
    [
        {"served": []},
        {"served__kind": ["SASRecUser"]},
        {"served__parts__0__settings": {"width": 8}},
        {"served__parts__0__settings__width": 16},
        {"served__parts__0__settings__length": 10**12},
        {"served__parts__0__settings__activation": "os.system"},
        {"served__parts__0__length": "4"},
        {"served__parts__0__length": 0},
        {"served__parts__1__scale": None},
        {"served__parts__2__kind": "SASRecUser"},
        {"served__parts": []},
        {"served__bounds": [4, 2]},
        {"served__bounds": [2]},
        {"served__bounds": 3},
        {"template": {"text_keys": ["title"], "item_prompt": "", "run": "code"}},
        {"template": "title"},
    ],
    ids=lambda values: "-".join(map(str, *values.items())),
)
def test_wrong_values_are_damage(export, values):
    change(export, **values)
    with pytest.raises(Damaged, match="is damaged"):
        Recommender.from_pretrained(export)


def test_kinds_that_nobody_knows_are_named(export):
    change(export, served__parts__0__kind="os.system")
    with pytest.raises(ModelError, match="there is no user model 'os.system'"):
        Recommender.from_pretrained(export)
    change(export, served__parts__0={"kind": "Blend"})
    with pytest.raises(ModelError):
        Recommender.from_pretrained(export)


@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("parts/0/vectors.safetensors", {"scored": torch.zeros(N_ITEMS, 5)}),
        ("parts/0/vectors.safetensors", {"scored": torch.full((N_ITEMS, 8), torch.nan)}),
        ("parts/0/vectors.safetensors", {"read": torch.zeros(N_ITEMS, 5)}),
        ("parts/0/vectors.safetensors", {"scored": torch.zeros(N_ITEMS - 1, 8)}),
        ("parts/0/user_model.safetensors", {"norm.weight": torch.full((8,), torch.inf)}),
        ("parts/0/user_model.safetensors", {"norm.weight": torch.zeros(9)}),
        ("user_model.safetensors", {"mix": torch.zeros(3, 2)}),
        ("user_model.safetensors", {"mix": torch.full((3, 3), torch.nan)}),
        ("parts/2/vectors.safetensors", {"pairs": torch.tensor([[1, 99]] * 12)}),
        ("parts/2/vectors.safetensors", {"pairs": torch.tensor([[0, 1]] * 12)}),
        ("parts/2/vectors.safetensors", {"values": torch.zeros(3)}),
        ("parts/2/vectors.safetensors", {"popular": torch.full((N_ITEMS + 1,), torch.nan)}),
        ("histories.safetensors", {"offsets": torch.tensor([0, 2, 9])}),
        ("histories.safetensors", {"offsets": torch.tensor([0, 4, 2, 3, 5])}),
        ("histories.safetensors", {"items": torch.tensor([1, 2, 0, 4, 5])}),
        ("histories.safetensors", {"items": torch.tensor([1, 2, 13, 4, 5])}),
        ("histories.safetensors", {"times": torch.zeros(4)}),
    ],
)
def test_arrays_of_other_sizes_and_no_numbers_are_damage(export, name, arrays):
    change_arrays(export / name, **arrays)
    with pytest.raises(ModelError, match="damaged|histories of users have item 13"):
        Recommender.from_pretrained(export)


def test_other_weights_than_those_of_its_kind_are_named(export):
    change_arrays(export / "parts/0/user_model.safetensors", more=torch.zeros(1))
    with pytest.raises(ModelError, match="holds other weights than those of a SASRecUser"):
        Recommender.from_pretrained(export)


@pytest.mark.parametrize(
    "line",
    ["", "[]", '"i1"', '{"fields": {}}', '{"id": 5}', '{"id": "i1", "fields": []}', '{"id": "i2"}', "[" * 10**5],
    ids=lambda line: line[:20],
)
def test_lines_that_are_no_items_are_named(export, line):
    lines = (export / files.ITEMS).read_text(encoding="utf-8").split("\n")
    (export / files.ITEMS).write_text("\n".join([line, *lines[1:]]), encoding="utf-8")
    with pytest.raises(Damaged, match=r"items.jsonl"):
        Recommender.from_pretrained(export)


def test_fewer_lines_than_vectors_are_told(export):
    lines = (export / files.ITEMS).read_text(encoding="utf-8").split("\n")
    (export / files.ITEMS).write_text("\n".join(lines[1:]), encoding="utf-8")
    with pytest.raises(ModelError, match="vectors of 12 items and lines of 11"):
        Recommender.from_pretrained(export)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"served": {}}', '{"format": 1}', "[" * 10**5])
def test_a_manifest_that_is_none_is_damage(export, text):
    (export / files.MANIFEST).write_text(text)
    with pytest.raises(Damaged, match="recommender.json|is damaged"):
        Recommender.from_pretrained(export)


def test_a_newer_format_says_who_reads_it(export):
    change(export, format=files.FORMAT + 1)
    with pytest.raises(
        ModelError, match=r"format 2, and this version reads 1; take the version that wrote it \(test\)"
    ):
        Recommender.from_pretrained(export)


def test_a_folder_without_an_export_says_how_to_make_one(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ModelError, match="there is no export in it, no recommender.json: recbole-hllm export"):
            Recommender.from_pretrained(folder)


@pytest.mark.parametrize("served", [markov(), table()])
def test_a_part_alone_is_no_export(tmp_path, served):
    write(tmp_path, served)
    with pytest.raises(ModelError, match="a part of a Blend"):
        Recommender.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "values", [torch.zeros(12, 11), torch.zeros(11, 11), torch.zeros(144), torch.full((12, 12), torch.nan)]
)
def test_a_table_that_is_none_of_all_pairs_is_damage(tmp_path, values):
    write(tmp_path, z_scores())
    change_arrays(tmp_path / "parts/2/vectors.safetensors", table=values)
    with pytest.raises(Damaged, match="is damaged"):
        Recommender.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_table_in_fewer_bytes(tmp_path, dtype):
    served = z_scores()
    described = files.write_served(served, tmp_path, dtype)
    again, table_ = files.read_served(tmp_path, described), served.parts[2].table
    assert (tmp_path / "parts/2/vectors.safetensors").stat().st_size < 144 * 4 and files.dtype_of(described) == dtype
    torch.testing.assert_close(again.parts[2].table[1:, 1:], table_[1:, 1:], rtol=0.01, atol=0.02)


# ---- strangers ----


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "parts/0/code.py", "weights.pt", "a.PKL", "noname", "user_llm/x.so"]
)
def test_files_that_no_export_has_are_refused(export, name):
    (export / name).parent.mkdir(exist_ok=True)
    (export / name).write_bytes(b"")
    with pytest.raises(ModelError, match=f"{name}: an export has no .* files"):
        Recommender.from_pretrained(export)


def test_links_out_of_the_folder_and_pipes_are_refused(export, tmp_path):
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    link = export / "link.json"
    link.symlink_to(outside)
    with pytest.raises(ModelError, match="link.json is a link out of the export"):
        Recommender.from_pretrained(export)
    link.unlink()
    link.symlink_to(tmp_path)
    with pytest.raises(ModelError, match="link.json is a link out of the export"):
        Recommender.from_pretrained(export)
    link.unlink()
    os.mkfifo(export / "pipe.json")
    with pytest.raises(ModelError, match="pipe.json is neither a file nor a folder"):
        Recommender.from_pretrained(export)


@pytest.mark.parametrize("file", ["../outside.safetensors", "/etc/outside.safetensors", "weights.bin", ""])
def test_weights_that_lie_elsewhere_are_refused(export, file):
    (export / "user_llm").mkdir(exist_ok=True)
    listed = {"metadata": {}, "weight_map": {"a": "model.safetensors", "b": file}}
    (export / "user_llm" / "model.safetensors.index.json").write_text(json.dumps(listed))
    with pytest.raises(ModelError, match="weights are safetensors in the same folder"):
        files.read_manifest(export)
