"""Tiny exports, written by hand: random vectors, a user model of one layer, and an Item LLM of a few numbers."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from recbole_hllm.nn.user_models.base import UserModel
from recbole_hllm.nn.user_models.sequence import HSTUUser, SASRecUser
from recbole_hllm.serving import folder as files
from recbole_hllm.serving.served import ServedVectors

WIDTH, LENGTH = 8, 6
WORDS = ["red", "blue", "green", "shoe", "hat", "coat", "of", "wool", "silk", "the"]


def user_model(times: bool = False) -> UserModel:
    """What reads histories; with times HSTU, else SASRec."""
    if times:
        return HSTUUser(WIDTH, LENGTH, n_layers=1, n_heads=2, with_times=True)
    return SASRecUser(WIDTH, LENGTH, n_layers=1, n_heads=2, inner_size=8, activation="gelu", eps=1e-12)


def titles(n_items: int) -> list[str]:
    """Of items 1 to n."""
    return [f"{WORDS[number % 3]} {WORDS[3 + number % 3]} {number}" for number in range(1, n_items + 1)]


def write_export(
    folder: Path, n_items: int = 20, *, seed: int = 0, texts: bool = True, times: bool = False, users: bool = True,
    value: float | None = None,
) -> Path:  # fmt: skip
    """Writes an export whose items are ``i1``, ``i2``, and so on, and whose users are ``u1`` and ``u2``; ``value``
    stands in place of all numbers of vectors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = user_model(times)
    vectors = torch.randn(n_items + 1, WIDTH, generator=generator)
    vectors = vectors if value is None else torch.full_like(vectors, value)
    served = ServedVectors(model, vectors, cosine=False, length=LENGTH)
    folder.mkdir(parents=True)
    described = files.write_served(served, folder)
    ids = [f"i{number}" for number in range(1, n_items + 1)]
    files.write_items(folder, ids, [{"title": title} for title in titles(n_items)])
    if texts:
        write_encoder(folder / files.ITEM_ENCODER, seed)
    if users:
        items, times_of_items = torch.tensor([1, 2, 3, 4]), torch.tensor([1e9, 2e9, 1e9, 2e9], dtype=torch.float64)
        files.write_histories(
            folder, files.UserHistories.of(["u1", "u2"], items, times_of_items, torch.tensor([0, 2, 4]))
        )
    template = {"text_keys": ["title"], "item_prompt": ""} if texts else None
    manifest = {"program": "test", "model": "Tiny", "dataset": "shop", "served": described, "template": template}
    files.write_manifest(folder, manifest)
    return folder


def write_encoder(folder: Path, seed: int = 0) -> None:
    """Writes a sentence-transformers folder: a BERT of one layer, mean pooling."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=16,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "pooling").mkdir()
    kind = "sentence_transformers.models."
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{kind}Transformer"},
        {"idx": 1, "name": "1", "path": "pooling", "type": f"{kind}Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16}))
    (folder / "pooling" / "config.json").write_text(json.dumps({"pooling_mode": "mean"}))


def damage(folder: Path) -> None:
    """Writes vectors of other items than the export has."""
    save_file({"scored": torch.randn(3, WIDTH)}, folder / files.VECTORS)
