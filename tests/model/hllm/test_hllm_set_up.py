"""What HLLM is built from: language models, item texts, checkpoints of the official code."""

import pickle

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForTextEncoding, AutoTokenizer

from recbole_hllm.config.config import Config
from recbole_hllm.data.texts.item_texts import ItemTexts
from recbole_hllm.errors import ConfigError, DataError, ModelError
from recbole_hllm.model.hllm.hllm import HLLM, load_pretrained_hllm

# ---- what can be wrong with the language models ----


def test_pretrained_user_llm_needs_a_folder(build):
    with pytest.raises(ConfigError, match="user_llm_init.*user_pretrain_dir"):
        build(user_pretrain_dir=None)


def test_item_llm_must_be_named(toy):
    config, _, loaders = toy()
    config["item_pretrain_dir"] = None
    with pytest.raises(ConfigError, match="item_pretrain_dir"):
        HLLM(config, loaders[0]._dataset)


def test_config_of_pretrained_weights_cannot_change(build):
    with pytest.raises(ConfigError, match="item_llm_config.*item_llm_init: False"):
        build(item_llm_config={"num_hidden_layers": 1})


def test_item_llm_from_scratch_with_other_sizes(build):
    model, _ = build(item_llm_init=False, item_llm_config={"num_hidden_layers": 1})
    assert len(model.item_encoder.backbone.layers) == 1


def test_user_llm_of_a_folder_from_scratch_with_other_sizes(build):
    model, _ = build(user_llm_init=False, user_llm_config={"num_hidden_layers": 1, "intermediate_size": 20})
    backbone = model.user_encoder.backbone
    assert len(backbone.layers) == 1 and backbone.layers[0].mlp.gate_proj.weight.shape == (20, 16)


def test_our_default_does_not_change_the_user_llm_of_a_folder(build):
    for init in (False, True):
        model, _ = build(user_llm_init=init)
        assert len(model.user_encoder.backbone.layers) == 2 and model.user_encoder.hidden_size == 16


@pytest.mark.parametrize("keys", [{}, {"user_llm_config": {"num_hidden_layers": 1}}, {"user_llm_init": True}])
def test_a_finished_runs_settings_give_the_same_user_llm(toy, keys):
    config, _, loaders = toy(**{"user_llm_init": False, **keys})
    again = Config(config_dict=config.settings)
    first, second = (HLLM(either, loaders[0]._dataset).state_dict() for either in (config, again))
    assert {name: weight.shape for name, weight in first.items()} == {
        name: weight.shape for name, weight in second.items()
    }


def test_config_of_a_pretrained_user_llm_cannot_change(build):
    with pytest.raises(ConfigError, match="user_llm_config.*user_llm_init: False"):
        build(user_llm_config={"num_hidden_layers": 1})


def test_config_of_a_language_model_is_a_dict(build):
    with pytest.raises(ConfigError, match="user_llm_config: 5 is not a dict"):
        build(user_llm_init=False, user_llm_config=5)


def test_user_llm_must_be_causal(build, tiny_llm):
    with pytest.raises(ModelError, match="bidirectional"):
        build(user_pretrain_dir=tiny_llm("bert"))


@pytest.mark.parametrize("kind", ["t5", "umt5"])
def test_an_encoder_of_t5s_kind_reads_items(build, tiny_llm, kind):
    folder = tiny_llm(kind)
    model, _ = build(item_pretrain_dir=folder)
    tokens, lengths = model.catalogue.lookup(torch.tensor([3, 7]))
    vectors = model.item_encoder.eval()(tokens, lengths)
    llm = AutoModelForTextEncoding.from_pretrained(folder).eval()
    for text, vector in zip(tokens.split(lengths.tolist()), vectors, strict=True):
        expected = llm(input_ids=text[None].long()).last_hidden_state[0].mean(0)
        torch.testing.assert_close(vector, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelError, match="bidirectional"):
        build(user_pretrain_dir=folder)


@pytest.mark.parametrize("kind", ["opt", "xglm", "gpt2", "falcon", "persimmon", "bert", "t5"])
def test_item_llm_dropout_is_that_of_every_layer(build, tiny_llm, kind):
    """Whether it is a layer of its own, a number that a layer has, or one that it looks up in the configuration."""
    folder = tiny_llm(kind, hidden_dropout=0.5, attention_dropout=0.5)
    for dropout, drops in ((0.0, False), (0.3, True), (None, True)):
        model, _ = build(item_pretrain_dir=folder, item_llm_dropout=dropout)
        read = model.catalogue.lookup(torch.tensor([3, 7]))
        training, evaluation = (model.train(mode).item_encoder(*read) for mode in (True, False))
        assert torch.equal(training, evaluation) != drops


def test_an_adapter_is_no_item_llm(build, tiny_llm, tmp_path):
    peft = pytest.importorskip("peft")
    llm = peft.get_peft_model(AutoModel.from_pretrained(tiny_llm("llama")), peft.LoraConfig(target_modules=["q_proj"]))
    llm.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match="adapter' is an adapter of .* and no language model: merge it"):
        build(item_pretrain_dir=str(tmp_path / "adapter"))
    llm.merge_and_unload().save_pretrained(tmp_path / "adapter")  # beside it
    AutoTokenizer.from_pretrained(tiny_llm("llama")).save_pretrained(tmp_path / "adapter")
    for part in ("item", "user"):
        with pytest.raises(ModelError, match="is a model and an adapter at once: .* remove adapter_config.json"):
            build(**{f"{part}_pretrain_dir": str(tmp_path / "adapter")})


