// The tables: sorting, filters, and the choice of rows to compare.

const LEVELS = ["lint", "replay", "spot", "full"];

// --- sorting: a button in every heading; rows without a value stay last ----------------------------------

function sort(section, key, descending) {
  const sign = descending ? -1 : 1;
  const order = section.rows.map((row) => ({ row, value: valueOf(row, key) }));
  order.sort(({ row: a, value: x }, { row: b, value: y }) => {
    if (x === null || y === null) return (x === null) - (y === null) || a.place - b.place;
    const by = typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
    return sign * by || a.place - b.place;
  });
  section.order = order.map(({ row }) => row);
  section.table.tBodies[0].append(...section.order.map((row) => row.element));
  for (const heading of section.table.tHead.rows[0].cells) {
    if (heading.dataset.key === key) heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else heading.removeAttribute("aria-sort");
  }
}

function sortBy(section, heading) {
  const key = heading.dataset.key;
  const before = heading.getAttribute("aria-sort");
  const descending = before ? before === "ascending" : !heading.classList.contains("text") && key !== "rank";
  sort(section, key, descending);
  filter();
  settle({ sort: `${section.at} ${descending ? "down" : "up"} ${key}` });
  announce(`Sorted by ${heading.textContent}, ${descending ? "descending" : "ascending"}.`);
}

function sortAsSaid() {
  const [, at, way, key] = state.sort.match(/^(\d+) (up|down) (.*)$/) ?? [];
  const headings = sections[at] ? Array.from(sections[at].table.tHead.rows[0].cells) : [];
  if (headings.some((heading) => heading.dataset.key === key)) sort(sections[at], key, way === "down");
}

// --- filters -------------------------------------------------------------------------------------------

function passes(row) {
  const { cells } = row;
  const words = state.q.toLowerCase().split(/\s+/);
  const within = (value, limit, factor = 1) => limit === "" || (value !== null && value <= Number(limit) * factor);
  const stands = cells.verified === "current" || cells.verified === "challenged";
  return (
    words.every((word) => row.words.includes(word)) &&
    (!state.dataset || cells.dataset === state.dataset) &&
    (!state.scheme || cells.scheme === state.scheme) &&
    within(cells.total_bytes, state.size, 1000) &&
    within(valueOf(row, costChosen()), state.cost) &&
    (!state.level || (stands && LEVELS.indexOf(cells.verified_level) >= LEVELS.indexOf(state.level)))
  );
}

// The cost beside bytes that the second figure and the cap are about.
function costChosen() {
  const known = Array.from(document.forms.filters.elements.on.options, (option) => option.value);
  return known.includes(state.on) ? state.on : known.at(-2) ?? known[0]; // instructions on the smallest core, if any
}

function filter() {
  let shown = 0;
  for (const section of sections) {
    let left = 0;
    for (const row of section.order) {
      row.passes = passes(row);
      left += row.passes;
      const hidden = !row.passes || left > section.limit;
      if (row.element.hidden !== hidden) row.element.hidden = hidden;
    }
    section.element.hidden = left === 0;
    section.rest.hidden = left <= section.limit;
    section.rest.textContent = `Show all ${left} rows`;
    shown += left;
  }
  const all = byKey.size;
  document.querySelector("#filters output").value = shown === all ? `${all} row${all === 1 ? "" : "s"}` : `${shown} of ${all} rows`;
  redrawSoon();
}

const FIELDS = ["q", "dataset", "scheme", "size", "on", "cost", "level"];

function fillForm() {
  const { elements } = document.forms.filters;
  for (const name of FIELDS) if (elements[name]) elements[name].value = name === "on" ? costChosen() : state[name];
}

function readForm() {
  const { elements } = document.forms.filters;
  settle(Object.fromEntries(FIELDS.filter((name) => elements[name]).map((name) => [name, elements[name].value])));
  filter();
}

function clearForm() {
  settle(Object.fromEntries(FIELDS.map((name) => [name, ""])));
  fillForm();
  filter();
}

// --- the pair: two rows over the same examples -----------------------------------------------------------

let ticked = []; // rows, the older first

function tick(row, box) {
  ticked = ticked.filter((other) => other !== row && other.section === row.section);
  if (box.checked) ticked.push(row);
  ticked = ticked.slice(-2);
  for (const other of byKey.values()) if (other.box.checked !== ticked.includes(other)) other.box.checked = ticked.includes(other);
  offerPair();
}

function offerPair() {
  const link = document.getElementById("pair");
  if (ticked.length === 2) {
    const [first, second] = ticked;
    link.href = linkTo({ a: first.key, b: second.key, row: "" });
    link.textContent = `Compare ${first.name} with ${second.name}`;
    link.removeAttribute("aria-disabled");
  } else {
    link.removeAttribute("href");
    link.textContent = ticked.length ? "Compare two rows: tick another of this dataset" : "Compare two rows: tick them";
    link.setAttribute("aria-disabled", "true");
  }
}

function showAll(section) {
  section.limit = Infinity;
  filter();
  section.table.parentElement.focus(); // the button is gone
}

// --- what the program adds to the plain table ------------------------------------------------------------

function furnish(section) {
  section.order = section.rows;
  section.limit = Number(section.table.dataset.first); // laying out hundreds of rows takes longer than reading the first
  section.rest = make("button", { type: "button", class: "rest", click: () => showAll(section) });
  section.table.parentElement.after(section.rest);
  for (const heading of section.table.tHead.rows[0].cells) {
    const button = make("button", { type: "button", click: () => sortBy(section, heading) }, heading.textContent);
    heading.replaceChildren(button);
  }
  for (const row of section.rows) {
    const name = row.element.cells[1];
    row.box = document.createElement("input");
    row.box.type = "checkbox";
    row.box.ariaLabel = `Compare ${row.name}`;
    const link = document.createElement("a");
    link.href = `#row=${row.key}`;
    link.textContent = row.cells.model;
    name.firstChild.replaceWith(row.box, " ", link, " ");
  }
  const body = section.table.tBodies[0];
  const rowOf = (element) => section.rows.find((row) => row.element === element.closest("tr"));
  body.addEventListener("change", (event) => tick(rowOf(event.target), event.target));
  body.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#row=']");
    if (link) link.href = linkTo({ row: rowOf(link).key, a: "", b: "", attack: "" }); // with the filters of now
  });
}
