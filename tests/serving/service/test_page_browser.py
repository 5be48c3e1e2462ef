"""The page in a headless browser, where Debian's chromium is installed: a history is typed at a phone's and a screen's
width, and what is recommended is looked at."""

import json
import re
import shutil
import subprocess
import threading
import time
from html import unescape

import pytest

pytest.importorskip("uvicorn")

import uvicorn  # noqa: E402
from fastapi.responses import HTMLResponse  # noqa: E402

from recbole_hllm.serving import Recommender  # noqa: E402
from recbole_hllm.serving.service.app import create_app  # noqa: E402
from recbole_hllm.serving.service.service import Service  # noqa: E402

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

LOOK = """
<iframe id="phone" src="/" style="width:390px;height:800px"></iframe>
<iframe id="screen" src="/" style="width:1280px;height:800px"></iframe><pre id="found"></pre>
<script>
const until = async (done) => { while (!done()) await new Promise((go) => setTimeout(go, 20)); };
async function look(name) {
  const frame = document.getElementById(name);
  const inside = frame.contentDocument, at = (id) => inside.getElementById(id);
  await until(() => at("served").textContent.includes("items"));
  const type = async (text, presses) => {
    at("typed").value = text;
    at("typed").dispatchEvent(new Event("input"));
    await until(() => !at("found").hidden);
    const offered = [...at("found").children].map((line) => line.textContent);
    for (const key of presses) at("typed").dispatchEvent(new KeyboardEvent("keydown", { key }));
    return offered;
  };
  const offered = await type("red shoe 1", ["ArrowDown", "Enter"]);
  await until(() => at("items").children.length);
  await type("i7", ["Enter"]);
  await until(() => at("items").querySelectorAll(".bar").length);
  const chosen = [...at("history").querySelectorAll("span")].map((one) => one.textContent);
  const listed = [...at("items").querySelectorAll("strong")].map((one) => one.textContent);
  const root = inside.documentElement, columns = at("asked").getBoundingClientRect().right <
    at("answered").getBoundingClientRect().left;
  const seen = {
    offered, chosen, listed, columns, wide: root.scrollWidth - root.clientWidth,
    bars: at("items").querySelectorAll(".bar").length, words: at("items").textContent, told: at("served").textContent,
  };
  const sent = [], fetch_ = frame.contentWindow.fetch;
  frame.contentWindow.fetch = (path, options) => { sent.push(options.body); return fetch_(path, options); };
  await type("silk <b>coat</b>", ["ArrowUp", "Enter"]);
  await until(() => at("history").children.length === 3 && at("items").children.length);
  seen.texts = JSON.parse(sent.at(-1)).texts;
  seen.bold = inside.querySelectorAll("b").length;
  at("history").querySelector("button").click();
  at("k").value = "2";
  at("k").dispatchEvent(new Event("change"));
  await until(() => at("items").children.length === 2);
  seen.left = at("history").children.length;
  at("user").value = "nobody";
  at("user").dispatchEvent(new Event("change"));
  await until(() => !at("wrong").hidden);
  seen.wrong = at("wrong").textContent;
  return seen;
}
addEventListener("load", async () => {
  const found = {};
  for (const name of ["phone", "screen"]) found[name] = await look(name);
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>
"""


@pytest.fixture
def address(texts_export):
    """Of the service, with a page that looks at its page."""
    app = create_app(Service(texts_export))
    app.add_api_route("/look", lambda: HTMLResponse(LOOK), include_in_schema=False)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def look(address, folder):
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        f"--user-data-dir={folder / 'browser'}", "--virtual-time-budget=20000", "--dump-dom", f"{address}/look",
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', dom)
    assert found, "the page did not come to its end"
    return json.loads(unescape(found))


def test_a_history_is_typed_and_recommendations_say_why(address, tmp_path, texts_export):
    seen = look(address, tmp_path)
    wanted = [item.fields["title"] for item in Recommender.from_pretrained(texts_export).recommend(items=["i15", "i7"])]
    for one in seen.values():
        assert one["told"] == "Tiny · shop · 20 items"
        assert one["offered"] == [f"red shoe {n} i{n}" for n in (12, 15, 18)] + ["New text: red shoe 1"]
        assert one["chosen"] == ["red shoe 15", "blue hat 7"] and one["listed"] == wanted
        assert one["bars"] == 2 * 10 and "id i" in one["words"] and " %" in one["words"]
        assert one["wide"] <= 0, "the page scrolls to the side"
        assert one["texts"] == [{"title": "silk <b>coat</b>"}], "it is read as the items of the catalogue were"
        assert one["bold"] == 0, "what is typed is a text, whatever is in it"
        assert one["left"] == 2 and "'nobody' has no history" in one["wrong"]
    assert seen["screen"]["columns"] and not seen["phone"]["columns"]
