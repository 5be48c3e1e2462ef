"""The work of a batch, counted item by item."""

import json
from dataclasses import asdict

import pytest
import torch
from launched import launch

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
    of_items = (linear_flops(model.item_encoder) - linear_flops(words)) * work.item_tokens + pairs
    of_users = linear_flops(model.user_encoder)  # which has no words
    assert work.flops == pytest.approx((3 if item else 1) * of_items + (3 if user else 1) * of_users * work.positions)


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
