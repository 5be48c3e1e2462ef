"""The schedule of stages: what each starts from and leaves, the vectors, and going on after an end."""

import shutil
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from recbole_hllm import Config, load_run, run, run_stages
from recbole_hllm.config.places import properties_folder
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.nn.item_encoder import StoredItemVectors
from recbole_hllm.runs import run as experiment
from recbole_hllm.runs import stages
from recbole_hllm.runs.run import evaluate_run
from recbole_hllm.runs.vectors import write_vectors
from recbole_hllm.storage.files import read_json
from recbole_hllm.training.checkpoint import read_tensors
from recbole_hllm.training.trainer import Trainer

MODELS = ("HLLM", "HLLMRanker")
OF_LABELS = {"metrics": ["AUC", "LogLoss"]}  # as in conftest.py
VECTORS = {"item_ids.txt", "item_vectors.npy", "user_ids.txt", "user_vectors.npy"}


def stage_of(result, number) -> Path:
    return Path(result["run_dir"]) / f"stage-{number}"


def weights_of(folder):
    """Weights of the best epoch, without the digest of where item vectors come from."""
    tensors = read_tensors(folder / "best" / "weights.safetensors")
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(".source")}


def equal_weights(folder, other):
    ours, theirs = weights_of(folder), weights_of(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def without_times(rows):
    return [{key: value for key, value in row.items() if key != "training_seconds"} for row in rows]


def exported_vectors(folder):
    """(ids, vectors) of items, and of users."""
    read = ((folder / f"{part}_ids.txt", folder / f"{part}_vectors.npy") for part in ("item", "user"))
    return [(ids.read_text(encoding="utf-8").split("\n")[:-1], np.load(vectors)) for ids, vectors in read]


# ---- the whole schedule ----


@pytest.mark.parametrize("model", MODELS)
def test_what_each_stage_starts_from_and_leaves(scheduled, model):
    result = scheduled(model)
    first, second, third = (stage_of(result, number) for number in (1, 2, 3))
    assert [row["stage"] for row in result["stages"]] == [1, 2, 3]
    assert [row["history_length"] for row in result["stages"]] == [4, 8, 8]
    assert [row["epochs"] for row in result["stages"]] == [1, 2, 0]
    for folder in (first, second):
        written = {path.name for path in (folder / "export").iterdir()}
        assert {"training.safetensors", "item_encoder", "user_llm", "items.jsonl", "recommender.json"} <= written
        assert ("vectors.safetensors" in written) == (model == "HLLM"), "a ranker's scores are no products"
    assert {path.name for path in (third / "export").iterdir()} == VECTORS
    for row in result["stages"]:
        metrics = read_json(stage_of(result, row["stage"]) / "metrics.json")
        assert {key: metrics[key] for key in ("test_result", "best_valid_result")}.items() <= row.items()
        again = evaluate_run(stage_of(result, row["stage"]))
        assert (again["valid_result"], again["test_result"]) == (row["best_valid_result"], row["test_result"])


@pytest.mark.parametrize("model", MODELS)
def test_what_is_trained_in_each_stage(scheduled, model):
    result = scheduled(model)
    models = [load_run(stage_of(result, number)).model for number in (1, 2, 3)]
    sizes = [sum(p.numel() for p in one.parameters()) for one in models]
    of_item_llm = sum(p.numel() for p in models[0].item_encoder.parameters() if p is not None)
    projection = sum(p.numel() for p in models[0].item_encoder.projection.parameters())
    trained = [row["parameters_trained"] for row in result["stages"]]
    assert trained == [sizes[0], sizes[0] - of_item_llm + projection, 0]
    for later in models[1:]:
        assert isinstance(later.item_encoder, StoredItemVectors) and not hasattr(later.item_encoder, "backbone")
    assert not equal_weights(stage_of(result, 1), stage_of(result, 2))
    assert equal_weights(stage_of(result, 2), stage_of(result, 3))
    ours, theirs = result["stages"][1], result["stages"][2]
    assert ours["test_result"] == theirs["test_result"] and ours["best_valid_result"] == theirs["best_valid_result"]


@pytest.mark.parametrize("model", MODELS)
def test_the_item_llm_of_the_second_export_is_that_of_the_first(scheduled, model):
    first, second = (stage_of(scheduled(model), number) / "export" for number in (1, 2))
    for name in ("item_encoder/model.safetensors", "user_llm/model.safetensors"):
        ours, theirs = (read_tensors(folder / name) for folder in (first, second))
        same = ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert same == name.startswith("item")
    rest = [read_tensors(folder / "training.safetensors") for folder in (first, second)]
    assert rest[0].keys() == rest[1].keys()
    assert torch.equal(*(tensors["item_encoder.item_emb_tokens"] for tensors in rest))


@pytest.mark.parametrize("model", MODELS)
def test_the_second_stage_by_hand(scheduled, keys_without_stages, tmp_path, model):
    """As a run of its own, from the same export, with the Item LLM frozen."""
    by_hand = keys_without_stages(
        model, training_stage=None, MAX_ITEM_LIST_LENGTH=8, item_llm_tuning="frozen", item_llm_layers=None,
        user_llm_config=None, pretrained_hllm=str(stage_of(scheduled(model), 1) / "export"),
    )  # fmt: skip
    result = run(config_dict=by_hand, run_dir=tmp_path / "by-hand")
    assert result["test_result"] == scheduled(model)["stages"][1]["test_result"]
    assert equal_weights(tmp_path / "by-hand", stage_of(scheduled(model), 2))


def test_one_stage_after_the_other(scheduled, keys_of, tmp_path):
    """In one folder; a file may hold the keys of all of them."""
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump(keys_of("HLLM")))
    for stage in (1, 2, [3]):
        result = run_stages(None, None, file, {"training_stage": stage}, run_dir=tmp_path / "run")
    assert without_times(result["stages"]) == without_times(scheduled("HLLM")["stages"])
    for (ids, vectors), (other_ids, others) in zip(
        *(exported_vectors(stage_of(one, 3) / "export") for one in (result, scheduled("HLLM"))), strict=True
    ):
        assert ids == other_ids and np.array_equal(vectors, others)


