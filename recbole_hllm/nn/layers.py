"""The lower layers of a language model, left out where what they make of a text is known already."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from recbole_hllm.errors import ModelError


def repeated_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of a language model, from the first on.

    Raises:
        ModelError: it is not built of one list of them, such as ALBERT, whose layers share their weights.
    """
    depth = model.config.num_hidden_layers
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == depth]
    if len(lists) != 1:
        raise ModelError(
            f"a {model.config.model_type} model has no single list of its {depth} layers, the last of which could be "
            "trained alone; take item_llm_tuning: full, lora or frozen"
        )
    return lists[0]


def last_layers(model: PreTrainedModel, number: int) -> nn.ModuleList:
    """The last layers of a language model, which has others below them.

    Raises:
        ModelError: it has none, or see ``repeated_layers``.
    """
    layers = repeated_layers(model)
    if not 0 < number < len(layers):
        few = f"{len(layers)} layers; give 1 to {len(layers) - 1}, or" if len(layers) > 1 else "one layer alone;"
        raise ModelError(
            f"item_llm_layers_trained: {number}, but the language model has {few} take item_llm_tuning: full"
        )
    return layers[-number:]


class LowerLayers:
    """All layers of a language model but the last ones.

    Args:
        model: the language model.
        last: number of the last ones.

    Raises:
        ModelError: see ``last_layers``.
    """

    def __init__(self, model: PreTrainedModel, last: int) -> None:
        last_layers(model, last)
        self.layers = list(repeated_layers(model)[:-last])
        self._alone = [True] * len(self.layers)  # whether a layer gives a tensor, and not the first of a tuple

    @contextmanager
    def watched(self) -> Iterator[list[Tensor]]:
        """A list that gets what they make of each text that is read meanwhile, (N, W, H); what form each gives it in
        is known then."""
        states: list[Tensor] = []

        def hook(place: int) -> Callable[[nn.Module, Any, Any], None]:
            def note(_layer: nn.Module, _inputs: Any, output: Any) -> None:
                self._alone[place] = isinstance(output, Tensor)
                if place + 1 == len(self.layers):
                    states.append(output if self._alone[place] else output[0])

            return note

        handles = [layer.register_forward_hook(hook(place)) for place, layer in enumerate(self.layers)]
        try:
            yield states
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def left_out(self, states: Tensor) -> Iterator[None]:
        """They compute nothing meanwhile, and the last of them gives known states.

        Args:
            states: (N, W, H) what they would make of what is read. They have been watched before.
        """
        for place, layer in enumerate(self.layers):
            vars(layer)["forward"] = self._handing_on(place, states if place + 1 == len(self.layers) else None)
        try:
            yield
        finally:
            for layer in self.layers:
                del vars(layer)["forward"]

    def _handing_on(self, place: int, states: Tensor | None) -> Callable[..., Any]:
        """In place of a layer: gives states, or what comes in."""

        def forward(*arguments: Any, **named: Any) -> Any:
            given = states
            if given is None:
                given = arguments[0] if arguments else named["hidden_states"]
            return given if self._alone[place] else (given,)

        return forward
