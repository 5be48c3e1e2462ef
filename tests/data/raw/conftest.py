"""Raw files of a few lines, and what a conversion makes of them."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from recbole_hllm.data.raw.conversion import convert


@pytest.fixture
def converted(tmp_path):
    """Writes raw files (name -> text or bytes), converts them, and returns lines of the output and the facts."""

    def run(form, files, **options):
        source = write_raw(tmp_path / "raw", files)
        sources = options.pop("sources", [source])
        facts = convert(form, [str(path) for path in sources], to=str(tmp_path / "out" / "shop"), **options)
        return outcome(tmp_path / "out" / "shop", facts)

    return run


def write_raw(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def outcome(folder: Path, facts):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    lines = {name: data.decode().splitlines() for name, data in files.items() if not name.endswith(".parquet")}
    return SimpleNamespace(
        facts=facts, folder=folder, files=sorted(files), inter=lines.get("shop.inter"), item=lines.get("shop.item"),
        lines=lines,
    )  # fmt: skip
