"""Language models written as Hugging Face folders, LoRA merged into their weights."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recbole_hllm.nn.probe import behaviour_of
from recbole_hllm.nn.tuning import merged_weights
from recbole_hllm.nn.words import drop_input_embeddings


def save_llm(llm: Any, folder: Path) -> None:
    """A Hugging Face folder of a language model."""
    llm.save_pretrained(folder, state_dict={name: on_cpu(weight) for name, weight in merged_weights(llm)})


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
