"use strict";
(() => {
  // '1.3M', '84.5K', '12.3 [11.9 to 12.8]', '38.4 ± 0.5', '+8.1, higher', '100 %', '1/3', '1,024', '35 s', 'at least 2 h'
  const number = /^(?:at least )?([-+\u2212]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)(?:\/(\d+))?\s*(k|K|M|B|%|s|min|h|GB|dB|bits)?(?:\s*[\[(±,].*)?$/;
  const units = { k: 1e3, K: 1e3, M: 1e6, B: 1e9, min: 60, h: 3600 };
  const order = new Intl.Collator("en", { numeric: true });

  function value(cell) {
    if (cell.dataset.value !== undefined) return cell.dataset.value === "" ? null : Number(cell.dataset.value);
    const found = number.exec(cell.textContent.trim());
    if (!found) return undefined;
    const plain = Number(found[1].replaceAll(",", "").replace("\u2212", "-"));
    return plain / Number(found[2] ?? 1) * (units[found[3]] ?? 1);
  }

  const blank = cell => ["", "–", "unknown"].includes(cell.textContent.trim());

  function sorted(rows, column, direction) {
    const cell = row => row.cells[column];
    const known = rows.filter(row => !blank(cell(row)));
    const numeric = known.length > 0 && known.every(row => value(cell(row)) !== undefined);
    const compare = numeric ? (a, b) => value(cell(a)) - value(cell(b))
      : (a, b) => order.compare(cell(a).textContent, cell(b).textContent);
    return [...known.sort((a, b) => direction * compare(a, b)), ...rows.filter(row => blank(cell(row)))];
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0], asWritten = [...body.rows];
    if (asWritten.length < 2) continue;
    [...table.tHead.rows[0].cells].forEach((head, column, heads) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "Sort by this column; a third time, as it was";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
        heads.forEach(other => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", next);
        body.append(...(next === "none" ? asWritten : sorted([...asWritten], column, next === "ascending" ? 1 : -1)));
      });
    });
  }

  // What scrolls can be reached with the keyboard.
  const reachable = () => document.querySelectorAll(".wide").forEach(box => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; else box.removeAttribute("tabindex");
  });
  addEventListener("resize", reachable);
  reachable();

  // An entry that a number leads to opens.
  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  addEventListener("hashchange", open);
  document.addEventListener("click", event => { if (event.target.closest('a[href^="#"]')) setTimeout(open); });
  open();
})();
