// One unit: its explanations with every score, its exemplars as heat maps, where the words miss, and all else that is known of it.
"use strict";
(() => {
  const KEYS = new Set(["index", "polarity", "explainer", "candidate", "text", "status", "error", "module", "simulator"]);
  const MISSES = 5;
  const meaning = (table, column) => NG.run.tables[table]?.columns[column] ?? "";
  const sameExplanation = (one, other) => one.explainer === other.explainer && one.candidate === other.candidate;

  // The scores of one row by their columns, each with its meaning.
  const numbers = (table, row) => {
    const names = Object.keys(row).filter((name) => !KEYS.has(name) && typeof row[name] === "number");
    return NG.table("", ["Column", "Value", "Meaning"], names.map((name) => [name, row[name], meaning(table, name)]));
  };

  const explanation = (rows, method, row) => {
    const score = row[method.numbers.score], value = (name) => row[method.numbers[name]] ?? NaN;
    const written = (rows.explanations || rows.themes || []).find((one) => one.polarity === row.polarity && sameExplanation(one, row));
    const made = [row.explainer, `candidate ${row.candidate}`, row.simulator && `simulated by ${row.simulator}`, written?.model, written?.prompt_id && `prompt ${written.prompt_id}`, written?.dropped && `left out: ${written.dropped}`];
    const range = method.score === "correlation" ? [-0.25, 1] : NG.scoreRange(NG.run.methods.indexOf(method));
    const marks = [["random", "○", "random sequences"], ["control", "×", "explanations of other units"], ["lookup", "◇", "token table"]].map(([name, sign, label]) => [value(name), sign, label]);
    return NG.el("article", { class: `explanation ${row.status === "ok" ? "" : "aside"}` },
      NG.el("p", { class: "words" }, row.text ? NG.visible(row.text) : NG.el("em", {}, "no explanation")),
      typeof score === "number" ? NG.el("p", {}, NG.el("b", {}, `${method.score} ${NG.number(score)}`), ` interval ${NG.number(value("low"))} to ${NG.number(value("high"))}${Number.isFinite(value("corpus")) ? `, on the corpus ${NG.number(value("corpus"))}` : ""} `, NG.strip(score, value("low"), value("high"), marks, ...range),
        NG.el("span", { class: "legend" }, marks.filter(([one]) => Number.isFinite(one)).map(([one, sign, label]) => NG.el("span", {}, `${sign} ${label} ${NG.number(one)}`)))) : null,
      NG.el("p", { class: "about" }, `${row.status}${row.error ? `: ${NG.visible(row.error)}` : ""} · `, NG.visible(made.filter(Boolean).join(" · "))),
      written?.asked ? NG.el("details", {}, NG.el("summary", {}, `What ${NG.visible(written.model)} was asked, and its reply`),
        NG.el("pre", { class: "asked" }, NG.lines(written.asked)), NG.el("pre", { class: "asked" }, NG.lines(written.reply ?? ""))) : null,
      NG.el("details", {}, NG.el("summary", {}, "All numbers"), numbers(method.table, row)));
  };

  // Published explanations first, then the other candidates.
  const explanations = (rows, polarity) => {
    const shown = NG.run.methods.flatMap((method) => {
      const own = (rows[method.table] || []).filter((row) => row.polarity === polarity);
      const order = (row) => (row.status === "not_selected" ? 1 : 0);
      return own.sort((a, b) => order(a) - order(b) || a.candidate - b.candidate).map((row) => [order(row), explanation(rows, method, row)]);
    });
    const others = shown.filter(([order]) => order).map(([, element]) => element);
    const judged = (rows.example_scores || []).filter((row) => row.polarity === polarity && row.status === "ok");
    return NG.section("Explanations", shown.filter(([order]) => !order).map(([, element]) => element),
      shown.length ? null : NG.el("p", {}, "This polarity has not been explained."),
      others.length ? NG.el("details", { id: "candidates" }, NG.el("summary", {}, `${others.length} other candidates, which did worse on the split select`), others) : null,
      judged.length ? NG.table("Scores on examples", ["Method", "Explainer", "Score", "By chance", "Under other explanations", "Texts that fit, others"],
        judged.map((row) => [row.method, row.explainer, row.example_score, row.chance, row.example_score_shuffled, `${row.n_fitting}, ${row.n_other}`])) : null);
  };

  // Bands of exemplars, those that nobody saw before the score first.
  const BANDS = [
    ["Strongest, not seen by the explainer", ["top"], "report"], ["Strongest, as the explainer saw them", ["top"], "explain"],
    ["From quantile bands", ["quantile"], "explain"], ["Random sequences", ["random"], "report"],
    ["Alike, but low", ["similar", "neighbour"], "explain"],
  ];

  const heatMaps = async (rows, largest, simulationOf) =>
    Promise.all(rows.map((row) => NG.exemplar(row, simulationOf(row), largest, NG.el("b", { class: "value" }, NG.number(row.max_activation)))));

  const exemplars = (rows, polarity, largest, simulationOf) => {
    const own = [...(rows.exemplars || []), ...(rows.negatives || [])].filter((row) => row.polarity === polarity);
    const bands = BANDS.map(([title, names, split]) => [title, own.filter((row) => names.includes(row.band) && row.split === split).sort((a, b) => a.rank - b.rank)]).filter(([, found]) => found.length);
    if (!bands.length) return null;
    const place = NG.el("div", { id: "band", role: "tabpanel" });
    const show = async (at) => {
      NG.settings.band = at;
      buttons.forEach((button, i) => { button.setAttribute("aria-selected", String(i === at)); button.tabIndex = i === at ? 0 : -1; });
      place.replaceChildren(...(await heatMaps(bands[at][1], largest, simulationOf)));
    };
    const buttons = bands.map(([title, found], i) => NG.el("button", { type: "button", role: "tab", "aria-controls": "band", onclick: () => show(i), onkeydown: (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { const next = (i + step + bands.length) % bands.length; show(next); buttons[next].focus(); }
    } }, `${title} (${found.length})`));
    const ready = show(Math.min(NG.settings.band ?? 0, bands.length - 1));
    const section = NG.section("Exemplars",
      NG.el("p", { class: "hint" }, "Bars above a token are its real activation, bars below it the one simulated from the words; a full bar is 10 of 10. Hollow bars are negative. The peak is framed. Values are shown on hover and on tap."),
      NG.el("div", { class: "controls" }, NG.toggle("whole", "whole sequences"), NG.toggle("breaks", "line breaks")),
      NG.el("div", { class: "tabs", role: "tablist", "aria-label": "Bands" }, buttons), place, NG.el("p", { id: "says", role: "status", "aria-live": "polite" }));
    return { section, ready };
  };

  // Tokens where real and simulated activation differ most, one a sequence, either way.
  const misses = async (rows, polarity, largest, simulationOf) => {
    const sign = polarity === "-" ? -1 : 1;
    const found = (rows.exemplars || []).filter((row) => row.polarity === polarity && row.split === "report" && simulationOf(row)).flatMap((row) => {
      const guess = NG.expected(simulationOf(row));
      const gaps = NG.activations(row).map((value, i) => (value === null || guess[i] === null ? 0 : (10 * Math.max(0, sign * value)) / largest - guess[i]));
      const at = (pick) => gaps.reduce((best, gap, i) => (pick(gap, gaps[best]) ? i : best), 0);
      return [[at((a, b) => a > b), row], [at((a, b) => a < b), row]].map(([peak, one]) => ({ gap: gaps[peak], peak, row: one }));
    });
    const worst = (way) => {
      const seen = new Set();
      return found.filter((one) => way * one.gap > 1).sort((a, b) => way * (b.gap - a.gap)).filter((one) => !seen.has(one.row.seq_id) && seen.add(one.row.seq_id)).slice(0, MISSES);
    };
    const draw = (list) => Promise.all(list.map(({ gap, peak, row }) =>
      NG.exemplar({ ...row, peak }, simulationOf(row), largest, NG.el("b", { class: "value" }, `${gap > 0 ? "too low" : "too high"} by ${Math.abs(gap).toFixed(1)}`))));
    const [low, high] = await Promise.all([draw(worst(1)), draw(worst(-1))]);
    if (!low.length && !high.length) return null;
    return NG.section("Worst misses",
      NG.el("p", { class: "hint" }, "On the split report, on a scale of 10. Here the framed token is the one that is missed."),
      NG.el("h3", {}, "It fires, and the words do not say so"), low.length ? low : NG.el("p", {}, "None by more than 1."),
      NG.el("h3", {}, "The words say that it fires, and it is silent"), high.length ? high : NG.el("p", {}, "None by more than 1."));
  };

  const tokenList = (title, entries, name) =>
    entries?.length ? NG.el("div", {}, NG.table(title, ["Token", "Value", ...("count" in entries[0] ? ["Count"] : [])],
      entries.map((entry) => [NG.el("bdi", { class: "text" }, NG.visible(NG.short(entry.token))), entry[name], ...("count" in entry ? [entry.count] : [])]))) : null;

  const tokens = (rows, polarity) => {
    const stats = rows.units?.[0], weights = rows.unit_tokens?.[0], up = polarity === "+";
    const lists = [
      tokenList("Highest mean activation", stats?.top_tokens, "mean_activation"), tokenList("Lowest mean activation", stats?.bottom_tokens, "mean_activation"),
      tokenList(up ? "Promoted by its weights" : "Promoted when it is negative", up ? weights?.promoted : weights?.suppressed, "value"),
      tokenList(up ? "Suppressed by its weights" : "Suppressed when it is negative", up ? weights?.suppressed : weights?.promoted, "value"),
      tokenList("Read by its weights", weights?.input_tokens, "value"),
    ].filter(Boolean);
    return lists.length ? NG.section("Tokens", NG.el("div", { class: "lists" }, lists)) : null;
  };

  const statistics = (rows) => {
    const stats = rows.units?.[0];
    if (!stats) return null;
    const names = ["n_tokens", "density", "density_negative", "mean", "variance", "skewness", "kurtosis", "min", "max"];
    return NG.section("Activations", NG.el("div", { class: "figures" },
      stats.histogram?.counts.length ? NG.histogram("Histogram of activations, logarithmic", stats.histogram, "activation") : null,
      NG.table("", ["Statistic", "Value", "Meaning"], names.map((name) => [name, stats[name], meaning("units", name)]))));
  };

  const details = async (rows, polarity) => {
    const own = (rows.details || []).filter((row) => row.polarity === polarity && row.pairs?.length).slice(0, 10);
    if (!own.length) return null;
    const shown = await Promise.all(own.map(async (row) => {
      const sequence = await NG.sequence(row.seq_id);
      const name = (at) => NG.el("bdi", { class: "text" }, NG.visible(NG.short(sequence?.tokens[at] ?? String(at))));
      return NG.table(`Sequence ${row.seq_id}`, ["From", "To", "Moved"], row.pairs.map((pair) => [name(pair.from), name(pair.to), pair.value]));
    }));
    return NG.section("What the head moves", NG.el("div", { class: "lists" }, shown));
  };

  const sasc = (rows, polarity) => {
    const own = (name) => (rows[name] || []).filter((row) => row.polarity === polarity);
    const ngrams = own("ngrams").sort((a, b) => a.rank - b.rank).slice(0, 30), texts = own("synthetic_texts").filter((row) => typeof row.response === "number");
    if (!ngrams.length && !texts.length) return null;
    const published = own("sasc_scores").find((row) => row.status === "ok");
    const shown = texts.filter((row) => !published || sameExplanation(row, published)).sort((a, b) => b.response - a.response);
    return NG.section("N-grams and texts",
      ngrams.length ? NG.table("N-grams with the largest response", ["N-gram", "Response"], ngrams.map((row) => [row.text, row.response])) : null,
      shown.length ? NG.table("Texts for and against the explanation, by response", ["Response", "Kind", "Half", "Text"], shown.map((row) => [row.response, row.kind, row.half, row.text])) : null);
  };

  const elsewhere = (rows, module, index) => {
    const found = rows.elsewhere || [];
    if (!found.length) return null;
    const pages = (run) => (NG.runAddress ? NG.runAddress(run) : `../../${encodeURIComponent(run)}/report/index.html`); // null where it is not served
    const name = (row) => pages(row.run) === null ? row.run : NG.el("a", { href: `${pages(row.run)}#/unit/${encodeURIComponent(module)}/${index}${row.polarity === "-" ? "?polarity=-" : ""}` }, NG.visible(row.run));
    return NG.section("In other runs", NG.el("p", { class: "hint" }, "Runs beside this one on the same model. A link leads to the pages of that run", NG.runAddress ? "." : ", where they have been made."),
      NG.table("", ["Run", "Polarity", "Explainer", "Score", "Explanation"], found.map((row) => [name(row), row.polarity, row.explainer, `${row.method} ${NG.number(row.score)}`, row.text ?? "–"])));
  };

  // Units of the list that are like one in some way, the most alike first: [row of the list, how much].
  const nearest = (title, found) =>
    found.length ? NG.table(title, ["Likeness", "Unit", "Score", "Explanation"], found.map(([row, likeness]) =>
      [likeness, NG.el("a", { href: NG.unitAddress(row) }, NG.visible(NG.unitName(row))), NG.list.score[row], NG.list.text[row]])) : null;

  // Everything about one unit; rows of tables are those of all polarities.
  NG.unitPage = async (page, module, index, params) => {
    const at = NG.list.find(module, index);
    if (at === undefined) {
      page.replaceChildren(NG.el("h1", {}, "No such unit"), NG.el("p", {}, `The run has no explained unit ${NG.visible(NG.short(module))} ${NG.visible(NG.short(index))}. `, NG.el("a", { href: "#/units" }, "All units")));
      return;
    }
    const rows = await NG.unit(module, Number(index), NG.list.file[at]);
    const polarities = [...new Set(["exemplars", ...NG.run.methods.map((one) => one.table)].flatMap((name) => (rows[name] || []).map((row) => row.polarity)))].sort();
    const polarity = polarities.includes(params.get("polarity")) ? params.get("polarity") : polarities.includes("+") || !polarities.length ? "+" : polarities[0];
    const sign = polarity === "-" ? -1 : 1;
    const largest = (rows.exemplars || []).filter((row) => row.polarity === polarity).reduce((most, row) => Math.max(most, sign * row.max_activation), 0);
    const published = (rows.scores || []).find((row) => row.polarity === polarity && row.status !== "not_selected");
    const simulated = new Map((rows.simulations || []).filter((row) => row.polarity === polarity && row.status === "ok" && published && sameExplanation(row, published) && row.simulator === published.simulator).map((row) => [row.seq_id, row]));
    const simulationOf = (row) => simulated.get(row.seq_id);
    const address = (other) => `#/unit/${encodeURIComponent(module)}/${index}${other === "-" ? "?polarity=-" : ""}`;
    const place = NG.shown.findIndex((row) => NG.list.word("module", row) === module && NG.list.index[row] === Number(index) && NG.list.word("polarity", row) === polarity);
    const beside = (step) => (place >= 0 ? NG.shown[place + step] : undefined);
    NG.steps = { j: beside(1), k: beside(-1), other: polarities.find((one) => one !== polarity) && address(polarities.find((one) => one !== polarity)) };
    const link = (row, text) => (row === undefined ? null : NG.el("a", { href: NG.unitAddress(row) }, text));
    const shownExemplars = exemplars(rows, polarity, largest, simulationOf);
    const [missed, moved] = await Promise.all([misses(rows, polarity, largest, simulationOf), details(rows, polarity), shownExemplars?.ready]);
    page.replaceChildren(
      NG.el("div", { class: "title" },
        NG.el("h1", {}, NG.el("bdi", {}, NG.visible(`${module} ${index}`))),
        NG.el("nav", { "aria-label": "Unit" }, link(beside(-1), "← previous"), " ", link(beside(1), "next →"), " ",
          polarities.length > 1 ? polarities.map((one) => NG.el("a", { href: address(one), "aria-current": one === polarity ? "true" : null }, one === "+" ? "positive" : "negative")) : null,
          " ", NG.el("button", { type: "button", id: "copy", onclick: (event) => NG.copy(event.target, JSON.stringify({ module, index: Number(index), tables: readable(rows) })) }, "copy as JSON"))),
      explanations(rows, polarity), NG.tryIt?.({ module, index: Number(index), polarity, rows, largest }) ?? "", shownExemplars?.section ?? "", missed ?? "", statistics(rows) ?? "", tokens(rows, polarity) ?? "", moved ?? "", sasc(rows, polarity) ?? "", elsewhere(rows, module, index) ?? "");
    const like = NG.section("Nearest units");
    page.append(like);
    setTimeout(async () => { // after the page is drawn, as it looks at all units
      const words = await NG.nearestByWords(at), shared = await NG.nearestByExemplars(at);
      const along = (rows.unit_tokens?.[0]?.nearest || []).map((one) => [NG.list.find(module, one.index), one.value, one.index]);
      like.append(nearest("By the direction of its weights, among the units of the module", along.filter(([row]) => row !== undefined)) ?? "");
      const others = along.filter(([row]) => row === undefined).map(([, value, other]) => `${other} (${NG.number(value)})`);
      if (others.length) like.append(NG.el("p", {}, `Near by the direction of its weights, and not explained: ${others.join(", ")}.`));
      like.append(nearest("By the words of the explanation", words) ?? "", nearest("By shared strongest sequences", shared) ?? "");
      if (!words.length && !shared.length && !along.length) like.append("None.");
    }, 300);
  };

  // The tables of a unit with numbers in place of packed values.
  const readable = (rows) =>
    Object.fromEntries(Object.entries(rows).map(([name, found]) => [name, found.map(({ values, scale, ...row }) =>
      values === undefined ? row : name === "simulations" ? { ...row, expected: NG.expected({ values }) } : { ...row, activations: NG.activations({ values, scale }) })]));
})();
