"""The part of the model contract that is about serving: what recommends, taken out of a trained model.

A model that scores vectors of users with vectors of items can recommend without RecBole and without data. It derives
from ``Servable`` and says what is needed of it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from torch import nn

from recbole_hllm.model.base.contract import CatalogueScorer
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.user_models.base import UserModel
from recbole_hllm.serving.served import Served

U = TypeVar("U", bound=UserModel)


class TextSide(NamedTuple):
    """How the vectors of items come from texts, where new items can be encoded.

    Attributes:
        encoder: the language model with pooling, whitening and head.
        tokenizer_source: where its tokenizer lies.
        normalised: whether its vectors are brought to length 1 before they are read.
        template: settings of the ``TextTemplate`` that makes a text of an item's fields.
    """

    encoder: ItemEncoder
    tokenizer_source: str
    normalised: bool
    template: dict[str, Any]


class Servable(CatalogueScorer):
    """Recommends without RecBole and without data, once exported."""

    def served(self) -> Served:
        """What recommends.

        Raises:
            ModelError: with these keys it does not stand alone.
        """
        raise NotImplementedError

    def text_side(self) -> TextSide | None:
        """How items are encoded from texts. Default, None: its items are ids, and new ones have no vector.

        Raises:
            ModelError: the language model has changed on the disk.
        """
        return None


def with_weights(user_model: U, model: nn.Module, renamed: Mapping[str, str] | None = None) -> U:
    """The user model with the weights of the same names of a trained model.

    Args:
        renamed: beginning of a name in the user model -> that in the trained one.
    """
    trained, beginnings = model.state_dict(), renamed or {}

    def theirs(name: str) -> str:
        return next((old + name.removeprefix(new) for new, old in beginnings.items() if name.startswith(new)), name)

    user_model.load_state_dict({name: trained[theirs(name)].detach().float() for name in user_model.state_dict()})
    return user_model
