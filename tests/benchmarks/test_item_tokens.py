"""The measuring program counts item tokens as it says, and finds what a row takes to the plain row's quality."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.layers import LowerLayers

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def program(monkeypatch):
    """The program as a module; what it replaces is put back."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(ItemEncoder, "pooled", ItemEncoder.pooled)
    return importlib.import_module("item_tokens")


def line(step, tokens, quality):
    return {"step": step, "item_tokens": tokens, "ndcg@10": quality, "cpu_seconds": 1.0}


def test_summary_takes_the_first_validation_that_is_as_good(program):
    seen = {
        "plain": [line(13, 300, 0.05), line(26, 600, 0.07), line(39, 900, 0.06)],
        "a": [line(13, 100, 0.04), line(26, 180, 0.071), line(39, 260, 0.08)],
        "b": [line(13, 10, 0.06), line(26, 20, 0.05)],
    }
    found = program.summary(seen)
    assert found["quality"] == 0.07 and found["item_tokens_to_quality"] == pytest.approx(0.3)
    assert {row: numbers["ratio"] for row, numbers in found["rows"].items()} == {"plain": 1, "a": 0.3, "b": None}
    assert {row: numbers["within_a_third"] for row, numbers in found["rows"].items()} == {
        "plain": None, "a": 0.071, "b": 0.06,
    }  # fmt: skip
    assert found["rows"]["a"]["per_million"] == pytest.approx(0.08 / 260e-6)
    text = program.table(found)
    assert "| a | 39 | 0.0800 | 39 |" in text and "| b | 26 | 0.0600 | 13 | 0.00 |" in text and "not reached" in text


def test_tokens_count_by_layers_and_not_in_validations(program, tiny_backbone):
    encoder = ItemEncoder(tiny_backbone, item_emb_token_n=0, max_text_length=8)
    text = torch.tensor([3, 4, 5, 6, 7]), torch.tensor([2, 3])
    tokens = program.Tokens()
    encoder(*text)
    assert tokens.read == 5
    lower = LowerLayers(tiny_backbone, 1)
    with lower.watched() as states:
        encoder(*text)
    with lower.left_out(states[0]):
        encoder(*text)
    assert tokens.read == 5 + 5 + 5 / 2
    with tokens.paused():
        encoder(*text)
    assert tokens.read == 12.5


@pytest.fixture
def tiny_backbone():
    from recbole_hllm.nn.backbone import BackboneSpec, load_backbone

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return load_backbone(BackboneSpec(None, "scratch", config={"model_type": "llama", "vocab_size": 40, **sizes}))


def test_rows_are_trained_once(program, tmp_path, monkeypatch, capsys):
    trained = []

    def run(command, check, env):
        row = command[-1].removeprefix("--train=")
        trained.append(row)
        (tmp_path / f"{row}.jsonl").write_text(json.dumps(line(13, 100 if row == "plain" else 20, 0.05)) + "\n")

    monkeypatch.setattr(program, "subprocess", SimpleNamespace(run=run))
    words = ["item_tokens.py", "--data_path", "x", "--folder", str(tmp_path), "--json", str(tmp_path / "numbers.json")]
    for rows in ("plain,cached", "plain,cached,frozen"):
        monkeypatch.setattr(sys, "argv", [*words, "--rows", rows])
        program.main()
    assert trained == ["plain", "cached", "frozen"]
    assert json.loads((tmp_path / "numbers.json").read_text())["item_tokens_to_quality"] == pytest.approx(0.2)
    assert "| frozen |" in capsys.readouterr().out


def test_a_row_writes_what_each_validation_found(program, tmp_path, write_dataset, tiny_llm):
    users = [[(3 * user + step * (user + 2)) % 12 for step in range(4 + user % 5)] for user in range(10)]
    rows = [(f"u{user}", f"i{item}", time) for user, items in enumerate(users) for time, item in enumerate(items)]
    items = ("item_id:token\ttitle:token_seq", [(f"i{item}", f"w{item} w{2 * item}") for item in range(12)])
    write_dataset(tmp_path, "toy", rows, items=items)
    arguments = SimpleNamespace(threads=1, data_path=str(tmp_path), seed=1, folder=tmp_path)
    words = {
        "dataset": "toy", "item_pretrain_dir": tiny_llm("llama"), "text_keys": "['title']", "train_batch_size": 4,
        "eval_every_steps": 2, "max_steps": 4, "use_gpu": False, "precision": "fp32",
    }  # fmt: skip
    program.train("cached-64-live", arguments, [f"--{key}={value}" for key, value in words.items()])
    lines = program.seen_of(["cached-64-live"], tmp_path)["cached-64-live"]
    assert [one["step"] for one in lines] == [2, 4]
    assert 0 < lines[0]["item_tokens"] < lines[1]["item_tokens"] and lines[1]["cache_age"] >= 0
