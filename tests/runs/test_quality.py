"""What rounded vectors cost: the metrics of the run's evaluation, and those of a plain computation."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from recbole_hllm import load_run, run
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.runs.export import export
from recbole_hllm.runs.quality import quality_as_written, quality_lines
from recbole_hllm.serving import quantised
from recbole_hllm.serving.folder import read_manifest, read_served
from recbole_hllm.serving.served import ServedBlend, ServedPairs


@pytest.fixture(scope="module")
def finished(settings_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality") / "SASRec"
    run("SASRec", config_dict={**settings_of("SASRec"), "mask_history": "both", "epochs": 1}, run_dir=folder)
    return load_run(folder)


def plain_metrics(loaded, items):
    """Recall, MRR and NDCG of the test by hand, with (N, D) vectors of items, which SASRec reads and scores; with the
    history left in and masked."""
    users, targets, histories, table = [], [], [], loaded.model.item_embedding
    before, table.weight.data = table.weight.data, items
    for rows, masked, row_of, positives in loaded.test_data:
        with torch.no_grad():
            users.append(loaded.model(rows["item_id_list"], rows["item_length"]))
        targets += positives.tolist()
        assert row_of.tolist() == list(range(len(rows)))
        histories += [masked[1][masked[0] == row].tolist() for row in range(len(rows))]
    table.weight.data = before
    scores = (torch.cat(users) @ items.T).double().numpy()
    scores[:, 0] = -np.inf
    found = {}
    for mark in ("", "-masked"):
        if mark:
            for row, history in enumerate(histories):
                scores[row, history] = -np.inf
        ranks = np.array([1 + (row > row[target]).sum() for row, target in zip(scores, targets, strict=True)])
        for k in (1, 3, 10):
            hit = ranks <= k
            found[f"recall@{k}{mark}"] = hit.mean()
            found[f"mrr@{k}{mark}"] = np.where(hit, 1 / ranks, 0).mean()
            found[f"ndcg@{k}{mark}"] = np.where(hit, 1 / np.log2(1 + ranks), 0).mean()
    return found


def rounded(items, dtype, steps=127):
    if dtype == "bfloat16":
        return items.to(torch.bfloat16).float()
    scale = items.abs().max(dim=1, keepdim=True).values / steps
    return torch.where(scale > 0, (items / scale).round() * scale, 0)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_the_metrics_are_those_of_a_plain_computation(finished, tmp_path, dtype):
    folder = export(finished, tmp_path / "out", dtype=dtype)
    quality, items = read_manifest(folder)["quality"], finished.model.item_embedding.weight.detach()
    assert quality["float32"] == pytest.approx(plain_metrics(finished, items), abs=1e-9)
    assert quality["written"] == pytest.approx(plain_metrics(finished, rounded(items, dtype)), abs=1e-9)
    assert (quality["of"], quality["dtype"]) == ("test", dtype)
    assert quality["bytes"] == (folder / "vectors.safetensors").stat().st_size


def test_coarse_vectors_cost_something(finished, tmp_path, monkeypatch):
    """With one step to each side in place of 127."""
    monkeypatch.setattr(quantised, "_STEPS", 1)
    quality = read_manifest(export(finished, tmp_path / "out", dtype="int8"))["quality"]
    items = finished.model.item_embedding.weight.detach()
    assert quality["written"] == pytest.approx(plain_metrics(finished, rounded(items, "int8", steps=1)), abs=1e-9)
    assert quality["written"]["mrr@10"] != quality["float32"]["mrr@10"]


def test_float32_is_the_run_itself(finished):
    served = finished.model.served()
    quality = quality_as_written(finished, served, served)
    test_result = json.loads((finished.run_dir / "metrics.json").read_text())["test_result"]
    assert quality["float32"] == quality["written"] == pytest.approx(test_result, abs=1e-9)


def test_without_a_test_it_is_the_validation_and_without_both_nothing(finished, tmp_path):
    served = finished.model.served()
    untested = replace(finished, test_data=None)
    quality = quality_as_written(untested, served, served)
    valid_result = json.loads((finished.run_dir / "metrics.json").read_text())["best_valid_result"]
    assert quality["of"] == "valid" and quality["written"] == pytest.approx(valid_result, abs=1e-9)
    nothing = replace(untested, valid_data=None)
    assert quality_as_written(nothing, served, served) is None
    export(nothing, tmp_path / "out", dtype="int8")
    assert read_manifest(tmp_path / "out")["quality"] is None
    (said,) = quality_lines(None)
    assert said == "the run has no test and no validation: what the rounded vectors cost is not measured"


def test_scores_that_are_more_than_a_product(finished):
    """A blend with a table of pairs: what it has beside the product counts."""
    served = finished.model.served()
    n_items = len(served.items)
    every = torch.cartesian_prod(torch.arange(1, n_items), torch.arange(1, n_items))
    values = torch.where(every[:, 1] == every[:, 0] % (n_items - 1) + 1, 50.0, 0.0)  # of one item after each
    pairs = ServedPairs(torch.zeros(n_items), every, values)
    blend = ServedBlend([served, pairs], torch.tensor([[1.0, 1.0]]), [], 5)
    quality = quality_as_written(finished, blend, served)
    hits = 0
    for rows, _, _, positives in finished.test_data:
        last = rows["item_id_list"][torch.arange(len(rows)), rows["item_length"] - 1]
        hits += int((last % (n_items - 1) + 1 == positives).sum())
    assert quality["float32"]["recall@1"] == pytest.approx(hits / 14)


@pytest.mark.parametrize("model", ["EASE", "Blend"])
def test_models_of_the_whole_history_are_read_with_it(settings_of, tmp_path, model):
    """Histories are longer than the five items that the other models read, and times are those of the last ones."""
    keys = {"EASE": {"score_from": "history"}, "HSTU": {"num_negatives": 8}}
    for name in keys if model == "Blend" else ["EASE"]:
        run(name, config_dict={**settings_of(name), **keys[name], "epochs": 1}, run_dir=tmp_path / name)
    if model == "Blend":
        of = {"of": [str(tmp_path / name) for name in keys], "blend_scores": "z_scores", "blend_weights": [0.5, 0.5]}
        run(model, config_dict={**settings_of(model), "blend_lengths": None, **of}, run_dir=tmp_path / model)
    loaded = load_run(tmp_path / model)
    with pytest.raises(ModelError, match="no vectors"):
        export(loaded, tmp_path / "with_vectors", vectors="npy")
    assert not (tmp_path / "with_vectors").exists()
    folder = export(loaded, tmp_path / "out", dtype="int8")
    assert "; all items where pairs of items are counted" in (folder / "README.md").read_text(encoding="utf-8")
    test_result = json.loads((tmp_path / model / "metrics.json").read_text())["test_result"]
    assert read_manifest(folder)["quality"]["float32"] == pytest.approx(test_result, abs=1e-9)


def test_what_a_terminal_shows():
    before, after = {"ndcg@10": 0.08521, "recall@10-masked": 0.1}, {"ndcg@10": 0.0841, "recall@10-masked": 0.1}
    metrics = {"float32": before, "written": after}
    assert quality_lines({"of": "valid", "dtype": "int8", "bytes": 1_700_000, **metrics}) == [
        "vectors of items as int8, 1.7 MB: validation with float32, with int8, change",
        "  ndcg@10           0.0852  0.0841  -0.0011",
        "  recall@10-masked  0.1000  0.1000  +0.0000",
    ]


def test_another_dtype_is_refused_before_anything_is_written(finished, tmp_path):
    with pytest.raises(ConfigError, match="dtype: 'int4' is not one of float32, bfloat16, int8"):
        export(finished, tmp_path / "out", dtype="int4")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_read_back(finished, tmp_path):
    """Metrics are those of what was written, not of what was meant to be."""
    folder = export(finished, tmp_path / "out", dtype="int8")
    manifest = read_manifest(folder)
    written = read_served(folder, manifest["served"])
    again = quality_as_written(finished, finished.model.served(), written)
    assert again == {name: manifest["quality"][name] for name in again}