# ---- texts ----


def text_of(model, token, dataset):
    return model.catalogue.texts[dataset.field2token_id["item_id"][token]]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (None, "title: w3 w6 w3 w6 w3 w6. brand: w8"),
        (["title", "brand"], "title: w3 w6 w3 w6 w3 w6. brand: w8"),
        (["brand", "price"], "brand: w8. price: 3"),
        ("brand", "brand: w8"),
    ],
)
def test_text_keys(build, keys, expected):
    model, (train, *_) = build(text_keys=keys)
    assert text_of(model, "i3", train._dataset) == expected


def test_prompt_and_separator(build):
    model, (train, *_) = build(item_prompt="w1 ", text_separator=" ")
    assert text_of(model, "i3", train._dataset) == "w1 title: w3 w6 w3 w6 w3 w6 brand: w8"


def test_unknown_text_key(build):
    with pytest.raises(DataError, match="toy.item.*'titel'.*text_keys.*did you mean 'title'"):
        build(text_keys=["titel"])


@pytest.mark.parametrize("keys", [None, ["title"]])
def test_missing_item_file(build, tmp_path, keys):
    (tmp_path / "toy" / "toy.item").unlink()
    with pytest.raises((ConfigError, DataError), match="toy.item"):
        build(text_keys=keys)


def test_item_file_without_text_column(build, tmp_path):
    (tmp_path / "toy" / "toy.item").write_text("item_id:token\tprice:float\ni0\t1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="text_keys.*no token_seq column.*price"):
        build(text_keys=None)


def test_texts_can_be_given(toy):
    config, dataset, loaders = toy()
    fields = [(f"w{item}\tw{item}",) for item in range(dataset.item_num)]
    texts = ItemTexts(("name",), fields, has_row=np.ones(dataset.item_num, dtype=bool))
    model = HLLM(config, loaders[0]._dataset, texts)
    assert model.catalogue.texts[3] == "name: w3 w3"


# ---- checkpoints of the official code ----


@pytest.fixture
def official_weights(official_names):
    """(model) -> all weights of a checkpoint: the model's plus 0.5, and what HLLM does not use."""
    unused = {"item_llm.lm_head.weight": (43, 16), "user_llm.lm_head.weight": (43, 16)}
    unused["user_llm.model.embed_tokens.weight"] = (43, 16)
    zeros = {name: torch.zeros(shape) for name, shape in unused.items()}
    return lambda model: official_names(model.state_dict(), 0.5) | zeros


def test_official_checkpoint_through_the_config(build, official_weights, tmp_path):
    model, _ = build()
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    path = tmp_path / "pytorch_model.bin"
    torch.save(official_weights(model), path)
    loaded, _ = build(pretrained_hllm=str(path))
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, start[name] + 0.5), name


def test_loading_forgets_the_item_vectors(build, official_weights, tmp_path):
    model, _ = build()
    before = model.eval().item_vectors()
    torch.save(official_weights(model), tmp_path / "pytorch_model.bin")
    load_pretrained_hllm(model, tmp_path / "pytorch_model.bin")
    assert not torch.allclose(model.item_vectors(), before, atol=1e-2)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def write_trap(path):
    torch.save({"logit_scale": Trap(path.with_name("trap"))}, path)


def write_plain_pickle(path):
    path.write_bytes(pickle.dumps({"logit_scale": Trap(path.with_name("trap"))}, protocol=2))


@pytest.mark.parametrize("write", [write_trap, write_plain_pickle])
def test_code_in_a_checkpoint_does_not_run(build, tmp_path, write):
    model, _ = build()
    write(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="damaged or holds more than weights") as error:
        load_pretrained_hllm(model, tmp_path / "pytorch_model.bin")
    assert not (tmp_path / "trap").exists()
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "pytorch_model.bin"),
        (lambda path: path.write_bytes(b"no checkpoint"), "damaged"),
        (lambda path: torch.save(torch.zeros(2), path), "no flat list of named weights"),
        (lambda path: torch.save({"logit_scale": 2.0}, path), "no flat list of named weights"),
        (lambda path: torch.save({1: torch.zeros(2)}, path), "no flat list of named weights"),
        (lambda path: torch.save({"state_dict": {"a": torch.zeros(2)}}, path), "no flat list of named weights"),
    ],
)
def test_bad_checkpoint_files(build, tmp_path, write, message):
    model, _ = build()
    write(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=message):
        load_pretrained_hllm(model, tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("logit_scale"), r"missing \['logit_scale'\]"),
        (lambda weights: weights.update(item_emb_tokens=torch.zeros(1, 1, 8)), "other shape.*item_emb_tokens"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "unknown"),
    ],
)
def test_weights_that_do_not_fit(build, official_weights, tmp_path, change, message):
    model, _ = build()
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    weights = official_weights(model)
    change(weights)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=message):
        load_pretrained_hllm(model, tmp_path / "pytorch_model.bin")
    assert all(torch.equal(weight, start[name]) for name, weight in model.state_dict().items())
