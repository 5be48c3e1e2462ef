"""The work of a batch, counted item by item."""

import json
from collections import Counter
from dataclasses import asdict

import pytest
import torch
from launched import launch
from torch.utils._python_dispatch import TorchDispatchMode

from recbole_hllm.config.config import Config
from recbole_hllm.data.batches import Batch
from recbole_hllm.data.loader import data_preparation
from recbole_hllm.data.rows.dataset import create_dataset
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.nn.negatives import Negatives
from recbole_hllm.processes import begin, end
from recbole_hllm.training.work import Work, WorkCounter


def test_a_batch_of_windows_is_counted_item_by_item(prepare):
    prepared = prepare("HLLM", train_batch_size=4, num_negatives=7)
    counter, reading = WorkCounter(prepared.config, prepared.model, labelled=False), prepared.model.item_reading()
    for rows in prepared.train:
        work = counter.of(rows)
        read = [item for row in rows["item_id_list"].tolist() for item in row if item]
        places = read + rows["neg_item_id"][0].tolist()
        assert (work.items, work.positions) == (len(places), len(read))
        assert work.distinct_items == len(set(places)) < len(places)
        prepared.model.calculate_loss(rows)
        assert work.distinct_items == prepared.model.items_encoded
        assert work.item_tokens == sum(reading.tokens[item] for item in set(places))


def linear_flops(part):
    return sum(2 * weight.numel() for weight in part.parameters() if weight.dim() > 1)


@pytest.mark.parametrize("item, user", [(True, True), (False, True), (False, False)])
def test_what_is_not_trained_is_read_once(prepare, item, user):
    """One pass forward; one for the gradient of the input and one for that of the weights, where they are trained."""
    prepared = prepare("HLLM", train_batch_size=4)
    model, rows = prepared.model, next(iter(prepared.train))
    model.item_encoder.requires_grad_(item)
    model.user_encoder.requires_grad_(user)
    reading, work = model.item_reading(), WorkCounter(prepared.config, model, labelled=False).of(rows)
    ids = {i for name in ("item_id_list", "neg_item_id") for i in rows[name].reshape(-1).tolist()} - {0}
    pairs = sum(4 * reading.layers * reading.hidden_size * int(reading.tokens[i]) ** 2 for i in ids)
    words = model.item_encoder.backbone.get_input_embeddings()
    head = linear_flops(model.item_encoder.projection)  # of one vector an item
    of_tokens = linear_flops(model.item_encoder) - linear_flops(words) - head
    of_items = of_tokens * work.item_tokens + pairs + head * work.distinct_items
    of_users = linear_flops(model.user_encoder)  # which has no words
    expected = (3 if item else 1) * of_items + (3 if user else 1) * of_users * work.positions
    targets = int((rows["item_id_list"][:, 1:] != 0).sum())
    # Scores of 8 negatives, and the filter's cosines.
    expected += (4 if item else 3) * 2 * targets * 8 * model.user_encoder.hidden_size
    assert work.flops == pytest.approx(expected)


class Products(TorchDispatchMode):
    """FLOPs of the products of matrices that are made, by their sizes (rows, inner, columns)."""

    def __init__(self):
        super().__init__()
        self.flops = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm", "addmm", "addmm_"):
            left, right = args[:2] if name in ("mm", "bmm") else args[1:3]
            sizes = (*left.shape, right.shape[-1])
            self.flops[sizes[-3:]] += 2 * torch.Size(sizes).numel()
        return func(*args, **(kwargs or {}))

    def of_size(self, *sizes):
        """Of those with one of these numbers of rows or columns, or between them."""
        return sum(flops for shape, flops in self.flops.items() if set(sizes) & set(shape))


def products_of_a_step(model, rows):
    with Products() as products:
        loss = model.calculate_loss(rows)
        (sum(loss) if isinstance(loss, tuple) else loss).backward()
    return products


