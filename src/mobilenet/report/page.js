"use strict";

// a click on a column's name sorts the table by it, a second one the other way round
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b));
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => (down ? -1 : 1) * compare(key(a, column), key(b, column)));
      table.tBodies[0].append(...rows);
    });
  });
}

// the field under the pointer, or reached with the arrow keys, is read out below its heat map
for (const map of document.querySelectorAll("svg.heat")) {
  const cells = [...map.querySelectorAll(".cell")];
  const columns = Number(map.dataset.columns);
  const readout = map.closest("figure").querySelector(".readout");
  let chosen = -1;
  const choose = (index) => {
    cells[chosen]?.classList.remove("chosen");
    chosen = index;
    cells[chosen].classList.add("chosen");
    readout.textContent = cells[chosen].querySelector("title").textContent;
  };
  map.addEventListener("pointermove", (event) => {
    const index = cells.indexOf(event.target.closest(".cell"));
    if (index >= 0 && index !== chosen) choose(index);
  });
  map.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const edge = (step === -1 && chosen % columns === 0) || (step === 1 && chosen % columns === columns - 1);
    const next = chosen < 0 ? 0 : chosen + step;
    if (next >= 0 && next < cells.length && (chosen < 0 || !edge)) choose(next);
  });
}
