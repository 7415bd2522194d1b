/* Stands in for Google Charts, which torch-tb-profiler loads from the internet: what is drawn is put down as text. */
(() => {
  class DataTable {
    constructor() {
      this.columns = [];
      this.rows = [];
    }
    addColumn(first, label) {
      this.columns.push(typeof first === "object" ? first.label || first.role || "" : label || "");
    }
    addRow(cells) {
      this.rows.push(cells || []);
    }
    addRows(rows) {
      rows.forEach(cells => this.addRow(cells));
    }
    setProperty() {}
    getNumberOfRows() {
      return this.rows.length;
    }
    getNumberOfColumns() {
      return this.columns.length;
    }
    getValue(row, column) {
      const cell = this.rows[row][column];
      return cell !== null && typeof cell === "object" && "v" in cell ? cell.v : cell;
    }
  }

  class Chart {
    constructor(place) {
      this.place = place;
    }
    draw(data) {
      const table = document.createElement("table");
      table.className = "stub " + this.constructor.name;
      const cells = data.rows.map((_, row) => data.columns.map((_, column) => data.getValue(row, column)));
      for (const texts of [data.columns, ...cells]) {
        const line = table.insertRow();
        for (const text of texts) line.insertCell().textContent = String(text ?? "");
      }
      this.place.replaceChildren(table);
    }
    clearChart() {
      this.place.replaceChildren();
    }
    getSelection() {
      return [];
    }
    setSelection() {}
  }

  const kinds = ["ColumnChart", "ComboChart", "LineChart", "PieChart", "SteppedAreaChart", "Table", "Timeline"];
  const charts = Object.fromEntries(kinds.map(name => [name, { [name]: class extends Chart {} }[name]]));
  const arrayToDataTable = ([columns, ...rows]) => {
    const table = new DataTable();
    columns.forEach(column => table.addColumn(typeof column === "object" ? column : "", column));
    table.addRows(rows);
    return table;
  };
  window.google = {
    charts: { load: () => Promise.resolve(), setOnLoadCallback: done => Promise.resolve().then(done) },
    visualization: { DataTable, arrayToDataTable, events: { addListener() {}, removeListener() {} }, ...charts },
  };
})();
