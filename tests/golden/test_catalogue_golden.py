"""Texts and token ids equal those of the official HLLM code."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from recbole_hllm.data.catalogue import REFERENCE_BEHAVIOURS, ItemCatalogue
from recbole_hllm.data.texts import ItemTexts, TextTemplate

GOLDENS = Path(os.environ.get("HLLM_GOLDENS") or Path(__file__).parent / "data/hllm")


def setting(name, default):
    value = json.loads((GOLDENS / "settings.json").read_text(encoding="utf-8")).get(name)
    return default if value is None else value


def raw_item_texts(keys, item_tokens):
    """Fields as they stand in the CSV file, aligned to the internal ids."""
    (path,) = (GOLDENS / "information").glob("*.csv")
    with open(path, encoding="utf-8", newline="") as file:
        rows = {row["item_id"]: tuple(row[key] for key in keys) for row in csv.DictReader(file)}
    empty = ("",) * len(keys)
    fields = [rows.get(token, empty) for token in item_tokens]
    has_row = np.array([token in rows for token in item_tokens])
    return ItemTexts(tuple(keys), fields, has_row)


@pytest.mark.parametrize("backbone", ["llama", "bert"])
def test_texts_and_token_ids_equal_the_reference(backbone, tmp_path):
    keys = tuple(setting("text_keys", ["title", "tag", "description"]))
    prompt = setting("item_prompt", "Compress the following sentence into embedding: ")
    limit = setting("MAX_TEXT_LENGTH", 256)
    slots = setting("item_emb_token_n", 1)  # zeros at the end of input_ids that stand for [ITEM]
    expected = json.loads((GOLDENS / backbone / "items.json").read_text(encoding="utf-8"))
    item_tokens = json.loads((GOLDENS / "splits.json").read_text(encoding="utf-8"))["item_tokens"]

    catalogue = ItemCatalogue.build(
        raw_item_texts(keys, item_tokens),
        TextTemplate(keys, prompt, separator="", unescape_html=False, missing_words_dropped=True),
        AutoTokenizer.from_pretrained(GOLDENS / "models" / f"{backbone}_item"),
        max_text_length=limit,
        cache=tmp_path,
        reference=REFERENCE_BEHAVIOURS,
    )

    assert catalogue.n_items == len(item_tokens) == len(expected)
    flat, lengths = catalogue.lookup(np.arange(catalogue.n_items))
    for item, ids in zip(expected, flat.split(lengths.tolist()), strict=True):
        assert catalogue.texts[item["id"]] == item["text"], item["id"]
        assert ids.tolist() == item["input_ids"][: item["input_len"] - slots], item["id"]
    assert catalogue.report.truncated == sum(item["truncated"] for item in expected[1:])
