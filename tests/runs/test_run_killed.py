"""run() that ends in the middle of an epoch, or of a checkpoint, goes on with the very same losses."""

import os
import pickle
import shutil
import signal
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recbole_hllm import run
from recbole_hllm.errors import ModelError
from recbole_hllm.runs import run as experiment
from recbole_hllm.runs.folder import read_settings
from recbole_hllm.storage.files import read_json, write_json
from recbole_hllm.training import checkpoint
from recbole_hllm.training.checkpoint import read_tensors
from recbole_hllm.training.engines import saving
from recbole_hllm.training.trainer import Trainer

MEASURED = ("/s", "share_of_peak")  # how tags of what is of time end: never the same
OLD = Path(__file__).parent / "data" / "run_of_an_earlier_version"


class Killed(BaseException):
    """Nobody catches it, like a signal."""


@pytest.fixture
def at_step(monkeypatch):
    """(step, action) -> the action is called in the forward pass after so many optimizer steps, once."""

    def at(step, action):
        class Watched(Trainer):
            def train_batch(self, *arguments, **keywords):
                loss = super().train_batch(*arguments, **keywords)
                if self.steps == step:
                    action()
                return loss

        monkeypatch.setattr(experiment, "Trainer", Watched)

    return at


def kill():
    raise Killed


def curves(folder):
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: sorted((event.step, event.value) for event in events.Scalars(tag))  # files of one second have no order
        for tag in sorted(events.Tags()["scalars"])
        if not tag.endswith(MEASURED)
    }


def same(folder, whole):
    assert curves(folder) == curves(whole)
    assert read_json(folder / "metrics.json") == read_json(whole / "metrics.json")
    for part, file in (("best", "weights"), ("last", "weights"), ("last", "training")):
        ours, theirs = (read_tensors(path / part / f"{file}.safetensors") for path in (folder, whole))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def resumed(folder, **keys):
    torch.rand(7), torch.manual_seed(os.getpid())  # another process starts from anything
    return run(run_dir=folder, config_dict={"resume": True, **keys})


RUNS = {
    "SASRec": {"hidden_dropout_prob": 0.4, "gradient_accumulation_steps": 2, "epochs": 3, "eval_every_steps": 3},
    "BERT4Rec": {"hidden_dropout_prob": 0.4, "mask_ratio": 0.5, "worker": 1},
    "BPR": {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 2, "dynamic": True, "candidate_num": 2}},
    "SGL": {"embedding_size": 8},
    "LINE": {"embedding_size": 8},
    "HLLM": {
        "train_batch_size": 4, "item_llm_tuning": "lora", "lora_dropout": 0.3, "scheduler": "cosine",
        "eval_every_steps": 4,
    },
    "HLLM, memory": {
        "train_batch_size": 4, "item_llm_dropout": 0.3, "in_batch_negatives": True, "cross_batch_negatives": 25,
        "cross_batch_correction": True,
    },
    "HLLM, cache": {
        "train_batch_size": 4, "item_llm_dropout": 0.3, "negatives": "cached", "num_negatives": 3, "live_items": 7,
        "cache_refresh_steps": 4, "cache_refresh_items": 5,
    },
    "LEARN": {"hidden_dropout_prob": 0.4, "content": "id"},
    "HLLMRanker": {"epochs": 3, "eval_every_steps": 5},
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_inside_an_epoch_goes_on_inside_it(settings_of, at_step, tmp_path, name):
    model = name.partition(",")[0]
    settings = {**settings_of(model), "train_batch_size": 8, "save_every_steps": 3, **RUNS[name]}
    run(model, config_dict=settings, run_dir=tmp_path / "whole")
    steps, folder = read_json(tmp_path / "whole" / "costs.json")["steps"], tmp_path / "killed"
    assert steps > 9, "a checkpoint and a kill inside the second epoch"
    at_step(steps - 2, kill)
    with pytest.raises(Killed):
        run(model, config_dict=settings, run_dir=folder)
    loop = read_json(folder / "last" / "training.json")["loop"]
    assert loop["steps"] % 3 == 0 and loop["batch"] > 0, "it is a checkpoint inside an epoch"
    at_step(None, None)
    resumed(folder)
    same(folder, tmp_path / "whole")


