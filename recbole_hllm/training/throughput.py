"""What a training gets through in a second: for the log, TensorBoard and costs.json."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import torch

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.parsing import AUTOCAST_DTYPES
from recbole_hllm.processes import current
from recbole_hllm.training.peak_memory import peak_memory
from recbole_hllm.training.work import Work, WorkCounter
from recbole_hllm.units import format_bytes

# The product of matrices that a machine's best rate is measured with, the best of so many after one that warms up.
PEAK_SIZE, PEAK_REPEATS = 2048, 3
# Seconds of training after which it is measured: short runs are not made longer.
PEAK_AFTER = 20.0
NEGATIVES = "surviving_negatives"
_END = object()


@dataclass
class Totals:
    """What was done while a clock went on.

    Attributes:
        work: see ``Work``.
        batches, seconds: of the training.
        waiting: seconds of them in which no batch was ready.
        negatives, counted: sum of the batches' surviving negatives, and of how many batches.
    """

    work: Work = field(default_factory=Work)
    batches: int = 0
    seconds: float = 0.0
    waiting: float = 0.0
    negatives: float = 0.0
    counted: int = 0

    def add(self, other: "Totals") -> None:
        """Adds the numbers of another."""
        self.work.add(other.work)
        for name in ("batches", "seconds", "waiting", "negatives", "counted"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Throughput:
    """Counts the batches of a training.

    FLOPs are those of the weights that read texts and histories and of the loss's scores, see ``Work``; what is
    computed again to save memory is not counted, so that their share of the best rate does not praise work done twice.

    Args:
        config: the run's Config.
        model: the recommender, on its device.
        labelled: whether rows are labelled.
        clock: seconds of training so far, validations not counted.
    """

    def __init__(self, config: Any, model: Any, labelled: bool, clock: Callable[[], float]) -> None:
        settings = RunKeys.of(config)
        self.device, self.precision = settings.device, settings.precision or "fp32"
        self.dtype = AUTOCAST_DTYPES[settings.precision] or torch.float32
        self.counter, self.clock = WorkCounter(config, model, labelled), clock
        self.run, self.epoch, self._seen, self._waited = Totals(), Totals(), 0.0, 0.0
        self.before: dict[str, float | None] = {"item_tokens": 0.0, "flops": 0.0}  # spent before this process began

    def watched(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches of an epoch; counts how long each is waited for."""
        self.epoch, self._seen = Totals(), self.clock()
        batches = iter(batches)
        while True:
            start = time.perf_counter()
            rows = next(batches, _END)
            if rows is _END:
                return
            self._waited = time.perf_counter() - start
            yield rows

    def of_batch(self, rows: Any) -> dict[str, float]:
        """Counts a batch that was computed; its rates, for TensorBoard: of this process, and of a GPU, which is not
        waited for, right on average only."""
        work, now = self.counter.of(rows), self.clock()
        seconds, self._seen = max(now - self._seen, 1e-9), now
        self._add(Totals(work, 1, seconds, self._waited))
        terms = {"waiting_seconds/s": self._waited / seconds}
        if self.counter.reading is not None:
            rates = {"all_items/s": work.items, "item_tokens/s": work.item_tokens, "FLOP/s": work.flops}
            terms |= {name: number / seconds for name, number in rates.items()}
            peak = self._peak()
            terms |= {} if peak is None else {"share_of_peak": work.flops / seconds / peak}
        return terms

    def read(self, terms: Mapping[str, float]) -> None:
        """Takes the numbers of a batch once they are read: how many negatives survived the filter."""
        if NEGATIVES in terms:
            self._add(Totals(negatives=terms[NEGATIVES], counted=1))

    def _add(self, totals: Totals) -> None:
        self.epoch.add(totals)
        self.run.add(totals)

    def of_epoch(self) -> dict[str, Any]:
        """The rates of the last epoch, see ``of_run``."""
        return self._rates(self.epoch)

    def of_run(self) -> dict[str, Any]:
        """Rates since this process began to train, of several processes together: all of them ask at the same time.

        Returns:
            batches and seconds counted; items of a batch, and distinct_items, None where several processes read no
            texts, which do not ask each other for ids then; item_tokens_per_second, None where no texts are read;
            flops_per_second; peak_flops_per_second, that a product of matrices reaches in the precision of the
            training, None where the training was too short to measure it; share_of_peak; waiting_seconds and
            waiting_share; surviving_negatives of a batch; and peak_memory_bytes of each process.
        """
        return self._rates(self.run)

    def spent(self) -> dict[str, float | None]:
        """item_tokens and flops of the training so far, of all processes together and of those before a resumed run:
        all of them ask at the same time. None where no texts are read, or where it is not known of those before."""
        every = current().gather((self.run.work.item_tokens, self.run.work.flops))
        tokens, flops = (sum(column) for column in zip(*every, strict=True))
        now = {"item_tokens": None if self.counter.reading is None else tokens, "flops": flops}
        return {name: _sum(self.before.get(name), value) for name, value in now.items()}

    def _rates(self, totals: Totals) -> dict[str, Any]:
        own = {**asdict(totals), "peak": self._peak(), "memory": peak_memory(self.device)}
        every, work, reads = current().gather(own), Work(), self.counter.reading is not None
        for one in every:
            work.add(Work(**one["work"]))
        seconds, waiting = (max(one[name] for one in every) for name in ("seconds", "waiting"))
        negatives, counted = (sum(one[name] for one in every) for name in ("negatives", "counted"))
        peaks = [one["peak"] for one in every]
        peak, rate = None if None in peaks else sum(peaks), _ratio(work.flops, seconds)
        return {
            "batches": totals.batches,
            "seconds": round(seconds, 3),
            "items": _ratio(work.items, totals.batches),
            "distinct_items": _ratio(work.distinct_items, totals.batches) if reads or len(every) == 1 else None,
            "item_tokens_per_second": _ratio(work.item_tokens, seconds) if reads else None,
            "flops_per_second": rate,
            "peak_flops_per_second": peak,
            "share_of_peak": _ratio(rate, peak),
            "waiting_seconds": round(waiting, 3),
            "waiting_share": _ratio(waiting, seconds),
            NEGATIVES: _ratio(negatives, counted),
            "peak_memory_bytes": [one["memory"] for one in every],
        }

    def _peak(self) -> float | None:
        return None if self.run.seconds < PEAK_AFTER else product_rate(self.device, self.dtype)


