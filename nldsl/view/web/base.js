// Data of the page, small helpers, and the state that lives in the address.
const root = document.documentElement;
const data = JSON.parse(document.getElementById("data").textContent);
const { graph, scene } = data;
const byId = (id) => document.getElementById(id);
const stage = byId("stage");
const svg = stage.querySelector("svg");
const SVG = svg.namespaceURI;
const problems = new Map(graph.problems.map((p) => [p.id, p]));
const ports = new Map(graph.ports.map((p) => [p.id, p]));
const levelOf = new Map(graph.levels.flatMap((level) => level.problems.map((id) => [id, level])));
const marks = data.comparison ? data.comparison.problems : {};

const make = (tag, text, parent, name) => {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  if (name) element.className = name;
  if (parent) parent.append(element);
  return element;
};

const draw = (tag, attributes, parent, text) => {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
};

const round = (number) => String(Math.round(number * 10) / 10);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

const size = (bytes) => {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  let i = 0;
  while (bytes >= 1024 && i < 3) { bytes /= 1024; i += 1; }
  return `${Number(bytes.toFixed(i ? 1 : 0))} ${units[i]}`;
};

const many = (number) => {
  if (number < 1e4) return Math.round(number).toLocaleString("en");
  const power = Math.min(3, Math.floor(Math.log10(number) / 3));
  return `${(number / 1000 ** power).toPrecision(3)} ${["", "thousand", "million", "billion"][power]}`;
};

const compact = (number) => Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(number);

const called = (id) => {
  const p = problems.get(id);
  if (!p) return ports.has(id) ? ports.get(id).name : id;
  return p.kind === "slow parameters" ? `slow parameters of ${p.zone.split(".").pop()}` : p.name;
};

// What the address holds behind `#`: the chosen problem, folded blocks, hidden transfers, the view.
const state = { chosen: null, folded: new Set(), hidden: new Set(), view: null, time: null, theme: "" };

function readState() {
  const found = new URLSearchParams(location.hash.slice(1));
  const list = (name) => (found.get(name) || "").split("|").filter(Boolean);
  const known = new Set(scene.columns.map((c) => c.id));
  state.chosen = problems.has(found.get("at")) || ports.has(found.get("at")) ? found.get("at") : null;
  state.folded = new Set(list("fold").filter((id) => known.has(id)));
  state.hidden = new Set(list("hide"));
  const view = (found.get("view") || "").split(",").map(Number);
  state.view = view.length === 3 && view.every(Number.isFinite) && view[2] > 0 ? view : null;
  state.time = found.has("time") ? found.get("time") === "1" : null;
  state.theme = ["light", "dark"].includes(found.get("theme")) ? found.get("theme") : "";
  return found;
}

let waiting = 0;
function writeState() {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    const found = new URLSearchParams();
    if (state.chosen) found.set("at", state.chosen);
    if (state.folded.size) found.set("fold", [...state.folded].join("|"));
    if (state.hidden.size) found.set("hide", [...state.hidden].join("|"));
    if (state.view) found.set("view", state.view.map((n) => n.toFixed(3).replace(/\.?0+$/, "")).join(","));
    if (state.time !== null) found.set("time", state.time ? "1" : "0");
    if (state.theme) found.set("theme", state.theme);
    try { history.replaceState(null, "", `#${found}`); } catch { /* a frame without a name of its own */ }
    tell({ hash: String(found) });
  }, 120);
}

// A studio around the page listens to what is chosen.
function tell(message) {
  if (window.parent !== window) window.parent.postMessage({ nldsl: "graph", ...message }, "*");
}
