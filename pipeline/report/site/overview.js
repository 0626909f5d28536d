// The run as a whole: how its scores are distributed and what they are held against, what failed, what was spent, how it was made.
"use strict";
(() => {
  const mean = (values) => { const known = values.filter(Number.isFinite); return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null; };
  // A mean with the number of units behind it; nothing without any.
  const counted = (values) => { const known = values.filter(Number.isFinite); return known.length ? `${NG.number(mean(known))} (${known.length.toLocaleString("en")})` : null; };
  const quantile = (sortedValues, share) => (sortedValues.length ? sortedValues[Math.min(sortedValues.length - 1, Math.floor(share * sortedValues.length))] : NaN);

  // Rows of the list by module and explainer, with quartiles of the score.
  const groups = (rows, method) => {
    const list = NG.list, found = new Map();
    for (const row of rows) {
      const key = [list.module, list.explainer, list.simulator].map(({ codes }) => codes[row]).join();
      if (!found.has(key)) found.set(key, []);
      found.get(key).push(row);
    }
    const range = NG.run.methods[method].score === "correlation" ? [-0.25, 1] : NG.scoreRange(method);
    return [...found.values()].map((own) => {
      const [module, explainer, simulator] = ["module", "explainer", "simulator"].map((name) => list.word(name, own[0]));
      const scores = own.map((row) => list.score[row]).filter(Number.isFinite).sort((a, b) => a - b);
      const [all, controls, lookups] = ["score", "control", "lookup"].map((name) => own.map((row) => list[name][row]));
      const [low, middle, high] = [0.25, 0.5, 0.75].map((share) => quantile(scores, share));
      const address = `#/units?${new URLSearchParams({ module, explainer, ...(simulator && { simulator }), sort: "score:desc" })}`;
      return [NG.el("a", { href: address }, NG.visible(module)), NG.explainerOf(own[0]), own.length, scores.length, Number.isNaN(middle) ? null : middle, counted(all), counted(controls), counted(lookups),
        NG.strip(middle, low, high, [[mean(controls) ?? NaN, "×", "mean control"], [mean(lookups) ?? NaN, "◇", "mean token table"]], ...range)];
    });
  };

  const ofMethod = (method, number) => {
    const list = NG.list, rows = Array.from({ length: list.rows }, (_, row) => row).filter((row) => list.method[row] === number);
    const read = new Map();
    const values = (name) => {
      if (!read.has(name)) read.set(name, rows.map((row) => list[name][row]));
      return read.get(name);
    };
    const distributions = Object.fromEntries([["score", "score"], ["control", "explanations of other units"], ["lookup", "token table"]]
      .filter(([name]) => values(name).some(Number.isFinite)).map(([name, label]) => [label, values(name)]));
    return NG.section(`Scores: ${method.score}`,
      NG.el("p", {}, `${values("score").filter(Number.isFinite).length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} explanations have a score. Means, and the number of scores behind each: ${counted(values("score")) ?? "none"}, `,
        `control ${counted(values("control")) ?? "none"}, token table ${counted(values("lookup")) ?? "none"}.`),
      ...method.tested.map((words) => NG.el("p", {}, `${words}.`)),
      NG.el("div", { class: "figures" },
        NG.distribution("Distribution of scores and controls", distributions, method.score),
        values("density").some(Number.isFinite) ? NG.scatter("Score against density", values("density"), values("score"), ["share of tokens on which the unit fires", method.score]) : null),
      NG.table("By module and explainer; the box is the middle half of the scores", ["Module", "Explainer", "Units", "Scored", "Median", "Mean", "Control ×", "Tokens ◇", "Median ●, quartiles"], groups(rows, number)));
  };

  const calibration = () => {
    const rows = NG.run.calibration;
    if (!rows.some(([count]) => count)) return null;
    return NG.section("Calibration",
      NG.el("p", {}, "The mean true activation of tokens by the activation that was simulated for them, on the split report. True activations go from 0 to 10, where 10 is the unit's largest. The dashed line is where a perfect simulator is."),
      NG.line("Mean true activation by simulated activation", rows.map((_, i) => i), rows.map(([, value]) => value), ["simulated activation", "mean true activation"], rows.map((_, i) => i)),
      NG.table("", ["Simulated", "Tokens", "Mean true activation"], rows.map(([count, value], i) => [String(i), count, value])));
  };

  // A text to read and to take along.
  const copied = (id, text) =>
    NG.el("div", { id, class: "copied" }, NG.el("button", { type: "button", onclick: (event) => NG.copy(event.target, text) }, "copy"), NG.el("pre", { tabindex: "0" }, NG.lines(text)));

  const runFile = () => {
    const made = NG.run.provenance;
    return made && NG.section("Run file",
      NG.el("p", {}, "Every setting that the run was made with, as a run file.", made.left_out.length ? ` Left out, as they may hold a secret: ${made.left_out.map(NG.visible).join(", ")}.` : null),
      copied(null, made.run_file));
  };

  const stages = (made) => NG.table("Stages; seconds are those of all workers together", ["Stage", "Seconds", "Shards", "Rows", "Failed rows", "Tokens read", "Tokens written", "Commits"],
    made.stages.map((stage) => {
      const spent = Object.values(stage.tokens), sum = (name) => (spent.length ? spent.reduce((total, one) => total + one[name], 0) : null);
      const rows = Object.values(stage.rows);
      return [stage.name, stage.seconds, stage.shards, rows.length ? rows.reduce((a, b) => a + b, 0) : null, stage.failed_rows, sum("read"), sum("written"), stage.commits.map((one) => one.slice(0, 10)).join(", ")];
    }));

  const machines = (made) => NG.table("Machines", ["Host", "Processor", "Cores", "GiB", "GPUs", "System", "Python", "Code"], made.machines.map((one) =>
    [one.host ?? "–", one.cpu, one.cores, String(one.memory_gib ?? "–"), (one.gpus ?? []).join("; ") || "none", one.system, one.python, one.code]));

  // Packages by their versions; a column for each machine that has others.
  const packages = (made) => {
    const kinds = [...new Map(made.machines.map((one) => [JSON.stringify(one.packages), one])).values()];
    const names = [...new Set(kinds.flatMap((one) => Object.keys(one.packages ?? {})))].sort();
    return NG.el("details", {}, NG.el("summary", {}, "Versions of packages"),
      NG.table("", ["Package", ...kinds.map((one, i) => (kinds.length > 1 ? one.host ?? `machine ${i + 1}` : "Version"))], names.map((name) => [name, ...kinds.map((one) => one.packages?.[name] ?? "–")])));
  };

  const provenance = () => {
    const tables = Object.entries(NG.run.tables), made = NG.run.provenance;
    return NG.section("How it was made",
      made ? [stages(made), machines(made), packages(made), NG.el("details", {}, NG.el("summary", {}, "All of it as JSON"), copied("provenance", JSON.stringify(made, null, 1)))] : null,
      NG.table("Tables", ["Table", "Schema", "Rows", "Seconds", "Code", "Commit", "Written"], tables.map(([name, one]) =>
        [name, String(one.made.schema ?? ""), one.rows, one.seconds, String(one.made.created_by ?? ""), String(one.made.git_commit ?? "").slice(0, 10), new Date(1000 * one.written).toISOString().slice(0, 16).replace("T", " ")])),
      tables.map(([name, one]) => NG.el("details", {}, NG.el("summary", {}, `Settings and inputs of ${name}`), NG.el("pre", {}, NG.lines(JSON.stringify(one.made.inputs ?? {}, null, 2))))));
  };

  NG.overviewPage = (page) => {
    const spent = Object.entries(NG.run.tables).flatMap(([name, one]) => (one.spent || []).map(([model, read, written]) => [name, model, read, written]));
    page.replaceChildren(
      NG.el("h1", {}, `Run ${NG.visible(NG.run.name)}`),
      NG.el("p", {}, `${NG.run.units.toLocaleString("en")} explained units; tables: ${Object.keys(NG.run.tables).join(", ")}.`),
      ...NG.run.methods.map(ofMethod), calibration() ?? "",
      NG.section("Failures", NG.run.failures.length ? NG.table("", ["Table", "Status", "Why", "Rows"], NG.run.failures.map((row) => row.map((cell) => cell ?? "–"))) : NG.el("p", {}, "Nothing failed.")),
      NG.section("What was spent", spent.length ? NG.table("", ["Table", "Language model", "Tokens of prompts", "Tokens of replies"], spent) : NG.el("p", {}, "No language model was asked.")),
      runFile() ?? "", provenance());
  };
})();
