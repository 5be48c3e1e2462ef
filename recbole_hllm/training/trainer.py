"""The training loop of every model, RecBole's own included."""

import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
from recbole.evaluator import Evaluator
from recbole.trainer import Trainer as RecBoleTrainer
from recbole.trainer.trainer import AbstractTrainer
from recbole.utils import ModelType, WandbLogger, calculate_valid_score, dict2str, early_stopping
from torch.nn.utils import clip_grad_norm_
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from recbole_hllm.data.loader import CANDIDATES
from recbole_hllm.data.protocol import referenced
from recbole_hllm.errors import ModelError
from recbole_hllm.evaluation.topk import TopKCollector
from recbole_hllm.training.checkpoint import load_model, load_training, save_model, save_training
from recbole_hllm.training.schedule import build_schedule

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer(RecBoleTrainer):
    """RecBole's Trainer with a schedule, autocast, accumulation and safe checkpoints, inside one run folder.

    A model may offer ``parameter_groups()`` (torch's parameter groups) and ``loss_terms`` (numbers of the last batch).

    Args:
        config: the run's Config.
        model: the recommender, on its device.
        run_dir: folder for ``best/``, ``last/`` and ``tensorboard/``.
    """

    def __init__(self, config, model, run_dir: Path):
        # RecBole's own __init__ makes saved/ and log_tensorboard/ in the working folder.
        AbstractTrainer.__init__(self, config, model)
        self.logger = logging.getLogger()
        self.run_dir, self.device = Path(run_dir), config["device"]
        self.learner, self.learning_rate = config["learner"], config["learning_rate"]
        self.weight_decay, self.clip_grad_norm = config["weight_decay"], config["clip_grad_norm"]
        # Models that only count see the data once.
        self.epochs = 1 if model.type == ModelType.TRADITIONAL else config["epochs"]
        self.eval_step, self.stopping_step = min(config["eval_step"], self.epochs), config["stopping_step"]
        self.valid_metric, self.valid_metric_bigger = config["valid_metric"].lower(), config["valid_metric_bigger"]
        self.accumulation = config["gradient_accumulation_steps"]
        self.gpu_available = self.device.type == "cuda"
        self.autocast_dtype = _AUTOCAST.get(config["precision"])
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config["precision"] == "fp16")
        self.eval_collector, self.evaluator = TopKCollector(config), Evaluator(config)
        self.item_tensor = self.tot_item_num = None
        self.wandblogger = WandbLogger(config)
        self.tensorboard = SummaryWriter(str(self.run_dir / "tensorboard"))
        self.optimizer = self._build_optimizer()
        self.test_batch_size = config["eval_batch_size"]
        self.start_epoch = self.cur_step = self.steps = self.epochs_run = 0
        self.best_valid_score = -np.inf if self.valid_metric_bigger else np.inf
        self.best_valid_result, self.best_epoch, self.valid_ranks = None, None, None
        self.training_seconds = self.evaluation_seconds = 0.0
        self.stop_reason = f"limit of {self.epochs} epochs"
        self.converged = model.type == ModelType.TRADITIONAL

    def _build_optimizer(self, **kwargs):
        if hasattr(self.model, "parameter_groups"):
            kwargs.setdefault("params", self.model.parameter_groups())
        return super()._build_optimizer(**kwargs)

    # ---- training ----

    def fit(self, train_data, valid_data=None, show_progress=True):
        """Trains until early stopping, ``epochs`` or ``max_training_minutes`` and loads the best weights.

        Returns:
            Best validation score and result; the score is None without validation data.
        """
        self.eval_collector.data_collect(train_data)
        if self.config["train_neg_sample_args"].get("dynamic"):
            train_data.get_model(self.model)
        self._prepare(train_data)
        for epoch in range(self.start_epoch, self.epochs):
            self._check_finite(self._timed_epoch(train_data, epoch, show_progress), epoch)
            stop = False
            if not valid_data:
                self.best_epoch = epoch
                self._save_best()
            elif (epoch + 1) % self.eval_step == 0:
                stop = self._validate(valid_data, epoch, show_progress)
            self.epochs_run = epoch + 1
            self._save_last(epoch, train_data)
            if stop or self._out_of_time():
                break
        self.tensorboard.flush()
        load_model(self.run_dir / "best", self.model)
        return (self.best_valid_score if valid_data else None), self.best_valid_result

    def _prepare(self, train_data):
        steps = self.epochs * math.ceil(len(train_data) / self.accumulation)
        self.schedule = build_schedule(
            self.optimizer,
            self.config["scheduler"],
            steps,
            self.config["warmup_ratio"],
            start_at_zero="warmup" in referenced(self.config),
        )
        if self.config["resume"] and (self.run_dir / "last" / "training.json").is_file():
            self._resume(train_data)

    def _timed_epoch(self, train_data, epoch, show_progress):
        start = time.perf_counter()
        loss = self._train_epoch(train_data, epoch, show_progress=show_progress)
        seconds = time.perf_counter() - start
        self.training_seconds += seconds
        self.logger.info(f"epoch {epoch} training [{seconds:.1f}s, loss {loss:.4f}]")
        self.tensorboard.add_scalar("train/epoch_loss", loss, epoch)
        self.wandblogger.log_metrics({"epoch": epoch, "train_loss": loss}, head="train")
        return loss

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        """One pass over the training rows; returns the mean loss of its batches."""
        self.model.train()
        loss_func = loss_func or self.model.calculate_loss
        total, batches = 0.0, len(train_data)
        bar = tqdm(train_data, total=batches, desc=f"train {epoch_idx:>3}", disable=not show_progress, leave=False)
        for index, rows in enumerate(bar):
            group = min(self.accumulation, batches - index // self.accumulation * self.accumulation)
            with torch.autocast(self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None):
                losses = loss_func(rows.to(self.device))
            loss = sum(losses) if isinstance(losses, tuple) else losses
            self._check_nan(loss)
            self.scaler.scale(loss / group).backward()
            if (index + 1) % self.accumulation == 0 or index + 1 == batches:
                self._step()
            total += loss.item()
            self._show(bar, loss.item(), len(rows))
        return total / max(batches, 1)

    def _step(self):
        if self.clip_grad_norm:
            self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(self.model.parameters(), **self.clip_grad_norm)
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.scaler.get_scale() >= before:  # fp16 skips a step that overflowed
            self.schedule.step()
        self.steps += 1

    def _show(self, bar, loss, rows):
        terms = {name: float(value) for name, value in getattr(self.model, "loss_terms", {}).items()}
        self.tensorboard.add_scalar("train/loss", loss, self.steps)
        self.tensorboard.add_scalar("train/learning_rate", self.optimizer.param_groups[-1]["lr"], self.steps)
        for name, value in terms.items():
            self.tensorboard.add_scalar(f"train/{name}", value, self.steps)
        shown = {name: f"{terms[name]:.4g}" for name in ("items/s", "surviving_negatives") if name in terms}
        bar.set_postfix(loss=f"{loss:.4f}", **shown)

    def _check_finite(self, loss, epoch):
        if not math.isfinite(loss):
            raise ModelError(f"the training loss of epoch {epoch} is {loss}; try a smaller learning_rate")

    def _check_nan(self, loss):
        if torch.isnan(loss):
            raise ModelError("the training loss is not a number; try a smaller learning_rate or precision: fp32")

    # ---- validation and stopping ----

    def _validate(self, valid_data, epoch, show_progress):
        result = self.evaluate(valid_data, show_progress=show_progress)
        score = calculate_valid_score(result, self.valid_metric)
        self.best_valid_score, self.cur_step, stop, better = early_stopping(
            score, self.best_valid_score, self.cur_step, self.stopping_step, self.valid_metric_bigger
        )
        self.logger.info(f"epoch {epoch} validation [{dict2str(result)}]{' best' if better else ''}")
        self.tensorboard.add_scalar(f"valid/{self.valid_metric}", score, epoch)
        self.wandblogger.log_metrics({**result, "valid_step": epoch}, head="valid")
        ranks = self.eval_collector.take_ranks()
        if better:
            self.best_valid_result, self.best_epoch, self.valid_ranks = result, epoch, ranks
            self._save_best()
        if stop:
            self.stop_reason, self.converged = "early stopping", True
        return stop

    def _out_of_time(self):
        limit = self.config["max_training_minutes"]
        if limit is None or self.training_seconds < 60 * limit:
            return False
        self.stop_reason = f"time limit of {limit:g} minutes"
        return True

    def evaluate(self, eval_data, load_best_model=False, model_file=None, show_progress=False):
        """RecBole's evaluation of the weights as they are; ``eval_collector.take_ranks()`` then gives the ranks."""
        if not eval_data:
            return None
        start = time.perf_counter()
        result = super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        self.evaluation_seconds = time.perf_counter() - start
        # NumPy numbers print and serialise badly
        return {metric: float(value) for metric, value in result.items()}

    def _full_sort_batch_eval(self, batched_data):
        interaction, scores, positive_u, positive_i = super()._full_sort_batch_eval(batched_data)
        if CANDIDATES in interaction:
            candidates = interaction[CANDIDATES].to(scores.device)
            kept = torch.full_like(scores, -torch.inf)
            scores = kept.scatter_(1, candidates, scores.gather(1, candidates))
        return interaction, scores, positive_u, positive_i

    # ---- checkpoints ----

    def _save_best(self):
        state = {"model": type(self.model).__name__, "epoch": self.best_epoch, "valid_result": self.best_valid_result}
        save_model(self.run_dir / "best", self.model, state)

    def _save_last(self, epoch, train_data):
        loop = {
            "epoch": epoch,
            "steps": self.steps,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score) if np.isfinite(self.best_valid_score) else None,
            "best_valid_result": self.best_valid_result,
            "best_epoch": self.best_epoch,
            "training_seconds": self.training_seconds,
            "schedule_steps": self.schedule.last_epoch,
            "scaler": self.scaler.state_dict(),
        }
        save_model(self.run_dir / "last", self.model, {"model": type(self.model).__name__, "epoch": epoch})
        save_training(self.run_dir / "last", self.optimizer, train_data.generator, loop)

    def _resume(self, train_data):
        load_model(self.run_dir / "last", self.model)
        loop = load_training(self.run_dir / "last", self.optimizer, train_data.generator)
        self.start_epoch, self.steps, self.cur_step = loop["epoch"] + 1, loop["steps"], loop["cur_step"]
        if loop["best_valid_score"] is not None:
            self.best_valid_score = loop["best_valid_score"]
        self.best_valid_result, self.best_epoch = loop["best_valid_result"], loop["best_epoch"]
        self.training_seconds = loop["training_seconds"]
        self.schedule.last_epoch = loop["schedule_steps"]
        self.scaler.load_state_dict(loop["scaler"])
        self.logger.info(f"going on with epoch {self.start_epoch}")

    def resume_checkpoint(self, resume_file):
        """RecBole's checkpoints are pickles; set ``resume: True`` with the run's folder instead."""
        raise ModelError(f"{resume_file}: a run goes on with --resume=True --run_dir=FOLDER")
