"""The page in a headless browser, where Debian's chromium is installed: widths, sorting, and what needs no script."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from recbole_hllm.report.write import write_report

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
NAMES = [f"A long name of a model@variant{number}" for number in range(12)]

# Looks at the page in a frame of a phone's and of a screen's width.
LOOK = """
<iframe id="phone" src="PAGE" style="width:390px;height:800px"></iframe>
<iframe id="screen" src="PAGE" style="width:1280px;height:800px"></iframe><pre id="found"></pre>
<script>addEventListener("load", () => {
  const found = {};
  for (const name of ["phone", "screen"]) {
    const inside = document.getElementById(name).contentDocument, root = inside.documentElement;
    const table = inside.querySelector("table.ranked"), heads = table.tHead.rows[0].cells;
    const texts = [...inside.querySelectorAll("figure > svg text")];
    const column = (place) => [...table.tBodies[0].rows].map((row) => row.cells[place].textContent);
    const sorted = [];
    for (const place of [2, 2, 0]) {
      heads[place].querySelector("button").click();
      sorted.push([heads[place].getAttribute("aria-sort"), column(place)]);
    }
    found[name] = {
      wide: root.scrollWidth - root.clientWidth, sorted,
      states: [...heads].filter((head) => head.hasAttribute("aria-sort")).length,
      scrolls: [...inside.querySelectorAll(".scroll")].some((one) => one.scrollWidth > one.clientWidth),
      letters: Math.min(...texts.map((one) => one.getBoundingClientRect().height)),
      marks: inside.querySelectorAll("figure > svg title").length,
    };
  }
  document.getElementById("found").textContent = JSON.stringify(found);
});</script>
"""


def look(folder):
    (folder / "look.html").write_text(LOOK.replace("PAGE", (folder / "report.html").as_uri()), encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        f"--user-data-dir={folder / 'browser'}", "--allow-file-access-from-files", "--virtual-time-budget=5000",
        "--dump-dom", (folder / "look.html").as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', dom)
    return json.loads(unescape(found))


def test_the_page_fits_a_phone_and_a_screen_and_its_tables_are_sorted(write_table):
    folder = write_table(names=NAMES)
    write_report(folder, examples=0)
    seen = look(folder)
    for one in seen.values():
        assert one["wide"] <= 0, "the page scrolls to the side"
        (down, falling), (up, rising), (by_name, names) = one["sorted"]
        assert (down, up, by_name, one["states"]) == ("descending", "ascending", "ascending", 1)
        numbers = list(map(float, falling))
        assert numbers == sorted(numbers, reverse=True) and list(map(float, rising)) == sorted(numbers)
        assert sorted(names) == sorted(NAMES) and names[0] == NAMES[0]
        assert one["marks"] > 12 * 5
    assert seen["phone"]["scrolls"], "wide tables scroll inside"
    assert seen["phone"]["letters"] > 9
