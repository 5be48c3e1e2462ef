"""How many item tokens each cheaper option of HLLM takes to reach the validation NDCG@10 of the plain recipe.

    PYTHONPATH=. python benchmarks/item_tokens.py --data_path FOLDER [--rows plain,cached] [--folder FOLDER]
        [--json FILE] [--threads 1] [--seed 2020] [--key=value ...]

The data set is amazon-scientific-2018, leave-one-out. Each row trains HLLM, in a process of its own, with the keys of
its name in `ROWS` and those of the command line, and is validated every 13 steps. What it has seen is written to
FOLDER/ROW.jsonl; a row that is there already is not trained again, so that rows can be added and a program that was
stopped goes on with the next one.

An item token is a token of a text that the Item LLM reads in training, with or without gradients: those of steps, of a
cache, of stored states and vectors. Validations do not count, nor does padding. A token of which some layers alone are
computed counts as their share of all layers. ``item_tokens_to_quality`` is the least number of item tokens that a row
takes to the best validation NDCG@10 of the plain row, divided by the number that the plain row takes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMON = {
    "dataset": "amazon-scientific-2018", "MAX_ITEM_LIST_LENGTH": 20, "text_keys": ["title", "brand", "categories"],
    "MAX_TEXT_LENGTH": 24, "train_batch_size": 128, "metrics": ["NDCG", "Recall"], "topk": [10],
    "valid_metric": "NDCG@10", "eval_batch_size": 1024, "stopping_step": 1000, "show_progress": False, "epochs": 3,
    "eval_every_steps": 13, "item_vector_cache": False, "state": "warning",
}  # fmt: skip
CACHED = {"negatives": "cached"}
MEMORY = {"num_negatives": 64, "cross_batch_negatives": 4096}
RECIPE = {  # near properties/recipes/HLLM-small-cpu.yaml, by texts alone
    "item_llm_tuning": "frozen", "item_whitening": "zca", "item_head_hidden": 256, "negatives": "catalogue",
    "nce_thres": None, "input_dropout": 0.3, "scheduler": "none", "epochs": 12,
    "user_llm_config": {
        "model_type": "llama", "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 2048, "vocab_size": 8,
    },
}  # fmt: skip
ROWS: dict[str, dict] = {
    "plain": {},
    "in-batch": {"num_negatives": 0, "in_batch_negatives": True},
    "memory": MEMORY,
    "memory-corrected": {**MEMORY, "cross_batch_correction": True},
    "cached": {**CACHED, "num_negatives": 64},
    "cached-256-live": {**CACHED, "live_items": 256},
    "cached-128-live": {**CACHED, "live_items": 128},
    "cached-128-live-6-epochs": {**CACHED, "live_items": 128, "epochs": 6},
    "cached-192-live-5-epochs": {**CACHED, "live_items": 192, "epochs": 5},
    "cached-128-live-6-epochs-faster": {**CACHED, "live_items": 128, "epochs": 6, "item_learning_rate": 1e-4},
    "cached-64-live": {**CACHED, "live_items": 64},
    "cached-64-live-9-epochs": {**CACHED, "live_items": 64, "epochs": 9},
    "last-2": {"item_llm_tuning": "last", "item_llm_layers_trained": 2},
    "last-2-cached-128-live": {"item_llm_tuning": "last", "item_llm_layers_trained": 2, **CACHED, "live_items": 128},
    "last-2-cached-256-live-6-epochs": {
        "item_llm_tuning": "last", "item_llm_layers_trained": 2, **CACHED, "live_items": 256, "epochs": 6,
    },
    "lora": {"item_llm_tuning": "lora", "item_learning_rate": 1e-3},
    "frozen": {"item_llm_tuning": "frozen"},
    "frozen-4096": {"item_llm_tuning": "frozen", "num_negatives": 4096},
    "frozen-catalogue-12-epochs": {"item_llm_tuning": "frozen", "negatives": "catalogue", "epochs": 12},
    "frozen-whitened-catalogue": RECIPE,
}

AGES = ("memory_age", "cache_age")


class Tokens:
    """Counts the tokens that Item LLMs read from now on."""

    def __init__(self) -> None:
        from recbole_hllm.nn.item_encoder import ItemEncoder
        from recbole_hllm.nn.layers import repeated_layers

        self.read, self.counting = 0.0, True
        pooled = ItemEncoder.pooled

        def counted(encoder, tokens, lengths):
            if self.counting:
                layers = repeated_layers(encoder.backbone)
                computed = sum("forward" not in vars(layer) for layer in layers)  # the others are left out
                self.read += float(lengths.sum()) * computed / len(layers)
            return pooled(encoder, tokens, lengths)

        ItemEncoder.pooled = counted

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing counts meanwhile."""
        self.counting = False
        try:
            yield
        finally:
            self.counting = True


