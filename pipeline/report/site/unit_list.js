// The list of units: search, filters and sorting, all of them in the address, over a grid that draws only what is seen.
"use strict";
(() => {
  const COLUMNS = {
    unit: { name: "Unit", width: 195 },
    text: { name: "Explanation", width: 430 },
    corpus: { name: "Corpus", width: 74, number: true },
    score: { name: "Score", width: 70, number: true },
    interval: { name: "Interval, × ◇", width: 170 },
    control: { name: "Control ×", width: 85, number: true },
    lookup: { name: "Tokens ◇", width: 82, number: true },
    random: { name: "Random", width: 78, number: true },
    p_value: { name: "p", width: 60, number: true },
    density: { name: "Density", width: 75, number: true },
    explainer: { name: "Explainer", width: 110 },
    status: { name: "Status", width: 90 },
  };
  const NARROW = { unit: 88, score: 64, text: 230 }; // on a phone
  const WORDS = ["module", "polarity", "explainer", "simulator", "status"];
  const RANGES = { score: "Score", control: "Control", density: "Density" };
  const SORTS = ["unit", "text", "corpus", "score", "control", "lookup", "random", "p_value", "density", "explainer", "status"];

  // Rows of the list that pass the filters of the address, in its order.
  NG.rowsFor = (params) => {
    const list = NG.list, kept = [];
    const terms = (params.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
    const codes = WORDS.map((name) => [list[name].codes, params.has(name) ? list[name].words.indexOf(params.get(name)) : -2]).filter(([, code]) => code !== -2);
    const ranges = Object.keys(RANGES).flatMap((name) => [[list[name], Number(params.get(`${name}_min`) ?? NaN), Number(params.get(`${name}_max`) ?? NaN)]])
      .filter(([, low, high]) => !Number.isNaN(low) || !Number.isNaN(high));
    const method = params.has("method") ? Number(params.get("method")) : 0;
    for (let row = 0; row < list.rows; row++) {
      if (list.method[row] !== method) continue;
      if (codes.some(([column, code]) => column[row] !== code)) continue;
      if (ranges.some(([column, low, high]) => !(Number.isNaN(low) || column[row] >= low) || !(Number.isNaN(high) || column[row] <= high))) continue;
      if (terms.length) {
        const text = `${list.text[row]} ${list.word("module", row)} ${list.index[row]}`.toLowerCase();
        if (!terms.every((term) => text.includes(term))) continue;
      }
      kept.push(row);
    }
    const [name, way] = (params.get("sort") || "").split(":");
    return SORTS.includes(name) && name !== "unit" ? sorted(kept, name, way === "desc") : way === "desc" ? kept.reverse() : kept;
  };

  // Sorted by a column; rows without a number come last either way.
  const sorted = (rows, name, falling) => {
    const list = NG.list, sign = falling ? -1 : 1;
    if (name === "text" || list[name].words) {
      const value = name === "text" ? (row) => list.text[row] : (row) => list.word(name, row);
      return rows.sort((a, b) => sign * (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) || a - b);
    }
    const column = list[name];
    return rows.sort((a, b) => Number.isNaN(column[a]) - Number.isNaN(column[b]) || sign * (column[a] - column[b]) || a - b);
  };

  // The explainer, with the simulator where there are several.
  NG.explainerOf = (row) => [NG.list.word("explainer", row), NG.list.simulator.words.length > 1 && NG.list.word("simulator", row)].filter(Boolean).join(", by ");
  NG.unitName = (row) => `${NG.list.word("module", row)} ${NG.list.index[row]}${NG.list.word("polarity", row) === "-" ? " −" : ""}`;
  NG.unitAddress = (row) =>
    `#/unit/${encodeURIComponent(NG.list.word("module", row))}/${NG.list.index[row]}${NG.list.word("polarity", row) === "-" ? "?polarity=-" : ""}`;
  NG.stripOf = (row) => {
    const list = NG.list, method = NG.run.methods[list.method[row]];
    const wide = method.score === "correlation" ? [-0.25, 1] : NG.scoreRange(list.method[row]);
    return NG.strip(list.score[row], list.low[row], list.high[row], [[list.control[row], "×", "control"], [list.lookup[row], "◇", "token table"]], ...wide);
  };
  // The smallest and largest score of a method, worked out once.
  const found = new Map();
  NG.scoreRange = (method) => {
    if (!found.has(method)) {
      let low = 0, high = 0.1;
      NG.list.score.forEach((value, row) => { if (NG.list.method[row] === method && Number.isFinite(value)) { low = Math.min(low, value); high = Math.max(high, value); } });
      found.set(method, [low, high]);
    }
    return found.get(method);
  };

  const cell = (row, name) => {
    const list = NG.list;
    if (name === "unit") return NG.el("a", { href: NG.unitAddress(row), tabindex: -1 }, NG.visible(NG.unitName(row)));
    if (name === "text") return NG.el("span", { title: NG.visible(NG.short(list.text[row], 1000)) }, NG.visible(NG.short(list.text[row], 400)) || "–");
    if (name === "interval") return NG.stripOf(row);
    if (name === "explainer") return NG.el("span", {}, NG.visible(NG.explainerOf(row)));
    if (name === "status") return NG.el("span", {}, NG.visible(list.word(name, row)));
    return NG.el("span", { class: "number" }, name === "density" ? (Number.isNaN(list.density[row]) ? "–" : `${(100 * list.density[row]).toPrecision(2)} %`) : Number.isNaN(list[name][row]) ? "–" : list[name][row].toFixed(3));
  };

  // The controls of the filters; each writes the address, which draws the list again.
  const filters = (params, change) => {
    const list = NG.list;
    const choice = (name, label, options) =>
      NG.el("label", {}, `${label} `, NG.el("select", { name, onchange: (event) => change(name, event.target.value) },
        options.map(([value, text]) => NG.el("option", { value, selected: (params.get(name) ?? options[0][0]) === value }, text))));
    const limit = (name, label) =>
      NG.el("label", {}, `${label} `, NG.el("input", { type: "number", step: "any", name, value: params.get(name) ?? "", oninput: (event) => change(name, event.target.value) }));
    const words = WORDS.filter((name) => list[name].words.length > 1)
      .map((name) => choice(name, name[0].toUpperCase() + name.slice(1), [["", "all"], ...list[name].words.map((word) => [word, NG.visible(word) || "none"])]));
    const methods = NG.run.methods.length > 1 ? [choice("method", "Method", NG.run.methods.map((one, i) => [String(i), one.score]))] : [];
    return NG.el("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
      NG.el("label", { class: "search" }, "Search ", NG.el("input", { type: "search", name: "q", value: params.get("q") ?? "", placeholder: "words of the explanation, or a unit", oninput: (event) => change("q", event.target.value) })),
      methods, words, Object.entries(RANGES).map(([name, label]) => [limit(`${name}_min`, `${label} from`), limit(`${name}_max`, "to")]));
  };

  NG.listPage = (page, params) => {
    const count = NG.el("p", { class: "count", role: "status" });
    const place = NG.el("div", { class: "grid", id: "grid" });
    let rows = [];
    const data = { getLength: () => rows.length, getItem: (at) => ({ row: rows[at] }), getItemMetadata: () => null };
    let pause;
    const change = (name, value) => {
      if (value === "") params.delete(name); else params.set(name, value);
      clearTimeout(pause);
      pause = setTimeout(() => { NG.remember("units", params); refresh(); }, 60);
    };
    page.replaceChildren(filters(params, change), count, place);
    const narrow = page.clientWidth < 700;
    const has = (name) => {
      if (WORDS.includes(name)) return NG.list[name].words.length > 1;
      return !NG.run.numbers.includes(name) || NG.list[name].some((value) => !Number.isNaN(value));
    };
    const columns = Object.keys(narrow ? NARROW : COLUMNS).filter(has).map((id) => ({
      id, field: id, name: COLUMNS[id].name, width: narrow ? NARROW[id] : COLUMNS[id].width, sortable: SORTS.includes(id), minWidth: 40,
      cssClass: COLUMNS[id].number ? "number" : "", formatter: (_row, _cell, _value, _column, item) => ({ html: cell(item.row, id) }),
    }));
    const grid = new Slick.Grid(place, data, columns, { rowHeight: narrow ? 56 : 34, enableColumnReorder: false, enableCellNavigation: true, forceFitColumns: true, multiColumnSort: false, enableTextSelectionOnCells: true });
    const refresh = () => {
      rows = NG.rowsFor(params);
      NG.shown = rows;
      count.textContent = `${rows.length.toLocaleString("en")} of ${NG.list.rows.toLocaleString("en")} rows`;
      grid.invalidateAllRows();
      grid.updateRowCount();
      grid.render();
    };
    const [name, way] = (params.get("sort") || "").split(":");
    if (SORTS.includes(name)) grid.setSortColumns([{ columnId: name, sortAsc: way !== "desc" }]);
    grid.onSort.subscribe((_event, { sortCol, sortAsc }) => { params.set("sort", `${sortCol.id}:${sortAsc ? "asc" : "desc"}`); NG.remember("units", params); refresh(); });
    grid.onClick.subscribe((_event, { row }) => { location.hash = NG.unitAddress(rows[row]); });
    grid.onKeyDown.subscribe((event, { row }) => {
      if (event.getNativeEvent().key !== "Enter" || rows[row] === undefined) return;
      event.stopImmediatePropagation();
      location.hash = NG.unitAddress(rows[row]);
    });
    refresh();
    NG.grid = grid;
    return () => grid.destroy();
  };
})();