def throughput_text(rates: Mapping[str, Any]) -> str:
    """What ``of_epoch`` returns, as words of the log."""
    words = []
    if rates["item_tokens_per_second"] is not None:
        words.append(f"{rates['item_tokens_per_second']:,.0f} item tokens/s")
    if rates["items"]:
        distinct = "" if rates["distinct_items"] is None else f"{rates['distinct_items']:,.0f} distinct of "
        words.append(f"{distinct}{rates['items']:,.0f} items of a batch")
    if rates["flops_per_second"]:
        share = rates["share_of_peak"]
        of_peak = "" if share is None else f", {share:.1%} of {_flops(rates['peak_flops_per_second'])} of a product"
        words.append(_flops(rates["flops_per_second"]) + of_peak)
    words.append(f"waiting for data {rates['waiting_seconds']:.1f}s ({rates['waiting_share'] or 0:.1%})")
    if rates[NEGATIVES] is not None:
        words.append(f"{rates[NEGATIVES]:,.1f} surviving negatives")
    memory = " + ".join(format_bytes(size) for size in rates["peak_memory_bytes"])
    return "; ".join([*words, f"peak memory {memory}"])


@cache
def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s that ``torch.mm`` of two square matrices reaches at its best, in the present number of threads; measured
    once. No random state is touched."""
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.rand(PEAK_SIZE, PEAK_SIZE, device=device, generator=generator).to(dtype) for _ in "ab")
    best = math.inf
    for _ in range(1 + PEAK_REPEATS):
        start = time.perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * PEAK_SIZE**3 / best


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _sum(*values: float | None) -> float | None:
    return None if None in values else sum(value for value in values if value is not None)


def _flops(rate: float) -> str:
    return f"{rate / 1e9:,.1f} GFLOP/s"
