"use strict";
// A click, Enter or Space on the name of a column sorts by it, again in the other direction. Cells without a value stay last.
for (const table of document.querySelectorAll("table.ranked")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(table, heads, column));
  });
}

function sort(table, heads, column) {
  const rows = [...table.tBodies[0].rows];
  const keys = new Map(rows.map((row) => [row, keyOf(row.cells[column])]));
  const numbers = rows.every((row) => keys.get(row) === null || typeof keys.get(row) === "number");
  const first = numbers && column > 0 ? "descending" : "ascending";
  const before = heads[column].getAttribute("aria-sort");
  const now = before === null ? first : before === "ascending" ? "descending" : "ascending";
  const sign = now === "ascending" ? 1 : -1;
  rows.sort((one, other) => {
    const [a, b] = [keys.get(one), keys.get(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (numbers ? a - b : String(a).localeCompare(String(b)));
  });
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", now);
  table.tBodies[0].append(...rows);
}

function keyOf(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const text = cell.textContent.trim();
  return text === "\u2013" || text === "" ? null : text;
}
