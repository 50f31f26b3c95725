// The page at work: what stands where, when it changes, and the downloads.

let shownView = ""; // the row or pair that is looked at
let boardScroll = 0;

function show(focus) {
  const [row, first, second] = [state.row, state.a, state.b].map((key) => byKey.get(key));
  const view = row ? state.row : first && second ? `${state.a} ${state.b}` : "";
  const place = document.getElementById("view");
  if (view && !shownView) boardScroll = scrollY;
  document.getElementById("board").hidden = view !== "";
  place.hidden = view === "";
  if (view) place.replaceChildren(...(row ? rowView(row) : compareView(first, second)).filter(Boolean));
  else place.replaceChildren();
  const heading = view ? place.querySelector("h2") : document.querySelector("h1");
  document.title = view ? `${heading.textContent} - gritbench board` : "gritbench board";
  if (focus && view !== shownView) {
    scrollTo(0, view ? 0 : boardScroll);
    if (view) heading.focus({ preventScroll: true });
    else byKey.get(shownView.split(" ")[0])?.element.querySelector("a").focus({ preventScroll: true });
    announce(view ? heading.textContent : "Board");
  }
  shownView = view;
}

// After files were handed in: the same view, with their texts, and the reader where he was.
function showAgain() {
  const before = scrollY;
  show(false);
  scrollTo(0, before);
}

function followAddress() {
  if (readAddress()) {
    fillForm();
    sortAsSaid();
    filter();
    show(true);
  } else if (shownView) { // a place on the board, named from a view
    Object.assign(state, { row: "", a: "", b: "", attack: "" });
    show(false);
    document.getElementById(location.hash.slice(1))?.scrollIntoView();
  }
}

// --- downloads -----------------------------------------------------------------------------------------

function csv() {
  const rows = Array.from(byKey.values(), (row) => row.cells);
  const keys = Array.from(new Set(rows.flatMap(Object.keys)));
  const quoted = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [keys, ...rows.map((row) => keys.map((key) => row[key]))].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
}

const downloads = {
  csv: () => new Blob([csv()], { type: "text/csv" }),
  json: () => new Blob([JSON.stringify({ sections: sections.map((section) => section.whole) }, null, 1) + "\n"], { type: "application/json" }),
};

function download(kind) {
  const link = make("a", { href: URL.createObjectURL(downloads[kind]()), download: `board.${kind}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// --- start ---------------------------------------------------------------------------------------------

async function start() {
  const form = document.forms.filters;
  if (!form) return; // an empty board
  await unpack();
  sections.forEach(furnish);
  for (const element of document.querySelectorAll(".program")) element.hidden = false;
  form.addEventListener("input", readForm);
  form.addEventListener("reset", () => setTimeout(clearForm)); // after the browser's own clearing
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const button of document.querySelectorAll("[data-download]")) button.addEventListener("click", () => download(button.dataset.download));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length && shownView) take(event.dataTransfer.files);
  });
  addEventListener("hashchange", followAddress);
  readAddress();
  fillForm();
  sortAsSaid();
  filter();
  sections.forEach(watch);
  if (state.row || state.a) show(true);
  document.documentElement.dataset.ready = "";
  performance.mark("ready");
}

start();
