"use strict";
// Sorts the tables by a click (Enter, Space) on a heading: ascending, descending, the order given. Numbers are sorted
// as numbers, words after them, what is missing always last.
(() => {
  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

  function keyOf(row, column) {
    const cell = row.cells[column];
    if (!cell || cell.classList.contains("missing")) return null;
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
  }

  function compare(a, b) {
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return typeof a === "number" ? a - b : words.compare(a, b);
  }

  function sort(table, given, column, direction) {
    const sign = direction === "descending" ? -1 : 1;
    const keyed = given.map((lines) => ({ lines, key: keyOf(lines[0], column) }));
    if (direction !== "none") {
      keyed.sort((one, other) => {
        if (one.key === null || other.key === null) return (one.key === null) - (other.key === null);
        return sign * compare(one.key, other.key);
      });
    }
    table.tBodies[0].append(...keyed.flatMap(({ lines }) => lines));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const given = []; // rows, each with the lines that go on with it
    for (const row of table.tBodies[0].rows) {
      if (row.classList.contains("more") && given.length) given[given.length - 1].push(row);
      else given.push([row]);
    }
    const headings = [...table.tHead.rows[0].cells];
    const said = document.createElement("p");
    said.className = "unseen";
    said.setAttribute("aria-live", "polite");
    table.closest(".scroll").after(said);
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const direction = NEXT[heading.getAttribute("aria-sort")];
        for (const other of headings) other.setAttribute("aria-sort", "none");
        heading.setAttribute("aria-sort", direction);
        sort(table, given, column, direction);
        const how = direction === "none" ? "in the order given" : `sorted by ${button.textContent}, ${direction}`;
        said.textContent = how;
      });
    });
  }

  // paper cannot be unfolded
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const one of opened) one.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
  });
})();
