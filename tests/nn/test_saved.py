"""Language models as Hugging Face folders: what is read again computes the same, with LoRA merged and without words."""

import json

import pytest
import torch
from transformers import AutoModel, LlamaConfig

from recbole_hllm.nn.probe import behaviour_of
from recbole_hllm.nn.saved import save_llm, save_without_words
from recbole_hllm.nn.tuning import LoraSettings, tune
from recbole_hllm.nn.words import drop_input_embeddings

INPUTS = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))


def language_model():
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 2, "intermediate_size": 16}
    return AutoModel.from_config(LlamaConfig(hidden_size=8, vocab_size=6, bos_token_id=1, eos_token_id=2, **sizes))


@torch.no_grad()
def outputs(llm):
    return llm.eval()(inputs_embeds=INPUTS).last_hidden_state


def test_words_are_left_out_and_all_else_is_the_same(tmp_path):
    llm = language_model()
    wanted = outputs(llm)
    drop_input_embeddings(llm)
    save_without_words(llm, tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(outputs(again), wanted) and again.get_input_embeddings().weight.tolist() == [[0.0] * 8]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["vocab_size"] == 1 and config.get("eos_token_id") is None
    assert behaviour_of(llm).input_size == 8 and torch.equal(outputs(llm), wanted), "the model goes on as it was"


def test_words_are_kept_where_they_are_read(tmp_path):
    llm = language_model()
    save_llm(llm, tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(again.get_input_embeddings().weight, llm.get_input_embeddings().weight)
    assert not list(tmp_path.glob("*.bin"))


def test_lora_is_merged(tmp_path):
    pytest.importorskip("peft")
    llm = language_model()
    plain = outputs(llm)
    tune(llm, "lora", LoraSettings(r=2, alpha=4.0))
    with torch.no_grad():
        for name, weight in llm.named_parameters():
            if ".lora_" in name:
                weight.normal_(std=0.3)
    wanted = outputs(llm)
    save_llm(llm, tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    torch.testing.assert_close(outputs(again), wanted, rtol=1e-5, atol=1e-5)
    assert (wanted - plain).abs().max() > 1e-2 and not any("lora" in name for name in again.state_dict())
