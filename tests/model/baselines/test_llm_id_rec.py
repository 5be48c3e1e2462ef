import pytest
import torch

from recbole_hllm.errors import ConfigError, ModelError

TINYLLAMA = {
    "model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
    "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 2048, "vocab_size": 32000,
}  # fmt: skip


def test_inputs_and_targets_go_through_one_projection_without_bias(id_model):
    model, _ = id_model("LLMIDRec")
    model.eval()
    table = model.item_embedding.weight @ model.projection.weight.T
    assert model.projection.bias is None and table.shape == (13, 12)
    torch.testing.assert_close(model.item_vectors(), table)
    items, length = torch.tensor([[3, 5, 9]]), torch.tensor([3])
    outputs = model.user_encoder.backbone(inputs_embeds=table[items]).last_hidden_state
    users = model.user_vectors({"item_id_list": items, "item_length": length})
    torch.testing.assert_close(users, outputs[:, -1], rtol=0, atol=1e-6)


def test_all_of_it_is_trained(id_model):
    model, (train, *_) = id_model("LLMIDRec")
    model.calculate_loss(next(iter(train))).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_recomputed_activations_give_the_same_gradients(id_model):
    gradients = []
    for recomputed in (False, True):
        model, (train, *_) = id_model("LLMIDRec", gradient_checkpointing=recomputed)
        flags = {getattr(module, "gradient_checkpointing", recomputed) for module in model.modules()}
        assert flags == {recomputed}
        rows = train._dataset[[0, 1, 2]]
        rows["neg_item_id"] = torch.tensor([[1, 2, 3, 4]])
        model.train().calculate_loss(rows).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, rtol=0, atol=1e-6)


def test_sasrec_1b_has_the_published_sizes(id_model):
    """TinyLlama-1.1B without its two tables of 32,000 words, and 512 wide ids."""
    with torch.device("meta"):
        model, _ = id_model("LLMIDRec", item_embed_dim=512, user_llm_config=TINYLLAMA)
    attention, feed_forward = 2 * 2048 * 2048 + 2 * 2048 * 256, 3 * 2048 * 5632
    body = sum(parameter.numel() for parameter in model.user_encoder.parameters())
    assert body == 22 * (attention + feed_forward + 2 * 2048) + 2048 == 968_976_384
    assert body + 2 * 32000 * 2048 == 1_100_048_384, "TinyLlama-1.1B"
    assert model.projection.weight.shape == (2048, 512) and model.item_embedding.weight.shape == (13, 512)
    assert sum(p.numel() for p in model.parameters()) == body + 2048 * 512 + 13 * 512


@pytest.mark.parametrize(
    "sizes, said",
    [(None, " must not be empty"), ("llama", ": 'llama' is not a dict"), ({"hidden_size": 12}, ": .* lacks a model_")],
)
def test_a_config_that_names_no_architecture(id_model, sizes, said):
    with pytest.raises(ConfigError, match=f"user_llm_config{said}"):
        id_model("LLMIDRec", user_llm_config=sizes)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"model_type": "lama"}, "unknown model_type 'lama'; did you mean 'llama'"),
     ({"model_type": "bert", "hidden_size": 12, "num_attention_heads": 2}, "bidirectional"),
     ({"model_type": "llama", "hiden_size": 12}, "no key 'hiden_size'")],
)  # fmt: skip
def test_an_architecture_that_cannot_be_used(id_model, sizes, message):
    with pytest.raises(ModelError, match=message):
        id_model("LLMIDRec", user_llm_config=sizes)
