"use strict";
// Tables sort by a click on a column's heading: numbers by data-value, everything else as text.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th button").forEach((button) => {
    const heading = button.closest("th");
    const column = heading.cellIndex;
    button.addEventListener("click", () => {
      const numeric = heading.classList.contains("n");
      const before = heading.getAttribute("aria-sort");
      const sign = before ? (before === "ascending" ? -1 : 1) : numeric ? -1 : 1;
      const key = (row) => {
        const cell = row.cells[column];
        if (!numeric) return cell.dataset.value ?? cell.textContent.trim();
        return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
      };
      const compare = (a, b) => {
        if (!numeric) return sign * a[0].localeCompare(b[0], undefined, { numeric: true });
        if (Number.isNaN(a[0]) || Number.isNaN(b[0])) return Number.isNaN(a[0]) - Number.isNaN(b[0]);
        return sign * (a[0] - b[0]);
      };
      const rows = Array.from(body.rows, (row) => [key(row), row]).sort(compare);
      body.append(...rows.map((row) => row[1]));
      for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    });
  });
}
// One player at a time.
const players = document.querySelectorAll("audio");
for (const player of players) {
  player.addEventListener("play", () => players.forEach((other) => other === player || other.pause()));
}
// Print shows what is folded away.
let folded = [];
addEventListener("beforeprint", () => {
  folded = Array.from(document.querySelectorAll("details:not([open])"));
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of folded) one.open = false;
});
