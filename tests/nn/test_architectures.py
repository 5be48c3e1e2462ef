"""That transformers' text architectures, as the sweeps of this folder build them, are what the sweeps take them for."""

import pytest
import torch
from architectures import CAUSAL, ENCODERS, HIDDEN, keys_of

from recbole_hllm.nn.backbone import BackboneSpec, load_backbone


@pytest.mark.parametrize("name", [*CAUSAL, *ENCODERS])
def test_reads_words_in_the_direction_of_its_list(name):
    torch.manual_seed(0)
    model = load_backbone(BackboneSpec(None, "scratch", config=keys_of(name))).eval()
    tokens = torch.arange(3, 11)[None]
    changed = torch.where(tokens == 10, 30, tokens)
    with torch.no_grad():
        first, second = (model(input_ids=text).last_hidden_state for text in (tokens, changed))
    assert first.shape == (1, 8, model.config.word_embed_proj_dim if name == "opt:narrow" else HIDDEN)
    assert ((first - second)[:, :-1].abs().max() < 1e-5) == (name in CAUSAL)
