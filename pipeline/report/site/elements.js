// Elements of pages and texts. Every text of a run reaches the page as a text node, so that none of it is ever parsed as HTML.
"use strict";
const NG = (window.NG = {});

// An element with attributes and children; `on...` attributes are functions, null children are left out.
NG.el = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style") Object.entries(value).forEach(([key, one]) => made.style.setProperty(key, one));
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
};

const PICTURES = { "\n": "↵", "\r": "␍", "\t": "⇥", "\u007f": "␡" };
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]/gu;

// A text whose control characters and marks of direction are seen and have no effect.
NG.visible = (text) =>
  String(text).replace(UNSEEN, (one) => {
    const code = one.codePointAt(0);
    if (PICTURES[one]) return PICTURES[one];
    return code < 32 ? String.fromCodePoint(0x2400 + code) : "\\u" + code.toString(16).padStart(4, "0");
  });

// The same with its line breaks and tabs, for what stands in several lines.
NG.lines = (text) => String(text).split("\n").map((line) => line.split("\t").map(NG.visible).join("\t")).join("\n");

const LONGEST = 60; // characters of a token that are shown
NG.short = (text, longest = LONGEST) => {
  const characters = Array.from(String(text).slice(0, 4 * longest));
  const shown = characters.slice(0, longest).join("");
  return shown.length < String(text).length ? `${shown}… (${String(text).length.toLocaleString()} characters)` : shown;
};

// A number for people, a dash for null: what could not be computed is no number.
NG.number = (value, digits = 3) => {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) < 10 ** -digits / 2 || Math.abs(value) >= 1e5 ? value.toPrecision(2) : value.toFixed(digits);
};

// A table of a few rows; cells are texts or elements, numbers stand to the right.
NG.table = (caption, heads, rows) =>
  NG.el("div", { class: "scroll" },
    NG.el("table", {},
      caption ? NG.el("caption", {}, caption) : null,
      NG.el("thead", {}, NG.el("tr", {}, heads.map((head) => NG.el("th", { scope: "col" }, head)))),
      NG.el("tbody", {}, rows.map((row) =>
        NG.el("tr", {}, row.map((cell) =>
          typeof cell === "number" || cell === null
            ? NG.el("td", { class: "number" }, NG.number(cell))
            : NG.el("td", {}, typeof cell === "string" ? NG.visible(cell) : cell)))))));

NG.section = (title, ...children) => {
  const name = title.toLowerCase().replace(/[^a-z]+/g, "-");
  return NG.el("section", { id: name, "aria-labelledby": `${name}-title` }, NG.el("h2", { id: `${name}-title` }, title), ...children);
};

// Put a text into the clipboard; pages on disk may have to do it by a field that is selected.
NG.copy = async (button, text) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = NG.el("textarea", {}, text);
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  NG.copied = text;
  button.textContent = "copied";
};
