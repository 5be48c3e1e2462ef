"""The training loop of every model, RecBole's own included."""

import logging
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.trainer.trainer import AbstractTrainer
from recbole.utils import EvaluatorType, ModelType, WandbLogger, calculate_valid_score, dict2str, early_stopping
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.data.batches import Batch
from recbole_hllm.data.protocol import referenced
from recbole_hllm.errors import ModelError
from recbole_hllm.evaluation.evaluator import MetricEvaluator
from recbole_hllm.evaluation.topk import ranking_collector
from recbole_hllm.evaluation.value_metrics import ValueCollector
from recbole_hllm.processes import current
from recbole_hllm.storage.files import finite, writing
from recbole_hllm.training import curve, events
from recbole_hllm.training.checkpoint import PREVIOUS, checkpoints, load_last, load_model, save_model, save_training
from recbole_hllm.training.engines import build_engine, engine_class
from recbole_hllm.training.engines.saving import replacing_together
from recbole_hllm.training.evaluation import Evaluation
from recbole_hllm.training.failures import check_batch, check_epoch, missing_memory_named, wrong_values_named
from recbole_hllm.training.interruption import Interruption
from recbole_hllm.training.optimizers import fused
from recbole_hllm.training.parameters import counted
from recbole_hllm.training.progress import loop_of, take_result, take_up
from recbole_hllm.training.random_states import random_states
from recbole_hllm.training.schedule import build_schedule, check_schedule
from recbole_hllm.training.shares import shares
from recbole_hllm.training.step_numbers import BatchPlace, StepNumbers
from recbole_hllm.training.stopping import COUNTED_ONCE, EARLY, Progress, Stopping, check_stopping
from recbole_hllm.training.throughput import Throughput, throughput_text