CATALOGUE = {"negatives": "catalogue", "item_tower": "content", "content": "id", "content_dim": 8, "target_length": 1}
SCORERS = {
    "SASRec": {}, "GRU4Rec": {}, "BERT4Rec": {"mask_ratio": 0.5}, "FMLPRec": {}, "SASRecCE": {}, "LRURec": {},
    "SASRecNCE": {"num_negatives": 12, "nce_thres": 0.99}, "gSASRec": {"num_negatives": 12},
    "HSTU": {"num_negatives": 12, "negatives": "per_position"}, "E4SRec": {}, "SLMRec": {"distill_heads": 1.0},
}  # fmt: skip


@pytest.fixture
def first_batch(settings_of):
    """(model, keys) -> a model in training mode, its config, and its first batch of training rows."""

    def make(name, **keys):
        config = Config(name, config_dict={**settings_of(name), **keys})
        train = data_preparation(config, create_dataset(config))[0]
        torch.manual_seed(0)
        model = config.spec.build(config, train._dataset, Weights.STAND_IN).train()
        return model, config, next(iter(train))

    return make


@pytest.mark.parametrize("name", SCORERS)
def test_scores_of_items_are_counted(first_batch, name):
    """They are the only products with 12, the number of items, 13 with padding and 14 with BERT4Rec's mask."""
    model, config, rows = first_batch(name, **SCORERS[name])
    made = products_of_a_step(model, rows).of_size(12, 13, 14)
    assert made > 0 and model.scoring_flops(rows) == pytest.approx(made, rel=0.1)
    work = WorkCounter(config, model, labelled=False).of(rows)
    stands_in = Batch(rows.interaction, stands_in=True)
    assert work.flops - WorkCounter(config, model, labelled=False).of(stands_in).flops > made * 0.9


@pytest.mark.parametrize("name", ["SASRec", "SASRecCE"])
def test_a_table_that_is_not_trained_has_no_gradient(first_batch, name):
    model, _, rows = first_batch(name)
    trained = model.scoring_flops(rows)
    model.item_embedding.requires_grad_(False)
    made = products_of_a_step(model, rows).of_size(12, 13)
    assert model.scoring_flops(rows) == pytest.approx(made) == pytest.approx(trained * 2 / 3)


def test_scores_of_further_negatives(first_batch):
    keys = {"num_negatives": 12, "in_batch_negatives": True, "cross_batch_negatives": 20}
    model, _, rows = first_batch("SASRecNCE", **keys)
    targets = int((rows["item_id_list"][:, 1:] != 0).sum())
    model.calculate_loss(rows)  # the memory is full now
    made = products_of_a_step(model, rows).of_size(12 + targets + 20)
    assert model.scoring_flops(rows) == pytest.approx(made * 8 / 9)  # a ninth number brings the correction


def test_negatives_are_projected_by_an_llm_over_ids(first_batch):
    model, _, rows = first_batch("LLMIDRec", num_negatives=200, cross_batch_negatives=300)
    of_many = model.scoring_flops(rows)
    model.calculate_loss(rows)
    model.calculate_loss(rows)
    targets, (width, own) = int((rows["item_id_list"][:, 1:] != 0).sum()), model.projection.weight.shape
    assert len(model.further.memory.remembered(Negatives(torch.ones(1), torch.ones(1, width)))) == 300
    assert of_many == 6 * targets * (200 + 300) * width + 6 * 200 * width * own


def test_the_catalogue_of_learn_is_counted(first_batch):
    model, _, rows = first_batch("LEARN", **CATALOGUE)
    among = first_batch("LEARN", **CATALOGUE | {"negatives": "users"})[0].scoring_flops(rows)
    made = products_of_a_step(model, rows)
    assert model.scoring_flops(rows) - among == pytest.approx(made.of_size(12)) and among > 0


ADAPTORS = {
    "HLLM": {"item_llm_tuning": "frozen", "negatives": "catalogue", "item_head_hidden": 24},
    "WhitenRec": {"whitening_groups": [1, 4]},
    "UniSRec": {"hidden_size": 32},
}


