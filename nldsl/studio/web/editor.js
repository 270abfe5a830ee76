// The editor: a text area with see-through letters above the same text in colours.
const text = byId("text");
const paint = byId("paint");
const gutter = byId("gutter");
const scroll = byId("scroll");
const TAB = "  ";
let findings = [];
let saved = data.text;

const SETS = Object.fromEntries(Object.entries(data.words).map(([name, words]) => [name, new Set(words)]));
const TOKENS = /(#[^\n]*)|("(?:\\.|[^"\\\n])*"?)|(\b\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)|([A-Za-z_]\w*)|(<-|\*\*|\/\/|[<>=!]=|[-+*/@<>=]=?)/g;
const DEFINES = new Set(["block", "model", "map", "objective", "rule", "train", "variant"]);

// Runs of text with the kind of each: [start, end, kind].
function tokens(source) {
  const found = [];
  let before = "";
  for (const match of source.matchAll(TOKENS)) {
    const [word] = match;
    let kind = match[1] ? "comment" : match[2] ? "string" : match[3] ? "number" : match[5] ? "sign" : "";
    if (match[4]) {
      const calls = source[match.index + word.length] === "(";
      if (DEFINES.has(before)) kind = "defined";
      else if (calls && !SETS.reserved.has(word)) kind = "call";
      else if (SETS.keyword.has(word)) kind = "keyword";
      else if (SETS.constant.has(word)) kind = "constant";
    }
    before = match[4] ? word : "";
    if (kind) found.push([match.index, match.index + word.length, kind]);
  }
  return found;
}

// Where colours or underlines begin or end the text is cut; each piece bears the classes of both.
function repaint() {
  const source = text.value;
  const colours = tokens(source);
  const marks = findings.map((f) => [f.start, Math.max(f.end, f.start + 1), f.severity]);
  const cuts = new Set([0, source.length]);
  for (const [a, b] of [...colours, ...marks]) { cuts.add(Math.min(a, source.length)); cuts.add(Math.min(b, source.length)); }
  const places = [...cuts].sort((a, b) => a - b);
  const pieces = document.createDocumentFragment();
  let c = 0;
  for (let i = 0; i + 1 < places.length; i += 1) {
    const [a, b] = [places[i], places[i + 1]];
    while (c < colours.length && colours[c][1] <= a) c += 1;
    const names = [];
    if (c < colours.length && colours[c][0] <= a) names.push(`t-${colours[c][2]}`);
    for (const [start, end, severity] of marks) if (start <= a && b <= end) names.push(`m-${severity}`);
    const piece = source.slice(a, b);
    if (names.length) make("span", piece, pieces, names.join(" ")); else pieces.append(piece);
  }
  pieces.append("\n");
  paint.replaceChildren(pieces);
  const lines = source.split("\n");
  number(lines.length);
  text.style.width = `max(100%, ${Math.max(...lines.map((line) => line.length)) + 4}ch)`;
}

function number(count) {
  const worst = new Map();
  for (const f of findings) if (worst.get(f.line) !== "error") worst.set(f.line, f.severity);
  const column = document.createDocumentFragment();
  for (let i = 1; i <= count; i += 1) make("span", String(i), column, worst.get(i) ? `g-${worst.get(i)}` : "");
  gutter.replaceChildren(column);
}

// Through the browser, so that undo knows of it.
function insert(words, start = text.selectionStart, end = text.selectionEnd) {
  text.focus();
  text.setSelectionRange(start, end);
  const done = words ? document.execCommand("insertText", false, words) : document.execCommand("delete");
  if (!done) {
    text.setRangeText(words, start, end, "end");
    text.dispatchEvent(new Event("input"));
  }
}

function replaceAll(words) {
  const at = text.selectionStart;
  let a = 0;
  while (a < words.length && a < text.value.length && words[a] === text.value[a]) a += 1;
  let b = 0;
  while (b < words.length - a && b < text.value.length - a && words[words.length - 1 - b] === text.value[text.value.length - 1 - b]) b += 1;
  insert(words.slice(a, words.length - b), a, text.value.length - b);
  text.setSelectionRange(Math.min(at, words.length), Math.min(at, words.length));
}

const lineStart = (at) => text.value.lastIndexOf("\n", at - 1) + 1;

function indentLines(out) {
  const from = lineStart(text.selectionStart);
  const to = text.selectionEnd;
  const lines = text.value.slice(from, to).split("\n");
  const moved = lines.map((line) => (out ? line.replace(/^ {1,2}/, "") : TAB + line));
  insert(moved.join("\n"), from, to);
  text.setSelectionRange(from, from + moved.join("\n").length);
}

// Escape first, and Tab leaves the editor as it leaves any other field.
let leaving = false;
function typing(event) {
  if (event.key === "Tab" && !leaving && !event.ctrlKey && !event.altKey) {
    event.preventDefault();
    const several = text.value.slice(text.selectionStart, text.selectionEnd).includes("\n");
    if (several || event.shiftKey) indentLines(event.shiftKey); else insert(TAB);
  } else if (event.key === "Enter" && !event.ctrlKey && !event.isComposing) {
    event.preventDefault();
    const start = lineStart(text.selectionStart);
    const before = text.value.slice(start, text.selectionStart);
    const space = before.match(/^ */)[0];
    const opens = /\{\s*(#.*)?$/.test(before);
    const closes = opens && text.value[text.selectionEnd] === "}";
    insert(`\n${space}${opens ? TAB : ""}${closes ? `\n${space}` : ""}`);
    if (closes) { const at = text.selectionStart - space.length - 1; text.setSelectionRange(at, at); }
  } else if (event.key === "/" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    comment();
  }
  leaving = event.key === "Escape";
}

function comment() {
  const from = lineStart(text.selectionStart);
  const next = text.value.indexOf("\n", text.selectionEnd);
  const to = next < 0 ? text.value.length : next;
  const lines = text.value.slice(from, to).split("\n");
  const all = lines.every((line) => /^\s*(#|$)/.test(line));
  const changed = lines.map((line) => (all ? line.replace(/^(\s*)# ?/, "$1") : line.replace(/^(\s*)(?=\S)/, "$1# "))).join("\n");
  insert(changed, from, to);
  text.setSelectionRange(from, from + changed.length);
}

// Places on the screen: every letter is as wide as the next.
const metrics = () => {
  const style = getComputedStyle(text);
  const probe = make("span", "0".repeat(100), byId("sheet"), "probe");
  const wide = probe.getBoundingClientRect().width / 100;
  probe.remove();
  return { wide, high: parseFloat(style.lineHeight), left: parseFloat(style.paddingLeft), top: parseFloat(style.paddingTop) };
};

function spot(at) {
  const { wide, high, left, top } = metrics();
  const box = text.getBoundingClientRect();
  const line = text.value.slice(0, at).split("\n").length - 1;
  return { x: box.left + left + (at - lineStart(at)) * wide, y: box.top + top + line * high, high };
}

function offsetAt(x, y) {
  const { wide, high, left, top } = metrics();
  const box = text.getBoundingClientRect();
  const lines = text.value.split("\n");
  const row = Math.floor((y - box.top - top) / high);
  const column = Math.floor((x - box.left - left) / wide);
  if (row < 0 || row >= lines.length || column < 0 || column >= lines[row].length) return -1;
  return lines.slice(0, row).reduce((sum, line) => sum + line.length + 1, 0) + column;
}

function jump(start, end = start) {
  text.focus();
  text.setSelectionRange(start, end);
  const { y, high } = spot(start);
  const box = scroll.getBoundingClientRect();
  if (y < box.top + high || y > box.bottom - 2 * high) scroll.scrollTop += y - box.top - box.height / 2;
  scroll.scrollLeft = 0;
}

function jumpToLine(line) {
  const lines = text.value.split("\n");
  const start = lines.slice(0, line - 1).reduce((sum, l) => sum + l.length + 1, 0);
  jump(start, start + (lines[line - 1] || "").length);
}
