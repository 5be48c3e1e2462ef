"use strict";
// The history that is chosen, the items that are offered for what is typed, and what is recommended after it.
const at = (id) => document.getElementById(id);
const history_ = [];  // {id, title} of the catalogue, {text} of what is new
let offered = [], chosen = -1, served = {}, asking = null, looking = null, pause = 0;

function made(name, text = "", kind = "") {
  const one = document.createElement(name);
  one.textContent = text;
  if (kind) one.className = kind;
  return one;
}

async function ask(path, options = {}) {
  const token = at("token").value.trim();
  const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) at("locked").hidden = false;
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.errors.map((one) => one.message).join("; "));
  return body;
}

function tell(error) {
  if (error && error.name === "AbortError") return;
  at("wrong").hidden = !error;
  at("wrong").textContent = error ? error.message : "";
}

// ---- what is typed ----

async function offer() {
  const typed = at("typed").value.trim();
  if (looking) looking.abort();
  if (!typed) return show([]);
  looking = new AbortController();
  try {
    const found = (await ask(`items?limit=8&search=${encodeURIComponent(typed)}`, { signal: looking.signal })).items;
    if (served.text_fields && served.text_fields.length) found.push({ text: typed });
    show(found);
    tell(null);
  } catch (error) { tell(error); }
}

function show(found) {
  offered = found;
  chosen = found.length ? 0 : -1;
  at("found").replaceChildren(...found.map((item, place) => {
    const line = made("li", item.text === undefined ? item.title || item.id : `New text: ${item.text}`);
    if (item.title) line.append(" ", made("span", item.id, "fields"));
    line.id = `found-${place}`;
    line.setAttribute("role", "option");
    line.addEventListener("mousedown", (event) => { event.preventDefault(); take(place); });
    return line;
  }));
  at("found").hidden = !found.length;
  at("typed").setAttribute("aria-expanded", String(found.length > 0));
  mark();
}

function mark() {
  [...at("found").children].forEach((line, place) => line.setAttribute("aria-selected", String(place === chosen)));
  if (chosen < 0) return at("typed").removeAttribute("aria-activedescendant");
  at("typed").setAttribute("aria-activedescendant", `found-${chosen}`);
  at("found").children[chosen].scrollIntoView({ block: "nearest" });
}

function take(place) {
  history_.push(offered[place]);
  at("typed").value = "";
  show([]);
  changed();
}

// ---- the history ----

function changed() {
  at("history").replaceChildren(...history_.map((item, place) => {
    const line = made("li"), row = made("div"), button = made("button", "×");
    row.append(made("span", item.text === undefined ? item.title || item.id : `“${item.text}”`), button);
    button.type = "button";
    button.setAttribute("aria-label", `Remove ${item.title || item.id || item.text}`);
    button.addEventListener("click", () => { history_.splice(place, 1); changed(); at("typed").focus(); });
    line.append(row);
    return line;
  }));
  recommend();
}

async function recommend() {
  if (asking) asking.abort();
  const user = at("user").value.trim();
  at("empty").hidden = history_.length > 0 || Boolean(user);
  if (!at("empty").hidden) { tell(null); return list([]); }
  // Texts come after ids for the service, whatever the order on the page. What is typed is a field of an item, so that
  // the service makes the text of it that the model reads.
  const ordered = [...history_].sort((one, other) => (one.text !== undefined) - (other.text !== undefined));
  const hours = (place) => Date.now() / 1000 - 3600 * (ordered.length - place);
  const body = {
    items: ordered.filter((item) => item.text === undefined).map((item) => item.id),
    texts: ordered.filter((item) => item.text !== undefined)
      .map((item) => ({ [served.text_fields[0]]: item.text })),
    k: Number(at("k").value) || 10, filter_seen: !at("seen").checked, explain: true,
    ...(user && { user }), ...(served.reads_times && { times: ordered.map((_, place) => hours(place)) }),
  };
  asking = new AbortController();
  try {
    const answer = await ask("recommend", { method: "POST", body: JSON.stringify(body), signal: asking.signal });
    tell(null);
    list(answer.items);
  } catch (error) {
    if (error.name !== "AbortError") list([]);
    tell(error);
  }
}

// ---- the answer ----

function list(items) {
  at("items").replaceChildren(...items.map(shown));
  at("legend").hidden = !items.some((item) => item.why);
}

function shown(item) {
  const line = made("li"), name = made("div", "", "name");
  name.append(made("strong", item.title || item.id), made("span", item.score.toFixed(3), "score"));
  line.append(name);
  const others = Object.entries(item.fields).filter(([, value]) => value && value !== item.title);
  const about = [item.title ? `id ${item.id}` : "", ...others.map(([key, value]) => `${key}: ${value}`)];
  const text = about.filter(Boolean).join(" · ");
  line.append(made("div", text.length > 220 ? `${text.slice(0, 220)}…` : text, "fields"));
  if (item.why) line.append(...reasons(item.why));
  return line;
}

function reasons(why) {
  const grid = made("div", "", "why"), added = why.contributing.filter((one) => one.contribution !== undefined);
  const most = Math.max(...added.map((one) => Math.abs(one.contribution)), 1e-9);
  for (const one of added) {
    const bar = made("span", "", "bar"), part = made("i", "", one.contribution < 0 ? "less" : "");
    part.style.width = `${100 * Math.abs(one.contribution) / most}%`;
    bar.append(part);
    const like = one.similarity === undefined ? "" : `${Math.round(100 * one.similarity)} %`;
    const sign = one.contribution < 0 ? "−" : "+";
    grid.append(made("span", one.title || one.id, "of"), bar,
      made("span", `${sign}${Math.abs(one.contribution).toFixed(2)}`, "number"), made("span", like, "number"));
  }
  const others = why.nearest.filter((one) => !added.some((other) => other.id === one.id));
  const near = others.map((one) => `${one.title || one.id} (${Math.round(100 * one.similarity)} %)`);
  return near.length ? [grid, made("div", `Nearest: ${near.join(" · ")}`, "nearest")] : [grid];
}

// ---- what the user does ----

at("typed").addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(offer, 120); });
at("typed").addEventListener("blur", () => show([]));
at("typed").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && offered.length) {
    event.preventDefault();
    chosen = (chosen + step + offered.length) % offered.length;
    mark();
  } else if (event.key === "Enter" && chosen >= 0) {
    event.preventDefault();
    take(chosen);
  } else if (event.key === "Escape") show([]);
});
for (const id of ["k", "seen", "user", "token"]) at(id).addEventListener("change", recommend);
at("clear").addEventListener("click", () => { history_.length = 0; at("user").value = ""; changed(); at("typed").focus(); });

async function start() {
  try {
    served = await ask("health");
    const of = served.dataset ? ` · ${served.dataset}` : "";
    at("served").textContent = `${served.model || "A model"}${of} · ${served.items.toLocaleString("en")} items`;
    at("known").hidden = !served.users;
    if (served.text_fields.length) at("hint").textContent += " What is not in the catalogue is read as a text.";
    if (served.reads_times) at("hint").textContent += " Times are made up: one hour apart, the last an hour ago.";
    for (const id of new URLSearchParams(location.search).getAll("items")) {
      const found = (await ask(`items?limit=1&search=${encodeURIComponent(id)}`)).items;
      history_.push(...found.filter((item) => item.id === id));
    }
    if (history_.length) changed();
  } catch (error) { tell(error); }
}
start();
