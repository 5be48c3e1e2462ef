"""The command line on MovieLens-100k, which comes with RecBole: HLLM beside Pop, in one table of processes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).parents[2]
LLM = ROOT / "tests" / "golden" / "data" / "hllm" / "models" / "llama_item"


def test_hllm_beside_pop(tmp_path):
    """Users of 20 to 24 ratings, an Item LLM from scratch; other tests of tables run rows in their own process.

    Each row has the threads it is given and its own memory, though the program that starts it holds more.
    """
    keys = {
        "user_inter_num_interval": "[20,25)",
        "MAX_ITEM_LIST_LENGTH": 10,
        "topk": [10],
        "metrics": ["Recall", "NDCG"],
        "valid_metric": "NDCG@10",
        "mask_history": True,
        "show_progress": False,
        "use_gpu": False,
        "sanity_rows": False,
        "HLLM.item_pretrain_dir": str(LLM),
        "HLLM.item_llm_init": False,
        "HLLM.item_llm_layers": 1,
        "HLLM.user_llm_config": {
            "model_type": "llama", "vocab_size": 8, "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        },
        "HLLM.text_keys": ["movie_title", "class"],
        "HLLM.MAX_TEXT_LENGTH": 16,
        "HLLM.num_negatives": 64,
        "HLLM.epochs": 1,
        "HLLM.nce_thres": None,
    }  # fmt: skip
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(keys))
    words = ["--model=HLLM,Pop", "--dataset=ml-100k", "--config_files=keys.yaml", "--run_dir=my table"]
    program = (
        "import runpy; held = bytearray(2_500_000_000); "
        f"runpy.run_path({str(ROOT / 'run_recbole_hllm.py')!r}, run_name='__main__')"
    )
    environment = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, *words, f"--cache_dir={tmp_path / 'cache'}"],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "my table" / "table.json").read_text())
    header, rows = table["header"], {row["model"]: row for row in table["rows"]}
    assert 50 < header["users"] < 400 and 100 < header["items"] < 1682 and header["masking"] == "whole history"
    lines = done.stdout.splitlines()
    assert "ml-100k" in done.stdout and "table.md, table.csv, table.json" in lines[-1]
    names = [line.split()[0] for line in lines if re.match(r"\S+  ", line)]
    assert [name for name in names if name in rows] == ["HLLM", "Pop"]
    read = next(number for number, line in enumerate(lines) if re.search(" (leads|tie) in ndcg@10 with ", line))
    assert lines[read] in (tmp_path / "my table" / "table.md").read_text()
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    for row in rows.values():
        assert row["costs"]["device"] == "2 CPU threads" and 100e6 < row["costs"]["peak_memory_bytes"] < 2.4e9
    counts, weights = (rows[name]["costs"]["parameters_total"] for name in ("Pop", "HLLM"))
    assert counts == 536 < weights  # one of each item, and of padding
    ranks = {model: np.load(tmp_path / "my table" / model / "ranks-test.npz") for model in rows}
    for key in ("user", "target"):
        assert np.array_equal(ranks["HLLM"][key], ranks["Pop"][key])
    guess = 10 / header["items"]
    assert rows["Pop"]["test_result"]["recall@10"] > 1.5 * guess
    for model, row in rows.items():
        assert row["test_result"]["recall@10"] == round(float(np.mean(ranks[model]["rank"] <= 10)), 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "keys.yaml", "my table"]