def test_files_of_the_schedule(scheduled, keys_of):
    result = scheduled("HLLM")
    folder = Path(result["run_dir"])
    assert {path.name for path in folder.iterdir()} == {
        "keys.yaml", "stage-1", "stage-2", "stage-3", "stages.json", "stages.md",
    }  # fmt: skip
    assert read_json(folder / "stages.json") == result["stages"]
    assert yaml.safe_load((folder / "keys.yaml").read_text()) == keys_of("HLLM")


def test_the_table():
    results = {"recall@10": 0.25, "ndcg@10": 1 / 3}
    costs = {"history_length": 20, "parameters_trained": 12345, "epochs": 3, "training_seconds": 75.0}
    rows = [{"stage": 1, "best_valid_result": results, "test_result": {"recall@10": 0.5, "ndcg@10": 0.0}, **costs},
            {"stage": 2, "best_valid_result": None, "test_result": results, **costs}]  # fmt: skip
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in stages.stages_table(rows).splitlines()]
    assert lines[0] == ["stage", "history", "recall@10 (valid / test)", "ndcg@10 (valid / test)", "trained", "epochs",
                        "training"]  # fmt: skip
    assert lines[2] == ["1", "20", "0.2500 / 0.5000", "0.3333 / 0.0000", "12,345", "3", "1m 15s"]
    assert lines[3] == ["2", "20", "– / 0.2500", "– / 0.3333", "12,345", "3", "1m 15s"]


# ---- vectors for other programs ----


