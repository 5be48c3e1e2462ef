"""Hook of the manual: files of the repository outside of docs/ are part of the site, and links work in both places.

A page of docs/ links to ``../properties/overall.yaml``, and the README to ``docs/data.md``: a reader of the repository
needs these. The site has the pages of docs/ at its top, and every other file at its path in the repository.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).parents[1]
BESIDE_DOCS = ("CHANGELOG.md", "LICENSE", "benchmarks/**/*.md", "dataset/*/README.md", "properties/**/*.yaml")
IN_THE_MENU = ("index.md", "CHANGELOG.md")
LINK = re.compile(r"(?<=\]\()[^)#\s:]+(?=[)#])")


def on_files(files, config):
    """Adds the README, as the first page, and the files that pages link to."""
    found = {"index.md": ROOT / "README.md"}
    for pattern in BESIDE_DOCS:
        found |= {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.glob(pattern))}
    for uri, path in found.items():
        level = InclusionLevel.INCLUDED if uri in IN_THE_MENU else InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, uri, abs_src_path=str(path), inclusion=level))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links between files of the repository, as links between pages of the site."""
    inside = Path(page.file.abs_src_path).relative_to(ROOT).as_posix()

    def on_site(match):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(inside), match[0]))
        uri = "index.md" if target == "README.md" else target.removeprefix("docs/")
        return posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(on_site, markdown)
