"""A batch depends on the seed, the pass and its number alone: not on processes, nor on what was drawn before."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from recbole_hllm import create_dataset, data_preparation
from recbole_hllm.data.batches import Batch, Batches
from recbole_hllm.data.order import Order, Shuffled
from recbole_hllm.errors import ConfigError
from recbole_hllm.processes import Processes

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # RecBole's


def batches(size, step, least=1, seed=0, shuffled=True):
    generator = torch.Generator().manual_seed(seed)
    order = Shuffled(size, generator) if shuffled else Order(size)
    return Batches(order, step, least, generator)


# ---- which rows a batch has ----


@pytest.mark.parametrize("size, step, least, sizes", [
    (10, 4, 1, [4, 4, 2]), (9, 4, 1, [4, 4, 1]), (9, 4, 2, [4, 5]), (8, 4, 2, [4, 4]), (1, 4, 1, [1]), (1, 4, 2, [1]),
    (2, 1, 1, [1, 1]), (5, 2, 2, [2, 3]), (100_000, 7, 1, [7] * 14285 + [5]),
])  # fmt: skip
def test_sizes(size, step, least, sizes):
    sampler = batches(size, step, least)
    for _ in range(2):
        found = list(sampler)
        assert [len(batch.rows) for batch in found] == sizes and len(sampler) == len(sizes)
        assert np.array_equal(np.sort(np.concatenate([batch.rows for batch in found])), np.arange(size))


@pytest.mark.parametrize("shuffled", [True, False])
@pytest.mark.parametrize("size, step, least", [(37, 8, 1), (33, 8, 1), (35, 8, 2), (16, 8, 1), (5, 8, 1), (9, 3, 1)])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_each_batch(size, step, least, world_size, shuffled):
    whole = list(batches(size, step, least * world_size, shuffled=shuffled))
    shares = []
    for rank in range(world_size):
        sampler = batches(size, step, least, shuffled=shuffled)
        if size < least * world_size:
            with pytest.raises(ConfigError, match=f"{size} rows are too few for batches of {world_size} processes"):
                sampler.shard(rank, world_size)
            return
        sampler.shard(rank, world_size)
        shares.append(list(sampler))
        assert len(sampler) == len(shares[-1]) == len(whole)
    for number, batch in enumerate(whole):
        own = [share[number] for share in shares]
        assert np.array_equal(np.concatenate([part.rows for part in own]), batch.rows)
        lengths = [len(part.rows) for part in own]
        assert min(lengths) >= least and max(lengths) - min(lengths) <= 1
        assert [part.seed for part in own] == [batch.seed] * world_size
        assert all(np.array_equal(part.of_all, batch.rows) for part in own)


def test_a_pass_has_its_own_seed_which_takes_no_random_number():
    sampler = batches(20, 6)
    seeds = [[batch.seed for batch in sampler] for _ in range(3)]
    assert [[seed[1:] for seed in one] for one in seeds] == [[(number, 0) for number in range(4)]] * 3
    assert len({one[0][0] for one in seeds}) == 3 and all(len({seed[0] for seed in one}) == 1 for one in seeds)
    again = batches(20, 6)
    assert [[batch.seed for batch in again] for _ in range(3)] == seeds
    plain = Order(20)
    assert next(iter(Batches(plain, 6, 1, torch.Generator().manual_seed(0)))).seed == seeds[0][0]


@pytest.mark.parametrize("size, step, least", [(20, 6, 1), (19, 6, 2), (100_000, 7, 1)])
@pytest.mark.parametrize("number", [0, 1, 2, None])
def test_a_pass_that_begins_later_has_the_same_batches(size, step, least, number):
    sampler, other = batches(size, step, least), batches(size, step, least)
    number = len(sampler) if number is None else number
    first, second = list(sampler), list(sampler)
    other.begin_at(number)
    for whole, later in ((first[number:], list(other)), (second, list(other))):
        assert len(whole) == len(later)
        for one, two in zip(whole, later, strict=True):
            assert np.array_equal(one.rows, two.rows) and one.seed == two.seed


# ---- loaders ----

UNIFORM = {"distribution": "uniform", "sample_num": 2}
POPULAR = {"distribution": "popularity", "sample_num": 1, "alpha": 1.0}
MODELS = {
    "HLLM": ("HLLM", {"num_negatives": 5}),
    "SASRecNCE": ("SASRecNCE", {"negatives": "per_position", "num_negatives": 3}),
    "BPR": ("BPR", {"train_neg_sample_args": UNIFORM}),
    "popular BPR": ("BPR", {"train_neg_sample_args": POPULAR}),
    "SASRec of pairs": ("SASRec", {"loss_type": "BPR", "train_neg_sample_args": UNIFORM}),
    "points": ("NeuMF", {"train_neg_sample_args": UNIFORM}),
    "masked": ("BERT4Rec", {"mask_ratio": 0.5}),
    "LEARN": ("LEARN", {"content": "id"}),
}


@pytest.fixture
def loaders(write_dataset, toy_config, tmp_path, random_rows):
    write_dataset(tmp_path, "toy", random_rows(users=20, items=40, longest=15, seed=7))

    def make(model, **keys):
        config = toy_config(model, train_batch_size=16, eval_batch_size=7, **keys)
        return data_preparation(config, create_dataset(config))

    return make


def columns_of(loader):
    """Every column of every batch of a pass."""
    made = []
    for batch in loader:
        rows, *rest = batch if isinstance(batch, (tuple, list)) else (batch,)
        made.append({name: values.clone() for name, values in rows.interaction.items()})
        made.append({str(number): part.clone() for number, part in enumerate(rest) if isinstance(part, torch.Tensor)})
    return made


def same(one, other):
    assert len(one) == len(other)
    for mine, yours in zip(one, other, strict=True):
        assert mine.keys() == yours.keys()
        for name in mine:
            assert torch.equal(mine[name], yours[name]), name


@pytest.mark.parametrize("kind", MODELS)
def test_batches_that_are_skipped_are_not_made(loaders, kind, monkeypatch):
    name, keys = MODELS[kind]
    train, other, *_ = (loaders(name, **keys)[0] for _ in range(2))
    whole, made = columns_of(train), []
    collate = type(other).collate_fn
    monkeypatch.setattr(type(other), "collate_fn", lambda self, rows: (made.append(len(rows)), collate(self, rows))[1])
    other, *_ = loaders(name, **keys)
    other.begin_at(1)
    later = columns_of(other)
    assert len(made) == len(other) - 1
    same(later, whole[-len(later) :])


@pytest.mark.parametrize("kind", MODELS)
def test_batches_are_the_same_whatever_was_drawn_before(loaders, kind):
    model, keys = MODELS[kind]
    passes = []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        train, valid, _ = loaders(model, **keys)
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        passes.append([columns_of(train), columns_of(valid), columns_of(train)])
        assert random.getstate() == states[0] and np.random.get_state()[1].tolist() == states[1]
        assert torch.equal(torch.get_rng_state(), states[2])
    for one, other in zip(*passes, strict=True):
        same(one, other)
    with pytest.raises(AssertionError):
        same(passes[0][0], passes[0][2])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("kind", ["HLLM", "BPR", "popular BPR", "masked"])
def test_batches_are_the_same_for_any_number_of_processes(loaders, kind):
    model, keys = MODELS[kind]
    expected = None
    for workers in (0, 1, 2, 3):
        train, _, test = loaders(model, worker=workers, **keys)
        assert train.num_workers == test.num_workers == workers
        made = [columns_of(train), columns_of(train), columns_of(test)]
        expected = expected or made
        for one, other in zip(made, expected, strict=True):
            same(one, other)


def test_negatives_of_a_batch_differ_from_those_of_others_and_of_other_seeds(loaders):
    train, *_ = loaders("HLLM", num_negatives=30, shuffle=False)
    first, second = columns_of(train), columns_of(train)
    drawn = [batch["neg_item_id"].tolist() for batch in (*first[::2], *second[::2])]
    assert len(set(map(str, drawn))) == len(drawn) > 2
    assert torch.equal(first[0]["item_id_list"], second[0]["item_id_list"])
    other = columns_of(loaders("HLLM", num_negatives=30, shuffle=False, seed=5)[0])
    assert other[0]["neg_item_id"].tolist() not in drawn


def test_a_state_of_the_generator_brings_a_pass_again(loaders):
    """As a run that goes on with its last checkpoint restores it."""
    train, *_ = loaders("BPR", train_neg_sample_args=UNIFORM)
    columns_of(train)
    state = train.generator.get_state()
    second = columns_of(train)
    later, *_ = loaders("BPR", train_neg_sample_args=UNIFORM)
    later.generator.set_state(state)
    same(columns_of(later), second)


def test_the_model_chooses_among_dynamic_negatives_where_it_is(loaders):
    dynamic = {"distribution": "uniform", "sample_num": 1, "dynamic": True, "candidate_num": 3}
    train, valid, _ = loaders("BPR", train_neg_sample_args=dynamic, worker=2)
    assert train.num_workers == 0 and valid.num_workers == 2


@pytest.mark.parametrize("model, keys", [
    ("SASRec", {}), ("HLLM", {"num_negatives": 4}), ("HLLM", {"num_negatives": None}), ("BPR", {}), ("BERT4Rec", {}),
    ("HLLM", {"num_negatives": 3, "negatives": "per_position"}),
])  # fmt: skip
@pytest.mark.parametrize("world_size", [2, 7])
def test_what_processes_draw_is_what_one_draws(loaders, model, keys, world_size):
    """A batch of one process is the parts of several, one after the other; who has no row counts nothing."""
    whole, parts = loaders(model, **keys)[0], [loaders(model, **keys)[0] for _ in range(world_size)]
    for rank, loader in enumerate(parts):
        loader.shard(rank, world_size)
    assert len(parts[0]) == len(whole)
    for batch, *shares in zip(whole, *parts, strict=True):
        counted = [share for share in shares if not share.stands_in]
        assert len(counted) == min(len(batch), world_size) and not batch.stands_in
        for name, values in batch.interaction.items():
            own = [share[name] for share in counted]
            shared = len(values) != len(batch)  # negatives of the whole batch
            assert all(torch.equal(part, values) for part in own) if shared else torch.equal(torch.cat(own), values)


@pytest.mark.parametrize("model", ["SASRec", "HLLM", "BPR"])
def test_loaders_share_batches_between_processes(loaders, model):
    keys = {"num_negatives": 4} if model == "HLLM" else {}
    whole = torch.cat([batch["user_id"] for batch in loaders(model, **keys)[0]])
    parts = [loaders(model, **keys)[0] for _ in range(2)]
    for rank, loader in enumerate(parts):
        loader.shard(rank, 2)
    rows = [batch["user_id"] for pair in zip(*parts, strict=True) for batch in pair]
    assert torch.equal(torch.cat(rows), whole)
    test = loaders(model, **keys)[2]
    users = torch.cat([batch[0]["user_id"] for batch in test])
    shares = [loaders(model, **keys)[2] for _ in range(3)]
    for rank, loader in enumerate(shares):
        loader.shard(rank, 3)
    assert len({len(loader) for loader in shares}) == 1
    together = [batch[0]["user_id"] for triple in zip(*shares, strict=True) for batch in triple]
    assert torch.equal(torch.cat(together), users)


def test_no_list_of_rows_is_made(loaders):
    train, valid, _ = loaders("SASRec")
    for loader in (train, valid):
        assert not any(isinstance(value, (list, range)) for value in vars(loader).values())
        assert isinstance(next(iter(loader.batch_sampler)).rows, np.ndarray)


# ---- page-locked memory ----


def test_torch_copies_batches_to_page_locked_memory(loaders, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: pinned.append(tensor) or tensor.clone())
    train, valid, _ = loaders("SASRec")
    batch = next(iter(train))
    copied = pin_memory(batch)
    assert type(copied) is Batch and len(pinned) == len(batch.interaction)
    assert all(torch.equal(copied[name], values) for name, values in batch.interaction.items())
    rows, masked, row_of, items = pin_memory(next(iter(valid)))
    assert type(rows) is Batch and masked is None and torch.equal(items, rows["item_id"])
    assert len(pinned) == len(batch.interaction) + len(rows.interaction) + 2


@pytest.mark.parametrize("device, locked", [("cuda", True), ("cpu", False)])
def test_memory_is_page_locked_for_a_gpu(loaders, device, locked):
    train, *_ = loaders("SASRec")
    train.config["device"] = torch.device(device)
    assert type(train)(train.config, train._dataset, None, shuffle=True).pin_memory is locked


@pytest.mark.parametrize("kind", ["HLLM", "masked"])
def test_an_evaluation_deals_out_whole_batches(loaders, kind):
    """Also to more processes than there are batches."""
    model, keys = MODELS[kind]
    loader = loaders(model, **keys)[1]
    begun = loader.generator.get_state()  # each process has a loader of its own, which is at the same pass
    alone = columns_of(loader)
    for world_size in (1, 2, 5):
        dealt = []
        for rank in range(world_size):
            loader.generator.set_state(begun)
            with loader.dealt(Processes(rank, world_size).share):
                dealt += columns_of(loader)
                assert len(loader) == len(alone) // 2 == 2, "the number of all"
        same(dealt, alone)
    loader.generator.set_state(begun)
    same(columns_of(loader), alone)
