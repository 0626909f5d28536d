// A sequence as a heat map: true activations stand above the tokens, simulated ones below, on one scale that is symmetric about zero.
"use strict";
(() => {
  const BEFORE = 20, AFTER = 10; // tokens around the peak

  // Value as a share of the scale, -1 to 1; its bar and its colour.
  const share = (value, largest) => (value === null || !(largest > 0) ? 0 : Math.max(-1, Math.min(1, value / largest)));
  const SEEN = 0.05; // smaller shares get no bar
  const bar = (part, kind) =>
    Math.abs(part) < SEEN ? null : NG.el("span", { class: `bar ${kind}${part < 0 ? " negative" : ""}`, style: { "--part": Math.abs(part).toFixed(3) } });

  // One token: bars, text and all values in words for the mouse, the keyboard and screen readers.
  const token = (text, place, map) => {
    const { truth, simulated, largest, peak } = map;
    const real = truth ? truth[place] : null, guess = simulated ? simulated[place] : null;
    const part = share(real, largest), guessed = share(guess, 10);
    const says = [
      `token ${JSON.stringify(NG.short(text))}`,
      truth ? `real ${NG.number(real)}${real === null ? "" : ` (${(10 * part).toFixed(1)} of 10)`}` : null,
      simulated ? `simulated ${guess === null ? "–" : guess.toFixed(1)} of 10` : null,
      place === peak ? "the peak" : null,
    ].filter(Boolean).join(", ");
    const shown = NG.visible(NG.short(text)).replace(/ /g, "\u00a0");
    const span = NG.el("span", { class: `token${place === peak ? " peak" : ""}`, title: says, "data-says": says, style: { "--heat": part.toFixed(3), "--warm": Math.max(part, 0).toFixed(3), "--cold": Math.max(-part, 0).toFixed(3) } },
      truth ? bar(part, "real") : null,
      NG.el("bdi", { class: "text" }, shown || "\u00a0"),
      simulated ? bar(guessed, "simulated") : null);
    return text.includes("\n") ? [span, NG.el("br", { class: "break" })] : [span, NG.el("wbr")];
  };

  // map: {tokens, truth, simulated, largest, peak}; `largest` is the activation at the end of the scale.
  NG.heatMap = (map) => {
    const whole = NG.settings.whole || map.peak === null;
    const first = whole ? 0 : Math.max(0, map.peak - BEFORE), last = whole ? map.tokens.length : Math.min(map.tokens.length, map.peak + AFTER + 1);
    const shown = map.tokens.slice(first, last).map((text, i) => token(text, first + i, map));
    return NG.el("p", { class: `tokens${map.simulated ? " both" : ""}`, lang: "" },
      first > 0 ? NG.el("span", { class: "cut" }, "… ") : null, shown, last < map.tokens.length ? NG.el("span", { class: "cut" }, " …") : null);
  };

  // Text before or after a sequence in its document.
  const beside = async (number) => {
    const found = number >= 0 ? await NG.sequence(number) : null;
    return found ? NG.visible(found.tokens.map((one) => NG.short(one)).join("")) : "";
  };

  // An exemplar with its heading; the text around it comes on demand.
  NG.exemplar = async (row, simulation, largest, heading) => {
    const sequence = await NG.sequence(row.seq_id);
    const sign = row.polarity === "-" ? -1 : 1;
    const map = {
      tokens: sequence ? sequence.tokens : Array.from(row.values, () => "?"),
      truth: NG.activations(row), largest, peak: row.peak,
      simulated: simulation ? NG.expected(simulation).map((value) => (value === null ? null : sign * value)) : null,
    };
    const place = NG.el("div", {}, NG.heatMap(map));
    const more = NG.el("button", { type: "button", class: "quiet", onclick: async () => {
      const [before, after] = await Promise.all([beside(sequence.before), beside(sequence.after)]);
      const own = NG.settings.whole;
      NG.settings.whole = true;
      place.replaceChildren(before ? NG.el("p", { class: "context" }, before) : "", NG.heatMap(map), after ? NG.el("p", { class: "context" }, after) : "");
      NG.settings.whole = own;
      more.remove();
    } }, "context");
    return NG.el("article", { class: "exemplar" },
      NG.el("div", { class: "about" }, heading, NG.el("span", {}, ` sequence ${row.seq_id}`), sequence ? NG.el("span", { class: "doc" }, ` in ${NG.visible(NG.short(sequence.doc))}`) : null, sequence && (sequence.before >= 0 || sequence.after >= 0) ? more : null),
      place);
  };
})();
