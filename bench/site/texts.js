// The reader's own copy of a dataset, read here and sent nowhere: texts found by the ids of the board's examples.
//
// An id is the first 16 hex digits of sha256 over [split, text, occurrence], as bench/datasets.py makes it, so a file
// is recognised by its content: whatever it is called, and in whatever order its rows stand.

const TEXT_COLUMNS = ["text", "sentence", "content", "sms"];
const SPLITS = ["test", "all", "dev", "train"];
const texts = new Map(); // id -> text
const handedIn = new Map(); // key of a row -> its breaks, from files beside the page

const textOf = (id) => texts.get(id) ?? null;

// --- sha256 (FIPS 180-4): the browser's own is asynchronous, and not there on every address ----------------

const ROUNDS = (() => { // fractional parts of the cube roots of the first 64 primes, of the square roots of the first 8
  const primes = [];
  for (let candidate = 2; primes.length < 64; candidate++) if (primes.every((prime) => candidate % prime)) primes.push(candidate);
  const fraction = (value) => Math.floor((value - Math.floor(value)) * 2 ** 32) >>> 0;
  return { cubes: Uint32Array.from(primes, (p) => fraction(Math.cbrt(p))), squares: Uint32Array.from(primes.slice(0, 8), (p) => fraction(Math.sqrt(p))) };
})();
const utf8 = new TextEncoder();
const schedule = new Uint32Array(64);

const turned = (x, by) => (x >>> by) | (x << (32 - by));

