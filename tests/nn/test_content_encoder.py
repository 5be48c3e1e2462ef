import json

import pytest
import torch

from recbole_hllm.errors import ModelError
from recbole_hllm.nn import content_encoder
from recbole_hllm.nn.content_encoder import ContentEncoder, sentence_encoder

TEXTS = [[3, 5, 7], [11], [2, 2, 9, 4]]


def encoded(encoder):
    tokens = torch.tensor(sum(TEXTS, []))
    return encoder.pooled(tokens, torch.tensor([len(text) for text in TEXTS]))


@pytest.mark.parametrize("kind", ["llama", "bert"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "eos"])
def test_one_text_at_a_time_without_padding(tiny, kind, pooling):
    backbone = tiny(kind)
    encoder = ContentEncoder(backbone, pooling, end_token=1, max_text_length=6).eval()
    for text, vector in zip(TEXTS, encoded(encoder), strict=True):
        read = [*text, 1] if pooling == "eos" else text
        hidden = backbone(torch.tensor([read])).last_hidden_state[0]
        expected = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1], "eos": hidden[-1]}[pooling]
        torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-5)
    assert encoder.pooling == pooling and not any(weight.requires_grad for weight in encoder.parameters())


def test_an_end_token_where_word_vectors_are_scaled(tiny):
    """As in Gemma: what is looked up is no row of the table."""

    class Scaled(torch.nn.Embedding):
        def forward(self, ids):
            return 7 * super().forward(ids)

    backbone = tiny("llama")
    words = backbone.get_input_embeddings()
    scaled = Scaled(*words.weight.shape)
    scaled.load_state_dict(words.state_dict())
    backbone.set_input_embeddings(scaled)
    encoder = ContentEncoder(backbone, "eos", end_token=1, max_text_length=6).eval()
    for text, vector in zip(TEXTS, encoded(encoder), strict=True):
        expected = backbone(torch.tensor([[*text, 1]])).last_hidden_state[0, -1]
        torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_pooled(tiny):
    with pytest.raises(ModelError, match="'max' is not one of mean, cls, eos, last"):
        ContentEncoder(tiny("llama"), "max", end_token=1, max_text_length=6)
    with pytest.raises(ModelError, match="no end token"):
        ContentEncoder(tiny("llama"), "eos", end_token=None, max_text_length=6)


def sentence_folder(folder, kinds, pooling=None):
    def module(place, kind):
        return {"path": f"{place}_{kind}", "type": f"sentence_transformers.models.{kind}"}

    modules = [module(place, kind) for place, kind in enumerate(kinds)]
    modules[0]["path"] = ""
    (folder / "modules.json").write_text(json.dumps(modules))
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return str(folder)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "cls", "embedding_dimension": 3}, "cls"),
    ],
)
def test_a_sentence_encoder_brings_its_pooling(tmp_path, keys, expected):
    folder = sentence_folder(tmp_path, ["Transformer", "Pooling", "Normalize"], keys)
    source, pooling = sentence_encoder(folder)
    assert (source.rstrip("/"), pooling) == (folder, expected)


def test_any_other_source_stays_as_it_is(tmp_path):
    assert sentence_encoder(str(tmp_path)) == (str(tmp_path), None)


def test_a_sentence_encoder_on_the_hub_brings_its_pooling_too(tmp_path, monkeypatch):
    sentence_folder(tmp_path, ["Transformer", "Pooling"], {"pooling_mode_cls_token": True})
    monkeypatch.setattr(content_encoder, "snapshot_download", lambda name, allow_patterns: str(tmp_path))
    assert sentence_encoder("someone/on-the-hub") == ("someone/on-the-hub", "cls")


def test_a_hub_that_cannot_be_reached(monkeypatch):
    def unreachable(name, allow_patterns):
        raise OSError("no\nnet")

    monkeypatch.setattr(content_encoder, "snapshot_download", unreachable)
    with pytest.raises(ModelError, match="someone/on-the-hub.*nor reachable on the hub.*no net"):
        sentence_encoder("someone/on-the-hub")


def test_sentence_encoders_that_do_more_are_refused(tmp_path):
    with pytest.raises(ModelError, match="names Dense, which are not applied"):
        sentence_encoder(sentence_folder(tmp_path, ["Transformer", "Dense"]))


@pytest.mark.parametrize("keys", [{"pooling_mode_max_tokens": True}, {}])
def test_other_poolings_are_refused(tmp_path, keys):
    folder = sentence_folder(tmp_path, ["Transformer", "Pooling"], keys)
    with pytest.raises(ModelError, match="pools by .*; give one of mean, cls"):
        sentence_encoder(folder)


def test_a_damaged_folder(tmp_path):
    (tmp_path / "modules.json").write_text("{")
    with pytest.raises(ModelError, match="modules.json cannot be read"):
        sentence_encoder(str(tmp_path))
