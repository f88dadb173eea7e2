"use strict";
/* Sorts and filters the tables of trials. */
(() => {
  /* What there is none of comes last, whichever way. */
  function compared(a, b, way) {
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    const [x, y] = [Number(a), Number(b)];
    const numbers = !Number.isNaN(x) && !Number.isNaN(y);
    return way * (numbers ? x - y : a.localeCompare(b));
  }

  function sort(table, header) {
    const column = [...header.parentElement.children].indexOf(header);
    const way = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of header.parentElement.children) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => compared(a.cells[column].dataset.key, b.cells[column].dataset.key, way));
    table.tBodies[0].append(...rows);
  }

  /* Each part between commas must be there, as configs are told of; `count 2` is not to find `count 20`. */
  function asked(text) {
    return text.split(",").map((part) => part.trim()).filter(Boolean).map((part) => {
      const literal = part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
      return new RegExp(/\d$/.test(part) ? `${literal}(?![\\d.])` : literal, "i");
    });
  }

  function filter(article) {
    const parts = asked(article.querySelector(".filter-text").value);
    const fared = article.querySelector(".filter-fared").value;
    const rows = [...article.querySelectorAll(".trials tbody tr")];
    for (const row of rows) {
      const text = `${row.dataset.words}, ${row.textContent}`;
      row.hidden = !(parts.every((part) => part.test(text)) && (!fared || row.dataset.fared === fared));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    article.querySelector(".shown").textContent = `${shown} of ${rows.length} trials`;
  }

  for (const { article } of tritontune.models) {
    const table = article.querySelector(".trials");
    if (!table) continue;
    for (const header of table.tHead.rows[0].cells) {
      header.querySelector("button").addEventListener("click", () => sort(table, header));
    }
    for (const control of article.querySelectorAll(".filter-text, .filter-fared")) {
      for (const event of ["input", "change"]) control.addEventListener(event, () => filter(article));
    }
    filter(article);
  }
})();
