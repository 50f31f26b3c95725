// The view of one row: what it claims, how it was trained, how it falls, and the breaks one by one.

const PAGE_ROWS = 20; // breaks on one page
const MOST_LABELS = 12; // of a confusion table; beyond it, the most frequent confusions are listed

function rowView(row) {
  const { cells, more, section } = row;
  const peers = section.rows.filter((other) => other.cells.model === cells.model && other.cells.scheme === cells.scheme);
  return [
    make("p", {}, make("a", { href: linkTo({ row: "", attack: "" }) }, "← Board"), ` · ${section.title} · `, compareWith(row)),
    make("h2", { tabindex: -1 }, row.name),
    facts(row),
    make("h3", {}, "Robust accuracy against effort"),
    make("div", { class: "figures" }, curveFigure(row, "edits"), curveFigure(row, "queries")),
    attackTable(row),
    make("h3", {}, "Cost"),
    costTable([row]),
    more.not_measured.length ? make("ul", { class: "notes" }, more.not_measured.map(([target, engine, reason]) => make("li", {}, `${target}, ${engine}: not measured, ${reason}`))) : null,
    ...(peers.length > 1 ? [make("h3", {}, "Seeds"), seedTable(peers)] : []),
    ...(more.history.length ? [make("h3", {}, "Training"), ...trainingFigures(row)] : []),
    ...(more.confusion ? [make("h3", {}, "Confusion before any attack"), confusionTable(row)] : []),
    make("h3", {}, "Breaks"),
    dropZone(() => [row]),
    breaksBrowser(row),
  ];
}

function compareWith(row) {
  const others = row.section.rows.filter((other) => other !== row && other.more.right);
  if (!others.length || !row.more.right) return "";
  const go = () => { if (choose.value) location.hash = linkTo({ a: row.key, b: choose.value, row: "", attack: "" }); };
  const choose = make("select", { "aria-label": "Compare with" }, make("option", { value: "" }, "compare with …"),
    others.map((other) => make("option", { value: other.key }, other.name)));
  return make("span", {}, choose, " ", make("button", { type: "button", click: go }, "Compare"));
}

