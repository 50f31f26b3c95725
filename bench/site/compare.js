// Two rows over the same examples: the tests of `grit compare`, from one bit an example and measure.

const ALPHA = 0.05; // family-wise, over the lines of one comparison
const NORMAL = 1.959963984540054; // two-sided 95 %

// measure -> bytes with one bit an example, the first example highest: clean, every attack, and all of them.
function standingOf(row) {
  if (!row.more.right) return null;
  if (!row.standing) {
    const [clean, ...attacks] = row.more.right.map(bytesOf);
    const worst = clean.map((byte, at) => attacks.reduce((left, bits) => left & bits[at], byte));
    row.standing = new Map([["clean", clean], ...row.section.attacks.map((name, at) => [name, attacks[at]]), ["worst case", worst]]);
  }
  return row.standing;
}

const isSet = (bits, at) => (bits[at >> 3] >> (7 - (at & 7))) & 1;

function places(n, first, second) {
  const found = [];
  for (let at = 0; at < n; at++) if (isSet(first, at) && !isSet(second, at)) found.push(at);
  return found;
}

// Exact two-sided p-value that b and c discordant examples come from a fair coin.
function mcnemar(b, c) {
  const all = b + c;
  let log = -all * Math.LN2; // of the chance of `at` heads
  let tail = 0;
  for (let at = 0; at <= Math.min(b, c); at++) {
    tail += Math.exp(log);
    log += Math.log(all - at) - Math.log(at + 1);
  }
  return Math.min(1, 2 * tail);
}

function holm(values) {
  const order = values.map((p, at) => ({ p, at })).sort((a, b) => a.p - b.p || a.at - b.at);
  const adjusted = [];
  let most = 0;
  for (const [rank, { p, at }] of order.entries()) {
    most = Math.max(most, p * (order.length - rank));
    adjusted[at] = Math.min(1, most);
  }
  return adjusted;
}

// Tango's score interval (Stat. Med. 1998) of the share right before minus the share right after; b: before alone.
function tango(b, c, n) {
  const score = (loss) => {
    const m = (2 * n - b + c) * loss - b - c;
    const k = -c * loss * (1 - loss);
    const q = (Math.sqrt(Math.max(m * m - 8 * n * k, 0)) - m) / (4 * n);
    const variance = n * (2 * q + loss * (1 - loss));
    const gap = b - c - n * loss;
    return variance > 0 ? gap / Math.sqrt(variance) : gap && Math.sign(gap) * Infinity;
  };
  const where = (wanted) => {
    let [low, high] = [-1, 1]; // the score falls as the loss rises
    for (let step = 0; step < 60; step++) {
      const middle = (low + high) / 2;
      if (score(middle) > wanted) low = middle;
      else high = middle;
    }
    return (low + high) / 2;
  };
  return [where(NORMAL), where(-NORMAL)];
}

function compare(first, second) {
  const [one, other] = [standingOf(first), standingOf(second)];
  const n = first.section.more.ids.length;
  const lines = Array.from(one.keys(), (measure) => {
    const lost = places(n, one.get(measure), other.get(measure));
    const won = places(n, other.get(measure), one.get(measure));
    const right = places(n, one.get(measure), new Uint8Array(one.get(measure).length)).length;
    const [low, high] = tango(lost.length, won.length, n);
    return { measure, first: right, second: right - lost.length + won.length, lost, won, low: -high, high: -low };
  });
  const adjusted = holm(lines.map(({ lost, won }) => mcnemar(lost.length, won.length)));
  return { n, lines: lines.map((line, at) => ({ ...line, p: adjusted[at] })) };
}

function said({ first, second, lost, won, p }, n, more, less) {
  if (!lost.length && !won.length) return `is neither ${more} nor ${less}, answering alike on every example,`;
  const change = (second - first) / n;
  if (p > ALPHA) return `cannot be told to be ${more} or ${less} (${signed(change)} points, p = ${+p.toPrecision(2)})`;
  return `is ${(100 * Math.abs(change)).toFixed(1)} points ${change > 0 ? more : less} (p = ${+p.toPrecision(2)})`;
}

function inWords(first, second, { n, lines }) {
  const of = (name) => lines.find(({ measure }) => measure === name);
  const [before, after] = [first.cells.total_bytes, second.cells.total_bytes];
  const bytes = before && after && before !== after ? `; it takes ${(after / before).toFixed(2)} times the bytes` : "";
  return (
    `${second.name} ${said(of("worst case"), n, "more robust", "less robust")} than ${first.name}, and ` +
    `${said(of("clean"), n, "more accurate", "less accurate")} on clean text${bytes} (n = ${n}).`
  );
}

