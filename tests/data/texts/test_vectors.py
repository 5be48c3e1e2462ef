import json
import os
import shutil

import numpy as np
import pytest
import torch

from recbole_hllm.data.texts import vectors as module
from recbole_hllm.data.texts.catalogue import ItemCatalogue
from recbole_hllm.data.texts.vectors import cached_item_vectors, weights_digest
from recbole_hllm.errors import DataError

WIDTH = 3
TOKENS = [[], [5], [5, 6], [], [7, 8, 9], [6, 5]]
SETTINGS = {"weights": "abc", "precision": "fp32"}


def catalogue_of(tokens):
    lengths = np.array([0, *map(len, tokens)])
    return ItemCatalogue(np.array(sum(tokens, []), np.int32), lengths.cumsum(), [""] * len(tokens), None)


class Encoder:
    """A vector from the tokens of each item; ``seen`` holds the ids of every call."""

    def __init__(self, tokens, factor=1.0):
        self.tokens, self.factor, self.seen = tokens, factor, []

    def __call__(self, ids):
        self.seen.append(ids.tolist())
        rows = [[1 + sum(self.tokens[i]), len(self.tokens[i]), (self.tokens[i] or [0])[-1]] for i in ids]
        return np.array(rows, np.float64) * self.factor / 7

    @property
    def items(self):
        return sorted(sum(self.seen, []))


def expected(tokens):
    return np.concatenate([np.zeros((1, WIDTH)), Encoder(tokens)(np.arange(1, len(tokens)))]).astype(np.float32)


def compute(tokens, cache, settings=SETTINGS, encoder=None):
    encoder = encoder or Encoder(tokens)
    result = cached_item_vectors(encoder, catalogue_of(tokens), width=WIDTH, settings=settings, cache=cache)
    assert result.dtype == np.float32 and result.shape == (len(tokens), WIDTH)
    return result, encoder.items


def entries(cache):
    return sorted(path.name for path in cache.iterdir() if not path.name.startswith("."))


def test_vectors_are_computed_once(tmp_path):
    first, encoded = compute(TOKENS, tmp_path / "cache")
    assert encoded == [1, 2, 3, 4, 5]
    second, encoded = compute(TOKENS, tmp_path / "cache")
    assert encoded == []
    for result in (first, second):
        np.testing.assert_array_equal(result, expected(TOKENS))
    assert isinstance(second, np.memmap) and not second.flags.writeable
    assert len(entries(tmp_path / "cache")) == 1


def test_without_a_cache_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result, encoded = compute(TOKENS, None)
    np.testing.assert_array_equal(result, expected(TOKENS))
    assert encoded == [1, 2, 3, 4, 5] and list(tmp_path.iterdir()) == []


def test_blocks_are_small(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 2)
    encoder = Encoder(TOKENS)
    result, _ = compute(TOKENS, tmp_path, encoder=encoder)
    assert encoder.seen == [[1], [2, 3], [4, 5]]
    np.testing.assert_array_equal(result, expected(TOKENS))
    assert compute(TOKENS, tmp_path)[1] == []


def test_only_new_and_changed_items_are_encoded(tmp_path):
    compute(TOKENS, tmp_path)
    later = [[], [5], [5, 60], [], [7, 8, 9], [6, 5], [1], [5, 6]]  # 2 changed, 6 new, 7 is what 2 was
    result, encoded = compute(later, tmp_path)
    assert encoded == [2, 6]
    np.testing.assert_array_equal(result, expected(later))
    assert compute(later, tmp_path)[1] == [] and compute(TOKENS, tmp_path)[1] == []


def test_an_interrupted_call_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 2)

    class Interrupted(Encoder):
        def __call__(self, ids):
            if 4 in ids:
                raise KeyboardInterrupt
            return super().__call__(ids)

    first = Interrupted(TOKENS)
    with pytest.raises(KeyboardInterrupt):
        compute(TOKENS, tmp_path, encoder=first)
    assert first.items == [1, 2, 3] and entries(tmp_path) == []
    result, encoded = compute(TOKENS, tmp_path)
    assert encoded == [4, 5]
    np.testing.assert_array_equal(result, expected(TOKENS))


def test_items_may_have_moved_and_gone(tmp_path):
    compute(TOKENS, tmp_path)
    other = [[], [6, 5], [7, 8, 9], [5]]
    result, encoded = compute(other, tmp_path)
    assert encoded == []
    np.testing.assert_array_equal(result, expected(other))


