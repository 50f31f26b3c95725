"use strict";
// Sorting, the figure and the downloads of the board. The page is complete without them.
{
  const board = JSON.parse(document.getElementById("data").textContent);
  for (const section of board.sections) {
    section.rows = section.rows.map((row) => Object.fromEntries(section.keys.map((key, at) => [key, row[at]])));
    delete section.keys;
  }

  // --- sorting: a button in every heading; rows without a value stay last ---------------------------

  const status = document.getElementById("status");

  function valueOf(row, at, numeric) {
    const value = row.cells[at].dataset.value;
    return numeric ? (value === "" ? null : Number(value)) : value;
  }

  function sort(table, heading) {
    const at = heading.cellIndex;
    const numeric = heading.dataset.sort === "number";
    const before = heading.getAttribute("aria-sort");
    const largestFirst = before ? before === "ascending" : numeric && at !== 0;
    const sign = largestFirst ? -1 : 1;
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row, place) => ({ row, place, value: valueOf(row, at, numeric) }));
    rows.sort((a, b) => {
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null) || a.place - b.place;
      const order = numeric ? a.value - b.value : a.value.localeCompare(b.value, "en", { numeric: true });
      return sign * order || a.place - b.place;
    });
    body.append(...rows.map(({ row }) => row));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", largestFirst ? "descending" : "ascending");
    status.textContent = `Sorted by ${heading.textContent}, ${largestFirst ? "descending" : "ascending"}.`;
  }

  for (const table of document.querySelectorAll("table")) {
    for (const heading of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      button.addEventListener("click", () => sort(table, heading));
      heading.replaceChildren(button);
    }
  }

  // --- the figure -------------------------------------------------------------------------------------

  const LABELLED = 12; // names beside the points, up to this many models: more would hide each other

  function bytes(size) {
    if (size >= 1e6) return `${+(size / 1e6).toPrecision(3)} MB`;
    return size >= 1e3 ? `${+(size / 1e3).toPrecision(3)} kB` : `${size} B`;
  }

  const percent = (share) => `${(100 * share).toFixed(1)} %`;

  function describe(row) {
    const time = row.local_p50_us === null ? "" : `\nlocal p50 ${row.local_p50_us.toPrecision(3)} µs`;
    return (
      `${row.model}, ${row.scheme}${row.seed === null ? "" : `, seed ${row.seed}`}\n` +
      `worst case ${percent(row.worst)} (${percent(row.worst_low)} to ${percent(row.worst_high)})\n` +
      `clean ${percent(row.clean)}\n${bytes(row.total_bytes)}${time}` +
      (row.unranked ? "\nunranked" : "")
    );
  }

  // Where names stand, in pixels: above the highest whisker of their model, and clear of whiskers and other names.
  function labels(highest, rows, x, y, aside) {
    const taken = rows.map((row) => {
      const at = x(row.total_bytes) + aside(row.scheme);
      return { left: at - 7, right: at + 7, top: y(row.worst_high) - 2, foot: y(row.worst_low) };
    });
    return d3.sort(highest, (row) => row.total_bytes).map((row) => {
      const half = 3.6 * row.model.length;
      const at = x(row.total_bytes) + aside(row.scheme);
      const box = { left: at - half, right: at + half, top: 0, foot: y(row.worst_high) - 4 };
      const clash = () => taken.find((other) =>
        other.left < box.right && box.left < other.right && other.top < box.foot && box.foot - 13 < other.foot);
      for (let other = clash(); other; other = clash()) box.foot = other.top - 1;
      box.top = box.foot - 13;
      taken.push(box);
      return { row, foot: box.foot };
    });
  }

  function draw(figure, section) {
    const rows = section.rows
      .filter((row) => row.total_bytes > 0 && row.n > 0)
      .map((row) => ({ ...row, worst: row.worst_k / row.n, clean: row.clean_k / row.n }));
    if (!rows.length) return;
    figure.hidden = false;
    const place = figure.querySelector(".plot");
    const width = Math.max(280, place.clientWidth);
    const narrow = width < 520;
    const schemes = Array.from(new Set(rows.map((row) => row.scheme))).sort();
    // Schemes of one model have the same bytes: they are set side by side, a few pixels apart.
    const aside = (scheme) => (schemes.indexOf(scheme) - (schemes.length - 1) / 2) * (narrow ? 6 : 9);
    const sizes = rows.map((row) => row.total_bytes);
    const highest = d3.rollups(rows, (peers) => d3.greatest(peers, (row) => row.worst_high), (row) => row.model);
    const names = highest.length > LABELLED ? [] : highest.map(([, row]) => row);
    const floor = Number(figure.dataset.floor);
    const common = { x: "total_bytes", stroke: "scheme" };
    const marks = schemes.flatMap((scheme) => {
      const own = rows.filter((row) => row.scheme === scheme);
      const dx = aside(scheme);
      return [
        Plot.ruleX(own, { ...common, y1: "worst_low", y2: "worst_high", strokeWidth: 1.5, strokeOpacity: 0.7, dx }),
        Plot.dot(own, {
          ...common, y: "worst", r: narrow ? 4 : 5, strokeWidth: 2, dx,
          fill: (row) => (row.front ? row.scheme : null),
        }),
      ];
    });
    const frame = { width, height: narrow ? 300 : 380, marginLeft: 48, marginRight: 24, marginTop: 34, marginBottom: 42 };
    const across = [d3.min(sizes) / 1.6, d3.max(sizes) * 1.6];
    const up = d3.scaleLinear([0, Math.min(1, 1.12 * d3.max([floor, ...rows.map((row) => row.worst_high)]))], [frame.height - frame.marginBottom, frame.marginTop]).nice();
    const x = d3.scaleLog(across, [frame.marginLeft, width - frame.marginRight]);
    const svg = Plot.plot({
      ...frame,
      style: { background: "transparent", fontSize: "12px", fontFamily: "inherit" },
      ariaLabel: `Worst-case robust accuracy against bytes, ${section.title}`,
      x: {
        type: "log",
        label: "deployed bytes",
        domain: across,
        tickFormat: bytes,
        ticks: narrow ? 3 : 6,
      },
      y: { percent: true, label: "worst-case robust accuracy, %", domain: up.domain().map((share) => 100 * share), grid: true },
      color: {
        legend: true,
        domain: schemes,
        range: schemes.map((_, at) => `var(--c${at % 8})`),
        unknown: "var(--paper)",
      },
      marks: [
        Plot.ruleY([0]),
        Plot.ruleY([floor], { strokeDasharray: "4 4", stroke: "var(--faint)" }),
        Plot.text([floor], {
          y: (y) => y, frameAnchor: "right", dy: -7, textAnchor: "end", text: () => "majority floor", fill: "var(--faint)",
        }),
        ...marks,
        ...labels(names, rows, x, up, aside).flatMap(({ row, foot }) => {
          const above = { x: "total_bytes", dx: aside(row.scheme) };
          return [
            Plot.ruleX([row], { ...above, y1: "worst_high", y2: up.invert(foot), stroke: "var(--faint)", strokeWidth: 0.75 }),
            Plot.text([row], { ...above, y: up.invert(foot), text: "model", dy: -2, lineAnchor: "bottom", fill: "currentColor" }),
          ];
        }),
        Plot.tip(rows, Plot.pointer({ x: "total_bytes", y: "worst", title: describe })),
      ],
    });
    place.replaceChildren(svg);
  }

  for (const figure of document.querySelectorAll("figure[data-section]")) {
    const section = board.sections[Number(figure.dataset.section)];
    draw(figure, section);
    let drawn = figure.clientWidth;
    new ResizeObserver(() => {
      if (Math.abs(figure.clientWidth - drawn) < 8) return;
      drawn = figure.clientWidth;
      draw(figure, section);
    }).observe(figure);
  }

  // --- downloads --------------------------------------------------------------------------------------

  function csv() {
    const rows = board.sections.flatMap((section) => section.rows);
    const keys = Array.from(new Set(rows.flatMap(Object.keys)));
    const quoted = (value) => {
      const text = value === null || value === undefined ? "" : String(value);
      return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    return [keys, ...rows.map((row) => keys.map((key) => row[key]))].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
  }

  const downloads = {
    csv: () => new Blob([csv()], { type: "text/csv" }),
    json: () => new Blob([JSON.stringify(board, null, 1) + "\n"], { type: "application/json" }),
  };
  document.querySelector(".downloads").hidden = false;
  for (const button of document.querySelectorAll("[data-download]")) {
    button.addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(downloads[button.dataset.download]());
      link.download = `board.${button.dataset.download}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    });
  }
}