def train(row: str, arguments, words: list[str]) -> None:
    """Trains a row and writes a line of its file after each validation."""
    import torch
    from recbole.utils import init_seed

    from recbole_hllm import Config, create_dataset, data_preparation
    from recbole_hllm.training.trainer import Trainer
    from recbole_hllm.verbs.line import parse_arguments

    torch.set_num_threads(arguments.threads)
    keys = {**COMMON, **ROWS[row], "data_path": arguments.data_path, "seed": arguments.seed, **parse_arguments(words)}
    config = Config("HLLM", config_dict=keys)
    init_seed(config["seed"], config["reproducibility"])
    training, validation, _ = data_preparation(config, create_dataset(config))
    tokens, file = Tokens(), arguments.folder / f"{row}.part"
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    model = config.spec.build(config, training._dataset)

    class Counted(Trainer):
        """Tells what each validation found, and what was read and computed until then."""

        validating = 0.0

        def evaluate(self, *given, **named):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
            with tokens.paused():
                result = super().evaluate(*given, **named)
            after = resource.getrusage(resource.RUSAGE_SELF).ru_utime
            self.validating += after - before
            line = {
                "step": self.steps, "item_tokens": round(tokens.read), "ndcg@10": result["ndcg@10"],
                "cpu_seconds": after - begin - self.validating,
                **{name: float(self.model.loss_terms[name]) for name in AGES if name in self.model.loss_terms},
            }  # fmt: skip
            with file.open("a") as lines:
                print(json.dumps(line), file=lines)
            return result

    with tempfile.TemporaryDirectory() as folder:
        Counted(config, model, Path(folder)).fit(training, validation, show_progress=False)
    file.rename(file.with_suffix(".jsonl"))


def seen_of(rows: list[str], folder: Path) -> dict[str, list[dict]]:
    """The validations of each row that has some, in order; those of one that is not finished too."""
    found = {}
    for row in rows:
        file = next((f for f in (folder / f"{row}.jsonl", folder / f"{row}.part") if f.exists()), None)
        if file is not None:
            found[row] = [json.loads(line) for line in file.read_text().splitlines()]
    return found


def tokens_to(lines: list[dict], quality: float) -> float | None:
    """Item tokens before the first validation that is as good; None: none was."""
    return next((line["item_tokens"] for line in lines if line["ndcg@10"] >= quality), None)


def summary(seen: dict[str, list[dict]]) -> dict:
    """The numbers of the table; the first row is the one whose best validation is the quality to reach."""
    best = {row: max(lines, key=lambda line: line["ndcg@10"]) for row, lines in seen.items()}
    goal, rows = next(iter(best.values())), {}
    for row, line in best.items():
        reached = tokens_to(seen[row], goal["ndcg@10"])
        within = [one["ndcg@10"] for one in seen[row] if one["item_tokens"] <= goal["item_tokens"] / 3]
        rows[row] = {
            **line, "per_million": line["ndcg@10"] / max(line["item_tokens"] / 1e6, 1e-9),
            "within_a_third": max(within, default=None), "tokens_to_quality": reached,
            "ratio": None if reached is None else reached / goal["item_tokens"], "steps": seen[row][-1]["step"],
        }  # fmt: skip
    ratios = [found["ratio"] for found in list(rows.values())[1:] if found["ratio"] is not None]
    return {"item_tokens_to_quality": min(ratios, default=None), "quality": goal["ndcg@10"], "rows": rows}


def table(found: dict) -> str:
    """The summary as Markdown."""
    lines = [
        "| row | steps | best ndcg@10 | at step | item tokens, million | ndcg@10 per million | best within a third of "
        "plain's | tokens to plain's best, of plain's | CPU s |",
        "| --- |" + " ---: |" * 8,
    ]
    for row, numbers in found["rows"].items():
        third, ratio = numbers["within_a_third"], numbers["ratio"]
        cells = [
            row, numbers["steps"], f"{numbers['ndcg@10']:.4f}", numbers["step"], f"{numbers['item_tokens'] / 1e6:.2f}",
            f"{numbers['per_million']:.3f}", "–" if third is None else f"{third:.4f}",
            "not reached" if ratio is None else f"{ratio:.2f}", f"{numbers['cpu_seconds']:,.0f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data_path", required=True, help="folder that holds the folder of the data set")
    parser.add_argument("--rows", default=",".join(ROWS), help="the first is the one that others are compared to")
    parser.add_argument("--folder", type=Path, default=Path("item_tokens"), help="of what each row has seen")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--json", type=Path, help="write the numbers there")
    parser.add_argument("--train", choices=ROWS, help=argparse.SUPPRESS)
    arguments, words = parser.parse_known_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.train:
        return train(arguments.train, arguments, words)
    rows = arguments.rows.split(",")
    if unknown := set(rows) - ROWS.keys():
        parser.error(f"--rows: {', '.join(sorted(unknown))}: not one of {', '.join(ROWS)}")
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    for row in rows:
        if not (arguments.folder / f"{row}.jsonl").exists():
            (arguments.folder / f"{row}.part").unlink(missing_ok=True)
            subprocess.run([sys.executable, *sys.argv, f"--train={row}"], check=True, env=environment)
    found = summary(seen_of(rows, arguments.folder))
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
