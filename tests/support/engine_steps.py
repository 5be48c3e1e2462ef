"""A program for torchrun: steps of the training of several models, and their losses as JSON.

    torchrun --nproc_per_node=2 engine_steps.py OUT KEYS

KEYS is a JSON file: name -> keys of a run, the model's among them; ``steps`` optimizer steps of each. OUT gets, of each
process, the losses, the learned weights' norms and the scores of the first test rows, as ``OUT.<rank>``.
"""

import gc
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

from recbole_hllm import Config, create_dataset, data_preparation, processes

# isort: split
from recbole.utils import init_seed

from recbole_hllm.training.trainer import Trainer

# Every engine of several processes that is installed, and its keys.
ENGINES = {"ddp": {"strategy": "ddp"}}
if find_spec("deepspeed") is not None:
    ENGINES |= {f"zero{stage}": {"strategy": "deepspeed", "stage": stage} for stage in range(4)}


def losses_of(keys, steps, folder, resumed=0):
    """The losses of some steps, then what the weights are; with ``resumed`` a checkpoint is taken up after so many."""
    config = Config(config_dict=keys)
    processes.begin(config["device"])
    init_seed(config["seed"], config["reproducibility"])
    train, _, test = data_preparation(config, create_dataset(config))
    init_seed(config["seed"], config["reproducibility"])
    kept, steps_before = [], 0
    for until in (resumed, steps) if resumed else (steps,):  # a new Trainer goes on from a checkpoint
        model = config.spec.build(config, train._dataset)
        trainer = Trainer(config, model, Path(folder))
        trainer.engine.share_out(train)
        trainer._prepare(train)
        if steps_before:
            trainer._resume(train)
        trainer._show = lambda bar, batch, loss, terms: kept.append({"loss": loss, **terms})
        while trainer.steps < until:
            trainer._train_epoch(train, 0)
            trainer.epochs_run += 1
        steps_before = trainer.steps
        trainer._save_last(train)
    with trainer.engine.whole(), torch.no_grad():
        weights = trainer.model.state_dict()
        norms = {name: float(weight.float().norm()) for name, weight in weights.items() if weight.numel()}
        trainer.model.eval()
        rows = next(iter(test))[0]
        score = trainer.model.predict if trainer.labelled else trainer.model.full_sort_predict
        scores = score(rows)[:2].flatten().tolist()
    return {"terms": kept[:steps], "norms": norms, "scores": scores}


def write_all(out, runs):
    """What ``losses_of`` finds in this process of each run, as a file of its rank."""
    gc.freeze()  # DeepSpeed collects garbage often, and what a test has loaded before this process began is none
    found = {name: losses_of(folder=out.with_suffix(".run") / name, **run) for name, run in runs.items()}
    rank = processes.current().rank
    out.with_name(f"{out.name}.{rank}").write_text(json.dumps(found), encoding="utf-8")
    processes.end()


if __name__ == "__main__":
    write_all(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
