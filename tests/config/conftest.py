"""A data set for the tests of keys: its header is all that a Config reads."""

from pathlib import Path

import pytest

INTER = "user_id:token\titem_id:token\ttimestamp:float\nu1\ti1\t1\n"


def _data_set(folder: Path, item: str | None, name="toy") -> dict:
    """A data set whose .item has this header; the keys that name its folder."""
    (folder / name).mkdir()
    (folder / name / f"{name}.inter").write_text(INTER)
    if item is not None:
        (folder / name / f"{name}.item").write_text(item + "\n")
    return {"data_path": str(folder)}


@pytest.fixture(scope="session")
def data_set():
    """(folder, header of .item, name) -> the keys of a data set written there."""
    return _data_set


@pytest.fixture
def toy(tmp_path) -> dict:
    return _data_set(tmp_path, "item_id:token\ttitle:token_seq\tprice:float\tbrand:token\tgenre:token_seq")


@pytest.fixture
def yaml_file(tmp_path):
    def write(text: str, name="user.yaml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write
