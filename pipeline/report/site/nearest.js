// Units that are like another one: by the words of their explanations, and by the sequences that they are strongest on.
"use strict";
(() => {
  const SHOWN = 8;
  const wordsOf = (text) => [...new Set((text || "").toLowerCase().match(/[\p{L}\p{N}]+/gu) || [])];

  const AT_ONCE = 500; // rows at a time, whenever the browser has nothing else to do

  // Rows of the list by each of their features: {feature: [row, ...]}; made when it is first asked for.
  const made = new Map();
  const index = (name, featuresOf) => {
    if (!made.has(name)) made.set(name, collect(featuresOf));
    return made.get(name);
  };
  const collect = async (featuresOf) => {
    const places = new Map();
    for (let row = 0; row < NG.list.rows; row++) {
      if (row % AT_ONCE === AT_ONCE - 1) await new Promise((resume) => requestIdleCallback(resume));
      for (const feature of featuresOf(row)) {
        if (!places.has(feature)) places.set(feature, []);
        places.get(feature).push(row);
      }
    }
    return places;
  };

  // The rows that share most with a row, each shared feature by its weight, as a share of all weights of the row.
  const nearest = (row, features, places, weight) => {
    const likeness = new Map(), list = NG.list;
    const isOwn = (other) => list.index[other] === list.index[row] && list.module.codes[other] === list.module.codes[row];
    let total = 0;
    for (const feature of features) {
      const rows = places.get(feature) || [];
      total += weight(rows.length);
      for (const other of rows) likeness.set(other, (likeness.get(other) || 0) + weight(rows.length));
    }
    const found = [...likeness].filter(([other]) => !isOwn(other) && list.method[other] === list.method[row]);
    return found.sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, SHOWN).map(([other, value]) => [other, value / total]);
  };

  // Words that few explanations have count more: log(units / units with the word).
  NG.nearestByWords = async (row) => {
    const rare = (count) => Math.log(NG.list.rows / count);
    const places = await index("words", (one) => wordsOf(NG.list.text[one]));
    const found = nearest(row, wordsOf(NG.list.text[row]), places, rare);
    return found.filter(([, likeness]) => likeness > 0.05);
  };

  // Every shared sequence counts the same.
  NG.nearestByExemplars = async (row) => {
    if (!NG.run.strongest) return [];
    const packed = NG.unpacked(await NG.load("strongest"), Int32Array), width = NG.run.strongest;
    const own = (one) => packed.subarray(one * width, (one + 1) * width).filter((number) => number >= 0);
    return nearest(row, own(row), await index("strongest", own), () => 1).filter(([, likeness]) => likeness > 1 / width);
  };
})();