def test_the_newest_entry_is_the_one_that_helps(tmp_path):
    catalogues = [[[], [1]], [[], [2]]]
    for age, tokens in enumerate(catalogues):
        before = set(tmp_path.glob("*/meta.json"))
        compute(tokens, tmp_path)
        (made,) = set(tmp_path.glob("*/meta.json")) - before
        os.utime(made, (1000 + age, 1000 + age))
    assert compute([[], [2], [1]], tmp_path)[1] == [2]


@pytest.mark.parametrize("change", [{"weights": "abd"}, {"precision": "bf16"}, {"pooling": "mean"}])
def test_other_settings_share_nothing(tmp_path, change):
    compute(TOKENS, tmp_path)
    assert compute(TOKENS, tmp_path, {**SETTINGS, **change})[1] == [1, 2, 3, 4, 5]
    assert len(entries(tmp_path)) == 2


# ---- entries that are not to be trusted ----


def entry_of(cache):
    (entry,) = entries(cache)
    return cache / entry


def flip_a_vector(entry):
    content = bytearray((entry / "vectors.npy").read_bytes())
    content[-2] ^= 1
    (entry / "vectors.npy").write_bytes(content)


def flip_a_token_hash(entry):
    content = bytearray((entry / "tokens.npy").read_bytes())
    content[-1] ^= 1
    (entry / "tokens.npy").write_bytes(content)


def cut(entry):
    content = (entry / "vectors.npy").read_bytes()
    (entry / "vectors.npy").write_bytes(content[:-4])


def other_dtype(entry):
    np.save(entry / "vectors.npy", np.load(entry / "vectors.npy").astype(np.float64))


def no_checksum(entry):
    description = json.loads((entry / "meta.json").read_text())
    del description["arrays"]["vectors"]["sha256"]
    (entry / "meta.json").write_text(json.dumps(description))


def other_weights(entry):
    description = json.loads((entry / "meta.json").read_text())
    description["meta"]["weights"] = "xyz"
    (entry / "meta.json").write_text(json.dumps(description))


def no_meta(entry):
    (entry / "meta.json").write_text("{")


def arrays_missing(entry):
    description = json.loads((entry / "meta.json").read_text())
    del description["arrays"]["tokens"]
    (entry / "meta.json").write_text(json.dumps(description))


DAMAGE = [flip_a_vector, flip_a_token_hash, cut, other_dtype, no_checksum, other_weights, no_meta, arrays_missing]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_entry_is_made_again(tmp_path, damage):
    compute(TOKENS, tmp_path)
    damage(entry_of(tmp_path))
    result, encoded = compute(TOKENS, tmp_path)
    assert encoded == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(result, expected(TOKENS))
    again, encoded = compute(TOKENS, tmp_path)
    assert encoded == []
    np.testing.assert_array_equal(again, expected(TOKENS))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_gives_no_rows(tmp_path, damage):
    compute(TOKENS, tmp_path)
    damage(entry_of(tmp_path))
    assert compute([*TOKENS, [1]], tmp_path)[1] == [1, 2, 3, 4, 5, 6]


def test_an_entry_under_the_name_of_another_catalogue(tmp_path):
    compute(TOKENS, tmp_path / "a")
    later = [[], [5], [60]]
    compute(later, tmp_path / "b")
    right = entry_of(tmp_path / "b")
    shutil.rmtree(right)
    shutil.copytree(entry_of(tmp_path / "a"), right)
    result, encoded = compute(later, tmp_path / "b")
    assert encoded == [2]
    np.testing.assert_array_equal(result, expected(later))
    assert compute(later, tmp_path / "b")[1] == []


def test_a_full_disk_is_told_before_anything_is_encoded(tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10, 10, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    encoder = Encoder(TOKENS)
    with pytest.raises(DataError, match="not enough disk.*cache_dir"):
        compute(TOKENS, tmp_path, encoder=encoder)
    assert encoder.seen == []


# ---- weights ----


def test_weights_digest():
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1.5)}
    key = weights_digest(weights.items())
    assert len(key) == 24 and weights_digest({name: w.clone() for name, w in weights.items()}.items()) == key
    transposed = weights["a"].T.contiguous().T  # other memory, equal numbers
    assert weights_digest({**weights, "a": transposed}.items()) == key
    others = [
        {**weights, "a": weights["a"] + 1e-6},
        {**weights, "a": weights["a"].view(3, 2)},
        {**weights, "b": weights["b"].double()},
        {"a": weights["a"], "c": weights["b"]},
        {"a": weights["a"]},
    ]
    assert len({key, *(weights_digest(other.items()) for other in others)}) == 6
    assert weights_digest({"a": torch.ones(2, dtype=torch.bfloat16)}.items())
