// The figures of a dataset: robust accuracy against bytes and against a cost, with intervals and the front.

const LABELLED = 12; // names beside the points, up to this many models: more would hide each other
const COST_NAMES = {
  total_bytes: "deployed bytes",
  ram_bytes: "bytes of RAM",
  instructions_a53: "instructions on Cortex-A53",
  instructions_a76: "instructions on Cortex-A76",
  instructions_m4: "instructions on Cortex-M4",
  local_p50_us: "local p50",
};

function describe(row, cost) {
  const { cells } = row;
  const lines = [
    row.name,
    `worst case ${percent(row.worst)} (${percent(cells.worst_low)} to ${percent(cells.worst_high)})`,
    `clean ${percent(valueOf(row, "clean"))}`,
    ...["total_bytes", cost, "local_p50_us"]
      .filter((name, at, all) => all.indexOf(name) === at && cells[name] !== null)
      .map((name) => `${COST_NAMES[name]} ${costText(name, cells[name])}`),
  ];
  return [...lines, ...(cells.unranked ? ["unranked"] : [])].join("\n");
}

// Where names stand, in pixels: above the highest whisker of their model, and clear of whiskers and other names.
function labels(highest, rows, x, y, aside) {
  const taken = rows.map((row) => {
    const at = x(row.cost) + aside(row.cells.scheme);
    return { left: at - 7, right: at + 7, top: y(row.cells.worst_high) - 2, foot: y(row.cells.worst_low) };
  });
  return d3.sort(highest, (row) => row.cost).map((row) => {
    const half = 3.6 * row.cells.model.length;
    const at = x(row.cost) + aside(row.cells.scheme);
    const box = { left: at - half, right: at + half, top: 0, foot: y(row.cells.worst_high) - 4 };
    const clash = () => taken.find((other) =>
      other.left < box.right && box.left < other.right && other.top < box.foot && box.foot - 13 < other.foot);
    for (let other = clash(); other; other = clash()) box.foot = other.top - 1;
    box.top = box.foot - 13;
    taken.push(box);
    return { row, foot: box.foot };
  });
}

