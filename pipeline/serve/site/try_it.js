// What a server adds to a unit's page: an explanation is typed, tried and saved, a text is typed and read.
"use strict";
(() => {
  const SHOWN = 10; // exemplars under a tried explanation

  const ask = async (path, body) => {
    const reply = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const found = await reply.json().catch(() => ({ error: `the server answered ${reply.status}` }));
    if (!reply.ok) throw new Error(found.error);
    return found;
  };

  // A field, buttons, and a place for what comes back; a button is [words, what it does with the text, words while it waits].
  const form = (id, label, rows, buttons) => {
    const field = NG.el("textarea", { id, rows, required: true, maxlength: id === "try-explanation" ? 2000 : 20000, spellcheck: "false" });
    const place = NG.el("div", { id: `${id}-found`, "aria-live": "polite" });
    const carryOut = async (work, waiting) => {
      if (!field.reportValidity()) return;
      made.forEach((one) => { one.disabled = true; });
      place.replaceChildren(NG.el("p", { class: "wait" }, waiting));
      try {
        place.replaceChildren(...(await work(field.value)));
      } catch (error) {
        place.replaceChildren(NG.el("p", { role: "alert" }, NG.visible(error.message)));
      }
      made.forEach((one) => { one.disabled = false; });
    };
    const made = buttons.map(([words, work, waiting], i) =>
      NG.el("button", { type: i ? "button" : "submit", id: `${id}-${words}`, onclick: i ? () => carryOut(work, waiting) : null }, words));
    const submit = (event) => { event.preventDefault(); carryOut(...buttons[0].slice(1)); };
    return NG.el("form", { onsubmit: submit, class: "attempt" }, NG.el("label", { for: id }, label), field, made.flatMap((one) => [one, " "]), place);
  };
  const LOADING = "Asking the server; the first time it loads a model …";

  // Explanations that were saved by hand and are not scored yet.
  const NEXT = "The next make run scores it as explainer “human”.";
  const showSaved = async ({ module, index, polarity }, place) => {
    const reply = await fetch(`api/explanations?${new URLSearchParams({ module, index })}`);
    if (!reply.ok) return;
    const waiting = (await reply.json()).explanations.filter((one) => !one.scored && one.polarity === polarity);
    place.replaceChildren(...(waiting.length ? [
      NG.el("h3", {}, "Saved by hand, not scored yet"),
      NG.el("ul", {}, waiting.map((one) => NG.el("li", {}, NG.el("bdi", {}, NG.visible(one.text)), " ", NG.el("span", { class: "about" }, one.written.slice(0, 16).replace("T", " ")))))] : []));
  };
  const save = (unit, place) => async (explanation) => {
    const { module, index, polarity } = unit;
    const kept = await ask("api/explanations", { module, index, polarity, explanation });
    await showSaved(unit, place);
    return [NG.el("p", { class: "kept" }, kept.scored ? "The run has scored these words on this unit already." : `Saved. ${NEXT}`)];
  };

  const simulate = ({ module, index, polarity, rows, largest }) => async (explanation) => {
    const found = await ask("api/simulate", { module, index, polarity, explanation });
    const packed = new Map(found.sequences.filter((one) => one.expected).map((one) =>
      [one.seq_id, { values: one.expected.map((value) => (value === null ? 255 : Math.round(value * NG.run.scales.steps))) }]));
    const seen = new Set();
    const shown = rows.exemplars.filter((row) => row.polarity === polarity && row.split === "report" && packed.has(row.seq_id))
      .sort((a, b) => (a.band === "top" ? 0 : 1) - (b.band === "top" ? 0 : 1) || a.rank - b.rank)
      .filter((row) => !seen.has(row.seq_id) && seen.add(row.seq_id)).slice(0, SHOWN);
    const failed = found.sequences.find((one) => one.error);
    return [
      NG.el("p", { class: "score" }, NG.el("b", {}, `correlation ${NG.number(found.correlation)}`), ` interval ${NG.number(found.ci_low)} to ${NG.number(found.ci_high)}, on the corpus ${NG.number(found.correlation_corpus)}, random sequences alone ${NG.number(found.correlation_random)}; ${found.n_sequences} sequences of the split report, simulated by ${found.simulator}`),
      failed ? NG.el("p", { role: "alert" }, NG.visible(`Some sequences are left out: ${failed.error}`)) : "",
      ...(await Promise.all(shown.map((row) => NG.exemplar(row, packed.get(row.seq_id), largest, NG.el("b", { class: "value" }, NG.number(row.max_activation)))))),
    ];
  };

  const activations = ({ module, index, polarity, largest }) => async (text) => {
    const found = await ask("api/activations", { module, index, polarity, text });
    const sign = polarity === "-" ? -1 : 1;
    const best = found.activations.reduce((top, value, i) => (value !== null && (top < 0 || sign * value > sign * found.activations[top]) ? i : top), -1);
    const scale = largest > 0 ? largest : Math.max(...found.activations.map(Math.abs)); // a unit without exemplars is shown on the text's own scale
    return [
      NG.el("p", { class: "score" }, best < 0 ? "No token of it counts." : `Strongest: ${NG.number(found.activations[best])} at `,
        best < 0 ? null : NG.el("bdi", { class: "text" }, NG.visible(NG.short(found.tokens[best]))),
        best < 0 || !(largest > 0) ? null : `, ${((10 * sign * found.activations[best]) / largest).toFixed(1)} of 10. `, found.cut ? " Only the beginning was read, as long as a sequence of the corpus." : null),
      NG.heatMap({ tokens: found.tokens, truth: found.activations, simulated: null, largest: scale, peak: null }),
    ];
  };

  // unit: {module, index, polarity, rows, largest}
  NG.tryIt = (unit) => {
    const { served } = NG.run;
    const seen = (unit.rows.exemplars || []).some((row) => row.polarity === unit.polarity && row.split === "report");
    const saved = NG.el("div", { id: "saved" });
    const keep = ["save", save(unit, saved), "Saving …"];
    const tried = served?.simulate ? [["simulate", simulate(unit), LOADING]] : [];
    const says = tried.length ? "An explanation: what it predicts on the exemplars, and its score" : "An explanation of your own";
    const forms = [
      seen ? form("try-explanation", `${says}. Saved, it is scored by the next make run as explainer “human”`, 2, [...tried, keep]) : null,
      seen ? saved : null,
      served?.activations ? form("try-text", "A text: the unit's real activations on it", 4, [["read", activations(unit), LOADING]]) : null,
    ].filter(Boolean);
    if (seen) showSaved(unit, saved);
    return forms.length ? NG.section("Try it", forms) : null;
  };
})();
