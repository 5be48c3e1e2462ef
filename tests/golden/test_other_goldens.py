"""The golden tests on another folder of reference numbers, which HLLM_GOLDENS names."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(bool(os.environ.get("HLLM_GOLDENS")), reason="these tests themselves")


def edit(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")


def undefined_with_mean_pooling(results):
    return {"mean_pool": [{**result, "loss": math.nan} for result in results["mean_pool"]]}


def without_first_token(item):
    return {**{key: item[key] for key in ("id", "text", "truncated")}, "input_ids": item["input_ids"][1:]}


@pytest.fixture
def undefined_losses(tmp_path):
    """Numbers of the Llama alone, its texts and losses with mean pooling, which are NaN."""
    root = tmp_path / "goldens"
    left_out = ("bert*", "*.bin", "eval*", "checkpoint*", "*batches*", "*embeddings*", "train30*", "independent*")
    shutil.copytree(HERE / "data" / "hllm", root, ignore=shutil.ignore_patterns(*left_out))
    edit(root / "llama" / "batch_results.json", undefined_with_mean_pooling)
    return root


def let_its_tokenizer_add_nothing(root):
    """An empty text then has no token, and the official mean over it is NaN."""
    edit(root / "models" / "llama_item" / "tokenizer.json", lambda tokenizer: {**tokenizer, "post_processor": None})
    edit(root / "llama" / "items.json", lambda items: [without_first_token(item) for item in items])
    edit(root / "settings.json", lambda settings: {**settings, "MAX_TEXT_LENGTH": settings["MAX_TEXT_LENGTH"] - 1})


def outcomes_on(root, *options):
    """Outcome of every test that these goldens have numbers for."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-vv", "--color=no", "-p", "no:cacheprovider", *options, str(HERE)],
        cwd=HERE.parents[1],
        env={**os.environ, "HLLM_GOLDENS": str(root)},
        capture_output=True,
        text=True,
    )
    found = re.findall(r"^tests/golden/(\S+::\S+) (PASSED|FAILED|ERROR)", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return dict(found)


LOSSES = {
    f"{file}.py::test_loss_with_mean_pooling[llama-{batch}]"
    for file in ("test_hllm_golden", "test_nn_golden")
    for batch in (0, 1)
}


def test_losses_over_an_empty_text_are_finite_here(undefined_losses):
    let_its_tokenizer_add_nothing(undefined_losses)
    outcomes = outcomes_on(undefined_losses)
    assert set(outcomes.values()) == {"PASSED"} and outcomes.keys() > LOSSES


def test_a_loss_that_should_be_a_number_is_none(undefined_losses):
    """Every text has a token."""
    outcomes = outcomes_on(undefined_losses)
    assert {name for name, outcome in outcomes.items() if outcome == "FAILED"} == LOSSES


def test_a_checkpoint_without_numbers_is_compared_with_nothing(tmp_path):
    """The reference trained on a loss that was NaN; the checkpoint of the BERT is compared as ever."""
    root = tmp_path / "goldens"
    shutil.copytree(HERE / "data" / "hllm", root)
    file = root / "llama" / "pytorch_model.bin"
    saved = torch.load(file, weights_only=True)
    torch.save({name: torch.full_like(weights, torch.nan) for name, weights in saved.items()}, file)
    outcomes = outcomes_on(root, "-k", "checkpoint and not other_goldens")
    assert set(outcomes.values()) == {"PASSED"} and all("bert" in name for name in outcomes)
    assert any("test_official_checkpoint_is_loaded" in name for name in outcomes)