@pytest.fixture(scope="module")
def whole(settings_of, tmp_path_factory):
    """Keys and folder of an unbroken run of two epochs."""
    settings = {**settings_of("SASRec"), "hidden_dropout_prob": 0.3, "train_batch_size": 8, "save_every_steps": 3}
    folder = tmp_path_factory.mktemp("whole")
    run("SASRec", config_dict=settings, run_dir=folder)
    return settings, folder


@pytest.mark.parametrize(
    "name, call, done",
    [
        *((name, 3, False) for name in ("mkdir", "save_file", "write_json", "sync_folder", "sync", "rmtree")),
        *((name, 5, True) for name in ("mkdir", "save_file", "write_json", "seal", "sync", "rmtree")),
        *(("rename", call, call % 2) for call in range(3, 11)),
    ],
)
def test_a_kill_inside_a_checkpoint_leaves_one_that_is_whole(whole, tmp_path, monkeypatch, name, call, done):
    """Each thing that a checkpoint does is the last one that is done, or the first that is not."""
    settings, expected = whole
    owner = {"mkdir": Path, "rename": os, "rmtree": shutil, "seal": saving}.get(name, checkpoint)
    name = "replace" if name == "rename" else name
    do, calls = getattr(owner, name), []

    def counted(*arguments, **keywords):
        if name != "replace" or Path(arguments[0]).is_dir():
            calls.append(name)
        if len(calls) == call and not done:
            raise Killed
        result = do(*arguments, **keywords)
        if len(calls) == call:
            raise Killed
        return result

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, name, counted)
        run("SASRec", config_dict=settings, run_dir=tmp_path / "run")
    resumed(tmp_path / "run")
    same(tmp_path / "run", expected)


# ---- signals ----


