"""run() in two processes: what one process alone writes, and one clear error where something is wrong."""

import errno
import json
import os
import signal
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from launched import launch

from recbole_hllm import Config, cli, run
from recbole_hllm.errors import DataError
from recbole_hllm.processes import Processes, current
from recbole_hllm.runs import run as experiment
from recbole_hllm.runs.stages import run_stages
from recbole_hllm.storage.files import read_json
from recbole_hllm.training import trainer as training

COMPARED = ("metrics.json", "segments.json", "protocol.json")
MODELS = ("SASRec", "HLLM", "TextKNN", "HLLMRanker", "E4SRec", "EASE")


@pytest.fixture(scope="module")
def keys_of(settings_of):
    """model -> keys of a run without training, evaluated in batches of 3 rows: 5 of 14 users, 3 in one process."""

    def keys(model, **further):
        return {**settings_of(model), "epochs": 0, "eval_batch_size": 3, "process_minutes": 1, **further}

    Config("SASRec", config_dict=keys("SASRec"))  # reads RecBole's files, once for all processes
    return keys


def arrays_of(folder):
    return {
        (file.name, name): values
        for file in sorted(Path(folder).glob("*.npz"))
        for name, values in np.load(file).items()
    }


# ---- what is written ----


def runs(*arguments):
    """One process of several runs, one after the other."""
    for model, keys, folder in arguments:
        result = run(model, config_dict=keys, run_dir=folder)
        print(json.dumps([current().rank, result]))


@pytest.fixture(scope="module")
def both(keys_of, tmp_path_factory):
    """model -> folders of its run in one process and in two; and how the two ended."""
    folder = tmp_path_factory.mktemp("processes")
    metrics = {"metrics": ["Recall", "NDCG", "GAUC", "ItemCoverage", "TailPercentage"], "valid_metric": "NDCG@10"}
    sampled = {"eval_args": {"split": {"LS": "valid_and_test"}, "mode": "uni2"}, "item_chunk_tokens": 20}
    rows = {
        "SASRec": keys_of("SASRec", **metrics),
        "HLLM": keys_of("HLLM", **sampled),
        "TextKNN": keys_of("TextKNN", eval_batch_size=100, item_chunk_tokens=20),  # one batch: a process has none
        "HLLMRanker": keys_of("HLLMRanker"),
        "E4SRec": keys_of("E4SRec", item_table_keys={"n_layers": 1, "inner_size": 16, "epochs": 0}),
        "EASE": keys_of("EASE", score_from="history"),
    }
    for model, keys in rows.items():
        run(model, config_dict={**keys, "cache_dir": str(folder / "cache-1")}, run_dir=folder / "one" / model)
    cache = {"cache_dir": str(folder / "cache-2")}
    ended = launch(runs, *((model, {**keys, **cache}, folder / "two" / model) for model, keys in rows.items()))
    assert [process.code for process in ended] == [0, 0], ended
    return {model: (folder / "one" / model, folder / "two" / model) for model in rows}, ended


@pytest.mark.parametrize("model", MODELS)
def test_two_processes_write_what_one_writes(model, both):
    one, two = both[0][model]
    for name in COMPARED:
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert {file.name for file in one.iterdir()} == {file.name for file in two.iterdir()}
    first, second = arrays_of(one), arrays_of(two)
    assert first.keys() == second.keys() and len(first) > 0
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
        assert values.dtype == second[name].dtype


def test_all_return_the_same(both):
    said = [[json.loads(line) for line in process.out.splitlines()] for process in both[1]]
    assert [rank for rank, _ in said[0]] == [0] * 6 and [rank for rank, _ in said[1]] == [1] * 6
    assert [result for _, result in said[0]] == [result for _, result in said[1]]


def test_a_run_that_comes_before_is_made_once(both):
    made = [folder for folder in (both[0]["E4SRec"][1].parents[1] / "cache-2").glob("SASRec-*") if folder.is_dir()]
    assert len(made) == 1 and (made[0] / "costs.json").is_file()


def evaluates(folder):
    experiment.evaluate_run(folder, {"topk": [2], "valid_metric": "NDCG@2"})


def test_an_evaluation_is_written_once(both):
    one, two = both[0]["HLLM"]
    for folder, count in ((one, 1), (two, 2)):
        assert {process.code for process in launch(evaluates, folder, world_size=count)} == {0}
    assert not (two / "evaluation-2.json").exists()
    assert (one / "evaluation-1.json").read_bytes() == (two / "evaluation-1.json").read_bytes()