class Trainer(Evaluation):
    """RecBole's Trainer with a schedule, autocast, accumulation and safe checkpoints, inside one run folder.

    Args:
        config: the run's Config.
        model: the recommender, on its device.
        run_dir: folder for ``best/``, ``last/`` and ``tensorboard/``.
    """

    def __init__(self, config: Any, model: Any, run_dir: Path) -> None:
        # RecBole's own __init__ makes saved/ and log_tensorboard/ in the working folder.
        AbstractTrainer.__init__(self, config, model)
        self.logger = logging.getLogger()
        self.settings = settings = RunKeys.of(config)
        self.run_dir, self.device = Path(run_dir), settings.device
        self.learner, self.learning_rate = settings.learner, settings.learning_rate
        self.weight_decay, self.clip_grad_norm = settings.weight_decay, settings.clip_grad_norm
        # Models that only count see the data once, and have no gradients.
        self.counts_only = model.type == ModelType.TRADITIONAL
        self.stopping = Stopping(settings, self.counts_only, model.pretraining_epochs())
        self.epochs = self.stopping.epochs
        self.valid_metric, self.valid_metric_bigger = settings.valid_metric.lower(), settings.valid_metric_bigger
        self.accumulation = settings.gradient_accumulation_steps
        self.gpu_available = self.device.type == "cuda"
        self.labelled = settings.eval_type == EvaluatorType.VALUE
        self.eval_collector = ValueCollector(config) if self.labelled else ranking_collector(config)
        self.evaluator = MetricEvaluator(config, self.labelled)
        self.item_tensor: Tensor | None = None
        self.tot_item_num: int | None = None
        self.wandblogger = WandbLogger(config if current().is_first else config.with_values({"log_wandb": False}))
        self.check_keys(config)
        self.parameters = counted(model)  # before an engine deals them out to processes
        self.engine = build_engine(model, self._build_optimizer(), settings, self.counts_only)
        self.optimizer, self.scaler = self.engine.optimizer, self.engine.scaler
        self.test_batch_size = settings.eval_batch_size
        # Epochs that ended, and batches of the one that has begun since, with the sum of their losses.
        self.cur_step = self.steps = self.epochs_run = self.batch = 0
        self.epoch_loss = 0.0
        self._shuffling = torch.Generator()  # as the loader's was when this epoch began
        self.random_before: dict[str, Any] | None = None  # when the model was last set to be trained
        self.interruption = Interruption()
        self._purged_from: int | None = None  # events of this step and later ones are not shown
        self.epoch = -1  # that is run, or was the last to be
        self.best_valid_score = -np.inf if self.valid_metric_bigger else np.inf
        self.best_valid_result: dict[str, float] | None = None
        self.best_epoch: int | None = None
        self.curve: list[dict[str, Any]] = []  # a point for each validation
        self.train_loss: float | None = None  # mean of the last epoch
        self._validation: Callable[[], None] | None = None
        self._begun = 0.0  # when training last went on
        self.valid_ranks: dict[str, np.ndarray] | None = None
        self.training_seconds = self.evaluation_seconds = self.scoring_seconds = 0.0
        self.throughput = Throughput(config, model, self.labelled, self._clock)
        self.rates: dict[str, Any] = {}  # of the training, see Throughput.of_run
        self.spent: dict[str, float | None] = {}  # on it, see Throughput.spent
        self.stop_reason: str | None = None
        self.resumed_at: int | None = None  # after which step a training that goes on was taken up
        self.converged = False

    @staticmethod
    def check_keys(config: Any) -> None:
        """Raises ConfigError for values that are wrong whatever the data and the model are."""
        settings = RunKeys.of(config)
        check_schedule(settings.scheduler, settings.warmup_ratio)
        check_stopping(settings)
        engine_class(settings)

    @cached_property
    def tensorboard(self) -> SummaryWriter:
        """Opened when first written to: an evaluation alone writes none."""
        events.wait_for_a_later_name(self.run_dir / "tensorboard")
        return SummaryWriter(str(self.run_dir / "tensorboard"), purge_step=self._purged_from)

    def _record(self, tag: str, value: Any, step: Any, walltime: Any = None) -> None:
        if not current().is_first:
            return
        with writing(self.run_dir / "tensorboard"):
            self.tensorboard.add_scalar(tag, value, step, walltime)

    def _build_optimizer(self, **kwargs: Any) -> Any:
        kwargs.setdefault("params", self.model.parameter_groups())
        return fused(super()._build_optimizer(**kwargs))

    # ---- training ----

    def fit(self, train_data: Any, valid_data: Any = None, show_progress: bool = True) -> tuple[Any, Any]:
        """Trains until early stopping, ``epochs``, ``max_steps`` or ``max_training_minutes``; loads the best weights.

        Returns:
            Best validation score and result; the score is None without validation data.

        Raises:
            ModelError: the loss is not finite, or a checkpoint cannot be read.
            ConfigError: the run folder cannot be written.
        """
        valid_data = valid_data if self.stopping.eval_step > 0 else None
        self.check_validation(valid_data)
        self.eval_collector.data_collect(train_data)
        if (self.settings.train_neg_sample_args or {}).get("dynamic"):
            train_data.get_model(self.model)
        self.engine.share_out(train_data)
        self._validation = None if valid_data is None else partial(self._validate, valid_data, show_progress)
        self._prepare(train_data)
        with self.interruption:
            # An epoch may have had all of its batches, and no end yet, when it was saved.
            while self.batch == len(train_data) or not self._finished():
                self._timed_epoch(train_data, show_progress)
                if self._validation is None:
                    self._keep_as_best()
                elif self.stopping.validates_after_epoch(self.epochs_begun):
                    self._validation()
                self._save_last(train_data)
                self._stop_if_asked()
        if self.best_epoch is None:  # no epoch at all, or none that was validated
            (self._validation or self._keep_as_best)()
        if current().is_first:
            with writing(self.run_dir / "tensorboard"):
                self.tensorboard.close()
        self.rates, self.spent = self.throughput.of_run(), self.throughput.spent()
        with self.engine.whole(changed=True):
            take_result(self, load_model(self.run_dir / "best", self.model))
        return (self.best_valid_score if valid_data else None), self.best_valid_result

    def _finished(self) -> bool:
        """Whether to stop, and why."""
        self.stop_reason = self._reason()
        self.converged = self.stop_reason in (EARLY, COUNTED_ONCE)
        return self.stop_reason is not None

    def _reason(self) -> str | None:
        return self.stopping.reason(Progress(self.epochs_run, self.steps, self.cur_step, self.training_seconds))

    @property
    def epochs_begun(self) -> int:
        """Epochs that ended, and the one that a limit ended inside."""
        return self.epochs_run + (self.batch > 0)

    def _prepare(self, train_data: Any) -> None:
        self.schedule = build_schedule(
            self.optimizer,
            self.settings.scheduler,
            self.stopping.all_steps(len(train_data)),
            self.settings.warmup_ratio,
            start_at_zero="warmup" in referenced(self.settings.reference),
        )
        if self.settings.resume:
            self._resume(train_data)

    def _timed_epoch(self, train_data: Any, show_progress: bool) -> None:
        epoch = self.epoch = self.epochs_run
        before = self.training_seconds
        self._begun = time.perf_counter()
        self._shuffling.set_state(train_data.generator.get_state())
        train_data.begin_at(self.batch)
        loss = self.train_loss = self._train_epoch(train_data, epoch, show_progress=show_progress)
        self._add_training_time()
        check_epoch(epoch, loss)
        seconds = self.training_seconds - before
        self.logger.info(f"epoch {epoch} training [{seconds:.1f}s, loss {loss:.{self.settings.loss_decimal_place}f}]")
        self.logger.info(f"epoch {epoch} throughput [{throughput_text(self.throughput.of_epoch())}]")
        self._record("train/epoch_loss", loss, epoch)
        self.wandblogger.log_metrics({"epoch": epoch, "train_loss": loss, "train_step": epoch}, head="train")

    def _clock(self) -> float:
        """Seconds of training so far."""
        return self.training_seconds + time.perf_counter() - self._begun

    def _add_training_time(self) -> None:
        now = time.perf_counter()
        self.training_seconds = current().first_of(self.training_seconds + now - self._begun)
        self._begun = now

    def _train_epoch(
        self,
        train_data: Any,
        epoch_idx: int,
        loss_func: Callable[[Interaction], Any] | None = None,
        show_progress: bool = False,
    ) -> float:
        """One pass over the training rows, or the rest of it, as far as the limits let it go, with the validations and
        checkpoints that come inside it; returns the mean loss of its batches, all of which are read and sound."""
        if not self.batch:
            self._train_mode()
            with self.engine.whole():
                self.model.begin_epoch(epoch_idx)
        first, batches, share_of = self.batch, len(train_data), shares(train_data, self.accumulation)
        wanted = self.stopping.batches_of_epoch(batches, self.steps - first // self.accumulation)
        shown = {"desc": f"train {epoch_idx:>3}", "disable": not show_progress, "leave": False}
        bar = tqdm(train_data, initial=first, total=wanted, **shown)

        def record(batch: BatchPlace, loss: float, terms: dict[str, float]) -> None:
            check_batch(self.model, batch, loss, terms)
            self.throughput.read(terms)
            self._show(bar, batch, loss, terms)
            self.epoch_loss += loss

        with missing_memory_named(), StepNumbers(record) as numbers:
            for index, rows in enumerate(self.throughput.watched(bar), first):
                last = (index + 1) % self.accumulation == 0 or index + 1 == batches
                loss = self.train_batch(rows, loss_func, share_of[index], last)
                batch = BatchPlace(epoch_idx, index, self.steps, self.optimizer.param_groups[-1]["lr"])
                loss, terms = self.engine.means(loss, self.model.loss_terms)
                numbers.keep(batch, loss, {**terms, **self.throughput.of_batch(rows)})
                self.batch = index + 1
                if not last:
                    continue
                self._step()
                if self._validation and self.stopping.validates_after_step(self.steps, self.epochs_run):
                    self._inside_epoch(numbers, self._validation)
                    self._train_mode()
                if self.batch < batches and self._reason():
                    break
                if self.stopping.saves_after_step(self.steps) or self._stopped_by():
                    self._inside_epoch(numbers, partial(self._save_last, train_data))
                    self._stop_if_asked()
        mean = self.epoch_loss / max(self.batch, 1)
        if self.batch == batches:
            self.epochs_run, self.batch, self.epoch_loss = self.epochs_run + 1, 0, 0.0
        return mean

    def _inside_epoch(self, numbers: StepNumbers, action: Callable[[], None]) -> None:
        """A validation or a checkpoint inside an epoch, of sound losses; its time is none of training."""
        numbers.read()
        check_epoch(self.epoch, self.epoch_loss)
        self._add_training_time()
        action()
        self._begun = time.perf_counter()

    def _stopped_by(self) -> int | None:
        """The signal that has asked any of the processes to end. A process notes its own alone: one that comes while it
        hears of the others is not lost, and the first that it gets itself is no second one."""
        return next(filter(None, current().gather(self.interruption.asked)), None)

    def _train_mode(self) -> None:
        self.random_before = random_states()
        self.model.train()

    def _stop_if_asked(self) -> None:
        """Ends the program, where a signal has asked for it."""
        if (number := self._stopped_by()) is not None:
            if current().is_first:
                self.tensorboard.close()
            self.logger.info(f"stopped after step {self.steps}; --resume --run_dir={self.run_dir} goes on from there")
            self.interruption.end(number)

    def train_batch(
        self,
        rows: Interaction,
        loss_func: Callable[[Interaction], Any] | None = None,
        share: float = 1.0,
        last: bool = True,
    ) -> torch.Tensor:
        """Loss of a batch, on the device and not waited for; ``share`` of its gradients is added.

        ``last`` says that a step comes after it.

        Raises:
            ConfigError: a model of RecBole cannot compute its first batch.
        """
        with wrong_values_named(self.settings.model, bool(self.steps) or self.config.spec.traced):
            loss = self.engine.loss(self._on_device(rows), loss_func, last)
            self.engine.backward(loss, share)
            if self.gpu_available and not self.steps:
                torch.cuda.synchronize(self.device)  # what a GPU cannot compute shows when it is waited for
            return loss.detach()

    def _on_device(self, rows: Interaction) -> Batch:
        """RecBole's ``rows.to`` waits for all that a GPU is still computing."""
        columns = {name: column.to(self.device, non_blocking=True) for name, column in rows.interaction.items()}
        return Batch(columns, isinstance(rows, Batch) and rows.stands_in)

    def _step(self) -> None:
        if self.engine.step():
            self.schedule.step()
        self.model.after_step()
        self.steps += 1

    def _show(self, bar: Any, batch: BatchPlace, loss: float, terms: dict[str, float]) -> None:
        for name, value in (("loss", loss), ("learning_rate", batch.learning_rate), *terms.items()):
            self._record(f"train/{name}", value, batch.step, batch.time)
        shown = {name: f"{terms[name]:.4g}" for name in ("items/s", "surviving_negatives") if name in terms}
        bar.set_postfix(loss=f"{loss:.4f}", **shown)

    # ---- validation ----

    def evaluate(
        self, eval_data: Any, load_best_model: bool = False, model_file: Any = None, show_progress: bool = False
    ) -> dict[str, float] | None:
        """The evaluation of ``Evaluation``, with all weights at hand."""
        with self.engine.whole(changed=load_best_model):
            return super().evaluate(eval_data, load_best_model, model_file, show_progress)

    def _validate(self, valid_data: Any, show_progress: bool) -> None:
        self.pick(valid_data)
        result, epoch = self.evaluate(valid_data, show_progress=show_progress), self.epoch
        assert result is not None, "valid_data is a loader"
        score = calculate_valid_score(result, self.valid_metric)
        self.best_valid_score, self.cur_step, _, better = early_stopping(
            score, self.best_valid_score, self.cur_step, self.settings.stopping_step, self.valid_metric_bigger
        )
        when = f"epoch {epoch}" if epoch >= 0 else "before any epoch:"
        after, place = "", epoch
        if self.stopping.eval_every_steps is not None:
            after, place = f" after step {self.steps}", self.steps
        self.logger.info(f"{when} validation{after} [{dict2str(result)}]{' best' if better else ''}")
        self._record(f"valid/{self.valid_metric}", score, place)
        self.wandblogger.log_metrics({**result, "valid_step": place}, head="valid")
        ranks = None if self.labelled else self.eval_collector.take_ranks()
        self.curve.append(curve.point(self, result, better or self.best_epoch is None))
        if self.curve[-1]["best"]:
            self.best_valid_result, self.valid_ranks = result, ranks
            self._keep_as_best()

    # ---- checkpoints ----

    def _keep_as_best(self) -> None:
        self.best_epoch = self.epoch
        place = {"epoch": self.best_epoch, "steps": self.steps}
        with self.engine.whole(), replacing_together(self.run_dir / "best") as folder:
            if current().is_first:
                save_model(folder, self.model, {**place, "valid_result": finite(self.best_valid_result)})

    def _save_last(self, train_data: Any) -> None:
        if current().is_first:
            with writing(self.run_dir / "tensorboard"):
                self.tensorboard.flush()
        loop = loop_of(self, len(train_data)) | {"events": events.sizes(self.run_dir / "tensorboard")}
        with self.engine.whole(), replacing_together(self.run_dir / "last", self.run_dir / PREVIOUS) as folder:
            self.engine.save(folder)
            if current().is_first:
                save_model(folder, self.model, {"epoch": self.epochs_run - 1})
                shuffling = self._shuffling if self.batch else train_data.generator
                save_training(folder, self.engine.kept, shuffling, loop)

    def _resume(self, train_data: Any) -> None:
        loop: dict[str, Any] = {"events": {}}
        if self.counts_only:  # again, since keys may be others than before
            self.logger.info("what is only counted is counted again")
        elif checkpoints(self.run_dir):
            loop = load_last(self.run_dir, self.model, self.engine, train_data.generator)
            take_up(self, loop, len(train_data))
        else:
            self.logger.info(f"no checkpoint in {self.run_dir} yet: training begins from the beginning")
        if "events" in loop:  # what was written after the checkpoint is written again
            if current().is_first:
                events.cut_back(self.run_dir / "tensorboard", loop["events"])
        else:  # of an earlier version, which did not count it
            self._purged_from = self.steps

    def resume_checkpoint(self, resume_file: Any) -> None:
        """RecBole's checkpoints are pickles; set ``resume: True`` with the run's folder instead."""
        raise ModelError(f"{resume_file}: a run goes on with --resume=True --run_dir=FOLDER")
