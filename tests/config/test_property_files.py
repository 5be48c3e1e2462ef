"""Property files are what the schema says, and a user's change of a default is seen."""

import pytest

from recbole_hllm.config.keys.pages import PAGES
from recbole_hllm.config.parsing import read_yaml
from recbole_hllm.config.places import properties_folder
from recbole_hllm.config.property_files import page, reference
from recbole_hllm.config.schema import Settings, key


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_property_file_is_the_page_of_its_keys(name):
    text = (properties_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    assert text == page(*PAGES[name]), "write it anew: python -m recbole_hllm.config.property_files"


def test_every_model_file_has_a_page():
    files = {f"model/{file.stem}" for file in (properties_folder() / "model").glob("*.yaml")}
    assert files == {name for name in PAGES if name.startswith("model/")}


def test_a_page_reads_back_as_the_defaults(tmp_path, monkeypatch):
    from recbole_hllm.config import schema

    monkeypatch.setattr(schema, "DECLARED", {})

    class Odd(Settings):
        """Values that YAML could take for something else.

        A second paragraph."""

        title = "Odd ones"

        a_text: str = key("None", "Text.")
        a_line: str = key(";\n", "A line break.")
        a_small_number: float = key(5e-05, "Small.")
        a_smaller_number: float = key(1e-12, "Smaller.")
        nothing: int | None = key(None, "Empty.")
        a_list: list[str] = key(["yes", "a: b", "#"], "Words.")
        a_dict: dict = key({"x": 1, "y": {"z": [0.5, "no"]}}, "Several.")
        short: dict = key({"x": 1}, "One.")

    (tmp_path / "odd.yaml").write_text(page(Odd), encoding="utf-8")
    assert read_yaml(tmp_path / "odd.yaml") == {name: one.default for name, one in Odd.keys.items()}
    lines = page(Odd).splitlines()
    assert lines[0] == "# Values that YAML could take for something else."
    assert lines[1:5] == ["#", "# A second paragraph.", "", "# Odd ones"]
    assert "a_small_number: 0.00005         # (float) Small." in lines


def test_the_key_reference_of_the_manual_is_written_from_the_schema():
    text = reference()
    assert (properties_folder().parent / "docs" / "keys.md").read_text(encoding="utf-8") == text
    rows = {line.split("|")[1].strip(" `") for line in text.splitlines() if line.startswith("| `")}
    assert rows == {name for name in PAGES for name in read_yaml(properties_folder() / f"{name}.yaml")}
    assert "| `nce_thres` | float, at least -1, at most 1, or empty | `0.99` | training | Drop negatives" in text