def test_dot_products_rank_as_the_model_does(scheduled, toy, write_dataset, tmp_path):
    """A data set in which every user has one item more: the histories of its test are all a user had before."""
    (items, item_vectors), (users, user_vectors) = exported_vectors(stage_of(scheduled("HLLM"), 3) / "export")
    assert item_vectors.dtype == user_vectors.dtype == np.float32
    assert item_vectors.shape == (12, 16) and user_vectors.shape == (14, 16)
    for vectors in (item_vectors, user_vectors):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    source = Path(toy, "toy")
    header, *lines = (source / "toy.inter").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    longer = rows + [(user, "i0", 2_000_000_000) for user in dict.fromkeys(row[0] for row in rows)]
    folder = write_dataset(tmp_path, "toy", longer, header=header)
    (folder / "toy.item").write_bytes((source / "toy.item").read_bytes())
    loaded = load_run(stage_of(scheduled("HLLM"), 3), {"data_path": str(tmp_path)})
    ranked = {}
    with torch.no_grad():
        for rows, *_ in loaded.test_data:
            scores = loaded.model.full_sort_predict(rows)[:, 1:]
            names = loaded.dataset.id2token("user_id", rows["user_id"])
            ranked |= dict(zip(names, scores.numpy(), strict=True))
    assert list(loaded.dataset.field2id_token["item_id"][1:]) == items and set(users) == ranked.keys()
    for user, vector in zip(users, user_vectors, strict=True):
        scores = item_vectors @ vector
        assert np.argsort(-scores).tolist() == np.argsort(-ranked[user]).tolist()
        np.testing.assert_allclose(scores, ranked[user], atol=1e-6)


def test_the_head_scores_the_vectors_of_a_ranker(scheduled):
    folder = stage_of(scheduled("HLLMRanker"), 3)
    (items, item_vectors), (users, user_vectors) = (
        (ids, torch.from_numpy(vectors)) for ids, vectors in exported_vectors(folder / "export")
    )
    loaded = load_run(folder)
    names, sequences = loaded.dataset.latest_sequences()
    with torch.no_grad():
        expected = loaded.model.full_sort_predict(loaded.dataset.latest_rows(sequences))
        scores = loaded.model.head(user_vectors[:, None], item_vectors).sigmoid()
    assert scores.shape == (14, 12) and scores.std() > 0
    torch.testing.assert_close(scores, expected[:, 1:], atol=1e-6, rtol=0)
    assert users == loaded.dataset.id2token("user_id", names).tolist()
    assert items == loaded.dataset.field2id_token["item_id"][1:].tolist()


