"""The user model as ONNX computes what torch does; lines of the manual use it."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from recbole_hllm.errors import MissingExtra, ModelError
from recbole_hllm.nn.user_encoder import UserEncoder
from recbole_hllm.nn.user_models.language import UserLLM
from recbole_hllm.nn.user_models.sequence import FilterUser, HSTUUser, LiGRUser, LRUUser, SASRecUser
from recbole_hllm.serving import Recommender
from recbole_hllm.serving import folder as files
from recbole_hllm.serving.onnx_model import ONNX, check_onnx, check_packages, inputs_of, write_onnx
from recbole_hllm.serving.rows import Rows
from recbole_hllm.serving.served import ServedBlend, ServedPairs, ServedVectors

PAGE = Path(__file__).parents[2] / "docs" / "serving" / "deployment.md"
WIDTH, LENGTH, ITEMS = 8, 6, 20


def language_model(**features):
    sizes = dict(num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, vocab_size=8)
    llm = LlamaModel(LlamaConfig(hidden_size=WIDTH, intermediate_size=16, **sizes))
    features = {"n_items": 0, "time_num": 0, "time_width": 4, "time_of": "item", **features}
    return UserLLM(UserEncoder(llm), WIDTH, **features)


KINDS = {
    "SASRec": lambda: SASRecUser(WIDTH, LENGTH, 1, 2, 16, "gelu", 1e-12),
    "eSASRec": lambda: LiGRUser(WIDTH, LENGTH, 1, 2, 16),
    "HLLM": language_model,
    "HLLM with all": lambda: language_model(n_items=ITEMS, time_num=4, time_of="next"),
}


def served_of(user_model, cosine=True):
    torch.manual_seed(3)
    items = torch.randn(ITEMS, WIDTH)
    items[0] = 0
    return ServedVectors(user_model, items, cosine=cosine, length=LENGTH)


def session_of(path):
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def check(served, path):
    """The file against ``served.users``, of histories that the export has not tried."""
    assert write_onnx(served, path) <= 1e-4
    session = session_of(path)
    assert [one.name for one in session.get_inputs()] == inputs_of(served.user_model)
    for users, history in ((1, 2), (7, LENGTH), (3, 4)):
        items = torch.randint(1, ITEMS, (users, history))
        lengths = torch.randint(1, history + 1, (users,))
        items *= torch.arange(history) < lengths[:, None]
        times = 1.6e9 + 1e6 * torch.arange(history).double().expand(users, -1)
        rows = Rows(items, lengths, times, 1.7e9 + torch.arange(users).double())
        every = {"vectors": served.read[items], "lengths": lengths, "items": items, "times": rows.times, "at": rows.at}
        found = session.run(None, {name: every[name].numpy() for name in inputs_of(served.user_model)})[0]
        np.testing.assert_allclose(found, served.users(rows).numpy(), atol=1e-4)
    content = path.read_bytes()
    assert b".py" not in content and str(Path.cwd()).encode() not in content, "where it was made"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An export with a user model as ONNX."""
    check_packages_or_skip()
    folder = tmp_path_factory.mktemp("onnx") / "OUT"
    served = served_of(KINDS["SASRec"]())
    described = files.write_served(served, folder)
    ids = [str(number) for number in range(1, ITEMS)]
    files.write_items(folder, ids, [{}] * len(ids))
    check(served, folder / ONNX)
    files.write_manifest(folder, {"model": "SASRecNCE", "served": described, "template": None})
    return folder


def check_packages_or_skip():
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [name for name in KINDS if name != "SASRec"])
def test_every_kind_computes_what_torch_does(kind, tmp_path):
    check_packages_or_skip()
    check(served_of(KINDS[kind](), cosine=kind != "eSASRec"), tmp_path / ONNX)


def test_lines_of_the_manual_recommend_the_same(exported, monkeypatch):
    monkeypatch.chdir(exported.parent)
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"))
    (code,) = (block for block in blocks if "onnxruntime" in block)
    names = {}
    exec(code.replace('["1", "50"]', '["1", "5"]'), names)
    wanted = Recommender.from_pretrained(exported).recommend(items=["1", "5"], k=10, filter_seen=False)
    assert [names["ids"][number] for number in names["best"]] == [item.id for item in wanted]
    np.testing.assert_allclose(names["scores"][0][names["best"]], [item.score for item in wanted], atol=1e-4)