@pytest.mark.parametrize("name", ADAPTORS)
def test_what_reads_stored_vectors_is_counted_for_every_item(first_batch, name):
    """Of the catalogue, which is compared with, not only of histories; UniSRec's biases count as matrices, too."""
    model, config, rows = first_batch(name, **ADAPTORS[name])
    items = model.item_encoder if name == "HLLM" else model.items
    with Products() as adaptor:
        items(torch.arange(1, 13)).sum().backward()
    counter = WorkCounter(config, model, labelled=False)
    work = counter.of(rows)
    beside = model.scoring_flops(rows) + sum(part.flops(work.positions) for part in counter.others)
    assert (work.distinct_items, work.item_tokens) == (12, 0)
    tolerance = 0.05 if name == "UniSRec" else 1e-6
    assert work.flops - beside == pytest.approx(adaptor.flops.total(), rel=tolerance)


@pytest.mark.parametrize("model", ["SASRec", "BPR", "LEARN"])
def test_no_random_number_is_drawn(prepare, model):
    """``positions_read`` of LEARN too, with a part of the catalogue as negatives."""
    keys = {"negatives": "catalogue", "num_negatives": 4} if model == "LEARN" else {}
    prepared = prepare(model, **keys)
    rows, before = next(iter(prepared.train)), torch.get_rng_state()
    work = WorkCounter(prepared.config, prepared.model, labelled=False).of(rows)
    assert torch.equal(torch.get_rng_state(), before)
    assert work.item_tokens == 0 < work.distinct_items <= work.items and work.positions > 0


def counts(prepared):
    """The work of each batch."""
    counter = WorkCounter(prepared.config, prepared.model, labelled=False)
    return [asdict(counter.of(rows)) for rows in prepared.train]


def counts_of_a_part(every):
    processes = begin(torch.device("cpu"), 1)
    for prepared in every:
        prepared.train.shard(processes.rank, processes.world_size)
    print(json.dumps([counts(prepared) for prepared in every]))
    end()


def test_processes_count_together_what_one_counts(prepare):
    """What two of them read is counted once, also in a last batch in which one has no row."""
    keys = {"train_batch_size": 8, "num_negatives": 7}  # of 17 rows
    every = [prepare("HLLM", **keys), prepare("HLLM", live_items=5, **keys), prepare("SASRecNCE", **keys)]
    ended = launch(counts_of_a_part, every, world_size=3)  # before a pass here, which would change the next one's rows
    alone = [counts(prepared) for prepared in every]
    assert [process.code for process in ended] == [0] * 3, ended[0].err
    parts = [json.loads(process.out) for process in ended]
    for model, batches in enumerate(alone):
        for number, expected in enumerate(batches):
            work = Work()
            for part in parts:
                work.add(Work(**part[model][number]))
            known = {name for name in expected if name != "distinct_items" or model < 2}
            assert {name: getattr(work, name) for name in known} == pytest.approx({n: expected[n] for n in known})


def test_works_are_added():
    work = Work(1, 1, 5, 2, 10)
    work.add(Work(2, 1, 6, 3, 20), 0.5)
    assert work == Work(2, 1.5, 8, 3.5, 20)


def test_a_teacher_that_reads_every_batch_again_is_counted(first_batch):
    """Forward alone, as often as the student's layers read."""
    found = {}
    for cached in (True, False):
        model, config, rows = first_batch("SLMRec", teacher_cache=cached)
        found[cached] = WorkCounter(config, model, labelled=False).of(rows)
    teacher = model.states.teacher
    tables = {module for module in teacher.modules() if isinstance(module, torch.nn.Embedding)}
    matrices = sum(linear_flops(part) for part in teacher.children() if part not in tables)
    assert found[False].flops - found[True].flops == pytest.approx(matrices * found[True].positions)


def test_words_that_a_head_shares_with_the_table_are_counted(first_batch, settings_of):
    """As those of a head of its own."""
    sizes = settings_of("PromptLLMTuned")["item_llm_config"]
    found = []
    for tied in (True, False):
        model, config, rows = first_batch("PromptLLMTuned", item_llm_config={**sizes, "tie_word_embeddings": tied})
        found.append(WorkCounter(config, model, labelled=False).of(rows).flops)
    assert found[0] == pytest.approx(found[1])
