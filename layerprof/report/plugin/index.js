/* The tab: picks one run or two, and draws them with charts.js. TensorBoard calls render(). */
const ADDRESS = name => new URL(name, import.meta.url).href;

function script(name) {
  return new Promise((done, failed) => {
    const made = document.createElement("script");
    made.src = ADDRESS(name);
    made.onload = done;
    made.onerror = () => failed(new Error(name + " could not be loaded"));
    document.head.append(made);
  });
}

async function fetched(name) {
  const answer = await fetch(ADDRESS(name));
  const data = await answer.json();
  if (data.error) throw new Error(data.error);
  return data;
}

export async function render() {
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = ADDRESS("page.css");
  document.head.append(style);
  await script("plotly.js");
  await script("charts.js");
  const page = new Page(await fetched("runs"));
  await page.draw();
}

class Page {
  constructor(runs) {
    const make = Layerprof.element;
    this.first = make("select");
    this.second = make("select");
    this.quantity = make("select");
    this.shade = make("select");
    this.second.append(new Option("none", ""));
    this.labels = new Map(runs.map(run => [run.name, run.label]));
    for (const run of runs) {
      this.first.append(new Option(run.label, run.name));
      this.second.append(new Option(run.label, run.name));
    }
    this.shade.append(new Option("within each phase", "phase"), new Option("across phases", "all"));
    this.first.id = "first";
    this.second.id = "second";
    this.quantity.id = "quantity";
    const bar = make("p", undefined, "controls");
    for (const [text, control] of [["Run", this.first], ["beside", this.second], ["Show", this.quantity], ["Colours", this.shade]]) {
      const label = make("label", text + " ");
      label.append(control);
      bar.append(label);
      control.addEventListener("change", () => this.draw());
    }
    this.body = make("div");
    document.body.classList.add("tab");
    document.body.append(bar, this.body);
  }

  async draw() {
    const names = [this.first.value, this.second.value].filter(Boolean);
    const turn = this.turn = (this.turn || 0) + 1;
    let runs;
    try {
      runs = await Promise.all(names.map(name => fetched("run?name=" + encodeURIComponent(name))));
    } catch (error) {
      this.body.replaceChildren(Layerprof.element("p", error.message, "warning"));
      return;
    }
    if (turn !== this.turn) return; // another choice was made meanwhile
    const quantity = this.chosen(runs);
    const columns = Layerprof.element("div", undefined, runs.length > 1 ? "two" : "");
    this.body.replaceChildren(columns);
    for (const [nth, run] of runs.entries()) this.panel(columns, run, names[nth], quantity);
    if (runs.length > 1 && quantity) this.compare(runs, quantity);
  }

  /* The quantities of all runs, keeping the choice where it still exists. */
  chosen(runs) {
    const known = new Map(runs.flatMap(run => run.quantities).map(quantity => [quantity.key, quantity]));
    const before = this.quantity.value;
    this.quantity.replaceChildren(...[...known.values()].map(quantity => new Option(quantity.name, quantity.key)));
    if (known.has(before)) this.quantity.value = before;
    return known.get(this.quantity.value);
  }

  panel(columns, run, name, quantity) {
    const make = Layerprof.element;
    const panel = columns.appendChild(make("article"));
    panel.append(make("h1", run.title), make("p", [...new Set([this.labels.get(name), name]), ...run.settings].join(" · "), "note"));
    for (const warning of run.warnings) panel.append(make("p", warning, "warning"));
    const cards = panel.appendChild(make("div", undefined, "cards"));
    for (const fact of run.facts) {
      const card = cards.appendChild(make("div", undefined, fact.note.length > 90 ? "card broad" : "card"));
      card.append(make("span", fact.label, "label"), make("span", fact.value, "value"), make("span", fact.note, "note"));
    }
    const section = (title, draw) => {
      const plot = make("div", undefined, "plot");
      panel.append(make("h2", title), plot);
      draw(plot);
    };
    if (run.request) {
      section("Where it goes", plot => Layerprof.requestBar(plot, run));
      const wide = panel.appendChild(make("div", undefined, "wide"));
      Layerprof.requestTable(wide.appendChild(make("table", undefined, "figures")), run);
    }
    section(run.request ? "Inside generate() " + run.of_part : "Where it goes", plot => Layerprof.parts(plot, run));
    if (quantity) section("Layers × phases " + run.of_part, plot => Layerprof.heat(plot, run, quantity, this.shade.value === "all"));
    if (run.steps.length) section("Decode over steps " + run.of_part, plot => Layerprof.steps(plot, run));
    section("Roofline " + run.of_part, plot => Layerprof.roofline(plot, run));
    section("Ledger " + run.of_part, plot => Layerprof.ledger(plot, run));
  }

  compare(runs, quantity) {
    const make = Layerprof.element;
    const table = make("table", undefined, "figures");
    const wide = make("div", undefined, "wide tall");
    wide.append(table);
    this.body.append(make("h2", "Layer by layer: " + quantity.name), wide);
    Layerprof.differences(table, runs, quantity);
  }
}
