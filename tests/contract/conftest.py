"""Many small runs in one process, each with a limit of time; what went wrong in all of them is told together."""

import math
import shutil
import signal
import traceback
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from small_models import MODELS

from recbole_hllm import Config, create_dataset, data_preparation, run

# isort: split
from recbole.utils import init_seed

from recbole_hllm.errors import ConfigError, UserError
from recbole_hllm.registry import get_spec, model_names
from recbole_hllm.runs.prerequisites import complete


class TooLong(BaseException):
    """No code under test catches it."""


@contextmanager
def limit(seconds):
    """Raises TooLong when the process has computed for so many seconds: what other processes do has no say in it."""

    def stop(*_):
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.fixture
def attempt(tmp_path):
    """(model, keys, seconds) -> what is wrong with a run, in a line; None where it ends with results that are numbers,
    or with an error for the user."""

    def run_once(model, keys, seconds):
        try:
            with limit(seconds):
                result = run(model, config_dict=keys, run_dir=tmp_path / "run")
        except UserError:
            return None
        except TooLong:
            return f"still computing after {seconds} s"
        except (Exception, SystemExit) as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno})"
        finally:
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
        numbers = {**(result["best_valid_result"] or {}), **(result["test_result"] or {})}
        wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
        return f"{', '.join(wrong)}: not a number" if wrong else None

    return run_once


@pytest.fixture(scope="session")
def specs():
    """model name -> ModelSpec of each that runs."""
    found = {}
    for name in model_names():
        try:
            found[name] = get_spec(name)
        except ConfigError:
            continue
    return found


# ---- small models ----


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    """Where models that others are built on are kept."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def parts(settings_of, tmp_path_factory):
    """Folders of finished runs to be summed; a temperature of 1 keeps scores small."""
    folder = tmp_path_factory.mktemp("parts")
    small = {"SASRecNCE": {"num_negatives": 8, "temperature": 1.0}, "BPR": {}}
    return [
        run(name, config_dict={**settings_of(name), **keys}, run_dir=folder / name)["run_dir"]
        for name, keys in small.items()
    ]


@pytest.fixture
def build(settings_of, cache_dir, request):
    """(model name, keys) -> config, loaders and a model with the weights of its seed."""

    def make(name, **keys):
        if name == "Blend":
            keys = {"of": request.getfixturevalue("parts"), **keys}
        own = MODELS.get(name, {})  # none of RecBole's
        config = Config(name, config_dict={**settings_of(name), "cache_dir": cache_dir, **own, **keys})
        complete(config, None, run)
        init_seed(config["seed"], config["reproducibility"])
        train, valid, test = data_preparation(config, create_dataset(config))
        init_seed(config["seed"], config["reproducibility"])
        model = config.spec.build(config, train._dataset)
        return SimpleNamespace(config=config, train=train, valid=valid, test=test, model=model)

    return make
