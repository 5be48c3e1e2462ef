"""What a language model does is found by trying, and is what the whole model does."""

from dataclasses import replace

import pytest
import torch
from architectures import CAUSAL, ENCODERS, HIDDEN, POSITIONS, SEE_PADDING, keys_of, sampled
from torch import nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.backbone import BackboneSpec, load_backbone, load_causal_lm, skeleton_of
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.next_token import with_head
from recbole_hllm.nn.probe import (
    behaviour_of,
    check_causal,
    check_padding,
    is_bidirectional,
    position_range,
    reads_packed,
)
from recbole_hllm.nn.prompted import PromptedLLM
from recbole_hllm.nn.user_encoder import UserEncoder

# Learned tables and buffers end somewhere; the other architectures compute positions. What padding id 0 takes is gone.
LIMITED = {
    "bert:decoder", "bert-generation:decoder", "biogpt", "codegen", "ctrl", "gpt2", "gpt_bigcode", "gpt_neo", "gptj",
    "megatron-bert:decoder", "openai-gpt", "opt", "opt:narrow", "xlm:causal", "albert", "bert", "big_bird", "convbert",
    "deberta", "deberta-v2", "deberta-v2:relative", "distilbert", "electra", "electra:narrow", "ernie", "flaubert",
    "fnet", "megatron-bert", "mobilebert", "nystromformer", "rembert", "roformer", "splinter", "squeezebert", "xlm",
    "yoso",
}  # fmt: skip
BEHIND_PADDING = {
    "roberta:decoder", "camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta",
    "xlm-roberta-xl", "ibert",
}  # fmt: skip
# Attention with biases, a window or a code of its own; no attention at all.
NOT_PACKED = {"t5", "mistral", "gemma2", "gpt_neo", "mamba", "xlnet", "deberta", "longformer", "rwkv"}


def spec_of(name, **keys):
    return BackboneSpec(None, "scratch", config=keys_of(name, **keys))


@pytest.mark.parametrize(
    ("kind", "expected"), [("llama", False), ("gpt2", False), ("bert", True), ("roberta", True)]
)
def test_is_bidirectional_says_whether_the_future_is_seen(tiny, kind, expected):
    model = tiny(kind)
    vectors = torch.linspace(-1, 1, 64).view(1, 4, 16)
    changed = vectors.clone()
    changed[:, -1] *= -1
    first = [model(inputs_embeds=x).last_hidden_state[0, 0] for x in (vectors, changed)]
    assert is_bidirectional(model) is expected
    assert torch.allclose(*first) is not expected


def test_bert_as_decoder_is_causal(tiny):
    assert not is_bidirectional(tiny("bert", is_decoder=True))


@pytest.mark.parametrize(
    ("kind", "expected"), [("llama", (0, None)), ("gpt2", (0, 12)), ("bert", (0, 12)), ("roberta", (2, 12))]
)
def test_position_range(tiny, kind, expected):
    assert position_range(tiny(kind)) == expected


@pytest.mark.parametrize("name", sampled([*CAUSAL, *ENCODERS], also=["electra:narrow", *SEE_PADDING]))
def test_direction_padding_positions_and_widths_of_every_architecture(name):
    found = behaviour_of(skeleton_of(spec_of(name)))
    assert found.causal == (name in CAUSAL)
    assert found.hides_padding == (name not in SEE_PADDING)
    assert found.input_size == (8 if name.endswith(":narrow") else HIDDEN)
    assert found.output_size == (8 if name == "opt:narrow" else HIDDEN)
    if name in LIMITED:
        assert found.n_positions == POSITIONS
    elif name in BEHIND_PADDING:
        assert found.n_positions == POSITIONS - 1
    elif name not in ("longformer", "mpnet", "mpt"):
        assert found.n_positions is None


