"""How many item tokens each cheaper option of HLLM takes to reach the validation NDCG@10 of the plain recipe.

    PYTHONPATH=. python benchmarks/item_tokens.py --data_path FOLDER [--rows plain,cache] [--folder FOLDER]
        [--json FILE] [--seed 2020] [--key=value ...]

The data set is amazon-scientific-2018, leave-one-out. Each row trains HLLM with the keys of its name in `ROWS` and is
validated every so many steps; what it has seen is written to FOLDER/<row>.jsonl, and a row that is there already is not
trained again. An item token is a token of a text that the Item LLM reads in training, with or without gradients: steps,
refreshed caches and stored states count, validations do not, nor padding. A token of which some layers alone are
computed counts as their share of all layers.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import yaml

COMMON = {
    "dataset": "amazon-scientific-2018", "MAX_ITEM_LIST_LENGTH": 20, "text_keys": ["title", "brand", "categories"],
    "MAX_TEXT_LENGTH": 24, "train_batch_size": 128, "metrics": ["NDCG", "Recall"], "topk": [10],
    "valid_metric": "NDCG@10", "eval_batch_size": 1024, "stopping_step": 1000, "show_progress": False,
    "eval_every_steps": 13, "epochs": 3, "item_vector_cache": False,
}  # fmt: skip
ROWS: dict[str, dict] = {
    "plain": {},
    "in-batch": {"num_negatives": 0, "in_batch_negatives": True},
    "memory": {"num_negatives": 64, "cross_batch_negatives": 4096},
    "memory-corrected": {"num_negatives": 64, "cross_batch_negatives": 4096, "cross_batch_correction": True},
    "cached": {"negatives": "cached"},
    "cached-256": {"negatives": "cached", "live_items": 256},
    "cached-128": {"negatives": "cached", "live_items": 128},
    "cached-64": {"negatives": "cached", "live_items": 64},
    "frozen": {"item_llm_tuning": "frozen"},
    "frozen-4096": {"item_llm_tuning": "frozen", "num_negatives": 4096},
}


class Tokens:
    """Counts the tokens that the Item LLM of a model reads, but for those of validations."""

    def __init__(self, model) -> None:
        self.full = self.read = 0.0
        self.counting = True
        model.item_encoder.register_forward_hook(self._count)

    def _count(self, module, arguments, output) -> None:
        if self.counting:
            self.read += float(arguments[1].sum())

    @contextmanager
    def paused(self):
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
    model = config.spec.build(config, training._dataset).to(config["device"])
    tokens, file = Tokens(model), arguments.folder / f"{row}.jsonl"

    class Counted(Trainer):
        """Tells what each validation found, and what was read until then."""

        def _validate(self, *given):
            before = resource.getrusage(resource.RUSAGE_SELF)
            with tokens.paused():
                super()._validate(*given)
            after = resource.getrusage(resource.RUSAGE_SELF)
            self.idle = getattr(self, "idle", 0.0) + after.ru_utime - before.ru_utime
            line = {"step": self.steps, "item_tokens": tokens.read, "ndcg@10": self.last_score,
                    "cpu_seconds": after.ru_utime - self.idle, "terms": {name: float(value)
                    for name, value in self.model.loss_terms.items()}}  # fmt: skip
            with file.with_suffix(".part").open("a") as lines:
                print(json.dumps(line), file=lines)

        def evaluate(self, *given, **named):
            result = super().evaluate(*given, **named)
            self.last_score = result["ndcg@10"]
            return result

    with tempfile.TemporaryDirectory() as folder:
        Counted(config, model, Path(folder)).fit(training, validation, show_progress=False)
    file.with_suffix(".part").rename(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data_path", required=True, help="folder that holds the folder of the data set")
    parser.add_argument("--rows", default=",".join(ROWS), help="of the table, the first is what others are compared to")
    parser.add_argument("--folder", type=Path, default=Path("item_tokens"), help="of what each row has seen")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--json", type=Path, help="write the numbers there")
    parser.add_argument("--train", choices=ROWS, help=argparse.SUPPRESS)
    arguments, words = parser.parse_known_args()
    if arguments.train:
        return train(arguments.train, arguments, words)


if __name__ == "__main__":
    main()
