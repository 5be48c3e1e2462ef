"""Where a training goes on that did not come out the same as the one that was interrupted."""

from types import SimpleNamespace

import pytest
import torch

from recbole_hllm.processes import Processes
from recbole_hllm.training import progress
from recbole_hllm.training.checkpoint import load_model


class Killed(BaseException):
    """Nobody catches it, like a signal."""


@pytest.fixture
def trained(prepare, monkeypatch):
    """(values of the valid_metric, keys) -> a trainer that took up what there is, and was killed after them where
    ``killed`` is the number of the checkpoint before which it is."""

    def train(values, killed=None, **keys):
        made = prepare(epochs=3, stopping_step=9, **keys)
        trainer, values, saved = made.trainer, iter(values), iter(range(9))
        evaluate, save = trainer.evaluate, trainer._save_last

        def scripted(*arguments, **keywords):
            result = evaluate(*arguments, **keywords)
            return dict.fromkeys(result, next(values))

        def save_unless_killed(data):
            if next(saved) == killed:
                raise Killed
            save(data)

        monkeypatch.setattr(trainer, "evaluate", scripted)
        monkeypatch.setattr(trainer, "_save_last", save_unless_killed)
        try:
            trainer.fit(made.train, made.valid, show_progress=False)
        except Killed:
            pass
        return trainer

    return train


@pytest.mark.parametrize(
    "after, best, epoch, warned",
    [((0.2, 0.0), 0.2, 1, False), ((0.05, 0.04), 0.3, 1, True), ((0.05, 0.4), 0.4, 2, False)],
    ids=["a new best", "the lost one stays", "a better one"],
)
def test_the_result_is_that_of_the_best_weights(trained, tmp_path, caplog, after, best, epoch, warned):
    trained([0.1, 0.3], killed=1)  # the second is kept as the best, and its checkpoint is lost
    trainer = trained(after, resume=True)
    assert set(trainer.best_valid_result.values()) == {best} and trainer.best_valid_score == best
    assert trainer.best_epoch == epoch
    kept = load_model(tmp_path / "run" / "best", trainer.model)
    assert kept["valid_result"] == trainer.best_valid_result and kept["epoch"] == epoch
    assert ("of the training that was interrupted" in caplog.text) is warned
    assert (trainer.valid_ranks is None) is warned


def test_processes_of_another_number_draw_apart(monkeypatch):
    drawn = set()
    for rank in range(3):
        monkeypatch.setattr(progress, "current", lambda rank=rank: Processes(rank, 3))
        torch.manual_seed(5)  # what was loaded, in each of them
        trainer = SimpleNamespace(batch=0, steps=7, settings=SimpleNamespace(seed=1))
        progress._take_up_random(trainer, [None, None])
        drawn.add(float(torch.rand(())))
    assert len(drawn) == 3
