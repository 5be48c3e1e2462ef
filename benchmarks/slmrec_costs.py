"""What SLMRec saves: steps of training and users scored, of the whole language model, the teacher and the student.

    PYTHONPATH=. python benchmarks/slmrec_costs.py --teacher FOLDER [--layers 30] [--steps 5] [--users 512]

FOLDER is a finished run of E4SRec, whose data, language model and keys are taken; `layers` are those of the deepest
model. All rows take the same batches in turn. The student is timed with its teacher reading each batch again, and with
the teacher's states from the disk, which are computed once before.
"""

import argparse
import tempfile
import time
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import torch
from recbole.utils import init_seed

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.config.parsing import read_yaml
from recbole_hllm.training.trainer import Trainer


@contextmanager
def timed(seconds: list, device):
    """Adds how long its body took; a GPU is waited for."""
    start = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds.append(time.perf_counter() - start)


class Row:
    """A model with its optimizer, and the seconds of what it did."""

    def __init__(self, name, model, keys):
        start = time.perf_counter()
        config = Config(model, config_dict=keys)
        init_seed(config["seed"], config["reproducibility"])
        self.train_data, _, self.test_data = data_preparation(config, create_dataset(config))
        self.device = config["device"]
        self.model = config.spec.model(config, self.train_data._dataset).to(self.device)
        self.trainer = Trainer(config, self.model, "unused")
        self.name = name.format(self.model.llm.depth)  # user_llm_layers may be empty, for all of them
        self.built, self.steps, self.scored = time.perf_counter() - start, [], []

    def step(self, rows):
        """Trains on a batch."""
        self.model.train()
        with timed(self.steps, self.device):
            self.trainer.train_batch(rows)
            self.trainer.optimizer.step()
            self.trainer.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def score(self, rows):
        """Scores the whole catalogue for a batch of users."""
        self.model.eval()
        with timed(self.scored, self.device):
            self.model.full_sort_predict(rows.to(self.device))

    def mean(self, seconds) -> float:
        """Without the first, which warms up."""
        return sum(seconds[1:]) / len(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--teacher", required=True, help="run folder of an E4SRec")
    parser.add_argument("--layers", type=int, default=30, help="of the deepest model")
    parser.add_argument("--student", type=int, default=4, help="layers of the student")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--users", type=int, default=512)
    arguments = parser.parse_args()
    settings = {**read_yaml(Path(arguments.teacher) / "config.yaml"), "show_progress": False, "state": "warning"}
    settings = {key: value for key, value in settings.items() if key != "model"}
    teacher = str(Path(arguments.teacher).absolute())
    with tempfile.TemporaryDirectory() as cache:
        student = {**settings, "user_llm_layers": arguments.student, "teacher": teacher, "cache_dir": cache}
        rows = [
            Row(f"E4SRec, {arguments.layers} layers", "E4SRec", {**settings, "user_llm_layers": arguments.layers}),
            Row("E4SRec, {} layers, the teacher", "E4SRec", settings),
            Row(f"E4SRec, {arguments.student} layers", "E4SRec", {**settings, "user_llm_layers": arguments.student}),
            Row(f"SLMRec, {arguments.student} layers, teacher again", "SLMRec", {**student, "teacher_cache": False}),
            Row(f"SLMRec, {arguments.student} layers, teacher's states stored", "SLMRec", student),
        ]
        stored = sum(file.stat().st_size for file in Path(cache).rglob("*.npy"))
        batches = [cycle(row.train_data) for row in rows]
        for _ in range(arguments.steps + 1):
            for row, own in zip(rows, batches, strict=True):
                row.step(next(own))
        users = min(arguments.users, len(rows[0].test_data._dataset))
        for _ in range(3):
            for row in rows:
                row.score(row.test_data._dataset[list(range(users))])
        report(rows, stored, users)


def report(rows, stored, users) -> None:
    """Seconds, and how many times as fast as the first row."""
    first = rows[0]
    print("| model | s a step | times as fast | ms a user | times as fast |\n| --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        step, scored = row.mean(row.steps), row.mean(row.scored)
        print(
            f"| {row.name} | {step:.2f} | {first.mean(first.steps) / step:.1f} | {1000 * scored / users:.2f} | "
            f"{first.mean(first.scored) / scored:.1f} |"
        )
    again, kept = rows[-2:]
    epoch = len(kept.train_data)
    made, saved = kept.built - again.built, (again.mean(again.steps) - kept.mean(kept.steps)) * epoch
    print(
        f"\n{epoch} steps an epoch. The states take {stored / 1e6:.0f} MB and {made:.0f} s once; reading them saves "
        f"{saved:.0f} s in each epoch."
    )


if __name__ == "__main__":
    main()
