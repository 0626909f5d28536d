// The data of the run. Each file is a script that calls NG.put, as pages on disk may not fetch files.
"use strict";
(() => {
  const KEPT = 60; // files in memory, beside the list and the facts
  const waiting = new Map();
  const loaded = new Map();

  NG.put = (name, value) => waiting.get(name)?.resolve(value);
  NG.refuse = (name, message) => { loaded.delete(name); waiting.get(name)?.reject(new Error(message)); }; // by a server

  // The value of data/NAME.js; loaded once.
  NG.load = (name) => {
    if (loaded.has(name)) return loaded.get(name);
    const promise = new Promise((resolve, reject) => {
      waiting.set(name, { resolve, reject });
      const script = NG.el("script", { src: `data/${name.split("/").map(encodeURIComponent).join("/")}.js`, async: true });
      const then = NG.run?.served ? "is the server still there?" : "make the report again";
      script.onload = () => { script.remove(); waiting.delete(name); reject(new Error(`data/${name}.js holds no data; ${then}`)); };
      script.onerror = () => { script.remove(); loaded.delete(name); reject(new Error(`data/${name}.js cannot be read; ${then}`)); };
      document.head.append(script);
    });
    loaded.set(name, promise);
    if (loaded.size > KEPT) loaded.delete([...loaded.keys()].find((key) => key !== "list" && key !== "run"));
    return promise;
  };

  // Packed numbers as a typed array.
  NG.unpacked = (text, Kind) => {
    const bytes = atob(text);
    const array = new Uint8Array(bytes.length);
    for (let i = 0; i < bytes.length; i++) array[i] = bytes.charCodeAt(i);
    return new Kind(array.buffer);
  };

  // Lists of tokens come as {field: values}; pages want entries.
  const entries = (value) => {
    const fields = value && typeof value === "object" && !Array.isArray(value) ? Object.keys(value) : [];
    return fields.length ? value[fields[0]].map((_, i) => Object.fromEntries(fields.map((field) => [field, value[field][i]]))) : value;
  };

  // Column values of one table of a unit's file as rows of objects; packed rows get `values`, a typed array each.
  const rowsOf = (table, Kind) => {
    const { lengths, values, ...columns } = table;
    const flat = values === undefined ? null : NG.unpacked(values, Kind);
    const names = Object.keys(columns);
    let start = 0;
    return Array.from({ length: columns.index.length }, (_, i) => {
      const row = Object.fromEntries(names.map((name) => [name, !Array.isArray(columns[name]) ? columns[name] : name === "histogram" ? columns[name][i] : entries(columns[name][i])])); // one value for all
      if (flat) row.values = flat.subarray(start, (start += lengths[i]));
      return row;
    });
  };

  // All tables of one unit: {name: rows}. A server has a file for each unit, so that the list may be older than the tables.
  NG.unit = async (module, index, file) => {
    const data = await NG.load(NG.run.served ? `units/${module}/${index}` : `units/${file}`);
    data.rows ??= Object.fromEntries(
      Object.entries(data.tables).map(([name, table]) => [name, rowsOf(table, name === "simulations" ? Uint8Array : Int8Array)]));
    return Object.fromEntries(Object.entries(data.rows).map(([name, rows]) => [name, rows.filter((row) => row.index === index)]));
  };

  // True activations of an exemplar in activation units, null where there is none.
  NG.activations = (exemplar) => {
    const { levels } = NG.run.scales;
    return Array.from(exemplar.values, (level) => (level === -128 ? null : (level / levels) * exemplar.scale));
  };
  // Simulated activations, 0 to 10.
  NG.expected = (simulation) => Array.from(simulation.values, (step) => (step === 255 ? null : step / NG.run.scales.steps));

  // A sequence of the corpus by its number: {doc, start, before, after, tokens}.
  NG.sequence = async (number) => (await NG.load(`corpus/${Math.floor(number / NG.run.scales.sequences)}`))[number];

  // The list of units by columns, ready for use.
  NG.readList = (list) => {
    const words = (name) => ({ words: list[name].words, codes: NG.unpacked(list[name].codes, Uint16Array) });
    const read = { rows: list.rows, text: list.text, density: NG.unpacked(list.density, Float32Array) };
    for (const name of ["module", "polarity", "explainer", "simulator", "status"]) read[name] = words(name);
    for (const name of ["index", "file", "method"]) read[name] = NG.unpacked(list[name], Int32Array);
    for (const name of NG.run.numbers) read[name] = NG.unpacked(list[name], Float32Array);
    read.word = (name, row) => read[name].words[read[name].codes[row]];
    return read;
  };
})();
