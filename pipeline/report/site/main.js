// Addresses, keys and settings: which page is shown.
"use strict";
(() => {
  NG.settings = { whole: false, breaks: false };
  try { Object.assign(NG.settings, JSON.parse(localStorage.getItem("neurogloss") || "{}")); } catch { /* a browser may refuse to keep anything */ }

  const apply = () => {
    document.documentElement.classList.toggle("breaks", NG.settings.breaks);
    try { localStorage.setItem("neurogloss", JSON.stringify({ whole: NG.settings.whole, breaks: NG.settings.breaks })); } catch { /* as above */ }
  };
  NG.toggle = (name, label) =>
    NG.el("label", {}, NG.el("input", { type: "checkbox", name, checked: NG.settings[name], onchange: () => switched(name) }), ` ${label}`);
  const switched = (name) => {
    NG.settings[name] = !NG.settings[name];
    apply();
    if (name === "whole") show();
    else document.querySelectorAll(`input[name=${name}]`).forEach((box) => { box.checked = NG.settings[name]; });
  };

  // Put the filters of a page into the address without drawing it anew.
  NG.remember = (name, params) => {
    lastList = `#/${name}${params.size ? `?${params}` : ""}`;
    history.replaceState(null, "", lastList);
  };
  let lastList = "#/units";
  let leave = null;
  let shownAt = 0;

  const parse = () => {
    const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
    return { parts: path.split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } }), params: new URLSearchParams(query || "") };
  };

  const show = async () => {
    const page = document.getElementById("page"), { parts, params } = parse();
    const turn = ++shownAt, fresh = NG.el("div", {});
    NG.steps = {};
    leave?.();
    leave = null;
    try {
      if (parts[0] === "unit") {
        await NG.unitPage(fresh, parts[1] ?? "", parts[2] ?? "", params);
        if (turn !== shownAt) return; // another page was asked for meanwhile
        page.replaceChildren(fresh);
      } else {
        page.replaceChildren(fresh);
        if (parts[0] === "overview") NG.overviewPage(fresh);
        else { lastList = location.hash || "#/units"; leave = NG.listPage(fresh, params); }
      }
    } catch (error) {
      page.replaceChildren(NG.el("h1", {}, "This page cannot be shown"), NG.el("p", {}, NG.visible(error.message)));
    }
    document.title = `${parts[0] === "unit" ? `${parts[1]} ${parts[2]} · ` : ""}${NG.run?.name ?? ""} · Neurogloss`;
    document.querySelectorAll("nav [data-page]").forEach((link) => {
      if (link.dataset.page === (parts[0] || "units")) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
    });
    page.dataset.drawn = location.hash;
    scrollTo(0, 0);
  };

  const keys = {
    "/": () => { if (parse().parts[0] === "unit" || parse().parts[0] === "overview") location.hash = lastList; requestAnimationFrame(() => document.querySelector("input[type=search]")?.focus()); },
    u: () => { location.hash = lastList; },
    o: () => { location.hash = "#/overview"; },
    j: () => { if (NG.steps.j !== undefined) location.hash = NG.unitAddress(NG.steps.j); },
    k: () => { if (NG.steps.k !== undefined) location.hash = NG.unitAddress(NG.steps.k); },
    p: () => { if (NG.steps.other) location.hash = NG.steps.other; },
    b: () => switched("breaks"),
    w: () => switched("whole"),
    "?": () => document.getElementById("keys").showModal(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog[open]")) return;
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
    else if (event.key === "ArrowDown" && NG.grid && !event.target.closest(".grid") && document.getElementById("grid")) { event.preventDefault(); NG.grid.setActiveCell(0, 0); NG.grid.focus(); }
  });
  // The values of a token on tap, where there is no mouse to hover with.
  document.addEventListener("click", (event) => {
    const token = event.target.closest(".token"), says = document.getElementById("says");
    if (token && says) says.textContent = token.dataset.says;
  });

  const start = async () => {
    await NG.chooseRun?.();
    [NG.run, NG.list] = await Promise.all([NG.load("run"), NG.load("list")]);
    NG.list = NG.readList(NG.list);
    const places = new Map();
    for (let row = NG.list.rows - 1; row >= 0; row--) places.set(`${NG.list.word("module", row)}\n${NG.list.index[row]}`, row);
    NG.list.find = (module, index) => places.get(`${module}\n${index}`);
    NG.shown = NG.rowsFor(new URLSearchParams());
    document.getElementById("run-name").textContent = NG.visible(NG.run.name);
    document.getElementById("keys-button").addEventListener("click", keys["?"]);
    addEventListener("hashchange", show);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
    apply();
    await show();
  };
  start().catch((error) => document.getElementById("page").replaceChildren(NG.el("p", {}, NG.visible(error.message))));
})();
