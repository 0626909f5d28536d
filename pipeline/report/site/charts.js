// Charts: by uPlot where there are axes, by positioned marks where a row of a table shows a score.
"use strict";
(() => {
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = (label) => ({ label, stroke: color("--ink"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") }, labelSize: 24, size: 44 });

  // A figure with a title; draw(width) gives the options and the data of a chart once the width is known.
  const figure = (title, height, draw) => {
    const place = NG.el("div", { class: "plot", role: "img", "aria-label": title });
    const made = NG.el("figure", {}, NG.el("figcaption", {}, title), place);
    requestAnimationFrame(() => {
      if (!place.isConnected) return;
      const { options, data } = draw();
      new uPlot({ width: place.clientWidth || 320, height, legend: { show: false }, cursor: { drag: { x: false, y: false } }, ...options }, data, place);
    });
    return made;
  };

  // Counts in bins of any width, on a logarithmic scale.
  NG.histogram = (title, { edges, counts }, label) =>
    figure(title, 180, () => ({
      options: {
        scales: { x: { time: false }, y: { distr: 3 } },
        axes: [axis(label), axis("tokens")],
        series: [{}, { stroke: color("--accent"), fill: color("--accent-pale"), paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } }],
      },
      data: [edges, [...counts, counts[counts.length - 1]].map((count) => count || null)],
    }));

  // How often scores fall into bins of equal width, one line for each of {name: values}.
  NG.distribution = (title, groups, label) => {
    let [low, high] = [0, 0.1];
    for (const values of Object.values(groups))
      for (const value of values) if (Number.isFinite(value)) { if (value < low) low = value; if (value > high) high = value; }
    const bins = 30, width = (high - low) / bins;
    const counted = Object.values(groups).map((values) => {
      const counts = new Array(bins + 1).fill(0);
      for (const value of values) if (Number.isFinite(value)) counts[Math.min(bins - 1, Math.floor((value - low) / width))]++;
      counts[bins] = counts[bins - 1];
      return counts;
    });
    const looks = [["--accent", []], ["--other", [6, 3]], ["--third", [2, 3]]];
    const chart = figure(title, 220, () => ({
      options: {
        scales: { x: { time: false } },
        axes: [axis(label), axis("units")],
        series: [{}, ...counted.map((_, i) => ({ stroke: color(looks[i][0]), dash: looks[i][1], width: 2, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } }))],
      },
      data: [Array.from({ length: bins + 1 }, (_, i) => low + i * width), ...counted],
    }));
    const names = Object.keys(groups).map((name, i) => NG.el("span", { class: `key key-${i}` }, name));
    chart.querySelector("figcaption").append(" ", NG.el("span", { class: "legend" }, names));
    return chart;
  };

  const DRAWN = 4000; // points at most, as more than that are one blot
  // One point for each unit, of many units for some that are spread evenly over the list; x on a logarithmic scale.
  NG.scatter = (title, x, y, labels) => {
    const known = Array.from(x.keys()).filter((i) => x[i] > 0 && Number.isFinite(y[i])), step = Math.ceil(known.length / DRAWN);
    const order = known.filter((_, place) => place % step === 0).sort((a, b) => x[a] - x[b]);
    return figure(step > 1 ? `${title} (${order.length.toLocaleString("en")} of ${known.length.toLocaleString("en")} units)` : title, 240, () => ({
      options: {
        scales: { x: { time: false, distr: 3 } },
        axes: [axis(labels[0]), axis(labels[1])],
        series: [{}, { stroke: color("--accent"), paths: () => null, points: { show: true, size: order.length > 1000 ? 2 : 4, fill: color("--accent") } }],
      },
      data: [order.map((i) => x[i]), order.map((i) => y[i])],
    }));
  };

  NG.line = (title, x, y, labels, ideal) =>
    figure(title, 220, () => ({
      options: {
        scales: { x: { time: false } }, axes: [axis(labels[0]), axis(labels[1])],
        series: [{}, { stroke: color("--accent"), width: 2, points: { show: true, size: 6 } }, { stroke: color("--other"), dash: [4, 4], points: { show: false } }],
      },
      data: [x, y, ideal],
    }));

  // A score with its interval and what it is held against, as marks on a line; every mark is said in words too.
  // marks: [[value, sign, name], ...]
  NG.strip = (score, low, high, marks, from = -0.25, to = 1) => {
    const at = (value) => `${(100 * Math.max(0, Math.min(1, (value - from) / (to - from)))).toFixed(2)}%`;
    const known = marks.filter(([value]) => Number.isFinite(value));
    const says = [`score ${NG.number(score)}`, Number.isFinite(low) ? `interval ${NG.number(low)} to ${NG.number(high)}` : null, ...known.map(([value, , name]) => `${name} ${NG.number(value)}`)].filter(Boolean).join(", ");
    return NG.el("span", { class: "strip", role: "img", "aria-label": says, title: says },
      NG.el("span", { class: "zero", style: { left: at(0) } }),
      Number.isFinite(low) ? NG.el("span", { class: "interval", style: { left: at(low), right: `calc(100% - ${at(high)})` } }) : null,
      known.map(([value, sign]) => NG.el("span", { class: "mark", style: { left: at(value) } }, sign)),
      Number.isFinite(score) ? NG.el("span", { class: "mark score", style: { left: at(score) } }, "●") : null);
  };
})();
