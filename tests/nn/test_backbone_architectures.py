"""That transformers' text architectures, as the sweeps of this folder build them, are what the sweeps take them for."""

import pytest
import torch
from architectures import CAUSAL, ENCODERS, HIDDEN, LAYERS, SEE_PADDING, keys_of, sampled
from torch import nn

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.backbone import BackboneSpec, load_backbone
from recbole_hllm.nn.item_encoder import ItemEncoder

TOKENS = torch.arange(3, 11)[None]


@pytest.fixture
def of_architecture():
    """(name, **keys) -> a tiny language model of large random weights, in evaluation mode."""

    def make(name, **keys):
        torch.manual_seed(0)
        config = keys_of(name, initializer_range=0.5, init_std=0.5, **keys)
        return load_backbone(BackboneSpec(None, "scratch", config=config)).eval()

    return make


@pytest.mark.parametrize("name", sampled([*CAUSAL, *ENCODERS]))
def test_reads_words_in_the_direction_of_its_list(of_architecture, name):
    model = of_architecture(name)
    changed = torch.where(TOKENS == 10, 30, TOKENS)
    with torch.no_grad():
        first, second = (model(input_ids=text).last_hidden_state for text in (TOKENS, changed))
    assert first.shape == (1, 8, model.config.word_embed_proj_dim if name == "opt:narrow" else HIDDEN)
    assert ((first - second)[:, :-1].abs().max() < 1e-5) == (name in CAUSAL)


@pytest.mark.parametrize("name", sampled(name for name in (*CAUSAL, *ENCODERS) if name not in ("ibert", *SEE_PADDING)))
@torch.no_grad()
def test_an_item_of_the_words_is_the_mean_of_what_the_model_makes_of_them(of_architecture, name):
    """Scales of embeddings, token types, positions and the rest are the model's own where vectors are read too."""
    model = of_architecture(name)
    encoder = ItemEncoder(model, item_emb_token_n=0, max_text_length=8).eval()
    expected = model(input_ids=TOKENS).last_hidden_state.mean(1)
    torch.testing.assert_close(encoder(TOKENS[0], torch.tensor([8])), expected, rtol=1e-5, atol=1e-5)


def test_a_model_that_reads_no_vectors_is_refused(of_architecture):
    with pytest.raises(ModelError, match="ibert model cannot read vectors in place of words"):
        ItemEncoder(of_architecture("ibert"))


# One layer is all that these have, or can be written with.
WITHOUT_CUTS = ("albert", "gpt_neox_japanese", "rwkv", "squeezebert")


@pytest.mark.parametrize("name", sampled(name for name in (*CAUSAL, *ENCODERS) if name not in WITHOUT_CUTS))
@torch.no_grad()
def test_first_layers_compute_what_they_compute_in_the_whole(of_architecture, name, tmp_path):
    whole = of_architecture(name)
    whole.save_pretrained(tmp_path)
    cut, outputs = load_backbone(BackboneSpec(str(tmp_path), num_layers=1)).eval(), []
    for model, depth in ((whole, LAYERS), (cut, 1)):
        stacks = (part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == depth)
        next(stacks)[0].register_forward_hook(lambda _, inputs, output: outputs.append(output))
        model(input_ids=TOKENS, **({"use_cache": False} if name in CAUSAL else {}))
    first, second = (output if isinstance(output, torch.Tensor) else output[0] for output in outputs)
    assert first.abs().max() > 0.05
    torch.testing.assert_close(second, first, rtol=1e-5, atol=1e-5)
