"""The ways of a training step are the same mathematics, and read what they say."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recbole_hllm import Config, create_dataset, data_preparation

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    """Name -> a program of benchmarks."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


@pytest.fixture
def build(settings_of):
    """Model and a batch of the toy data, some of whose windows are padded; always the same weights."""

    def make(**keys):
        config = Config("HLLM", config_dict={**settings_of("HLLM"), "train_batch_size": 4, **keys})
        train, *_ = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        return config.spec.build(config, train._dataset), next(iter(train))

    return make


def test_all_ways_give_the_same_loss_and_read_what_they_say(module, build):
    program, losses, read = module("training_speed"), {}, {}
    for name, way in program.WAYS.items():
        model, rows = build(**({} if way.chunked else program.PLAIN))
        seen = program.changed(model, way)
        loss = model.calculate_loss(rows)
        loss.backward()
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters() if weight.grad is not None])
        losses[name], read[way.places] = (float(loss.detach()), float(norm)), seen.pop()[0]
        assert not seen
    reference = losses["reference mode"]
    for name, found in losses.items():
        assert found == pytest.approx(reference, rel=1e-4), name
    windows, negatives = rows["item_id_list"], rows["neg_item_id"]
    ids = torch.cat([windows.reshape(-1), negatives.reshape(-1)])
    assert read == {"all": len(ids), "real": int((ids != 0).sum()), "distinct": len(ids[ids != 0].unique())}
    assert read["all"] > read["real"] > read["distinct"]


def test_ratios_are_of_reference_mode(module, capsys):
    program = module("training_speed")
    result = {"rows": 8, "seconds": 9.0, "texts": 5, "tokens": 50, "loss": 2.0, "peak": 10**9, "machine": "A"}
    cpu = dict(zip(program.WAYS, (12.0, 8.0, 6.0, 4.0, 3.0, 2.5, 2.0, 1.0), strict=True))
    found = {"scientific": {way: {**result, "cpu": seconds} for way, seconds in cpu.items()}}
    assert program.ratios(found) == {"step_speedup_scientific": 4.0, "bf16_speedup": 2.0}
    report = program.Report("scientific")
    for way, of_way in found["scientific"].items():
        report.add(way, of_way)
    assert report.results == found["scientific"]
    printed = capsys.readouterr().out
    assert "| each item once | 5 | 50 | 9.00 | 4.00 | 2.0 | 2.00x | 1.50x | 1.0 GB |" in printed
    assert "| reference mode | 5 | 50 | 9.00 | 8.00 | 1.0 | 1.00x | 1.50x | 1.0 GB |" in printed
    with pytest.raises(SystemExit, match="each item once: the first loss is 2.001, that of the first line 2.0"):
        report.add("each item once", {**result, "cpu": 1.0, "loss": 2.001})


def test_every_item_of_the_zipf_data_occurs(module, monkeypatch, tmp_path):
    program = module("zipf_data")
    monkeypatch.setattr(program, "ITEMS", 200)
    monkeypatch.setattr(program, "USERS", 2000)
    monkeypatch.setattr(program, "write_llm", lambda folder: None)
    program.write(tmp_path)
    users, items, _ = np.loadtxt(tmp_path / "zipf" / "zipf.inter", skiprows=1, dtype=int, unpack=True)
    counts, lengths = np.bincount(items)[1:], np.bincount(users)[1:]
    assert len(counts) == 200 and counts.min() > 0 and len(lengths) == 2000
    assert lengths.min() >= 4 and lengths.mean() - 2 == pytest.approx(14, rel=0.05)
    shares = counts[:3] / len(items)
    assert shares == pytest.approx(1 / np.arange(1, 4) / (1 / np.arange(1, 201)).sum(), rel=0.1)
    assert len((tmp_path / "zipf" / "zipf.item").read_text(encoding="utf-8").splitlines()) == 201


def test_efficiency_is_the_speed_up_of_a_process(module, capsys):
    program = module("engines")
    found = {"single": {"seconds": 3.0, "losses": [2.0, 1.5]}, "ddp": {"seconds": 2.0, "losses": [2.0, 1.5001]}}
    arguments = SimpleNamespace(rows=12, steps=1, processes=2)
    assert program.report(found, arguments) == {"ddp_efficiency": 0.75}
    assert "| ddp | 2 | 2.00 | 6.0 | 1.50x | 75% |" in capsys.readouterr().out
    found["ddp"]["losses"][1] = 1.6
    with pytest.raises(SystemExit, match="ddp: losses are"):
        program.report(found, arguments)
