"""Rates of a training: numbers that can be counted another way, by a clock that is set."""

import json
import time
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recbole_hllm import run
from recbole_hllm.training import throughput as module
from recbole_hllm.training.throughput import PEAK_SIZE, Throughput, product_rate, throughput_text
from recbole_hllm.training.work import WorkCounter


@pytest.fixture
def counted(prepare, monkeypatch):
    """HLLM's first three batches: each is waited for half a second and takes two, of which half a second is not the
    batch's own."""
    prepared, now = prepare("HLLM", train_batch_size=4, num_negatives=7), [100.0]
    throughput = Throughput(prepared.config, prepared.model, False, lambda: now[0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def loaded(batches):
        for rows in batches:
            now[0] += 0.5
            yield rows

    terms, batches = [], list(prepared.train)[:3]
    for number, rows in enumerate(throughput.watched(loaded(batches))):
        now[0] += 1.5
        terms.append(throughput.of_batch(rows))
        throughput.read({"surviving_negatives": float(number)})
    works = [WorkCounter(prepared.config, prepared.model, False).of(rows) for rows in batches]
    return SimpleNamespace(throughput=throughput, terms=terms, works=works, batches=batches, now=now)


def test_the_rates_of_each_batch(counted):
    for terms, work in zip(counted.terms, counted.works, strict=True):
        assert terms == {
            "waiting_seconds/s": 0.25,
            "all_items/s": work.items / 2,
            "item_tokens/s": work.item_tokens / 2,
            "FLOP/s": work.flops / 2,
        }


def test_the_rates_of_the_run_and_of_its_last_epoch(counted):
    throughput, works = counted.throughput, counted.works
    rates = throughput.of_run()
    assert rates == throughput.of_epoch() | {"peak_memory_bytes": rates["peak_memory_bytes"]}
    assert (rates["batches"], rates["seconds"]) == (3, 6.0)
    assert rates["item_tokens_per_second"] == sum(work.item_tokens for work in works) / 6
    assert rates["flops_per_second"] == sum(work.flops for work in works) / 6
    assert rates["items"] == sum(work.items for work in works) / 3
    assert rates["distinct_items"] == sum(work.distinct_items for work in works) / 3
    assert (rates["waiting_seconds"], rates["waiting_share"], rates["surviving_negatives"]) == (1.5, 0.25, 1.0)
    assert rates["peak_flops_per_second"] is rates["share_of_peak"] is None
    counted.now[0] += 50  # a validation, say
    for rows in throughput.watched(counted.batches[:1]):
        counted.now[0] += 4
        throughput.of_batch(rows)
    assert throughput.of_epoch()["item_tokens_per_second"] == works[0].item_tokens / 4
    assert throughput.of_run()["seconds"] == 10 and throughput.of_epoch()["waiting_seconds"] == 0


def test_the_best_rate_is_measured_when_a_training_has_gone_on_for_long(counted, monkeypatch):
    monkeypatch.setattr(module, "product_rate", lambda device, dtype: 1e9)
    monkeypatch.setattr(module, "PEAK_AFTER", 7.0)
    assert counted.throughput.of_run()["share_of_peak"] is None
    for rows in counted.throughput.watched(counted.batches[:1]):
        counted.now[0] += 2
        terms = counted.throughput.of_batch(rows)
    assert terms["share_of_peak"] == pytest.approx(terms["FLOP/s"] / 1e9)
    rates = counted.throughput.of_run()
    assert rates["share_of_peak"] == pytest.approx(rates["flops_per_second"] / 1e9)


def test_several_processes_are_told_together(counted, monkeypatch):
    """The other has done twice as much in as many batches, and its machine is three times as fast."""

    def gather(own):
        work = {name: 2 * value for name, value in own["work"].items()}
        other = {**own, "work": work, "seconds": 12.0, "waiting": 3.0, "negatives": 9.0, "peak": 3e9, "memory": 5}
        return [{**own, "peak": 1e9, "memory": 4}, other]

    monkeypatch.setattr(module, "current", lambda: SimpleNamespace(gather=gather))
    rates = counted.throughput.of_run()
    assert rates["item_tokens_per_second"] == 3 * sum(work.item_tokens for work in counted.works) / 12
    assert rates["items"] == sum(work.items for work in counted.works), "of a batch of all processes"
    assert (rates["waiting_seconds"], rates["waiting_share"], rates["surviving_negatives"]) == (3.0, 0.25, 2.0)
    assert rates["peak_flops_per_second"] == 4e9 and rates["peak_memory_bytes"] == [4, 5]
    assert rates["distinct_items"] == sum(work.distinct_items for work in counted.works)
    counted.throughput.counter.reading = None
    rates = counted.throughput.of_run()
    assert rates["distinct_items"] is None and throughput_text(rates).startswith(f"{rates['items']:,.0f} items of a")


def test_the_words_of_the_log():
    rates = {
        "item_tokens_per_second": 12345.6, "items": 3200.0, "distinct_items": 1500.0, "flops_per_second": 45.04e9,
        "peak_flops_per_second": 145.2e9, "share_of_peak": 45.04 / 145.2, "waiting_seconds": 0.21,
        "waiting_share": 0.011, "surviving_negatives": 480.0, "peak_memory_bytes": [2_300_000_000, 2_400_000_000],
    }  # fmt: skip
    assert throughput_text(rates) == (
        "12,346 item tokens/s; 1,500 distinct of 3,200 items of a batch; 45.0 GFLOP/s, 31.0% of 145.2 GFLOP/s of a "
        "product; waiting for data 0.2s (1.1%); 480.0 surviving negatives; peak memory 2.3 GB + 2.4 GB"
    )
    nothing = dict.fromkeys(rates) | {"waiting_seconds": 0.0, "peak_memory_bytes": [None]}
    assert throughput_text(nothing) == "waiting for data 0.0s (0.0%); peak memory –"


def test_the_rate_of_a_product_is_measured_once(monkeypatch):
    product_rate.cache_clear()
    shapes, mm, before = [], torch.mm, torch.get_rng_state()
    monkeypatch.setattr(torch, "mm", lambda left, right: (shapes.append(left.shape), mm(left[:9], right))[1])
    start = time.perf_counter()
    rate = product_rate(torch.device("cpu"), torch.float32)
    assert rate > 2 * PEAK_SIZE**3 / (time.perf_counter() - start)
    assert product_rate(torch.device("cpu"), torch.float32) == rate
    assert shapes == [(PEAK_SIZE, PEAK_SIZE)] * 4 and torch.equal(torch.get_rng_state(), before)
    product_rate.cache_clear()


def test_a_run_leaves_its_rates(settings_of, tmp_path):
    settings = {**settings_of("HLLM"), "epochs": 2, "state": "info", "gradient_accumulation_steps": 2}
    run("HLLM", config_dict=settings, run_dir=tmp_path / "run")
    costs = json.loads((tmp_path / "run" / "costs.json").read_text())
    rates = costs["throughput"]
    assert rates["item_tokens_per_second"] > 0 and rates["flops_per_second"] > 0
    assert 0 < rates["seconds"] <= costs["training_seconds"] and 0 <= rates["waiting_share"] < 1
    assert 0 < rates["surviving_negatives"] and rates["distinct_items"] <= rates["items"]
    assert [costs["peak_memory_bytes"]] >= rates["peak_memory_bytes"]
    log = (tmp_path / "run" / "run.log").read_text()
    assert log.count("throughput [") == 2 and "item tokens/s" in log and "of a product" not in log
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    for tag in ("item_tokens/s", "FLOP/s", "all_items/s", "waiting_seconds/s"):
        assert len(events.Scalars(f"train/{tag}")) == rates["batches"]


def test_a_model_without_texts_has_no_item_tokens(settings_of, tmp_path):
    run("SASRec", config_dict={**settings_of("SASRec"), "epochs": 1}, run_dir=tmp_path / "run")
    rates = json.loads((tmp_path / "run" / "costs.json").read_text())["throughput"]
    assert rates["item_tokens_per_second"] is None and rates["flops_per_second"] > 0 and rates["items"] > 0