@pytest.mark.parametrize("name", sampled(sorted(LIMITED | BEHIND_PADDING)))
@torch.no_grad()
def test_a_limit_is_where_the_whole_model_ends(name):
    """More positions than the copy has, so that the limit is not the copy's."""
    model = load_backbone(spec_of(name, max_position_embeddings=50)).eval()
    limit, width = behaviour_of(model).n_positions, behaviour_of(model).input_size
    assert limit == (49 if name in BEHIND_PADDING else 50)
    model(inputs_embeds=torch.zeros(1, limit, width))
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        model(inputs_embeds=torch.zeros(1, limit + 1, width))


@pytest.mark.parametrize("padding", [1, 7, 8, 20, 39])
@torch.no_grad()
def test_positions_that_padding_takes_away(padding):
    """RoBERTa's positions begin after its padding id."""
    model = load_backbone(spec_of("roberta", pad_token_id=padding, max_position_embeddings=50)).eval()
    assert position_range(model) == (padding + 1, 49 - padding)
    model(inputs_embeds=torch.zeros(1, 49 - padding, HIDDEN))
    with pytest.raises((IndexError, RuntimeError)):
        model(inputs_embeds=torch.zeros(1, 50 - padding, HIDDEN))


@pytest.mark.parametrize("name", sampled(name for name in ENCODERS if name not in ("ibert", *SEE_PADDING)))
@torch.no_grad()
def test_an_item_is_the_same_beside_longer_ones(name):
    torch.manual_seed(0)
    encoder = ItemEncoder(load_backbone(spec_of(name)).eval(), item_emb_token_n=0, max_text_length=12).eval()
    text, longer = torch.arange(3, 8), torch.arange(3, 14)
    alone = encoder(text, torch.tensor([5]))
    beside = encoder(torch.cat([text, longer]), torch.tensor([5, 11]))
    torch.testing.assert_close(beside[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SEE_PADDING)
def test_a_model_that_sees_padding_reads_no_items(name):
    with pytest.raises(ModelError, match=f"a {name} model .* when padding follows it"):
        ItemEncoder(load_backbone(spec_of(name)), item_emb_token_n=0, max_text_length=8)
    with pytest.raises(ModelError, match="when padding follows it"):
        check_padding(skeleton_of(spec_of(name)))


@pytest.mark.parametrize("reader", [UserEncoder, PromptedLLM])
@pytest.mark.parametrize(
    ("name", "switch"),
    [("xlnet", "attn_type: uni"), ("bert", "is_decoder: True"), ("splinter", None), ("modernbert", None)],
)
def test_a_bidirectional_reader_is_refused_with_the_key_that_would_help(reader, name, switch):
    advice = f", or set {switch} in its configuration$" if switch else ", such as llama$"
    with pytest.raises(ModelError, match=f"a {name} model cannot .* bidirectional .*{advice}"):
        reader(load_backbone(spec_of(name)))


def test_the_named_key_makes_it_causal():
    for name, keys in (("xlnet", {"attn_type": "uni"}), ("bert", {"is_decoder": True})):
        model = load_backbone(BackboneSpec(None, "scratch", config={**keys_of(name), **keys}))
        check_causal(model, "read")
        assert not is_bidirectional(model)


def test_trying_draws_no_random_numbers_of_the_program():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    behaviour_of(skeleton_of(spec_of("gpt2", vocab_size=39)))
    torch.testing.assert_close(torch.rand(4), expected, rtol=0, atol=0)


def test_trying_leaves_the_random_states_of_gpus_alone(monkeypatch):
    def seed_all(seed):
        raise AssertionError(f"every GPU is seeded with {seed}")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", seed_all)
    behaviour_of(skeleton_of(spec_of("gpt2", vocab_size=38)))


def test_a_model_whose_attention_needs_a_gpu_is_built_without_one():
    """As flash attention does; a model is built on the CPU and then taken to its device."""

    def on_gpus_only(*_, **__):
        raise RuntimeError("FlashAttention only supports CUDA")

    AttentionInterface.register("on_gpus_only", on_gpus_only)
    spec = replace(spec_of("llama"), attn_implementation="on_gpus_only")
    items, users = ItemEncoder(load_backbone(spec), max_text_length=8), UserEncoder(load_backbone(spec))
    reader, head = with_head(load_causal_lm(spec))
    for backbone in (items.backbone, users.backbone, reader, head.model):
        assert backbone.config._attn_implementation == "on_gpus_only"
    with pytest.raises(RuntimeError, match="only supports CUDA"):
        users(torch.zeros(1, 3, HIDDEN))


def test_narrow_embeddings_are_read_by_items_and_users():
    torch.manual_seed(0)
    narrow = load_backbone(spec_of("opt:narrow"))
    encoder = ItemEncoder(narrow, item_emb_token_n=1, out_features=5, max_text_length=8)
    assert encoder(torch.arange(3, 7), torch.tensor([4])).shape == (1, 5)
    users = UserEncoder(load_backbone(spec_of("opt:narrow")))
    assert users.hidden_size == 8 and users(torch.zeros(2, 3, 8)).shape == (2, 3, 8)


def test_a_reader_whose_outputs_are_wider_than_its_inputs_is_refused():
    decoder = load_backbone(BackboneSpec(None, "scratch", config={**keys_of("electra:narrow"), "is_decoder": True}))
    with pytest.raises(ModelError, match="reads 8 numbers and gives 16 cannot be the user language model"):
        UserEncoder(decoder)


class Plain(PreTrainedModel):
    """As code that a folder brings: its configuration has names of its own for layers and words."""

    config_class = PreTrainedConfig

    def __init__(self, config):
        super().__init__(config)
        self.words, self.layer = nn.Embedding(config.padded_vocab_size, 8), nn.Linear(8, 8)

    def get_input_embeddings(self):
        return self.words

    def _init_weights(self, module):
        pass

    def forward(self, input_ids=None, inputs_embeds=None, **_):
        vectors = self.words(input_ids) if inputs_embeds is None else inputs_embeds
        return BaseModelOutput(last_hidden_state=self.layer(vectors.cumsum(1)))


def test_a_configuration_with_names_of_its_own():
    found = behaviour_of(Plain(PreTrainedConfig(num_layers=3, padded_vocab_size=12)))
    assert (found.causal, found.reads_words, found.n_positions, found.output_size) == (True, True, None, 8)


def test_a_model_whose_last_layers_share_what_earlier_ones_computed():
    own = {
        "vocab_size_per_layer_input": 40, "hidden_size_per_layer_input": 8, "num_hidden_layers": 4, "laurel_rank": 4,
        "num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"] * 2,
        "activation_sparsity_pattern": None,
    }  # fmt: skip
    sizes = {"hidden_size": HIDDEN, "vocab_size": 40, "intermediate_size": 24, "num_attention_heads": 2, "head_dim": 8}
    spec = BackboneSpec(None, "scratch", config={"model_type": "gemma3n_text", **sizes, **own})
    for model in (skeleton_of(spec), load_backbone(spec)):
        found = behaviour_of(model)
        assert (found.causal, found.n_positions, found.output_size) == (True, None, HIDDEN)


@pytest.mark.parametrize("name", sampled([*CAUSAL, *ENCODERS], also=["llama", "bert", "gpt_neo", "t5", "mistral"]))
@torch.no_grad()
def test_what_reads_packed_reads_texts_so_and_others_are_known(name):
    model = load_backbone(spec_of(name)).eval()
    if name in NOT_PACKED:
        assert not reads_packed(model)
    if not reads_packed(model):
        return
    encoder = ItemEncoder(model, item_emb_token_n=0, max_text_length=12).eval()
    tokens, lengths = torch.arange(3, 20), torch.tensor([5, 5, 7])
    padded = encoder(tokens, lengths)
    packed = ItemEncoder(model, item_emb_token_n=0, max_text_length=12, packed=True).eval()
    torch.testing.assert_close(packed(tokens, lengths), padded, rtol=1e-4, atol=1e-5)