function sha256(text) {
  const bytes = utf8.encode(text);
  const padded = new Uint8Array((((bytes.length + 8) >> 6) << 6) + 64);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(padded.length - 4, bytes.length << 3);
  const hash = Uint32Array.from(ROUNDS.squares);
  for (let block = 0; block < padded.length; block += 64) {
    for (let at = 0; at < 16; at++) schedule[at] = view.getUint32(block + 4 * at);
    for (let at = 16; at < 64; at++) {
      const [x, y] = [schedule[at - 15], schedule[at - 2]];
      schedule[at] = schedule[at - 16] + (turned(x, 7) ^ turned(x, 18) ^ (x >>> 3)) + schedule[at - 7] + (turned(y, 17) ^ turned(y, 19) ^ (y >>> 10));
    }
    let [a, b, c, d, e, f, g, h] = hash;
    for (let at = 0; at < 64; at++) {
      const first = (h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) + ROUNDS.cubes[at] + schedule[at]) | 0;
      const second = ((turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + first) | 0;
      d = c; c = b; b = a; a = (first + second) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((word, at) => { hash[at] += word; });
  }
  return Array.from(hash, (word) => word.toString(16).padStart(8, "0")).join("");
}

// --- rows of a file -> ids -----------------------------------------------------------------------------

// Unicode form C, white space (as Python counts it) collapsed, no lone surrogate.
function normalise(text) {
  return text.replace(/\p{Surrogate}/gu, "\ufffd").normalize("NFC")
    .split(/[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/).filter(Boolean).join(" ");
}

function idOf(split, text, occurrence) {
  return sha256(`[${JSON.stringify(split)}, ${JSON.stringify(text)}, ${occurrence}]`).slice(0, 16);
}

// The texts of a .jsonl, .csv or .tsv file; an error says what is wrong.
function textsOf(name, content) {
  if (name.endsWith(".jsonl")) {
    const records = content.split("\n").filter((line) => line.trim()).map((line) => JSON.parse(line));
    const column = TEXT_COLUMNS.find((wanted) => wanted in (records[0] ?? {}));
    if (!column) throw new Error(`no column ${TEXT_COLUMNS.join(" or ")}`);
    return records.map((record) => String(record[column]));
  }
  const rows = name.endsWith(".tsv") ? content.split(/\r?\n/).filter(Boolean).map((line) => line.split("\t")) : d3.csvParseRows(content);
  const column = (rows[0] ?? []).findIndex((heading) => TEXT_COLUMNS.includes(heading));
  if (column >= 0) return rows.slice(1).filter((row) => row.length > column).map((row) => row[column]);
  if (rows[0]?.length === 3 && SPLITS.includes(rows[0][0])) return rows.map((row) => row[2]); // the embedded corpus
  throw new Error(`no column ${TEXT_COLUMNS.join(" or ")}`);
}

// Keeps the texts whose ids are on the board; how many examples of the sections have theirs now.
function recognise(found) {
  const wanted = new Set(sections.flatMap((section) => section.more.ids));
  const counts = new Map();
  for (const text of found.map(normalise)) counts.set(text, (counts.get(text) ?? 0) + 1);
  let best = new Map();
  for (const split of SPLITS) {
    const matched = new Map();
    for (const [text, copies] of counts) {
      for (let occurrence = 0; occurrence < copies; occurrence++) {
        const id = idOf(split, text, occurrence);
        if (wanted.has(id)) matched.set(id, text);
      }
    }
    if (matched.size > best.size) best = matched;
    if (best.size) break;
  }
  for (const [id, text] of best) texts.set(id, text);
  return best.size;
}

// --- files from the reader -----------------------------------------------------------------------------

async function take(files) {
  const said = [];
  for (const file of files) {
    try {
      const zipped = file.name.endsWith(".gz");
      const content = zipped ? await unzipped(await file.arrayBuffer()) : await file.text();
      const name = zipped ? file.name.slice(0, -3) : file.name;
      if (name.endsWith(".json")) {
        const { row, breaks } = JSON.parse(content);
        if (!byKey.has(row)) throw new Error("holds the scripts of no row on this board");
        handedIn.set(row, breaks);
        said.push(`${file.name}: the edit scripts of ${byKey.get(row).name}`);
      } else {
        const matched = recognise(textsOf(name, content.replace(/^\ufeff/, "")));
        said.push(`${file.name}: ${matched ? `${matched} examples of this board` : "none of this board's examples; is it the evaluated split?"}`);
      }
    } catch (error) {
      said.push(`${file.name}: cannot be read (${error.message}); give a .jsonl, .csv or .tsv file, or the .json.gz of a row`);
    }
  }
  showAgain();
  const message = said.join("\n");
  for (const output of document.querySelectorAll("#view output")) output.value = message;
  announce(message);
}

function dropZone(rows) {
  const { dataset, split } = rows()[0].cells;
  const missing = rows().filter((row) => !scriptsInside(row) && !handedIn.has(row.key) && row.more.right);
  const choose = make("input", { type: "file", multiple: true, accept: ".jsonl,.csv,.tsv,.gz", change: () => take(choose.files) });
  return make("div", { class: "drop" },
    make("label", {}, `The texts are not part of this page. To read them, choose or drop your copy of ${dataset} (${split}: .jsonl, .csv, .tsv, also .gz). It stays on this machine. `, choose),
    missing.length ? make("p", {}, "Edit scripts beside this page, to be dropped in too: ", missing.map((row) => [make("a", { href: `scripts/${row.key}.json.gz`, download: "" }, `scripts/${row.key}.json.gz`), " "])) : null,
    make("output", {}));
}

// --- a text and its edits ------------------------------------------------------------------------------

const scriptsInside = (row) => document.getElementById(`scripts-${row.key}`);

async function breaksOf(row) {
  const inside = scriptsInside(row);
  if (inside && !handedIn.has(row.key)) handedIn.set(row.key, JSON.parse(await unzipped(bytesOf(inside.textContent))).breaks);
  return handedIn.get(row.key) ?? null;
}

// Start and end of every attackable word, as bench/sentence.py cuts them.
function wordSpans(text) {
  return Array.from(text.matchAll(/[\p{L}\p{N}_'\-*@\u02d7`\u00d7]+/gu), ({ 0: run, index }) => {
    const start = run.length - run.replace(/^['\-_*@]+/, "").length;
    return [index + start, index + run.replace(/['\-_*@]+$/, "").length];
  }).filter(([start, end]) => start < end);
}

// The text in parts: [kept | before (taken out) | after (written in), letters].
function marked(text, script) {
  const spans = wordSpans(text);
  const parts = [];
  let place = 0;
  for (const [op, index, word] of script) {
    let [begin, end] = spans[index] ?? [text.length, text.length];
    if (op === "insert") end = begin;
    if (place < begin) parts.push(["kept", text.slice(place, begin)]);
    if (begin < end) parts.push(["before", text.slice(begin, end)]);
    if (word && index === spans.length) parts.push(["after", text ? ` ${word}` : word]);
    else if (word) parts.push(["after", op === "insert" ? `${word} ` : word]);
    place = end;
  }
  if (place < text.length) parts.push(["kept", text.slice(place)]);
  return parts;
}

// The difference where the text is known, else the script in words.
function shownEdits(text, script) {
  if (text === null) {
    const words = { replace: (index, word) => `word ${index + 1} → ${word}`, insert: (index, word) => `before word ${index + 1}: ${word}`, delete: (index) => `word ${index + 1} removed` };
    return make("span", {}, script.map(([op, index, word]) => words[op](index, word)).join("; "));
  }
  const tags = { kept: "span", before: "del", after: "ins" };
  return make("span", { class: "diff" }, marked(text, script).map(([kind, letters]) => make(tags[kind], {}, letters)));
}
