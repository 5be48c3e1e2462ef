"""Language models written as Hugging Face folders, LoRA merged into their weights."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.backbone import quiet
from recbole_hllm.nn.probe import behaviour_of
from recbole_hllm.nn.tuning import merged_weights
from recbole_hllm.nn.words import drop_input_embeddings, word_embeddings


def save_llm(llm: Any, folder: Path) -> None:
    """A Hugging Face folder of a language model."""
    with quiet():
        llm.save_pretrained(folder, state_dict={name: on_cpu(weight) for name, weight in merged_weights(llm)})


def save_with_word(llm: Any, folder: Path, number: int, vector: torch.Tensor) -> None:
    """A Hugging Face folder of a language model with one more word.

    Args:
        number: of the word; its row is the last one, or one of a table that has more rows than words.
        vector: (H,) what the model is to read in its place.

    Raises:
        ModelError: the model makes something else of a row than a multiple of it.
    """
    words = word_embeddings(llm)
    table = _with_row(words, number, vector)
    weights = {name: on_cpu(weight) for name, weight in merged_weights(llm)}
    same = {name for name, weight in llm.state_dict().items() if weight.data_ptr() == words.weight.data_ptr()}
    with quiet():
        llm.save_pretrained(folder, state_dict={**weights, **dict.fromkeys(same, table)})
    config = copy.deepcopy(llm.config)
    config.vocab_size = len(table)
    config.save_pretrained(folder)


@torch.no_grad()
def _with_row(words: nn.Embedding, number: int, vector: torch.Tensor) -> torch.Tensor:
    """(V, H) rows of which ``number`` is looked up as the vector: some models scale what they look up."""
    rows = on_cpu(words.weight)
    longest = int(rows.norm(dim=1).argmax())
    read = on_cpu(words(torch.tensor([longest], device=words.weight.device))[0])
    row = rows[longest].double()  # so that rounding, which depends on the CPU, makes no other number of 1
    scale = (read.double() @ row) / (row @ row)
    if not torch.allclose(read.double(), scale * row, rtol=1e-3, atol=0):
        raise ModelError("export: this language model makes more of a word than its row; an [ITEM] token cannot be one")
    table = torch.cat([rows, rows.new_zeros(max(0, number + 1 - len(rows)), rows.shape[1])])
    table[number] = on_cpu(vector).double() / scale
    return table


def save_without_words(llm: Any, folder: Path) -> None:
    """A Hugging Face folder of a language model that reads vectors. Its word embeddings were freed: a table of one zero
    row stands for them, so that any program loads the folder."""
    llm.set_input_embeddings(nn.Embedding.from_pretrained(torch.zeros(1, behaviour_of(llm).input_size)))
    try:
        save_llm(llm, folder)
    finally:
        drop_input_embeddings(llm)
    config = copy.deepcopy(llm.config)
    config.vocab_size = 1
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    config.save_pretrained(folder)


def on_cpu(weight: torch.Tensor) -> torch.Tensor:
    """A weight as a file has it."""
    return weight.detach().cpu().contiguous()