def schedules(keys, folder):
    run_stages("HLLM", config_dict=keys, run_dir=folder)


@pytest.mark.slow
def test_stages(keys_of, tmp_path):
    keys = {**keys_of("HLLM"), "training_stage": [2, 3], "cache_dir": str(tmp_path / "cache")}
    first = {**keys, "training_stage": 1}
    for count, folder in ((1, tmp_path / "one"), (2, tmp_path / "two")):
        for given in (first, keys):
            assert {process.code for process in launch(schedules, given, folder, world_size=count)} == {0}
    one, two = (sorted(path.relative_to(folder) for path in folder.rglob("*") if "tfevents" not in path.name)
                for folder in (tmp_path / "one", tmp_path / "two"))  # fmt: skip
    assert one == two
    name = "stage-3/export/item_vectors.npy"
    np.testing.assert_array_equal(np.load(tmp_path / "one" / name), np.load(tmp_path / "two" / name))


# ---- what goes wrong ----


def line(keys, folder, change):
    """The command line of one process, after a change to it alone."""
    rank = int(os.environ["RANK"])
    keys, folder = change(rank, dict(keys), folder) or (keys, folder)
    words = [f"--{key}={value}" for key, value in keys.items()]
    return cli.main(["run", "--model=SASRec", *words, *([f"--run_dir={folder}"] if folder else [])])


def outcome(keys, folder, change):
    ended = launch(line, keys, folder, change)
    said = [text for process in ended for text in process.said if " W " not in text]
    return [process.code for process in ended], said


def test_a_wrong_key_is_one_message(keys_of, tmp_path):
    codes, said = outcome(keys_of("SASRec", n_layer=1), tmp_path / "run", lambda rank, keys, folder: None)
    assert codes == [2, 2] and len(said) == 1 and said[0].startswith("error: unknown key 'n_layer'")
    assert not (tmp_path / "run").exists()


def test_other_keys(keys_of, tmp_path):
    codes, said = outcome(
        keys_of("SASRec"), tmp_path / "run", lambda rank, keys, folder: ({**keys, "seed": 3 + rank}, folder)
    )
    assert codes == [2, 2]
    assert said == [
        "error: process 1 of 2 has other keys than process 0 (seed); start all processes with the same keys and files"
    ]
    assert not (tmp_path / "run").exists()


def test_other_data(keys_of, write_dataset, tmp_path):
    rows = [(f"u{user}", f"i{(user + step) % 12}", step) for user in range(12) for step in range(6)]
    for name in ("a", "b"):
        write_dataset(tmp_path / name, "toy", rows if name == "a" else rows[:-1])

    def change(rank, keys, folder):
        return {**keys, "data_path": str(tmp_path / "ab"[rank])}, folder

    codes, said = outcome(keys_of("SASRec"), tmp_path / "run", change)
    assert codes == [2, 2] and len(said) == 1
    assert said[0].startswith("error: process 1 of 2 has other data than process 0 (interactions, ")
    assert said[0].endswith("; copy the files to all machines, or read them from a disk that all share")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_an_error_of_one_process_in_the_data(keys_of, tmp_path):
    def change(rank, keys, folder):
        if rank == 1:
            experiment.create_dataset = _no_data

    codes, said = outcome(keys_of("SASRec"), tmp_path / "run", change)
    assert codes == [2, 2] and said == ["error: toy.inter, line 7: no number"]
    assert "process 1 of 2: toy.inter, line 7: no number" in (tmp_path / "run" / "run.log").read_text()


def _no_data(config):
    raise DataError("toy.inter, line 7: no number")


def test_a_folder_that_one_does_not_see(keys_of, tmp_path):
    def change(rank, keys, folder):
        os.chdir([tmp_path, "/"][rank])
        return keys, "run"

    codes, said = outcome(keys_of("SASRec"), None, change)
    assert codes == [2, 2] and len(said) == 1
    assert "run_dir: /run was made by process 0, and this process, on another machine perhaps" in said[0]


def test_without_a_folder_the_first_names_it(keys_of, tmp_path):
    codes, said = outcome(keys_of("SASRec"), None, lambda rank, keys, folder: os.chdir(tmp_path))
    assert codes == [0, 0] and said == []
    assert len(list((tmp_path / "runs" / "toy").iterdir())) == 1


