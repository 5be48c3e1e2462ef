"""The error about a missing data set, its page and its property file must tell the same."""

import re
from pathlib import Path

import pytest
import yaml

from recbole_hllm.data.files.sources import where_to_get

ROOT = Path(__file__).parents[3]
NAMES = sorted(path.stem for path in (ROOT / "properties" / "dataset").glob("*.yaml"))


def header(page: str, ending: str) -> list[str]:
    """The column types of the header line that a page shows for the .inter or the .item file."""
    lines = [line for line in page.splitlines() if re.fullmatch(r"(\w+:(token|token_seq|float)\t?)+", line)]
    return [line for line in lines if ("timestamp" in line) == (ending == "inter")][0].split("\t")


def test_every_property_file_has_a_page_and_every_page_a_property_file():
    assert NAMES == ["amazon_books", "ml-100k", "pixel1m", "pixel200k", "pixel8m"]
    assert NAMES == sorted(path.parent.name for path in (ROOT / "dataset").glob("*/README.md"))


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_those_of_the_page(name):
    numbers = re.findall(r"(\d[\d,]*) (?:users|items|interactions)", where_to_get(name))
    page = (ROOT / "dataset" / name / "README.md").read_text(encoding="utf-8")
    assert len(numbers) == 3
    assert all(number in page for number in numbers)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ml-100k"])
def test_names_the_files_to_write_and_the_command(name):
    text = where_to_get(name)
    for file in (f" {name}/{name}.inter", f" {name}/{name}.item", f"dataset/{name}/README.md"):
        assert file in text
    (command,) = re.findall(r"(?m)^python run_recbole_hllm\.py convert .*$", text)
    assert command.endswith(f" --to=dataset/{name}")
    assert command in (ROOT / "dataset" / name / "README.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", NAMES)
def test_page_shows_the_columns_that_the_property_file_needs(name):
    page = (ROOT / "dataset" / name / "README.md").read_text(encoding="utf-8")
    settings = yaml.safe_load((ROOT / "properties" / "dataset" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert {"item_id:token", "user_id:token", "timestamp:float"} <= set(header(page, "inter"))
    columns = [column.split(":")[0] for column in header(page, "item")]
    assert columns[0] == "item_id"
    assert columns[1:] == settings["text_keys"]


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_commented_with_its_type(name):
    lines = (ROOT / "properties" / "dataset" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    settings = [line for line in lines if line and not line.startswith("#")]
    assert settings
    for line in settings:
        assert re.fullmatch(r"\w+: .+ # \((int|bool|str|list of \w+)\) .+\.", line)


def test_a_name_in_the_papers_spelling_is_known():
    assert where_to_get("Pixel200K") == where_to_get("pixel200k")


def test_a_data_set_of_the_users_own_has_no_source():
    assert where_to_get("my_shop") is None
