"use strict";
// The board's data, unpacked once: sections of rows, each row knowing its cells and what only the page shows of it.

const sections = []; // {at, title, n, floor, attacks, more, rows, whole: the board's JSON of it, element, table}
const byKey = new Map(); // key of a row, as links name it -> row
const KEY = 12; // hex digits of a row's digest that are its key

function bytesOf(base64) {
  const raw = atob(base64);
  const bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
  return bytes;
}

function unzipped(bytes) {
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

async function unpack() {
  const found = JSON.parse(await unzipped(bytesOf(document.getElementById("data").textContent)));
  for (const [at, { keys, rows, more, ...whole }] of found.sections.entries()) {
    const element = document.getElementById(`board-${at}`);
    const table = element.querySelector("table");
    const section = { ...whole, at, more, whole, element, table, floor: whole.majority_k / whole.n, rows: [] };
    for (const [place, values] of rows.entries()) {
      const cells = Object.fromEntries(keys.map((key, column) => [key, values[column]]));
      const row = { section, place, cells, key: cells.row.slice(0, KEY), more: more.rows[place] };
      row.name = [cells.model, cells.scheme, ...(cells.seed === null ? [] : [`seed ${cells.seed}`])].join(" ");
      row.words = `${row.name} ${cells.flags} ${cells.training_data ?? ""}`.toLowerCase();
      row.element = table.tBodies[0].rows[place];
      section.rows.push(row);
      byKey.set(row.key, row);
    }
    whole.rows = section.rows.map((row) => row.cells);
    sections.push(section);
  }
}

// What a column is sorted by, and a figure drawn from: a number, a text, or null.
function valueOf({ cells }, key) {
  const share = (k, n) => (cells[n] ? cells[k] / cells[n] : null);
  if (key === "worst" || key === "clean") return share(`${key}_k`, "n");
  if (key === "random" || key === "pool") return share(`${key}_k`, `${key}_n`);
  if (key.startsWith("robust:")) return share(key.replace(":", "_k:"), key.replace(":", "_n:"));
  return cells[key] ?? null;
}

// --- numbers for people --------------------------------------------------------------------------------

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const signed = (share) => `${share < 0 ? "" : "+"}${(100 * share).toFixed(1)}`;

function short(value, units = [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
  for (const [factor, unit] of units) if (value >= factor) return `${+(value / factor).toPrecision(3)} ${unit}`;
  return `${+value.toPrecision(3)}`;
}

// A cost with its unit, by the end of its name: total_bytes, p50_us, instructions_m4.
function costText(name, value) {
  if (value === null || value === undefined) return "-";
  if (name.endsWith("bytes")) return value < 1000 ? `${value} B` : `${short(value)}B`;
  if (name.endsWith("_us")) return value < 1000 ? `${+value.toPrecision(3)} µs` : `${short(value / 1e6, [[1, "s"], [1e-3, "ms"]])}`;
  return short(value);
}

// --- elements ------------------------------------------------------------------------------------------

// An element with attributes (functions listen) and children; null children are left out, text stays text.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

function tableOf(caption, headings, rows, attributes = {}) {
  return make("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 },
    make("table", attributes, make("caption", { class: "unseen" }, caption),
      make("thead", {}, make("tr", {}, headings.map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, rows.map(([first, ...others]) =>
        make("tr", {}, make("th", { scope: "row" }, first), others.map((cell) => make("td", {}, cell)))))));
}

function announce(text) {
  document.getElementById("status").textContent = text;
}
