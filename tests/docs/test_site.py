"""The manual builds without a warning: every page is in the menu, and every link and anchor leads somewhere."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_built(site):
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert len(pages) >= 20
    assert [page for page in pages if not (site / page.with_suffix(".html")).is_file()] == []


def test_the_readme_is_the_first_page_and_its_links_stay_inside(site):
    first = (site / "index.html").read_text(encoding="utf-8")
    assert "Do language models recommend better" in first
    assert 'href="data.html"' in first and 'href="benchmarks/results/amazon-scientific-2018.html"' in first


def test_a_property_file_that_a_page_links_to_is_there_and_the_hook_is_not(site):
    assert 'href="../properties/model/HLLM.yaml"' in (site / "systems" / "hllm.html").read_text(encoding="utf-8")
    assert (site / "properties" / "model" / "HLLM.yaml").is_file()
    assert not list(site.rglob("*.py"))