@pytest.mark.parametrize("number, end", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_ends_a_run_once_it_is_saved(settings_of, at_step, tmp_path, caplog, number, end):
    settings = {**settings_of("SASRec"), "hidden_dropout_prob": 0.3, "train_batch_size": 8, "state": "info"}
    run("SASRec", config_dict=settings, run_dir=tmp_path / "whole")
    at_step(4, lambda: signal.raise_signal(number))
    before = signal.getsignal(number)
    with pytest.raises(end) as ended:
        run("SASRec", config_dict=settings, run_dir=tmp_path / "run")
    assert signal.getsignal(number) is before
    if end is SystemExit:
        assert ended.value.code == 143
    assert read_json(tmp_path / "run" / "last" / "training.json")["loop"]["steps"] == 5
    assert f"stopped after step 5; --resume --run_dir={tmp_path / 'run'} goes on" in caplog.text
    at_step(None, None)
    resumed(tmp_path / "run")
    same(tmp_path / "run", tmp_path / "whole")


# ---- damage ----


@pytest.fixture(scope="module")
def killed_once(whole, tmp_path_factory):
    """A run with a checkpoint inside the second epoch, and one before it."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "_step", killed_after(read_json(whole[1] / "costs.json")["steps"] - 2))
        run("SASRec", config_dict=whole[0], run_dir=folder)
    return folder


def killed_after(steps, step=Trainer._step):
    def limited(self):
        if self.steps == steps:
            raise Killed
        step(self)

    return limited


@pytest.fixture
def killed(killed_once, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(killed_once, tmp_path / "run"))


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def changed(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


FILES = ["weights.safetensors", "state.json", "training.safetensors", "training.json"]


@pytest.mark.parametrize(
    "name, damage",
    [
        *((name, damage) for name in FILES for damage in (cut, Path.unlink)),
        ("weights.safetensors", changed), ("training.json", changed), ("digests.json", cut),
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_falls_back_to_the_one_before(whole, killed, caplog, name, damage):
    damage(killed / "last" / name)
    steps = read_json(killed / "previous" / "training.json")["loop"]["steps"]
    resumed(killed, state="info")
    assert f"{name} is " in caplog.text and "going on with the checkpoint before it" in caplog.text
    assert f"after step {steps}" in caplog.text
    same(killed, whole[1])
    assert (killed / "last.damaged").is_dir()


def test_a_checkpoint_that_is_missing_falls_back_too(whole, killed, caplog):
    shutil.rmtree(killed / "last")
    resumed(killed)
    assert f"{killed / 'last'} is missing; going on with the checkpoint before it, {killed / 'previous'}" in caplog.text
    same(killed, whole[1])


def test_none_that_is_whole_is_an_error_and_nothing_is_lost(killed):
    for part in ("last", "previous"):
        cut(killed / part / "weights.safetensors")
    before = {path: path.read_bytes() for path in killed.rglob("*") if path.is_file() and path.name != "run.log"}
    with pytest.raises(ModelError, match="has no whole checkpoint to go on from: .*last.*; .*previous.* move last and"):
        resumed(killed)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_checkpoint_of_another_strategy_is_named(killed):
    (killed / "last" / "deepspeed-stage-2-1-of-2.safetensors").touch()
    (killed / "last" / "digests.json").unlink()
    with pytest.raises(ModelError, match="deepspeed-stage-2-1-of-2.safetensors: go on with the strategy, the stage"):
        resumed(killed)


def test_a_run_without_a_checkpoint_says_so_and_begins_again(whole, killed, caplog):
    for part in ("last", "previous"):
        shutil.rmtree(killed / part)
    resumed(killed, state="info")
    assert f"no checkpoint in {killed} yet: training begins from the beginning" in caplog.text
    same(killed, whole[1])


def test_two_checkpoints_are_kept(whole):
    steps = [read_json(whole[1] / part / "training.json")["loop"]["steps"] for part in ("last", "previous")]
    total = read_json(whole[1] / "costs.json")["steps"]
    assert steps == [total, (total - 1) // 3 * 3]


def test_no_pickle_is_read(killed, monkeypatch):
    def refused(*_, **__):
        raise AssertionError("a pickle is read")

    for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(owner, name, refused)
    resumed(killed)
    experiment.load_run(killed)
    written = [path for path in killed.rglob("*") if path.is_file()]
    assert not [path for path in written if path.suffix in (".pth", ".pt", ".pkl", ".bin")]


def test_a_checkpoint_of_several_processes_goes_on_in_one_and_says_so(killed, caplog):
    path = killed / "last" / "training.json"
    saved = read_json(path)
    saved["loop"]["processes"] *= 2
    (killed / "last" / "digests.json").unlink()
    write_json(path, saved)
    resumed(killed)
    assert "the checkpoint is of 2 processes, and now there are 1" in caplog.text


# ---- folders of earlier versions ----


@pytest.fixture
def of_an_earlier_version(tmp_path):
    """A run of four epochs that was killed in its third, as it was written before there were checkpoints inside one."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def test_a_run_of_an_earlier_version_goes_on(of_an_earlier_version, toy_data, tmp_path, caplog):
    settings = read_settings(of_an_earlier_version) | {"data_path": toy_data, "state": "info"}
    resumed(of_an_earlier_version, data_path=toy_data, state="info")
    assert "resuming with epoch 2 after step 8" in caplog.text
    run(config_dict=settings, run_dir=tmp_path / "whole")
    ours, theirs = curves(of_an_earlier_version), curves(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    for tag, values in theirs.items():  # on another machine, so not the last digit
        assert [step for step, _ in ours[tag]] == [step for step, _ in values], tag
        assert [value for _, value in ours[tag]] == pytest.approx([value for _, value in values], rel=1e-3), tag
    files = {path.name for path in (of_an_earlier_version / "last").iterdir()}
    assert "digests.json" in files


def test_a_run_of_an_earlier_version_is_evaluated(of_an_earlier_version, toy_data):
    result = experiment.evaluate_run(of_an_earlier_version, {"data_path": toy_data})
    saved = read_json(of_an_earlier_version / "best" / "state.json")["valid_result"]
    assert result["valid_result"] == pytest.approx(saved, abs=0.05)


def test_a_damaged_checkpoint_of_an_earlier_version_is_an_error(of_an_earlier_version, toy_data):
    cut(of_an_earlier_version / "last" / "training.safetensors")
    with pytest.raises(ModelError, match="no whole checkpoint .*training.safetensors is missing or damaged"):
        resumed(of_an_earlier_version, data_path=toy_data)


def test_an_epoch_that_an_earlier_version_had_cut_begins_again(of_an_earlier_version, toy_data):
    path = of_an_earlier_version / "last" / "training.json"
    saved = read_json(path)
    saved["loop"]["epochs_cut"] = 1
    write_json(path, saved)
    resumed(of_an_earlier_version, data_path=toy_data)
    costs = read_json(of_an_earlier_version / "costs.json")
    assert (costs["epochs"], costs["steps"]) == (4, 8 + 3 * 4)