function facts({ cells, more, section }) {
  const interval = (low, high) => `[${(100 * low).toFixed(1)}, ${(100 * high).toFixed(1)}]`;
  const entries = [
    ["Rank", cells.rank === null ? `unranked: ${cells.unranked}` : `${cells.rank} (places ${cells.rank_best} to ${cells.rank_worst} are possible)`],
    ["Worst case", `${cells.worst_k} of ${cells.n}, ${percent(cells.worst_k / cells.n)} ${interval(cells.worst_low, cells.worst_high)}`],
    ["Clean", `${cells.clean_k} of ${cells.n}, ${percent(cells.clean_k / cells.n)} ${interval(cells.clean_low, cells.clean_high)}`],
    ["Calibration error", cells.calibration_error === null ? "-" : `${percent(cells.calibration_error)} (15 bins)`],
    ["Verified", cells.verified ? `${cells.verified}, level ${cells.verified_level}, ${cells.verified_on}` : "no verdict"],
    ["Verified floor", cells.verified_floor === null ? null : percent(cells.verified_floor)],
    ["Lowered", cells.lowered_k === null ? null : `to ${cells.lowered_k} of ${cells.n}, by breaks found for other models`],
    ["Artefact", `${cells.format}, ${cells.precision}, ${costText("total_bytes", cells.total_bytes)}, sha256 ${cells.artefact}`],
    ["Model", `${more.repr || cells.model}${cells.parameters === null ? "" : `, ${cells.parameters.toLocaleString("en")} parameters`}, from ${more.origin}`],
    ["Scheme", `${cells.scheme}: ${more.terms.map(([name, weight]) => `${weight} ${name}`).join(" + ") || "-"}`],
    ["Trained on", cells.training_data === null ? "came trained" : `${cells.training_n.toLocaleString("en")} examples of ${cells.training_data}, licence ${cells.training_licence}`],
    ["Overlap", cells.overlap || "no evaluated text was found in the training data"],
    ["Evaluated on", `${cells.dataset}, ${cells.split}, licence ${cells.data_licence}, revision ${cells.revision}`],
    ["Recipe", Object.entries(more.recipe).map(([name, value]) => `${name}=${value}`).join(", ") || null],
    ["Run", more.created],
    ["Row", cells.row],
  ];
  return make("div", {},
    make("dl", { class: "facts" }, entries.filter(([, value]) => value !== null).map(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
    more.flags.map(([name, reason]) => make("p", { class: "warning" }, make("a", { class: "mark", href: `#flag-${name}` }, name), ` ${reason}`)));
}

// --- figures -------------------------------------------------------------------------------------------

const widthOf = () => Math.max(260, Math.min(640, document.getElementById("view").clientWidth / (innerWidth < 900 ? 1 : 2) - 16));

function lineFigure(label, caption, options) {
  const figure = make("figure", {}, make("div", { class: "plot" }), make("figcaption", {}, caption));
  figure.firstChild.append(Plot.plot({
    width: widthOf(), height: 280, marginLeft: 48, marginRight: 16, marginBottom: 40,
    style: { background: "transparent", fontSize: "12px", fontFamily: "inherit" },
    ariaLabel: label,
    ...options,
  }));
  return figure;
}

const colours = (names) => ({ legend: true, domain: names, range: names.map((_, at) => `var(--c${at % 8})`) });

function curveFigure(row, what) {
  const { section, more, cells } = row;
  const names = section.attacks.map((name) => section.more.headings[name]);
  const least = what === "queries" ? 1 : 0; // the axis of queries is logarithmic
  const points = more.attacks.flatMap((attack, at) =>
    attack[what].map(([spent, right]) => ({ attack: names[at], spent: Math.max(least, spent), right: (100 * right) / cells.n })));
  return lineFigure(`Robust accuracy against ${what}, ${row.name}`,
    `Right, of all examples, had the attacker been allowed no more than so many ${what}: an upper bound for a search that changes its course with its budget.`, {
      x: { type: what === "queries" ? "log" : "linear", label: what === "queries" ? "queries" : "words changed", tickFormat: (value) => short(value), ticks: what === "queries" ? 5 : d3.ticks(0, d3.max(points, ({ spent }) => spent), 5).filter(Number.isInteger) },
      y: { label: "right, %", domain: [0, 100], grid: true },
      color: colours(names),
      marks: [
        Plot.ruleY([section.floor * 100], { strokeDasharray: "4 4", stroke: "var(--faint)" }),
        Plot.line(points, { x: "spent", y: "right", stroke: "attack", strokeWidth: 2, curve: "step-after" }),
        Plot.tip(points, Plot.pointerX({ x: "spent", y: "right", title: (point) => `${point.attack}\n${point.right.toFixed(1)} % right at ${short(point.spent)} ${what}` })),
      ],
    });
}

function trainingFigures({ name, more }) {
  const losses = more.history.flatMap((epoch) => Object.entries(epoch.losses).map(([term, value]) => ({ epoch: epoch.number, name: term, value })));
  const dev = more.history.flatMap((epoch) => [["accuracy", epoch.dev_accuracy], ["attacked", epoch.dev_attacked]]
    .filter(([, value]) => value !== null).map(([kind, value]) => ({ epoch: epoch.number, name: kind, value: 100 * value })));
  const figure = (points, what, caption) => lineFigure(`${what} by epoch, ${name}`, caption, {
    x: { label: "epoch", ticks: Math.min(10, more.history.length), tickFormat: "d" },
    y: { label: what, grid: true, nice: true },
    color: colours(Array.from(new Set(points.map((point) => point.name)))),
    marks: [
      Plot.ruleX([more.best_epoch], { stroke: "var(--faint)", strokeDasharray: "4 4" }),
      Plot.line(points, { x: "epoch", y: "value", stroke: "name", strokeWidth: 2 }),
      Plot.dot(points, { x: "epoch", y: "value", fill: "name", r: 2.5 }),
    ],
  });
  return [make("div", { class: "figures" },
    figure(losses, "loss", "Losses of training, one line a term of the scheme. Dashed: the epoch that was kept."),
    figure(dev, "dev split, %", `On the dev split. Dashed: the epoch that was kept, ${more.best_epoch} of ${more.history.length}, by ${more.selection}.`))];
}

// --- tables --------------------------------------------------------------------------------------------

function attackTable({ section, more, cells }) {
  return tableOf("Attacks", ["attack", "robust", "broken of attacked", "skipped", "errors", "median queries", "median words changed", "set up"],
    section.attacks.map((name, at) => {
      const attack = more.attacks[at];
      const { threat, parameters } = section.more.attacks[at];
      const fields = Object.entries({ ...threat, ...parameters }).map(([key, value]) => `${key}=${JSON.stringify(value)}`).join(", ");
      return [name, `${cells[`robust_k:${name}`]} of ${cells[`robust_n:${name}`]}`, `${attack.broken} of ${attack.attacked}`, String(attack.skipped), String(attack.errors),
        String(attack.queries_median), String(attack.edits_median), make("details", {}, make("summary", {}, "fields"), make("small", { class: "wrap" }, fields || "none"))];
    }), { class: "numbers" });
}

function seedTable(peers) {
  return tableOf("Seeds of this experiment", ["seed", "worst case %", "clean %", "rank"],
    peers.map((row) => [
      make("a", { href: linkTo({ row: row.key, attack: "" }) }, `seed ${row.cells.seed}`), (100 * valueOf(row, "worst")).toFixed(1),
      (100 * valueOf(row, "clean")).toFixed(1), row.cells.rank === null ? "unranked" : String(row.cells.rank),
    ]), { class: "numbers" });
}

function confusionTable({ section, more }) {
  const { labels: names } = section.more;
  const answer = (at) => (at < 0 ? "failed" : names[at]);
  if (names.length > MOST_LABELS) {
    const wrong = more.confusion.filter(([label, said]) => label !== said).sort((a, b) => b[2] - a[2]).slice(0, 20);
    return tableOf("Most frequent confusions", ["label", "answer", "times"], wrong.map(([label, said, times]) => [names[label], answer(said), String(times)]));
  }
  const times = new Map(more.confusion.map(([label, said, count]) => [`${label} ${said}`, count]));
  const totals = d3.rollup(more.confusion, (found) => d3.sum(found, ([, , count]) => count), ([label]) => label);
  const answers = [...names.keys(), ...(more.confusion.some(([, said]) => said < 0) ? [-1] : [])];
  const cell = (label, said) => {
    const count = times.get(`${label} ${said}`) ?? 0;
    const shade = make("span", { class: "shade" }, String(count));
    shade.style.setProperty("--share", count / (totals.get(label) || 1));
    return shade;
  };
  return tableOf("Confusion: labels down, answers across", ["label ↓ answer →", ...answers.map(answer)],
    names.map((name, label) => [name, ...answers.map((said) => cell(label, said))]), { class: "numbers" });
}

// --- breaks --------------------------------------------------------------------------------------------

function breaksBrowser(row) {
  const place = make("div", { class: "breaks" });
  const { more, attacks } = row.section;
  if (!row.more.right) {
    place.append("No evidence came with this row.");
    return place;
  }
  const fill = async () => {
    const breaks = await breaksOf(row);
    if (!breaks) {
      place.replaceChildren("The edit scripts of this row lie beside the page: choose or drop the file named above.");
      return;
    }
    let at = 0;
    const choose = make("select", { "aria-label": "Attack", change: () => { at = 0; settle({ attack: choose.value }); turn(); } },
      attacks.map((name) => make("option", { value: name, selected: name === state.attack }, `${more.headings[name]} (${(breaks[name] ?? []).length})`)));
    const list = make("ol", { class: "examples" });
    const where = make("span", { role: "status" });
    const step = (by) => () => { at += by * PAGE_ROWS; turn(); };
    const back = make("button", { type: "button", click: step(-1) }, "Previous");
    const next = make("button", { type: "button", click: step(1) }, "Next");
    const turn = () => {
      const all = breaks[choose.value] ?? [];
      list.start = at + 1;
      list.replaceChildren(...all.slice(at, at + PAGE_ROWS).map(([example, answer, queries, script]) => {
        const id = more.ids[example];
        return make("li", {},
          make("p", { class: "what" }, make("code", {}, id), ` ${more.labels[more.gold[example]]} → ${more.labels[answer] ?? "failed"} · ${script.length} word${script.length === 1 ? "" : "s"} · ${queries.toLocaleString("en")} queries`),
          make("p", { dir: "auto" }, shownEdits(textOf(id), script)));
      }));
      where.textContent = all.length ? ` ${at + 1} to ${Math.min(at + PAGE_ROWS, all.length)} of ${all.length} ` : " none ";
      back.disabled = at === 0;
      next.disabled = at + PAGE_ROWS >= all.length;
    };
    place.replaceChildren(make("p", {}, choose, " ", back, where, next), list);
    turn();
  };
  fill();
  return place;
}