def test_vectors_do_not_depend_on_the_batch(scheduled, tmp_path):
    loaded = load_run(stage_of(scheduled("HLLM"), 3), {"eval_batch_size": 4})
    write_vectors(loaded, tmp_path)
    for (ids, vectors), (others, expected) in zip(
        exported_vectors(tmp_path), exported_vectors(loaded.run_dir / "export"), strict=True
    ):
        assert ids == others
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_models_without_vectors_and_folders_that_cannot_be(scheduled, settings_of, tmp_path):
    run("Pop", config_dict=settings_of("Pop"), run_dir=tmp_path / "pop")
    with pytest.raises(ModelError, match="Pop has no vectors"):
        write_vectors(load_run(tmp_path / "pop"), tmp_path / "out")
    early = {"fusion": "early", "epochs": 1, "cache_dir": str(tmp_path / "cache"), **OF_LABELS}
    run("HLLMRanker", config_dict={**settings_of("HLLMRanker"), **early}, run_dir=tmp_path / "early")
    with pytest.raises(ModelError, match="only late fusion has user vectors"):
        write_vectors(load_run(tmp_path / "early"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write .*file"):
        write_vectors(load_run(stage_of(scheduled("HLLM"), 3)), tmp_path / "file")


# ---- going on ----


class Killed(BaseException):
    """As a process that is ended: nothing catches it."""


def kill_after(function, calls):
    """The function, which works for so many calls; the next one does nothing and never returns."""
    counter = count(1)

    def limited(*arguments, **keys):
        if next(counter) > calls:
            raise Killed
        return function(*arguments, **keys)

    return limited


@pytest.mark.parametrize(
    "owner, name, calls",
    [
        (stages, "run", 1),  # between stages 1 and 2
        (Trainer, "_save_last", 2),  # in the second epoch of stage 2
        (experiment, "write_results", 1),  # stage 2 is trained, and nobody knows its results
        (stages, "load_run", 1),  # before the export of stage 2
        (stages, "write_vectors", 0),
    ],
)
def test_killed_and_resumed_is_never_killed(scheduled, keys_of, tmp_path, monkeypatch, owner, name, calls):
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, kill_after(getattr(owner, name), calls))
        with pytest.raises(Killed):
            run_stages(config_dict=keys_of("HLLM"), run_dir=tmp_path / "run")
    before = (tmp_path / "run" / "stage-1" / "metrics.json").stat().st_mtime_ns
    result = run_stages(config_dict={"resume": True}, run_dir=tmp_path / "run")
    assert (tmp_path / "run" / "stage-1" / "metrics.json").stat().st_mtime_ns == before
    expected = scheduled("HLLM")
    assert without_times(result["stages"]) == without_times(expected["stages"])
    assert all(equal_weights(stage_of(result, number), stage_of(expected, number)) for number in (1, 2, 3))
    for (ids, vectors), (other_ids, others) in zip(
        *(exported_vectors(stage_of(one, 3) / "export") for one in (result, expected)), strict=True
    ):
        assert ids == other_ids and np.array_equal(vectors, others)


def test_a_finished_schedule_only_prints_its_table(scheduled, monkeypatch, capsys):
    def never(*arguments, **keys):
        raise AssertionError

    result = scheduled("HLLM")
    monkeypatch.setattr(stages, "run", never)
    monkeypatch.setattr(stages, "load_run", never)
    assert run_stages(config_dict={"resume": True}, run_dir=result["run_dir"])["stages"] == result["stages"]
    assert Path(result["run_dir"], "stages.md").read_text() in capsys.readouterr().out


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"warmup_ratio": 0.5}, "warmup_ratio: the finished stage 1 in .* and now it is 0.5; use another run_dir"),
        ({"time_num": 2}, "time_num: the finished stage 1 in .* had 0, and now it is 2"),
        ({"HLLM.temperature": 0.5}, "temperature: the finished stage 1 in .* had 0.1, and now it is 0.5"),
        ({"stage2.learning_rate": 0.5}, "learning_rate: the finished stage 2 in .* had 0.01, and now it is 0.5"),
        ({"topk": [3, 10]}, r"topk: the finished stage 1 in .* had \[.*\], and now it is \[3, 10\]"),
        ({"dataset": "other"}, "stage-1 is a run of HLLM on toy, not of HLLM on other"),
        (
            {"model": "HLLMRanker", "item_llm_tuning": "full", "valid_metric": "AUC", **OF_LABELS},
            "stage-1 is a run of HLLM on toy, not of HLLMRanker on toy",
        ),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_what_finished_stages_had_stays(scheduled, tmp_path, monkeypatch, keys, said, alone):
    """When all of them are gone through again, and where only the last one is to be run."""
    folder = tmp_path / "run"
    shutil.copytree(scheduled("HLLM")["run_dir"], folder)
    if alone:
        shutil.rmtree(folder / "stage-3")
    monkeypatch.setattr(stages, "_run_stage", None)
    before = (folder / "keys.yaml").read_text()
    with pytest.raises(ConfigError, match=said):
        run_stages(config_dict={"training_stage": 3} if alone else {"resume": True}, run_dir=folder, arguments=keys)
    assert (folder / "keys.yaml").read_text() == before


def test_a_schedule_that_was_moved(scheduled, tmp_path, monkeypatch):
    """Run folders name the export they were made of by its whole path."""
    result, folder = scheduled("HLLM"), tmp_path / "moved"
    shutil.copytree(result["run_dir"], folder)
    for number in (2, 3):
        file = folder / f"stage-{number}" / "config.yaml"
        text = file.read_text()
        moved = text.replace(str(Path(result["run_dir"]).resolve()), str(tmp_path / "gone"))
        assert moved != text
        file.write_text(moved)
    for number in (2, 3):
        again = evaluate_run(folder / f"stage-{number}")
        assert again["test_result"] == result["stages"][number - 1]["test_result"]
    assert run_stages(config_dict={"resume": True}, run_dir=folder)["stages"] == result["stages"]
    shutil.rmtree(folder / "stage-1")
    missing = "stage-2 is a stage made of .*gone/stage-1/export, which is not there, and nor is .*moved/stage-1/export"
    with pytest.raises(ConfigError, match=f"{missing}; .* move the whole schedule"):
        load_run(folder / "stage-2")


# ---- an earlier stage that cannot be started from ----


