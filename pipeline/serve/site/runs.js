// What a server adds to every page: a choice among its runs, and word of a run that has gone on.
"use strict";
(() => {
  // The folder of the server, from a page that is under / or under /run/NAME/.
  const home = /\/run\/[^/]+\/(index\.html)?$/.test(location.pathname) ? "../../" : "";

  // The address of the pages of another run; null where it is not served.
  NG.runAddress = (name) => (NG.runs.runs.includes(name) ? `${home}run/${encodeURIComponent(name)}/` : null);

  // The same page of another run; filters of the list are those of one run.
  const go = (name) => { location.href = `${NG.runAddress(name)}${location.hash.startsWith("#/units") ? "" : location.hash}`; };

  NG.chooseRun = async () => {
    NG.runs = await NG.load("runs");
    if (NG.runs.runs.length < 2) return;
    const choice = NG.el("select", { id: "run-choice", "aria-label": "Run", onchange: (event) => go(event.target.value) },
      NG.runs.runs.map((name) => NG.el("option", { value: name, selected: name === NG.runs.name }, NG.visible(name))));
    document.getElementById("run-name").after(choice);
    document.getElementById("run-name").hidden = true; // the choice has it
    addEventListener("pageshow", () => { choice.value = NG.runs.name; }); // a browser that goes back shows the choice that was made
  };

  // A run that goes on: say so where its tables have changed since the page was opened.
  const look = async () => {
    const found = await fetch("api/run").then((reply) => reply.json()).catch(() => null);
    if (!found?.state || !NG.run || found.state === NG.run.served.state || document.getElementById("changed")) return;
    document.querySelector("header").append(NG.el("button", { type: "button", id: "changed", onclick: () => location.reload() }, "The run has gone on: reload"));
  };
  setInterval(look, 10_000);
})();