// --- the view ------------------------------------------------------------------------------------------

function compareView(first, second) {
  const title = `${first.name} and ${second.name}`;
  const heading = make("h2", { tabindex: -1 }, title);
  const links = [first, second].map((row) => make("a", { href: linkTo({ row: row.key, a: "", b: "" }) }, row.name));
  const back = make("p", {}, make("a", { href: linkTo({ a: "", b: "" }) }, "← Board"), " · first: ", links[0], " · second: ",
    links[1], " · ", make("a", { href: linkTo({ a: second.key, b: first.key }) }, "the other way round"));
  if (first.section !== second.section) return [back, heading, make("p", {}, "These rows are not over the same examples and attacks.")];
  if (!standingOf(first) || !standingOf(second)) return [back, heading, make("p", {}, "One of these rows came without its evidence: nothing can be paired.")];
  const found = compare(first, second);
  const { n, lines } = found;
  const share = (k) => (n ? (100 * k / n).toFixed(1) : "-");
  const headings = first.section.more.headings;
  return [
    back,
    heading,
    make("p", { class: "sentence" }, inWords(first, second, found)),
    tableOf(`${title}, ${first.section.title}`,
      ["", "first %", "second %", "change", "95 %", "first alone", "second alone", "p"],
      lines.map((line) => [
        headings[line.measure] ?? line.measure, share(line.first), share(line.second), signed((line.second - line.first) / n),
        `[${signed(line.low)}, ${signed(line.high)}]`, String(line.lost.length), String(line.won.length),
        line.p <= ALPHA ? make("b", {}, `${+line.p.toPrecision(2)} *`) : `${+line.p.toPrecision(2)}`,
      ]), { class: "numbers" }),
    make("p", { class: "notes" },
      "Change: second minus first, in points, with Tango's score interval for pairs. p: exact McNemar on the same examples, after Holm over these lines; * is 5 %."),
    make("h3", {}, "Cost"),
    costTable([first, second]),
    make("h3", {}, "What only one survives, under every attack"),
    dropZone(() => [first, second]),
    ...aloneLists(first, second, lines.find(({ measure }) => measure === "worst case")),
  ];
}

const SHOWN = 50; // examples of a list at first

function aloneLists(first, second, { lost, won }) {
  const { ids, gold, labels: names } = first.section.more;
  return [[first, lost], [second, won]].map(([row, alone]) => {
    const list = make("ol", { class: "examples" });
    const add = () => {
      const from = list.children.length;
      list.append(...alone.slice(from, from + SHOWN).map((at) =>
        make("li", {}, make("code", {}, ids[at]), ` ${names[gold[at]]} `, textOf(ids[at]) ?? "")));
      button.hidden = list.children.length >= alone.length;
    };
    const button = make("button", { type: "button", click: add }, "More");
    add();
    return make("details", { open: alone.length <= SHOWN }, make("summary", {}, `${row.name} alone: ${alone.length}`), list, button);
  });
}

// Every cost that a row states: target, engine, what, and a column a row.
function costTable(rows) {
  const found = new Map([["total_bytes", ["deployed", "", "total_bytes"]]]);
  for (const { cells } of rows) {
    for (const name of Object.keys(cells)) {
      const parts = name.split(":");
      if (parts.length >= 4 && cells[name] !== null) {
        const [engine, what, kind] = parts.slice(-3);
        found.set(name, [parts.slice(0, -3).join(":"), `${engine}, ${kind}`, what]);
      } else if (parts[0] === "bytes" && cells[name] !== null) found.set(name, ["deployed", parts[1], "bytes"]);
    }
  }
  const ratio = ([before, after]) => (before && after ? `× ${(after / before).toPrecision(3)}` : "");
  return tableOf("Costs", ["target", "engine", "what", ...rows.map((row) => row.name), ...(rows.length > 1 ? [""] : [])],
    Array.from(found, ([name, [target, engine, what]]) => {
      const values = rows.map(({ cells }) => cells[name]);
      return [target, engine, what, ...values.map((value) => costText(what, value)), ...(rows.length > 1 ? [ratio(values)] : [])];
    }));
}
