"use strict";
// Every table that is in sight or can be unfolded is sorted by the column whose heading is clicked; again: the other way.
function sortable(table) {
  const body = table.tBodies[0];
  if (!body || body.rows.length < 3) return;
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.title = "sort by this column";
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].textContent.trim();
      const number = (text) => parseFloat(text.replace("\u2212", "-"));
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)], [p, q] = [number(x), number(y)];
        if (isNaN(p) !== isNaN(q)) return isNaN(p) ? 1 : -1; // what is no number stays below
        const order = isNaN(p) ? x.localeCompare(y) : p - q;
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
}

function enhance(part) {
  part.querySelectorAll("table").forEach(sortable);
  part.querySelectorAll(".follow").forEach(follow);
}
document.addEventListener("DOMContentLoaded", () => enhance(document));
