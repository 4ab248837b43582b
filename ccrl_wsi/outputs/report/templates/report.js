"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);

  // Figures are drawn when they come near the screen, and all of them before printing.
  const waiting = new Map(data.figures.map((item) => [item.target_id, item]));
  const draw = (name) => {
    const item = waiting.get(name);
    if (!item) return Promise.resolve();
    waiting.delete(name);
    return Bokeh.embed.embed_item(item).then(() => {
      const select = document.querySelector(`select[data-sorts="${name}"]`);
      if (select && select.value !== "") sort(select);
    });
  };
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      near.unobserve(entry.target);
      draw(entry.target.id);
    }
  }, { rootMargin: "800px" });
  for (const name of waiting.keys()) near.observe(document.getElementById(name));
  const drawAll = () => Promise.all([...waiting.keys()].map(draw));
  window.addEventListener("beforeprint", drawAll);
  window.reportDrawn = drawAll;

  // Sorting bars: the range of a figure lists them; horizontal bars begin at the bottom.
  const model = (name) => {
    for (const document_ of Bokeh.documents) {
      const found = document_.get_model_by_name(name);
      if (found) return found;
    }
    return null;
  };
  const first = new Map();
  const sort = (select) => {
    const name = select.dataset.sorts;
    const range = model(name);
    if (!range) return;
    if (!first.has(name)) first.set(name, [...range.factors]);
    const given = first.get(name);
    if (select.value === "") { range.factors = given; return; }
    const isUpwards = model(`${name}-upwards`) !== null;
    const bars = isUpwards ? [...given].reverse() : given;
    const sorted = data.orders[name][Number(select.value)].rows.map((row) => bars[row]);
    range.factors = isUpwards ? sorted.reverse() : sorted;
  };
  for (const select of document.querySelectorAll("select[data-sorts]")) {
    select.addEventListener("change", () => draw(select.dataset.sorts).then(() => sort(select)));
  }

  // Sorting tables by a column: numbers as numbers, the rest as text.
  const valueOf = (cell) => cell.dataset.v ?? cell.textContent;
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const isNumber = column > 2;
      const next = head.getAttribute("aria-sort") === (isNumber ? "descending" : "ascending")
        ? (isNumber ? "ascending" : "descending") : (isNumber ? "descending" : "ascending");
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const body = table.tBodies[0];
      const keyed = [...body.rows].map((row) => [valueOf(row.cells[column]), row]);
      keyed.sort(([a], [b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (isNumber ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true }));
      });
      body.append(...keyed.map(([, row]) => row));
    }));
  }

  // A table as CSV, in the order it is shown in.
  const quoted = (text) => /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  for (const button of document.querySelectorAll("button[data-downloads]")) {
    button.addEventListener("click", () => {
      const table = document.getElementById(button.dataset.downloads);
      const lines = [[...table.tHead.rows[0].cells].map((cell) => cell.textContent)];
      for (const row of table.tBodies[0].rows) lines.push([...row.cells].map(valueOf));
      const text = lines.map((line) => line.map(quoted).join(",") + "\r\n").join("");
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
      link.download = button.dataset.file;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }
})();