function draw(figure, section, cost) {
  const rows = section.rows
    .filter((row) => row.passes && row.cells[cost] > 0 && row.cells.n > 0)
    .map((row) => ({ ...row, cost: row.cells[cost], worst: valueOf(row, "worst") }));
  const place = figure.querySelector(".plot");
  figure.hidden = !rows.length;
  if (!rows.length) return place.replaceChildren();
  const width = Math.max(260, place.clientWidth);
  const narrow = width < 520;
  // Of all rows, shown or not: a scheme keeps its colour when others are filtered out.
  const schemes = Array.from(new Set(section.rows.map((row) => row.cells.scheme))).sort();
  // Schemes of one model have the same cost: they are set side by side, a few pixels apart.
  const aside = (scheme) => Math.max(-14, Math.min(14, (schemes.indexOf(scheme) - (schemes.length - 1) / 2) * (narrow ? 6 : 9)));
  const costs = rows.map((row) => row.cost);
  const highest = d3.rollups(rows, (peers) => d3.greatest(peers, (row) => row.cells.worst_high), (row) => row.cells.model);
  const names = highest.length > LABELLED ? [] : highest.map(([, row]) => row);
  const high = (row) => row.cells.worst_high;
  const low = (row) => row.cells.worst_low;
  const front = (row) => row.cells[cost === "total_bytes" ? "front" : `front:${cost}`];
  const marks = schemes.flatMap((scheme, at) => {
    const own = rows.filter((row) => row.cells.scheme === scheme);
    const look = { x: "cost", stroke: `var(--c${at % 8})`, dx: aside(scheme) };
    return [
      Plot.ruleX(own, { ...look, y1: low, y2: high, strokeWidth: 1.5, strokeOpacity: 0.7 }),
      Plot.dot(own.filter((row) => !front(row)), { ...look, y: "worst", r: narrow ? 4 : 5, strokeWidth: 2, fill: "var(--paper)" }),
      Plot.dot(own.filter(front), { ...look, y: "worst", r: narrow ? 4 : 5, strokeWidth: 2, fill: look.stroke }),
    ];
  });
  const frame = { width, height: narrow ? 300 : 360, marginLeft: 48, marginRight: 24, marginTop: 34, marginBottom: 42 };
  const across = [d3.min(costs) / 1.6, d3.max(costs) * 1.6];
  const top = Math.min(1, 1.12 * d3.max([section.floor, ...rows.map(high)]));
  const up = d3.scaleLinear([0, top], [frame.height - frame.marginBottom, frame.marginTop]).nice();
  const x = d3.scaleLog(across, [frame.marginLeft, width - frame.marginRight]);
  place.replaceChildren(Plot.plot({
    ...frame,
    style: { background: "transparent", fontSize: "12px", fontFamily: "inherit" },
    ariaLabel: `Worst-case robust accuracy against ${COST_NAMES[cost]}, ${section.title}`,
    x: { type: "log", label: COST_NAMES[cost], domain: across, tickFormat: (value) => costText(cost, value), ticks: narrow ? 3 : 5 },
    y: { percent: true, label: "worst-case robust accuracy, %", domain: up.domain().map((share) => 100 * share), grid: true },
    color: { legend: true, domain: schemes, range: schemes.map((_, at) => `var(--c${at % 8})`) },
    marks: [
      Plot.ruleY([0]),
      Plot.ruleY([section.floor], { strokeDasharray: "4 4", stroke: "var(--faint)" }),
      Plot.text([section.floor], {
        y: (floor) => floor, frameAnchor: "right", dy: -7, textAnchor: "end", text: () => "majority floor", fill: "var(--faint)",
      }),
      ...marks,
      ...labels(names, rows, x, up, aside).flatMap(({ row, foot }) => {
        const above = { x: "cost", dx: aside(row.cells.scheme) };
        return [
          Plot.ruleX([row], { ...above, y1: high, y2: up.invert(foot), stroke: "var(--faint)", strokeWidth: 0.75 }),
          Plot.text([row], { ...above, y: up.invert(foot), text: () => row.cells.model, dy: -2, lineAnchor: "bottom", fill: "currentColor" }),
        ];
      }),
      Plot.tip(rows, Plot.pointer({ x: "cost", y: "worst", title: (row) => describe(row, cost) })),
    ],
  }));
  const filled = rows.some((row) => front(row) !== null && front(row) !== undefined)
    ? "Filled, the front: no row of less cost is significantly more robust. "
    : "";
  figure.querySelector("figcaption").textContent =
    `Worst-case robust accuracy against ${COST_NAMES[cost]}, with 95 % intervals. ${filled}The table below holds the same numbers.`;
}

// --- when: only what can be seen, and after the table, so that a filter answers at once ---------------------

const drawn = new WeakMap(); // figures -> what was last drawn into them

function redraw(section) {
  for (const figure of section.element.querySelectorAll("figure[data-cost]")) {
    const cost = figure.dataset.cost || costChosen();
    const there = section.rows.map((row) => Number(row.passes)).join("");
    const now = `${cost} ${figure.parentElement.clientWidth} ${there}`;
    if (drawn.get(figure) === now) continue;
    drawn.set(figure, now);
    draw(figure, section, cost);
  }
}

const inSight = new Set();
let waiting = 0;

function redrawSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(() => inSight.forEach(redraw), 120);
}

function watch(section) {
  const place = section.element.querySelector(".figures");
  new IntersectionObserver(([entry]) => {
    if (entry.isIntersecting) inSight.add(section);
    else inSight.delete(section);
    redrawSoon();
  }, { rootMargin: "300px" }).observe(place);
  new ResizeObserver(redrawSoon).observe(place);
}
