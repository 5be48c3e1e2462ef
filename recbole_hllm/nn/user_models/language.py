"""User models that are language models over vectors of items: HLLM's User LLM, and E4SRec with its words."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from recbole_hllm.nn.input_features import InputFeatures
from recbole_hllm.nn.prompted import PromptedLLM
from recbole_hllm.nn.ragged import similar_lengths
from recbole_hllm.nn.user_encoder import UserEncoder
from recbole_hllm.nn.user_models.base import Histories, UserModel


class UserLLM(UserModel):
    """HLLM's User LLM (arXiv 2409.12740, section 3.1), and what is added to its inputs (section 4.5).

    Args:
        user_encoder: the language model.
        width: size D of the vectors.
        n_items: rows of an embedding of item ids at the input; 0: none.
        time_num, time_width: as of `InputFeatures`.
        time_of: whether the time of an ``item`` is added to it, or that of what comes ``next``.
    """

    LANGUAGE_MODEL = "user_encoder.backbone"

    def __init__(
        self, user_encoder: UserEncoder, width: int, n_items: int, time_num: int, time_width: int, time_of: str
    ) -> None:
        features: dict[str, Any] = dict(n_items=n_items, time_num=time_num, time_width=time_width)
        super().__init__(dict(width=width, time_of=time_of, **features))
        self.input_features = InputFeatures(width, **features)
        self.user_encoder = user_encoder

    @classmethod
    def build(cls, settings: Mapping[str, Any], backbone: PreTrainedModel | None = None) -> "UserLLM":
        """A user model as its ``settings`` say, around a language model."""
        assert backbone is not None, "it has a folder"
        return cls(UserEncoder(backbone), **settings)

    @property
    def reads_times(self) -> bool:
        """Whether these settings need ``times`` and ``at``."""
        return bool(self.settings["time_num"])

    def forward(self, histories: Histories) -> Tensor:
        """(B, D) vectors of the users, not normalised."""
        seconds = histories.times if self.settings["time_of"] == "item" else histories.next_times()
        items = histories.items
        if n_items := self.settings["n_items"]:  # those that were added since have a vector, and no embedding of an id
            items = items * (items < n_items)
        inputs = self.input_features(histories.vectors, items, seconds)
        return histories.at_last(self.user_encoder(inputs))


class PromptedUser(UserModel):
    """E4SRec and SLMRec (arXiv 2405.17890, section 3.1): a language model reads projected ids between words.

    Args:
        llm: the language model with its words.
        width: size D of the vectors.
        before, after: number of words.
    """

    LANGUAGE_MODEL = "llm.backbone"

    def __init__(self, llm: PromptedLLM, width: int, before: int, after: int) -> None:
        super().__init__(dict(width=width, before=before, after=after))
        self.llm = llm
        self.input_proj = nn.Linear(width, llm.input_size)
        self.score = nn.Linear(llm.output_size, width, bias=False)

    @classmethod
    def build(cls, settings: Mapping[str, Any], backbone: PreTrainedModel | None = None) -> "PromptedUser":
        """A user model as its ``settings`` say, around a language model, the words to be loaded."""
        assert backbone is not None, "it has a folder"
        llm = PromptedLLM(backbone)
        llm.before = nn.Parameter(torch.zeros(settings["before"], llm.input_size))
        llm.after = nn.Parameter(torch.zeros(settings["after"], llm.input_size))
        return cls(llm, **settings)

    def forward(self, histories: Histories) -> Tensor:
        """(B, D) vectors of the users, to be multiplied with the items'."""
        outputs, order = [], []
        for some, longest in similar_lengths(histories.lengths):
            vectors = self.input_proj(histories.vectors[some, :longest])
            outputs += self.llm.last(vectors, histories.lengths[some])
            order.append(some)
        return self.score(torch.cat(outputs)[torch.argsort(torch.cat(order))])
