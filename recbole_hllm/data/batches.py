"""Batches of rows: which rows each has, and loaders whose batches depend on the seed, the pass and their number alone.

RecBole's loaders make a list of all row numbers, one Python number each, and draw from NumPy's global random state,
so that a batch depends on what was drawn before it and on the process that makes it.
"""

import multiprocessing
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.data.transform import Equal, construct_transform
from recbole.utils import ModelType
from torch.utils.data import DataLoader, Dataset

from recbole_hllm.config.keys.recbole import MachineKeys, SeedKeys
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.data.order import Order, Shuffled
from recbole_hllm.errors import ConfigError

# Places of an order computed at a time.
_AT_ONCE = 1 << 16


class Numbered(NamedTuple):
    """Rows of a batch.

    Attributes:
        rows: (B,) int64, those of this process; none where a batch of a training has fewer rows than processes.
        seed: of all that is drawn for the batch, the same in all processes.
        of_all: (G,) the rows of all processes.
        share: (rank, world_size), which part of them ``rows`` are.
    """

    rows: np.ndarray
    seed: tuple[int, ...]
    of_all: np.ndarray
    share: tuple[int, int]


class Batches(torch.utils.data.Sampler[Any]):
    """The batches of each pass over some rows.

    Args:
        order: of the rows.
        step: rows of a batch, those of all processes together.
        least: rows that a batch must have in each process; fewer at the end join the batch before. 0: a process may
            have none.
        generator: its state at the beginning of a pass is the seed of the pass.

    Attributes:
        rank, world_size: which of how many processes this is; each has its share of every batch.
        own: numbers of the batches that are made; None for all.
    """

    def __init__(self, order: Order, step: int, least: int, generator: torch.Generator) -> None:
        self.order, self.step, self.least, self.generator = order, step, least, generator
        self.rank, self.world_size = 0, 1
        self.own: range | None = None
        self._first = 0

    def begin_at(self, number: int) -> None:
        """The next pass begins with this batch, 0 is the first; those before it are not made."""
        self._first = number

    def shard(self, rank: int, world_size: int) -> None:
        """This is one of several processes that share each batch: every row is in one of them, and all have as many
        batches.

        Raises:
            ConfigError: there are not enough rows for one batch.
        """
        if len(self.order) < self.least * world_size:
            raise ConfigError(f"{len(self.order)} rows are too few for batches of {world_size} processes; take fewer")
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        rows = len(self.order)
        left_over = rows % self.step
        joined = 0 < left_over < self.least * self.world_size
        return max(rows // self.step + (left_over > 0) - joined, min(rows, 1))

    def __iter__(self) -> Iterator[Any]:
        seed = _seed_of(self.generator)
        order, count = self.order.begin(seed), len(self)
        start, self._first = self._first, 0
        own = range(start, count) if self.own is None else self.own
        together = max(_AT_ONCE // self.step, 1)
        for first in range(own.start, own.stop, together):
            last = min(first + together, own.stop)
            rows = order[first * self.step : len(self.order) if last == count else last * self.step]
            for number in range(first, last):
                begin = (number - first) * self.step
                batch = rows[begin:] if number + 1 == count else rows[begin : begin + self.step]
                share = self.rank, self.world_size
                yield Numbered(batch[_part(len(batch), *share)], (seed, number, 0), batch, share)


def _part(size: int, rank: int, world_size: int) -> slice:
    """A process's part of so many rows, as large as the others' but for one row."""
    return slice(size * rank // world_size, size * (rank + 1) // world_size)


def _seed_of(generator: torch.Generator) -> int:
    """A random number that belongs to the state of a generator, which stays as it is."""
    copy = torch.Generator()
    copy.set_state(generator.get_state())
    return int(torch.randint(2**62, (), generator=copy))


class Batch(Interaction):
    """A batch that torch knows how to copy to where a GPU reads it from.

    Args:
        columns: name -> values of each row.
        stands_in: it is one row of another process, for one that has none of a small batch: it counts nothing.
    """

    def __init__(self, columns: dict[str, Any], stands_in: bool = False) -> None:
        super().__init__(columns)
        self.stands_in = stands_in

    def pin_memory(self) -> "Batch":
        """The same in page-locked memory."""
        return Batch({name: values.pin_memory() for name, values in self.interaction.items()}, self.stands_in)


class _RowNumbers(Dataset[Any]):
    """What torch takes for the data: a batch of row numbers is made into rows afterwards, all at once."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, batch: Numbered) -> Numbered:
        return batch


class BatchLoader(AbstractDataLoader):
    """RecBole's loader without a list of all rows.

    With the key ``worker`` so many processes make batches ahead of time; they are copies of this one made by fork,
    which share its arrays. The batches are the same for any number of them.

    Args:
        config: the run's Config.
        dataset: a part of a SequenceDataset; ``sample_size`` is set before.
        sampler: draws items, an ItemSampler; None where nothing is drawn.
        shuffle: rows are in another order in each pass.

    Attributes:
        least_rows: rows that a batch must have.
    """

    least_rows = 1
    sample_size: int
    step: int
    _batch_size: Any
    model: Any

    def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        self.config, self._dataset, self._sampler, self.shuffle = config, dataset, sampler, shuffle
        self._batch_size = self.model = None
        self._init_batch_size_and_step()
        self.generator = torch.Generator()
        self.generator.manual_seed(SeedKeys.of(config).seed)
        self.transform = construct_transform(config)
        self.is_sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        workers = self._workers(config)
        DataLoader.__init__(
            self,
            _RowNumbers(self.sample_size),
            batch_sampler=Batches(self.row_order(), self.step, self.least_rows, self.generator),
            collate_fn=partial(self._made, self.collate_fn),
            num_workers=workers,
            generator=self.generator,
            pin_memory=RunKeys.of(config).device.type == "cuda",
            multiprocessing_context="fork" if workers and "fork" in multiprocessing.get_all_start_methods() else None,
        )

    def _workers(self, config: Any) -> int:
        return MachineKeys.of(config).worker

    def row_order(self) -> Order:
        """In which order a pass goes through the rows."""
        return Shuffled(self.sample_size, self.generator) if self.shuffle else Order(self.sample_size)

    def made_whole(self) -> bool:
        """Whether each of several processes makes a whole batch and takes its part."""
        return False

    def shard(self, rank: int, world_size: int) -> None:
        """Loads one process's share of each batch, see ``Batches``."""
        self.batch_sampler.shard(rank, world_size)

    @contextmanager
    def dealt(self, share: Callable[[int], range]) -> Iterator[None]:
        """A pass inside has whole batches of one process, as one process alone makes them.

        Args:
            share: number of batches -> numbers of those of this process.
        """
        self.batch_sampler.own = share(len(self))
        try:
            yield
        finally:
            self.batch_sampler.own = None

    def begin_at(self, number: int) -> None:
        """The next pass begins with this batch, see ``Batches``: a training goes on inside an epoch."""
        self.batch_sampler.begin_at(number)

    def _made(self, collate: Callable[[Any], Any], batch: Any) -> Any:
        """A batch of what ``collate_fn`` makes of row numbers; those of a pass bring their seed."""
        if not isinstance(batch, Numbered):
            return collate(batch)
        whole = batch.share[1] > 1 and self.made_whole()
        rows = batch.of_all if whole or not len(batch.rows) else batch.rows
        if self._sampler is not None:
            self._sampler.seed(batch.seed)
        if isinstance(self.transform, Equal):
            made = collate(rows)
        else:
            with _drawing(batch.seed):
                made = collate(rows)
        if isinstance(made, Interaction):
            return Batch(made.interaction) if rows is batch.rows else _shared(made, *batch.share)
        return (Batch(made[0].interaction), *made[1:])


def _shared(made: Interaction, rank: int, world_size: int) -> Batch:
    """A process's part of a whole batch, or its first row where there is none; what all its rows have in common, such
    as negatives, stays whole."""
    size = len(made)
    part = _part(size, rank, world_size)
    empty = part.start == part.stop
    part = slice(0, 1) if empty else part
    columns = {name: values[part] if len(values) == size else values for name, values in made.interaction.items()}
    return Batch(columns, stands_in=empty)


@contextmanager
def _drawing(seed: tuple[int, ...]) -> Iterator[None]:
    """RecBole's transforms draw from the random states of Python and NumPy: from such ones, while all others go on with
    theirs."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    state = np.random.SeedSequence(seed).generate_state(4)
    random.seed(state.tobytes())
    np.random.seed(state)
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


class TrainLoader(TrainDataLoader, BatchLoader):
    """Training rows, with the negatives of ``train_neg_sample_args``."""

    least_rows = 0

    def made_whole(self) -> bool:
        """Where something is drawn: it is what one process draws."""
        return self._sampler is not None or not isinstance(self.transform, Equal)

    def _workers(self, config: Any) -> int:
        if self.neg_sample_args.get("dynamic"):  # the model as it is now chooses among them
            return 0
        return super()._workers(config)
