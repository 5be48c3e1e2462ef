"""HLLM whose Item LLM is trained in its last layers, with the states below them stored."""

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.nn.layers import repeated_layers
from recbole_hllm.nn.tuning import check_tuning
from recbole_hllm.runs.run import run

WINDOWS = Interaction(
    {
        "item_id_list": torch.tensor([[3, 5, 3, 9, 1], [2, 8, 0, 0, 0], [7, 4, 6, 0, 0]]),
        "neg_item_id": torch.tensor([[5, 11, 2, 5, 10, 12]]),
    }
)
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
    model, plain = variant(kind, **keys), variant(kind, item_llm_tuning="full", item_llm_layers_trained=None)
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
