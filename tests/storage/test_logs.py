"""Lines go to the console and the run's file while a run lasts, and nothing stays behind."""

import logging
from pathlib import Path

import pytest

from recbole_hllm.errors import ConfigError, DataError
from recbole_hllm.storage.logs import last_error, logging_to


def state():
    root = logging.getLogger()
    return root.level, list(root.handlers)


def test_lines_of_the_level_and_above(tmp_path, capsys):
    before = state()
    with logging_to(tmp_path / "run.log", "WARNING"):
        logging.getLogger("recbole.somewhere").warning("careful")
        logging.getLogger().info("quiet")
    assert state() == before
    logging.getLogger().warning("after")
    (line,) = (tmp_path / "run.log").read_text().splitlines()
    assert line.endswith(" W careful")
    assert "careful" in capsys.readouterr().err


def test_a_user_error_is_the_last_line_of_the_file_only(tmp_path, capsys):
    before = state()
    with pytest.raises(DataError), logging_to(tmp_path / "run.log", None):
        raise DataError("toy.inter, line 3: no number E 4")
    assert state() == before
    assert last_error(tmp_path / "run.log") == "toy.inter, line 3: no number E 4"
    assert "Traceback" not in (tmp_path / "run.log").read_text()
    assert capsys.readouterr().err == ""


def test_any_other_error_leaves_its_kind_and_traceback(tmp_path):
    with pytest.raises(AssertionError), logging_to(tmp_path / "run.log", None):
        logging.getLogger().info("not an E rror")
        raise AssertionError
    assert last_error(tmp_path / "run.log") == "AssertionError: "
    assert "Traceback" in (tmp_path / "run.log").read_text()


def test_no_file_and_no_error(tmp_path):
    assert last_error(tmp_path / "run.log") is None
    with logging_to(tmp_path / "run.log", "info"):
        logging.getLogger().info("fine")
    assert last_error(tmp_path / "run.log") is None


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    before = state()
    with (
        pytest.raises(ConfigError, match="cannot write .*run.log: No such file"),
        logging_to(tmp_path / "a" / "run.log", None),
    ):
        pass
    assert state() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_does_not_end_a_run(capsys):
    with logging_to(Path("/dev/full"), None):
        logging.getLogger().info("a line")
    assert "No space left on device" in capsys.readouterr().err


def test_a_level_nobody_knows_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="state: 'loud' is not one of debug"), logging_to(tmp_path / "l", "loud"):
        pass
