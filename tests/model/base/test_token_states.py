"""HLLM whose Item LLM is trained in its last layers, with the states below them stored."""

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.nn.chunked import chunk_sizes
from recbole_hllm.nn.layers import repeated_layers
from recbole_hllm.nn.tuning import check_tuning
from recbole_hllm.runs.run import run
from recbole_hllm.training.work import WorkCounter

WINDOWS = Interaction(
    {
        "item_id_list": torch.tensor([[3, 5, 3, 9, 1], [2, 8, 0, 0, 0], [7, 4, 6, 0, 0]]),
        "neg_item_id": torch.tensor([[5, 11, 2, 5, 10, 12]]),
    }
)
FULL = {"item_llm_tuning": "full", "item_llm_layers_trained": None}
LAST = {"item_llm_tuning": "last", "item_llm_layers_trained": 1, "item_emb_token_n": 0, "item_llm_dropout": 0.0}


@pytest.fixture
def variant(build, tiny_llm):
    """(kind, **keys) -> HLLM whose Item LLM has three layers."""

    def make(kind, **keys):
        layers = {"n_layer": 3} if kind == "gpt2" else {"num_hidden_layers": 3}
        return build(**{**LAST, "item_pretrain_dir": tiny_llm(kind, **layers), **keys})[0]

    return make


def steps(model, number=3):
    """Losses and gradients of some steps of a plain optimizer."""
    optimizer = torch.optim.AdamW([{**group, "lr": 0.02} for group in model.parameter_groups()])
    losses = []
    for _ in range(number):
        loss = model.train().calculate_loss(WINDOWS)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        optimizer.step()
    return losses, gradients


@pytest.mark.parametrize("kind", ["llama", "bert"])
@pytest.mark.parametrize("keys", [{}, {"recompute_items": True}, {"gradient_checkpointing": True}])
def test_trains_as_if_all_layers_were_computed(variant, kind, keys):
    model, plain = variant(kind, **keys), variant(kind, **FULL)
    plain.item_encoder.backbone.requires_grad_(False)
    repeated_layers(plain.item_encoder.backbone)[-1].requires_grad_(True)
    losses, gradients = steps(model)
    expected, wanted = steps(plain)
    assert losses == pytest.approx(expected, abs=1e-5) and losses[-1] < losses[0]
    assert gradients.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=1e-3, msg=name)
    check_tuning(model)


def test_lower_layers_are_computed_for_the_catalogue_alone(variant):
    model = variant("llama")
    model.train().calculate_loss(WINDOWS)
    calls = []
    layers = repeated_layers(model.item_encoder.backbone)
    hooks = [
        layer.self_attn.register_forward_hook(lambda *_, place=place: calls.append(place))
        for place, layer in enumerate(layers)
    ]
    model.train().calculate_loss(WINDOWS)
    assert set(calls) == {2}
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_memory_is_that_of_the_trained_layers(variant, kind):
    """Counted in all tensors that the backward pass of one chunk would have; with what is at work, twice a layer's."""
    model, full = variant(kind, item_chunk_tokens=500), variant(kind, **FULL)
    model.train().calculate_loss(WINDOWS)  # states are kept from here on
    weights = {part.untyped_storage().data_ptr() for part in (*model.parameters(), *model.buffers())}
    ids, held = torch.arange(1, 13), []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: held.append(one) or one, lambda one: one):
        vectors = model._encode_own(ids)
    sizes = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in held}
    found = sum(size for place, size in sizes.items() if place not in weights)
    (chunk,) = chunk_sizes(model.catalogue.lookup(ids)[1].tolist(), 500)
    memory, all_layers = (one.item_memory._measured(one.item_encoder) for one in (model, full))
    chunk = chunk[0], chunk[1] - 1  # no [ITEM] token
    assert memory.kept(*chunk) == pytest.approx(found - vectors.nbytes, rel=0.1)
    assert memory.at_work(*chunk) == pytest.approx(2 * memory.kept(*chunk))
    assert all_layers.at_work(*chunk) == pytest.approx(memory.at_work(*chunk), rel=0.1), "a layer's, twice"
    assert all_layers.kept(*chunk) > 2.5 * memory.kept(*chunk)


def test_work_is_that_of_the_trained_layers(variant, toy, tiny_llm):
    model = variant("llama")
    config = toy(**LAST, item_pretrain_dir=tiny_llm("llama", num_hidden_layers=3))[0]
    work = WorkCounter(config, model, labelled=False).of(WINDOWS)
    ids = sorted({*WINDOWS["item_id_list"].flatten().tolist(), *WINDOWS["neg_item_id"].flatten().tolist()} - {0})
    tokens = model.item_reading().tokens[ids]
    layer = repeated_layers(model.item_encoder.backbone)[-1]
    matrices, of_users = (
        sum(weight.numel() for weight in part.parameters() if weight.dim() > 1) for part in (layer, model.user_encoder)
    )
    attention = 4 * model.item_encoder.backbone.config.hidden_size * (tokens**2).sum()
    # Of each target with each negative: forward, two gradients, and the filter's cosines.
    targets, negatives = (WINDOWS["item_id_list"][:, 1:] != 0).sum().item(), WINDOWS["neg_item_id"].numel()
    scores = 8 * targets * negatives * model.user_encoder.hidden_size
    assert work.flops == 6 * (matrices * tokens.sum() + of_users * work.positions) + 3 * attention + scores


def test_only_the_last_layers_change(variant):
    model = variant("llama")
    before = {name: weight.clone() for name, weight in model.item_encoder.backbone.state_dict().items()}
    steps(model)
    after = model.item_encoder.backbone.state_dict()
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert changed and all(name.startswith("layers.2.") for name in changed)


def test_a_run_is_evaluated_and_exported(settings, tmp_path, tiny_llm):
    keys = {**LAST, "item_pretrain_dir": tiny_llm("llama", num_hidden_layers=2), "cache_dir": str(tmp_path / "cache")}
    result = run(config_dict=settings(**keys), run_dir=tmp_path / "run")
    assert len(list((tmp_path / "cache").glob("states-*"))) == 1
    again = run(config_dict={"evaluate_only": True}, run_dir=tmp_path / "run")
    assert again["test_result"] == result["test_result"]


@pytest.mark.parametrize(
    "keys, error, words",
    [
        ({"item_llm_layers_trained": None}, ConfigError, "belong together"),
        ({"item_llm_tuning": "full"}, ConfigError, "belong together"),
        ({"item_llm_layers_trained": 3}, ModelError, "has 3 layers; give 1 to 2"),
        ({"item_emb_token_n": 1}, ConfigError, "where a trained \\[ITEM\\] token cannot stand"),
    ],
)
def test_keys_that_do_not_fit(variant, keys, error, words):
    with pytest.raises(error, match=words):
        variant("llama", **keys)