def test_a_process_that_is_killed_ends_the_others(keys_of, tmp_path):
    def change(rank, keys, folder):
        if rank == 1:
            training.Trainer.evaluate = lambda *arguments, **keys: os.kill(os.getpid(), signal.SIGKILL)

    codes, said = outcome(keys_of("SASRec"), tmp_path / "run", change)
    assert codes == [2, -signal.SIGKILL]
    assert len(said) == 1 and said[0].startswith("error: another process is gone, killed or out of memory perhaps")


@pytest.mark.parametrize("verb", ["compare", "plan"])
def test_what_one_process_does(verb, keys_of, tmp_path, monkeypatch):
    def change(rank, keys, folder):
        monkeypatch.setattr(cli, "main", lambda words, main=cli.main: main([verb, "--model=SASRec,Pop", *words[2:]]))

    codes, said = outcome(keys_of("SASRec"), tmp_path / "run", change)
    assert codes == [2, 2]
    assert said == [
        f"error: {verb}: start it without torchrun or deepspeed; run, evaluate, stages may have several processes"
    ]


def test_the_clock_of_the_first_process_decides(keys_of, tmp_path):
    """Training ends after the first epoch by its clock, and never by that of the other, which stands still."""

    def change(rank, keys, folder):
        if rank == 1:
            training.time = SimpleNamespace(perf_counter=lambda: 0.0)

    codes, said = outcome(keys_of("SASRec", epochs=3, max_training_minutes=1e-6), tmp_path / "run", change)
    assert codes == [0, 0] and said == []
    costs = read_json(tmp_path / "run" / "costs.json")
    assert costs["epochs"] == 1 and costs["stop_reason"] == "time limit of 1e-06 minutes"


def test_a_training_warns_of_nothing(keys_of, tmp_path):
    def change(rank, keys, folder):
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module="recbole[.]|tensorboard")

    codes, said = outcome(keys_of("SASRec", epochs=1), tmp_path / "run", change)
    assert codes == [0, 0] and said == []


def test_a_signal_that_comes_while_others_are_heard(keys_of, tmp_path):
    """Both get it after they have said that none has come: both stop after the next step."""

    def change(rank, keys, folder):
        gather, step = Processes.gather, training.Trainer._step

        def gathers(self, value):
            answer = gather(self, value)
            if value is None and answer == [None, None] and Processes.gather is gathers:
                Processes.gather = gather
                signal.raise_signal(signal.SIGTERM)
            return answer

        def steps(self):
            step(self)
            if self.steps == 2:
                Processes.gather = gathers

        training.Trainer._step = steps

    codes, said = outcome(keys_of("SASRec", epochs=50, state="info"), tmp_path / "run", change)
    assert codes == [143, 143] and any("stopped after step 3;" in line for line in said)


def test_a_signal_to_one_and_then_to_the_other(keys_of, tmp_path):
    """The second process gets its own while the step is saved that the first one's has asked for: it is saved."""

    def change(rank, keys, folder):
        if rank == 0:
            step = training.Trainer._step
            training.Trainer._step = lambda self: (step(self), self.steps == 2 and signal.raise_signal(signal.SIGTERM))
        else:
            save = training.Trainer._save_last
            training.Trainer._save_last = lambda self, data: (signal.raise_signal(signal.SIGTERM), save(self, data))

    codes, _ = outcome(keys_of("SASRec", epochs=50), tmp_path / "run", change)
    assert codes == [143, 143]
    assert read_json(tmp_path / "run" / "last" / "training.json")["loop"]["steps"] == 2


def test_a_loss_that_is_no_number(keys_of, tmp_path):
    def change(rank, keys, folder):
        if rank == 1:
            loss = training.Trainer.train_batch
            training.Trainer.train_batch = lambda *arguments: loss(*arguments) * float("nan")

    codes, said = outcome(keys_of("SASRec", epochs=1), tmp_path / "run", change)
    assert codes == [2, 2] and len(said) == 1
    assert said[0].startswith("error: the training loss of epoch 0, batch 0 is not a number")


def test_a_full_disk(keys_of, tmp_path):
    def change(rank, keys, folder):
        if rank == 0:
            training.save_model = _no_room

    codes, said = outcome(keys_of("SASRec", epochs=1), tmp_path / "run", change)
    assert codes == [2, 2] and len(said) == 1
    assert said[0].startswith(f"error: run_dir: cannot write {tmp_path / 'run' / 'best'}: No space left on device")


def _no_room(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")