def test_tritons_configuration_of_the_manual_fits_the_file(exported):
    """Names, types and, with an axis of users before them, shapes."""
    (text,) = re.findall(r"(?ms)^```\n(name: \"user_model\".*?)^```", PAGE.read_text())
    scalar = r"(, reshape: \{ shape: \[ \] \})?"
    tensors = re.findall(rf'name: "(\w+)", data_type: TYPE_(\w+), dims: \[ ([^]]+) \]{scalar}', text)
    said = {name: (kind, 1 + (0 if scalar else len(dims.split(",")))) for name, kind, dims, scalar in tensors}
    types = {"tensor(float)": "FP32", "tensor(int64)": "INT64"}
    session = session_of(exported / ONNX)
    tensors = [*session.get_inputs(), *session.get_outputs()]
    assert said == {one.name: (types[one.type], len(one.shape)) for one in tensors}
    assert re.search(r"max_batch_size: [1-9]", text)


def test_a_file_that_computes_something_else_is_refused(exported, tmp_path, monkeypatch):
    """The file is that of other weights than torch has."""
    other = served_of(KINDS["SASRec"]())

    class Graph(list):
        metadata_props, inputs, outputs, initializers = {}, [], [], {}

    class Program:
        model = SimpleNamespace(graph=Graph(), functions={}, metadata_props={})

        def save(self, path):
            Path(path).write_bytes((exported / ONNX).read_bytes())

    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program())
    with pytest.raises(ModelError, match=r"--onnx: of \d users with \d items the file gives other vectors than torch"):
        write_onnx(other, tmp_path / ONNX)


def test_what_torch_cannot_export_is_told(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(ModelError, match="--onnx: torch cannot export this user model: no such operator"):
        write_onnx(served_of(KINDS["SASRec"]()), tmp_path / ONNX)


@pytest.mark.parametrize("user_model", [
    lambda: HSTUUser(WIDTH, LENGTH, 1, 2, False), lambda: LRUUser(WIDTH - 1, 1, 8),
    lambda: FilterUser(WIDTH, LENGTH, 1, 8),
], ids=["HSTU", "LRURec", "FMLPRec"])  # fmt: skip
def test_other_models_are_refused_by_name(user_model):
    with pytest.raises(ModelError, match="--onnx: TheModel is not written as ONNX; HLLM, SASRec, SASRecNCE, "):
        check_onnx(served_of(user_model()), "TheModel")


def test_a_blend_is_refused_by_name():
    pairs = ServedPairs(torch.zeros(ITEMS), torch.zeros(0, 2).long(), torch.zeros(0))
    blend = ServedBlend([served_of(KINDS["SASRec"]()), pairs], torch.ones(1, 2), [], 5)
    with pytest.raises(ModelError, match="--onnx: Blend is not written as ONNX"):
        check_onnx(blend, "Blend")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_packages_that_are_missing_are_named(missing, monkeypatch):
    from recbole_hllm.serving import onnx_model

    def import_module(name):
        if name == missing:
            raise ImportError(name)

    monkeypatch.setattr(onnx_model, "import_module", import_module)
    with pytest.raises(MissingExtra, match=rf"--onnx needs the package '{missing}': .* 'recbole-hllm\[onnx\]'"):
        check_packages()


@pytest.mark.parametrize("features, names", [
    ({}, []), ({"n_items": ITEMS}, ["items"]), ({"time_num": 4}, ["times"]),
    ({"time_num": 4, "time_of": "next", "n_items": ITEMS}, ["items", "times", "at"]),
])  # fmt: skip
def test_inputs_are_those_that_are_read(features, names):
    assert inputs_of(language_model(**features)) == ["vectors", "lengths", *names]


def test_an_export_may_have_the_file(exported):
    (exported / f"{ONNX}.data").write_bytes(b"weights of a large one")
    assert len(Recommender.from_pretrained(exported).catalogue) == ITEMS - 1
    assert json.loads((exported / files.MANIFEST).read_text())["model"] == "SASRecNCE"
    (exported / f"{ONNX}.data").unlink()
