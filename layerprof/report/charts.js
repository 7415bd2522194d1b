/* Draws a run: parts, heat map, decode steps, roofline, sortable layers. Text from outside never becomes markup. */
"use strict";
const Layerprof = (() => {
  const PHASES = ["vision", "prefill", "decode", "mixed"];
  const COLOURS = { vision: "#a24bb0", prefill: "#3d7edb", decode: "#2f9e58", mixed: "#b98a00", null: "#8b949e" };
  const REQUEST = { read: "#3aa6a6", process: "#d08a2e", copy: "#c8553d", generate: "#5b6fa8", residual: "#8b949e" };
  const PREFIXES = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
  const STRIP = 159;
  const CONFIG = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

  /* Plotly reads a little HTML in labels; what comes from models must not be read as such. */
  const plain = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  function show(value, unit) {
    if (value === null || value === undefined) return "–";
    if (unit === "%") return value === 0 ? "0 %" : value === 1 ? "100 %" : value > 0 && value < 0.001 ? "<0.1 %" : value > 0.999 && value < 1 ? ">99.9 %" : (100 * value).toFixed(1) + " %";
    if (unit === "tokens") return String(Number(value.toPrecision(value >= 1000 ? 6 : 4)));
    if (value === 0) return "0 " + unit;
    const whole = unit === "FLOP" || unit === "B" || unit.startsWith("FLOP/B");
    const fit = PREFIXES.find(([factor]) => Math.abs(value) >= factor * 0.9995 && (factor >= 1 || !whole)) || (whole ? [1, ""] : [1e-9, "n"]);
    return Number((value / fit[0]).toPrecision(3)) + " " + fit[1] + unit;
  }

  /* A row's figure; FLOPs that miss an operator, and bytes of weights that nobody can see, are a lower bound. */
  const bound = (row, key) => row[key + "_at_least"] === true;
  const amount = (row, key, unit) => (bound(row, key) && row[key] !== null ? "≥ " : "") + show(row[key], unit);
  const uncounted = row => Object.entries(row.uncounted).map(([name, calls]) => calls + " × " + name).join(", ") + " without a formula";

  function element(tag, text, className) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function layout(extra) {
    const style = getComputedStyle(document.body);
    const grid = "rgba(128,140,152,0.25)";
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 110, r: 20, t: 16, b: 44 },
      font: { family: style.fontFamily, size: 13, color: style.color }, hoverlabel: { align: "left" }, modebar: { bgcolor: "rgba(0,0,0,0)", color: "#8b949e" },
      xaxis: { gridcolor: grid, zeroline: false }, yaxis: { gridcolor: grid, zeroline: false },
    };
    for (const [key, value] of Object.entries(extra)) base[key] = key.match(/^[xy]axis/) ? { ...base[key.slice(0, 5)], ...value } : value;
    return base;
  }

  /* The nth tint of a colour: as it is, then lighter and lighter. */
  function tint(colour, nth) {
    const share = Math.max(0.25, 1 - 0.28 * nth);
    const mixed = [1, 3, 5].map(from => Math.round(255 - share * (255 - parseInt(colour.slice(from, from + 2), 16))));
    return "rgb(" + mixed.join(",") + ")";
  }

  /* One bar per quantity, cut into the run's parts. */
  function parts(target, run) {
    const quantities = ["time", "FLOPs", "energy"].filter(name => run.parts.some(part => part.shares[name] !== null));
    const tints = {};
    const traces = run.parts.map(part => {
      const nth = part.blocks ? 0 : tints[part.phase] = (tints[part.phase] || 0) + 1;
      const name = part.label + (part.phase ? " · " + part.phase : "");
      const shares = quantities.map(quantity => part.shares[quantity]);
      return {
        type: "bar", orientation: "h", name: plain(name), y: quantities, x: shares.map(share => Math.max(share || 0, 0)),
        marker: { color: tint(COLOURS[part.phase], nth), line: { width: 1, color: "rgba(255,255,255,0.6)" } },
        text: shares.map(share => share > 0.03 ? show(share, "%") : ""), textposition: "inside", insidetextanchor: "middle", textangle: 0,
        hovertext: shares.map(share => plain(name) + "<br>" + show(share, "%")), hoverinfo: "text",
      };
    });
    const size = 130 + 50 * quantities.length;
    Plotly.react(target, traces, layout({
      barmode: "stack", height: size, xaxis: { tickformat: ".0%", range: [0, 1] }, yaxis: { autorange: "reversed", showgrid: false },
      legend: { orientation: "h", y: -0.25, traceorder: "normal" }, margin: { l: 70, r: 20, t: 28, b: 30 },
    }), CONFIG);
  }

  /* The whole request as one bar, from the image file to the answer. */
  function requestBar(target, run) {
    const traces = run.request.parts.filter(part => part.share !== null).map(part => ({
      type: "bar", orientation: "h", name: part.name, y: ["request"], x: [Math.max(part.share, 0)],
      marker: { color: REQUEST[part.name], line: { width: 1, color: "rgba(255,255,255,0.6)" } },
      text: [part.share > 0.03 ? show(part.share, "%") : ""], textposition: "inside", insidetextanchor: "middle", textangle: 0,
      hovertext: [part.name + "<br>" + show(part.share, "%") + "<br>" + show(part.total_s, "s")], hoverinfo: "text",
    }));
    Plotly.react(target, traces, layout({
      barmode: "stack", height: 150, xaxis: { tickformat: ".0%", range: [0, 1] }, yaxis: { showgrid: false },
      legend: { orientation: "h", y: -0.5, traceorder: "normal" }, margin: { l: 70, r: 20, t: 20, b: 30 },
    }), CONFIG);
  }

  /* Its parts: of all batches together, down to the residual and the total, and of one batch. */
  function requestTable(target, run) {
    const head = target.createTHead().insertRow(), body = target.createTBody(), { parts, total_s: total } = run.request;
    for (const name of ["part", "all batches", "%", "a batch, median", "95 % interval", "p95"]) head.append(element("th", name));
    const line = (name, cells) => {
      const row = body.insertRow();
      if (name === "residual" || name === "total") row.className = name;
      for (const text of [name, ...cells]) row.append(element("td", text));
    };
    for (const part of parts) {
      const ends = part.ci95_s ? "[" + part.ci95_s.map(end => show(end, "s")).join(", ") + "]" : "";
      line(part.name, [show(part.total_s, "s"), show(part.share, "%"), ...(part.median_s === null ? ["", "", ""] : [show(part.median_s, "s"), ends, show(part.p95_s, "s")])]);
    }
    if (total !== null) line("total", [show(total, "s"), "100 %", "", "", ""]);
  }

  /* The rows of the heat map: one strip per tower and phase, layers left to right as they run. */
  function strips(rows) {
    const found = new Map();
    for (const row of rows) {
      const name = row.tower === row.phase ? row.tower : row.tower + " · " + row.phase;
      if (!found.has(name)) found.set(name, []);
      found.get(name).push(row);
    }
    return [...found];
  }

  const short = label => {
    const name = label.replace(/^.*\.(\d+)$/, "$1");
    return name.length > 11 ? name.slice(0, 10) + "…" : name;
  };

  function heat(target, run, quantity, across) {
    const lists = strips(run.rows).filter(([, rows]) => rows.some(row => row[quantity.key] !== null));
    const all = run.rows.map(row => row[quantity.key]).filter(value => value !== null);
    const extra = { height: 20 + STRIP * lists.length, margin: { l: 130, r: 20, t: 28, b: 22 }, showlegend: false };
    const traces = lists.map(([name, rows], nth) => {
      const axis = nth ? String(nth + 1) : "";
      const values = rows.map(row => row[quantity.key]);
      const top = Math.max(...(across ? all : values.filter(value => value !== null)));
      const slot = 1 / lists.length;
      extra["yaxis" + axis] = { domain: [1 - slot * (nth + 1) + slot * 0.6, 1 - slot * nth], showgrid: false, ticks: "" };
      extra["xaxis" + axis] = {
        anchor: "y" + axis, showgrid: false, tickangle: -90, tickmode: "array", tickvals: rows.map((_, i) => i), tickfont: { size: 10 },
        ticktext: rows.map(row => plain(short(row.label))), range: [-0.5, rows.length - 0.5],
      };
      return {
        type: "heatmap", x: rows.map((_, i) => i), y: [plain(name)], z: [values], xaxis: "x" + axis, yaxis: "y" + axis,
        zmin: 0, zmax: top || 1, colorscale: "Viridis", showscale: false, xgap: 1, hoverongaps: false,
        text: [rows.map(row => tip(run, row))], hovertemplate: "%{text}<extra></extra>",
      };
    });
    Plotly.react(target, traces, layout(extra), CONFIG);
  }

  function tip(run, row) {
    const lines = ["<b>" + plain(row.name) + "</b> · " + row.phase, show(row.calls, "") + "calls"];
    for (const quantity of run.quantities) lines.push(quantity.name + ": " + amount(row, quantity.key, quantity.unit));
    if (row.weights) lines.push("weights: " + plain(row.weights));
    if (row.flops_at_least) lines.push("FLOPs: " + plain(uncounted(row)));
    if (row.entered) lines.push("entered: " + row.entered[0] + " positions of prompts, " + row.entered[1] + " of answers");
    if (row.energy_j === null && row.energy_reason) lines.push("energy: " + plain(row.energy_reason));
    for (const [name, seconds] of row.kernels.slice(0, 3)) lines.push(plain(name.slice(0, 60)) + ": " + show(seconds, "s"));
    return lines.join("<br>");
  }

  function steps(target, run) {
    const points = run.steps, x = points.map(point => point.step);
    const line = (key, name, dash) => ({
      x, y: points.map(point => point[key]), name, mode: "lines+markers", marker: { size: 4 }, line: { color: COLOURS.decode, dash },
      text: points.map(point => "step " + point.step + "<br>" + name + ": " + show(point[key], "s")), hovertemplate: "%{text}<extra></extra>",
    });
    Plotly.react(target, [line("median_s", "median", "solid"), line("p95_s", "p95", "dot")], layout({
      height: 300, xaxis: { title: { text: "decode step" } }, yaxis: { title: { text: "time of a step" }, rangemode: "tozero", tickformat: "~s", ticksuffix: "s" },
      legend: { orientation: "h", y: 1.1 }, margin: { l: 70, r: 20, t: 28, b: 44 },
    }), CONFIG);
  }

  function roofline(target, run) {
    const points = run.rows.filter(row => row.flops > 0 && !row.flops_at_least && row.bytes > 0 && !row.bytes_at_least && row.median_s > 0);
    if (!points.length) {
      target.replaceChildren(element("p", "A roofline needs FLOPs, bytes and spans; this run does not have all three.", "note"));
      return;
    }
    const intensity = row => row.flops / row.bytes, rate = row => row.flops / row.median_s;
    const traces = PHASES.map(phase => {
      const own = points.filter(row => row.phase === phase);
      return {
        type: "scatter", mode: "markers", name: phase, x: own.map(intensity), y: own.map(rate),
        marker: { color: COLOURS[phase], size: 9, opacity: 0.75, symbol: own.map(row => /block|layer/.test(row.kind) ? "circle" : "diamond") },
        text: own.map(row => tip(run, row) + "<br>" + show(intensity(row), "FLOP/B") + ", " + show(rate(row), "FLOP/s")),
        hovertemplate: "%{text}<extra></extra>",
      };
    }).filter(trace => trace.x.length);
    if (run.peaks) {
      const { flops_per_s: work, bytes_per_s: moved } = run.peaks, ridge = work / moved;
      const low = Math.min(...points.map(intensity), ridge) / 3, high = Math.max(...points.map(intensity), ridge) * 3;
      traces.push({
        type: "scatter", mode: "lines", name: "roof", x: [low, ridge, high], y: [low * moved, work, work], line: { color: "#d08a2e", width: 2 },
        hovertemplate: "roof: " + show(work, "FLOP/s") + ", " + show(moved, "B/s") + "<extra></extra>",
      });
    }
    Plotly.react(target, traces, layout({
      height: 420, xaxis: { type: "log", dtick: "D2", tickformat: "~g", title: { text: "FLOP per byte" } }, yaxis: { type: "log", dtick: "D2", title: { text: "FLOP per second" }, tickformat: "~s" },
      legend: { orientation: "h", y: 1.08 }, margin: { l: 80, r: 20, t: 30, b: 48 },
    }), CONFIG);
  }

  /* The layer table: built of text nodes, sorted by any column, filtered by words. */
  function table(target, run, filter, count) {
    const columns = [["name", "layer"], ["tower", "tower"], ["phase", "phase"], ["calls", "calls"],
      ...run.quantities.map(quantity => [quantity.key, quantity.short, quantity.unit])];
    const most = Math.max(...run.rows.map(row => row.share || 0));
    let order = null, down = true;

    function draw() {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      const rows = run.rows.filter(row => words.every(word => [row.name, row.kind, row.tower, row.phase].join(" ").toLowerCase().includes(word)));
      if (order) rows.sort((a, b) => compare(a[order], b[order]) * (down ? -1 : 1));
      const body = element("tbody");
      for (const row of rows) {
        const line = body.appendChild(element("tr"));
        for (const [key, , unit] of columns) {
          const text = unit ? amount(row, key, unit) : row[key];
          const cell = line.appendChild(element("td", text === "" ? "(model)" : text, unit || key === "calls" ? "" : "text"));
          if (key === "share" && most > 0) { cell.classList.add("cellbar"); cell.style.setProperty("--share", 100 * (row.share || 0) / most + "%"); }
          if (key === "energy_j" && row.energy_reason) cell.title = row.energy_reason;
          if (key === "flops" && row.flops_at_least) cell.title = uncounted(row);
        }
      }
      target.replaceChildren(head(), body);
      count.textContent = rows.length + " of " + run.rows.length + " rows";
    }

    function head() {
      const made = element("thead"), line = made.appendChild(element("tr"));
      for (const [key, name, unit] of columns) {
        const mark = order === key ? (down ? " ▾" : " ▴") : "";
        const cell = line.appendChild(element("th", name + mark, unit || key === "calls" ? "" : "text"));
        cell.setAttribute("role", "button");
        cell.tabIndex = 0;
        cell.dataset.key = key;
        const choose = () => { down = order === key ? !down : true; order = key; draw(); };
        cell.addEventListener("click", choose);
        cell.addEventListener("keydown", event => { if (event.key === "Enter") choose(); });
      }
      return made;
    }

    filter.addEventListener("input", draw);
    draw();
  }

  function compare(a, b) {
    if (a === null || b === null) return (a === null ? -1 : 0) + (b === null ? 1 : 0);
    return typeof a === "string" ? b.localeCompare(a, undefined, { numeric: true }) : a - b;
  }

  /* The books as a table, for pages that are not made on a server. */
  function ledger(target, run) {
    const table = element("table", undefined, "figures"), head = table.createTHead().insertRow(), body = table.createTBody();
    const columns = run.ledger.columns.filter(column => column.measured);
    head.append(element("th"));
    for (const column of columns) head.append(element("th", column.title + ", " + column.unit), element("th", "%"));
    run.ledger.labels.forEach((label, nth) => {
      const line = body.insertRow();
      line.append(element("td", label));
      if (label === "residual" || label === "total") line.className = label;
      for (const column of columns) {
        const cell = column.cells[nth];
        line.append(element("td", cell.shown), element("td", cell.share === null ? "" : show(cell.share, "%").replace(" %", ""), "dim"));
      }
    });
    const verdicts = element("ul"), wide = element("div", undefined, "wide");
    for (const column of run.ledger.columns) {
      const line = element("li", column.title + ": " + column.verdict), notes = element("ul", undefined, "note");
      for (const note of column.notes) notes.append(element("li", note));
      if (column.notes.length) line.append(notes);
      verdicts.append(line);
    }
    wide.append(table);
    target.replaceChildren(wide, verdicts);
  }

  /* Two runs, row by row: the largest change first; rows that only one of them has at the end. */
  function differences(target, [a, b], quantity) {
    const key = row => row.name + " " + row.phase, others = new Map(b.rows.map(row => [key(row), row]));
    const pairs = a.rows.map(row => [row, others.get(key(row))]);
    const seen = new Set(a.rows.map(key));
    for (const row of b.rows) if (!seen.has(key(row))) pairs.push([undefined, row]);
    const known = row => row && !bound(row, quantity.key);
    const ratio = ([x, y]) => known(x) && known(y) && x[quantity.key] > 0 && y[quantity.key] > 0 ? y[quantity.key] / x[quantity.key] : null;
    const change = pair => { const found = ratio(pair); return found === null ? -1 : Math.abs(Math.log(found)); };
    const head = element("thead").appendChild(element("tr")), body = element("tbody");
    for (const [text, kind] of [["layer", "text"], ["phase", "text"], ["run", ""], ["beside", ""], ["ratio", ""]]) head.append(element("th", text, kind));
    for (const pair of pairs.sort((x, y) => change(y) - change(x))) {
      const row = pair[0] || pair[1], line = body.appendChild(element("tr")), found = ratio(pair);
      line.append(element("td", row.name || "(model)", "text"), element("td", row.phase, "text"));
      for (const one of pair) line.append(element("td", one ? amount(one, quantity.key, quantity.unit) : "–"));
      line.append(element("td", found === null ? "–" : "×" + found.toFixed(2)));
    }
    target.replaceChildren(head.parentElement, body);
  }

  function page(run) {
    const at = id => document.getElementById(id);
    const choice = at("quantity"), shade = at("shade");
    for (const quantity of run.quantities) choice.append(new Option(quantity.name, quantity.key));
    function all() {
      if (run.request) requestBar(at("request-plot"), run);
      parts(at("parts-plot"), run);
      const quantity = run.quantities.find(found => found.key === choice.value);
      if (quantity) heat(at("heat-plot"), run, quantity, shade.value === "all");
      if (run.steps.length) steps(at("steps-plot"), run);
      roofline(at("roof-plot"), run);
    }
    choice.addEventListener("change", all);
    shade.addEventListener("change", all);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
    if (run.request) requestTable(at("request-table"), run);
    table(at("layer-table"), run, at("filter"), at("row-count"));
    all();
  }

  return { PHASES, tint, page, requestBar, requestTable, parts, heat, steps, roofline, table, ledger, differences, show, element };
})();
