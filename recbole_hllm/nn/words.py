"""The word embeddings of a language model."""

from typing import cast

from torch import nn
from transformers import PreTrainedModel


def word_embeddings(model: PreTrainedModel) -> nn.Embedding:
    """What a model looks words up in: an embedding, or what an architecture has of its own that looks like one."""
    return cast(nn.Embedding, model.get_input_embeddings())  # transformers declares any module


def drop_input_embeddings(model: PreTrainedModel) -> None:
    """Frees the word embeddings of a model that only ever reads vectors."""
    model.set_input_embeddings(None)  # type: ignore[arg-type]  # declared for those that have some


def cut_words(model: PreTrainedModel, number: int) -> None:
    """Takes the word embeddings after so many away, of a model that was saved with more."""
    if len(word_embeddings(model).weight) > number:
        model.resize_token_embeddings(number)
