"""The part of the model contract that is about exports: what recommends, and what a training can start from.

A model that scores vectors of users with vectors of items can recommend without RecBole and without data. It derives
from ``Servable`` and says what is needed of it. One that a training can start from derives from ``Exports``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn
from transformers import PreTrainedModel

from recbole_hllm.model.base.contract import CatalogueScorer, Recommender
from recbole_hllm.nn.user_models.base import UserModel
from recbole_hllm.serving.sentence_folder import TextSide
from recbole_hllm.serving.served import Served

U = TypeVar("U", bound=UserModel)


class ReadsTexts(Recommender):
    """Has items that are encoded from texts, or could have."""

    def text_side(self) -> TextSide | None:
        """How items are encoded from texts. Default, None: its items are ids, and new ones have no vector.

        Raises:
            ModelError: the language model has changed on the disk.
        """
        return None


class Servable(CatalogueScorer, ReadsTexts):
    """Recommends without RecBole and without data, once exported."""

    def served(self) -> Served:
        """What recommends.

        Raises:
            ModelError: with these keys it does not stand alone.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class TrainingPart:
    """What a training starts from, beside the language model of items.

    Attributes:
        kind: of the model, by which an export of another kind is recognised.
        user_llm: the language model that reads histories.
        weights: all others, by their names.
        facts: further words that who reads them needs.
    """

    kind: str
    user_llm: PreTrainedModel
    weights: Mapping[str, Tensor]
    facts: Mapping[str, str]


class Exports(ReadsTexts):
    """Its export is one that a training can start from."""

    def training_part(self, text_side: TextSide | None) -> TrainingPart:
        """What such a training needs.

        Args:
            text_side: of this model.
        """
        raise NotImplementedError


class Staged(Exports):
    """Is trained in stages, each from the export of the one before."""

    @classmethod
    def check_llms(cls, config: Any) -> None:
        """Raises UserError where the language models of the first stage do not fit the keys of a later one."""
        raise NotImplementedError


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