def test_an_earlier_stage_that_is_not_there(scheduled, keys_without_stages, tmp_path):
    folder, only = tmp_path / "run", {stage: keys_without_stages("HLLM", training_stage=stage) for stage in (2, 3)}
    with pytest.raises(ConfigError, match="training_stage: 2 starts from stage 1: name the run_dir that has it"):
        run_stages(config_dict=only[2])
    for stage in (2, 3):
        missing = f"{folder}/stage-{stage - 1} is not there: it has no export/"
        with pytest.raises(ConfigError, match=f"training_stage: {stage} starts from stage {stage - 1}, but {missing}"):
            run_stages(config_dict=only[stage], run_dir=folder)
    (folder / "stage-1").mkdir(parents=True)
    (folder / "stage-1" / "config.yaml").write_bytes((stage_of(scheduled("HLLM"), 1) / "config.yaml").read_bytes())
    with pytest.raises(ConfigError, match="stage-1 is unfinished: it has no export/.* --resume where it has begun"):
        run_stages(config_dict=only[2], run_dir=folder)
    assert not (folder / "stage-2").exists()


def test_an_earlier_stage_of_another_model(keys_without_stages, scheduled, tmp_path):
    (tmp_path / "stage-1").symlink_to(stage_of(scheduled("HLLM"), 1))
    with pytest.raises(ConfigError, match="stage-1 is a run of HLLM on toy, not of HLLMRanker on labelled"):
        run_stages(config_dict=keys_without_stages("HLLMRanker", training_stage=2), run_dir=tmp_path)


# ---- the files that come with the package ----


@pytest.mark.parametrize("model", MODELS)
def test_the_lengths_of_the_list_can_be_given(model, keys_of):
    """On top of the file, without the name of a model; measured by labels there are none."""
    file = properties_folder() / "benchmark" / "hllm_stages.yaml"
    given = {key: value for key, value in yaml.safe_load(file.read_text()).items() if "stage" not in key}
    settings = {key: value for key, value in keys_of(model).items() if key not in ("metrics", "topk", "valid_metric")}
    settings = {key: value for key, value in settings.items() if "stage" not in key}
    config = Config(config_dict={**given, **settings, "model": model, "topk": [3, 10]})
    assert config["topk"] == [3, 10]


@pytest.mark.parametrize(
    "file, model", [("hllm_stages.yaml", "HLLM"), ("hllm_stages.yaml", "HLLMRanker"), ("hllm_caching.yaml", "HLLM")]
)
def test_benchmarks_in_stages(file, model, settings_of, tmp_path):
    """With the sizes of the toy data; users have 4 to 7 training interactions."""
    own = settings_of(model)
    path = properties_folder() / "benchmark" / file
    stage_keys = {key for key in yaml.safe_load(path.read_text()) if key.startswith("stage")}
    measured = {"metrics": ["NDCG"], "topk": [5], "valid_metric": "NDCG@5"} if model == "HLLM" else {}
    sizes = {"epochs": 1, "MAX_ITEM_LIST_LENGTH": 3}
    less = {key: sizes[key.split(".")[1]] for key in stage_keys if key.split(".")[1] in sizes}
    if "stage1.train_min_items" in stage_keys:
        less |= {"stage1.train_min_items": 6, "stage1.train_first_items": 3}
    keys = {**own, **sizes, **measured, **{f"{model}.{key}": value for key, value in measured.items()}, **less}
    keys |= {"model": model, "cache_dir": str(tmp_path / "cache")}
    result = run_stages(None, None, path, keys, run_dir=tmp_path / "run")
    assert [row["stage"] for row in result["stages"]] == ([1, 2, 3] if "stages" in file else [1, 2])
    if "stages" in file:
        return
    first, second = (load_run(stage_of(result, number)) for number in (1, 2))
    lengths = second.dataset.train_lengths  # everything
    assert lengths[1:].min() == 4 and lengths.max() == 7
    assert first.dataset.train_lengths.tolist() == np.where(lengths >= 6, 3, 0).tolist()
    protocols = [read_json(stage_of(result, number) / "protocol.json")["fingerprint"] for number in (1, 2)]
    assert protocols[0] == protocols[1]
