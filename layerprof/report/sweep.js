/* Draws a sweep: trade-offs with their Pareto front, shares along an axis, layers against cells, a roofline. Needs charts.js. */
"use strict";
const LayerprofSweep = (() => {
  const show = Layerprof.show, tint = Layerprof.tint;
  const AXES = [
    ["sample_s", "latency of a sample", "s", 1], ["latency_s", "latency of a batch", "s", 1], ["energy_j", "energy of a sample", "J", 1],
    ["flops", "FLOPs of a sample", "FLOP", 1], ["memory", "peak memory", "B", 1], ["ttft_s", "time to first token", "s", 1],
    ["ttft_request_s", "time to first token from the image file", "s", 1], ["correct_j", "energy of a right answer", "J", 1],
  ];
  const QUALITY = [["wer", "word error rate", "", 1], ["wer_first", "word error rate, first reference", "", 1], ["metric", "task metric", "", -1]];
  const COLOURS = ["#3d7edb", "#c8553d", "#2f9e58", "#a24bb0", "#d08a2e", "#3aa6a6", "#8b949e", "#b04a7a"];
  const PHASE_COLOURS = { vision: "#a24bb0", prefill: "#3d7edb", decode: "#2f9e58", mixed: "#b98a00", null: "#8b949e" };
  const CONFIG = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  const at = id => document.getElementById(id);

  /* Plotly reads a little HTML in labels; what comes from experiments and models must not be read as such. */
  const plain = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  function layout(extra) {
    const style = getComputedStyle(document.body), grid = "rgba(128,140,152,0.25)";
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 80, r: 20, t: 30, b: 50 },
      font: { family: style.fontFamily, size: 13, color: style.color }, hoverlabel: { align: "left" }, modebar: { bgcolor: "rgba(0,0,0,0)", color: "#8b949e" },
      xaxis: { gridcolor: grid, zeroline: false }, yaxis: { gridcolor: grid, zeroline: false },
    };
    for (const [key, value] of Object.entries(extra)) base[key] = key.match(/^[xy]axis/) ? { ...base[key], ...value } : value;
    return base;
  }

  const empty = (target, text) => { Plotly.purge(target); target.replaceChildren(Layerprof.element("p", text, "note")); };
  function draw(target, traces, extra) {
    if (target.firstElementChild && target.firstElementChild.tagName === "P") target.replaceChildren();
    Plotly.react(target, traces, layout(extra), CONFIG);
  }

  /* Points that no other point beats in both directions, by x. */
  function front(points, x, y, sign) {
    const best = [];
    let least = Infinity;
    for (const point of [...points].sort((a, b) => a[x] - b[x] || sign * (a[y] - b[y]))) {
      if (sign * point[y] < least) { best.push(point); least = sign * point[y]; }
    }
    return best;
  }

  /* From zero to the largest, with room for half a marker on both sides. */
  function room(values) {
    const top = Math.max(...values) || 1;
    return [-0.03 * top, 1.06 * top];
  }

  function trade(data, table, x, y) {
    const seen = new Set(), points = [];
    for (const one of data.tables) for (const row of one.rows) {
      if ((table !== "" && one.name !== table) || seen.has(row.key) || row[x[0]] === null || row[y[0]] === null) continue;
      seen.add(row.key);
      points.push({ ...row, table: one.title });
    }
    const target = at("trade-plot");
    if (!points.length) return empty(target, "No cell has both of these figures.");
    const most = Math.max(...points.map(point => point.energy_j || 0)), datasets = [...new Set(points.map(point => point.dataset))];
    const traces = [];
    datasets.forEach((name, nth) => {
      const own = points.filter(point => point.dataset === name), colour = COLOURS[nth % COLOURS.length];
      traces.push({
        type: "scatter", mode: "markers", name: plain(name), x: own.map(point => point[x[0]]), y: own.map(point => point[y[0]]),
        marker: {
          color: colour, opacity: 0.8, size: own.map(point => most && point.energy_j ? 8 + 18 * Math.sqrt(point.energy_j / most) : 10),
          symbol: own.map(point => point.flags.length ? "x" : "circle"),
        },
        text: own.map(point => tip(point, x, y)), hovertemplate: "%{text}<extra></extra>",
      });
      const line = front(own, x[0], y[0], y[3]);
      if (line.length > 1) traces.push({
        type: "scatter", mode: "lines", x: line.map(point => point[x[0]]), y: line.map(point => point[y[0]]), line: { color: colour, width: 1.5, shape: "hv" },
        hoverinfo: "skip", showlegend: false,
      });
    });
    draw(target, traces, {
      height: 440, xaxis: { title: { text: x[1] }, tickformat: "~s", ticksuffix: x[2], range: room(points.map(point => point[x[0]])) },
      yaxis: { title: { text: y[1] }, range: room(points.map(point => point[y[0]])) }, legend: { orientation: "h", y: 1.08 },
    });
  }

  function tip(point, x, y) {
    const lines = ["<b>" + plain(point.table) + "</b>", plain(point.label), x[1] + ": " + show(point[x[0]], x[2]), y[1] + ": " + Number(point[y[0]].toPrecision(3))];
    if (point.energy_j !== null) lines.push("energy of a sample: " + show(point.energy_j, "J"));
    for (const flag of point.flags) lines.push("guard: " + plain(flag));
    return lines.join("<br>");
  }

  const QUANTITIES = [["time", "span_s", "s"], ["FLOPs", "flops", "FLOP"], ["energy", "energy_j", "J"]];

  /* The parts of the cells with their value in each: [label, phase, values], what is under 2 % everywhere joined. */
  function partsOf(runs, value, whole) {
    const order = { vision: 0, prefill: 1, decode: 2, mixed: 3, null: 4 }, names = new Map();
    runs.forEach((run, nth) => run.parts.forEach(part => {
      const id = part.label + "|" + part.phase;
      if (!names.has(id)) names.set(id, [part.label, part.phase, runs.map(() => null)]);
      names.get(id)[2][nth] = value(part, nth);
    }));
    const small = ["small parts", null, runs.map(() => null)], kept = [];
    for (const part of names.values()) {
      if (part[2].some((amount, nth) => amount > 0.02 * whole(nth))) { kept.push(part); continue; }
      part[2].forEach((amount, nth) => { if (amount !== null) small[2][nth] = (small[2][nth] || 0) + amount; });
    }
    kept.sort((a, b) => order[a[1]] - order[b[1]]);
    return small[2].some(amount => amount) ? [...kept, small] : kept;
  }

  function shares(data, table, quantity, scale) {
    const rows = data.tables.find(one => one.name === table).rows, runs = rows.map(row => data.runs[row.key]), target = at("share-plot");
    const [name, key, unit] = QUANTITIES.find(one => one[0] === quantity), share = scale === "share";
    const amount = (part, nth) => {
      const value = share ? part.shares[name] : part[key] === null ? null : part[key] / (rows[nth].instrumented || 1);
      return value === null || value === undefined || Number.isNaN(value) ? null : Math.max(value, 0);
    };
    const totals = runs.map((run, nth) => run.parts.reduce((sum, part) => sum + (amount(part, nth) || 0), 0));
    const tints = {}, labels = rows.map(row => plain(row.label)), traces = [];
    for (const [label, phase, values] of partsOf(runs, amount, nth => totals[nth])) {
      if (values.every(value => value === null)) continue;
      const nth = tints[phase] = (tints[phase] ?? -1) + 1;
      traces.push({
        type: "bar", name: plain(label + (phase ? " · " + phase : "")), x: labels, y: values,
        marker: { color: tint(PHASE_COLOURS[phase], nth), line: { width: 1, color: "rgba(255,255,255,0.6)" } },
        hovertemplate: values.map(value => plain(label) + " " + plain(phase || "") + "<br>" + show(value, share ? "%" : unit) + "<extra></extra>"),
      });
    }
    if (!traces.length) return empty(target, "These cells have no figures of that kind.");
    draw(target, traces, {
      barmode: "stack", height: 460, xaxis: { type: "category", automargin: true },
      yaxis: share ? { tickformat: ".0%" } : { tickformat: "~s", ticksuffix: unit, title: { text: name + " of a sample" } }, legend: { traceorder: "reversed" },
    });
  }

  function heat(data, table, key, phase) {
    const rows = data.tables.find(one => one.name === table).rows, target = at("heat-plot"), quantity = quantities(data).find(one => one.key === key);
    const layers = new Map();
    for (const row of rows) for (const layer of data.runs[row.key].rows) if (layer.phase === phase) layers.set(layer.name, layer.label);
    const names = [...layers.keys()];
    const z = rows.map(row => {
      const found = new Map(data.runs[row.key].rows.filter(layer => layer.phase === phase).map(layer => [layer.name, layer[key]]));
      return names.map(name => found.get(name) ?? null);
    });
    if (!quantity || z.every(line => line.every(value => value === null))) return empty(target, "These cells have no such figures in this phase.");
    const text = z.map((line, nth) => line.map((value, layer) => plain(names[layer]) + "<br>" + plain(rows[nth].label) + "<br>" + quantity.name + ": " + show(value, quantity.unit)));
    draw(target, [{
      type: "heatmap", z, x: names.map((_, nth) => nth), y: rows.map(row => plain(row.label)), text, hovertemplate: "%{text}<extra></extra>",
      colorscale: "Viridis", xgap: 1, ygap: 1, colorbar: { ...(quantity.unit === "%" ? { tickformat: ".0%" } : { tickformat: "~s", ticksuffix: quantity.unit === "tokens" ? "" : quantity.unit }), thickness: 12 },
    }], {
      height: 180 + 26 * rows.length, margin: { l: 200, r: 20, t: 20, b: 130 }, yaxis: { autorange: "reversed", automargin: true, type: "category" },
      xaxis: { tickmode: "array", tickvals: names.map((_, nth) => nth), ticktext: names.map(name => plain(layers.get(name))), tickangle: -60, showgrid: false },
    });
  }

  function quantities(data) {
    const found = new Map();
    for (const run of Object.values(data.runs)) for (const quantity of run.quantities) found.set(quantity.key, quantity);
    return [...found.values()];
  }

  function options(id, entries) {
    for (const [value, text] of entries) at(id).append(new Option(text, value));
  }

  function page(data) {
    const measured = data.tables.filter(table => table.rows.length);
    if (!measured.length) {
      for (const id of ["trade-plot", "share-plot", "heat-plot", "roof-plot"]) empty(at(id), "No cell has figures.");
      return;
    }
    const has = key => measured.some(table => table.rows.some(row => row[key] !== null));
    const across = AXES.filter(([key]) => has(key)), up = QUALITY.filter(([key]) => has(key));
    options("trade-x", across.map(([key, name]) => [key, name]));
    options("trade-y", up.map(([key, name]) => [key, name]));
    options("trade-table", [["", "all"], ...measured.map(table => [table.name, table.title])]);
    for (const id of ["share-table", "heat-table"]) options(id, measured.map(table => [table.name, table.title]));
    options("share-quantity", QUANTITIES.map(([name]) => [name, name]));
    const seen = new Set(Object.values(data.runs).flatMap(run => run.rows.map(row => row.phase)));
    options("heat-phase", Layerprof.PHASES.filter(phase => seen.has(phase)).map(phase => [phase, phase]));
    options("heat-quantity", quantities(data).map(quantity => [quantity.key, quantity.name]));
    const cells = new Map();
    for (const table of measured) for (const row of table.rows) if (!cells.has(row.key)) cells.set(row.key, table.title + ": " + row.label);
    options("roof-cell", [...cells]);
    const all = () => {
      if (up.length) trade(data, at("trade-table").value, across.find(one => one[0] === at("trade-x").value), up.find(one => one[0] === at("trade-y").value));
      else empty(at("trade-plot"), "No cell has a quality figure.");
      shares(data, at("share-table").value, at("share-quantity").value, at("share-scale").value);
      heat(data, at("heat-table").value, at("heat-quantity").value, at("heat-phase").value);
      Layerprof.roofline(at("roof-plot"), data.runs[at("roof-cell").value]);
    };
    for (const control of document.querySelectorAll("select")) control.addEventListener("change", all);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
    all();
  }

  return { page, front };
})();
