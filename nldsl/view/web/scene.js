// The picture as it stands: places of boxes and wires, with folded columns squeezed.
//
// The layout was made once.  Folding a column maps its range of x onto a narrow one and shifts what lies
// to the right; rows, channels and lanes stay as they were, and the wires are drawn anew.
const NARROW = 118;
const nets = [...svg.querySelectorAll(".net")].map((group, i) => ({ ...scene.nets[i], index: i, group }));
const nodes = new Map([...svg.querySelectorAll(".node")].map((n) => [n.dataset.id, n]));
const boxes = new Map(scene.boxes.map((b) => [b.id, b]));
const columns = new Map(scene.columns.map((c) => [c.id, c]));
const pills = draw("g", { class: "pills" }, null);
svg.insertBefore(pills, svg.querySelector(".legend"));
// Labels of levels stay at the left edge while one pans, above all else and on a plate of their band.
const labels = [...svg.querySelectorAll(".band-label")];
labels.forEach((label, i) => {
  const [[x, , w], [, y, , h]] = [scene.bands[i].label, scene.bands[i].rect];
  const plate = draw("rect", { x: x - 22, y, width: w + 30, height: h, class: `plate fill-band-${i % 2 ? "b" : "a"}` }, null);
  label.prepend(plate);
  svg.insertBefore(label, svg.querySelector(".legend"));
});
let canvas = scene.canvas;
let across = (x) => x;
let guests = new Map();
let enlarged = 0;

function narrow(column) {
  const { left, right } = guests.get(column.id);
  const inner = Math.max(NARROW, 16 + 7.4 * column.label.length);
  return Math.min(column.rect[2], inner + sideWidth(left) + sideWidth(right));
}

// Where the pills of a folded column stand: x and width.
function pillSpan(column) {
  const { left, right } = guests.get(column.id);
  const [x, , w] = column.rect;
  const start = across(x) + 6 + sideWidth(left);
  return [start, across(x + w) - 6 - sideWidth(right) - start];
}

// The piecewise linear map of x for the columns that are folded.
function mapping(folded) {
  const knots = [[0, 0]];
  let shift = 0;
  for (const column of [...columns.values()].sort((a, b) => a.rect[0] - b.rect[0])) {
    if (!folded.has(column.id)) continue;
    const [x, , w] = column.rect;
    knots.push([x, x - shift]);
    shift += w - narrow(column);
    knots.push([x + w, x + w - shift]);
  }
  knots.push([Infinity, Infinity]);
  return (x) => {
    let i = 0;
    while (x > knots[i + 1][0]) i += 1;
    const [a, fa] = knots[i];
    const [b, fb] = knots[i + 1];
    return b === Infinity ? x - a + fa : fa + ((x - a) * (fb - fa)) / (b - a || 1);
  };
}

const isFolded = (id) => state.folded.has(boxes.get(id)?.zone);

// How far a box has moved: by its middle, since a port may stand above a folded column.
function shiftOf(id) {
  const [x, , w] = boxes.get(id).rect;
  return across(x + w / 2) - x - w / 2;
}

function placeBox(id) {
  const node = nodes.get(id);
  node.style.display = isFolded(id) ? "none" : "";
  node.setAttribute("transform", `translate(${round(shiftOf(id))} 0)`);
}

function stretch(rect, [x, , w]) {
  rect.setAttribute("x", round(across(x)));
  rect.setAttribute("width", round(across(x + w) - across(x)));
}

// What a pill says: the name of the one it hides, else how many of what.
function inShort(row) {
  const first = problems.get(row[0].id);
  const sum = row.reduce((n, b) => n + problems.get(b.id).parameters, 0);
  if (first.kind === "slow parameters") return [`slow · ${compact(sum)}`, "parameters"];
  if (row.length === 1) return [first.name, first.map];
  return [`${row.length} ${first.kind === "attention" ? "caches" : "memories"}`, row.map((b) => problems.get(b.id).name).join(" ")];
}

// One pill per row of a folded column stands for the boxes in it.
function placePills() {
  pills.replaceChildren();
  for (const zone of state.folded) {
    const rows = new Map();
    for (const box of scene.boxes) {
      if (box.zone === zone) rows.set(box.rect[1], [...(rows.get(box.rect[1]) || []), box]);
    }
    const [x, wide] = pillSpan(columns.get(zone));
    for (const [y, row] of rows) {
      const kinds = [...new Set(row.map((b) => problems.get(b.id).kind))];
      const kind = kinds[0].replaceAll(" ", "-");
      const group = draw("g", { class: `pill ${row.map((b) => marks[b.id] || "").join(" ")}`, "data-zone": zone, tabindex: 0, role: "button" }, pills);
      group.setAttribute("aria-label", `${columns.get(zone).label}, folded: ${row.map((b) => called(b.id)).join(", ")}`);
      draw("title", {}, group, `${row.map((b) => called(b.id)).join(", ")}: click to unfold`);
      draw("rect", { x, y, width: wide, height: row[0].rect[3], rx: kind === "slow-parameters" ? 3 : 10, class: `fill-${kind} stroke-${kind}-edge`, "stroke-width": 1.6 }, group);
      const middle = x + wide / 2;
      const [title, below] = inShort(row);
      const room = Math.floor((wide - 12) / 6);
      draw("text", { x: middle, y: y + row[0].rect[3] / 2 - 3, "text-anchor": "middle", "font-size": 13, "font-weight": 700, class: "fill-ink" }, group, title);
      draw("text", { x: middle, y: y + row[0].rect[3] / 2 + 15, "text-anchor": "middle", "font-size": 10.5, class: "fill-soft fine" }, group, below.length > room ? `${below.slice(0, room - 1)}…` : below);
    }
  }
}

function place() {
  guests = new Map([...columns.values()].map((column) => [column.id, passing(column)]));
  across = mapping(state.folded);
  canvas = [across(scene.canvas[0]), scene.canvas[1]];
  for (const id of nodes.keys()) placeBox(id);
  drawNets();
  svg.querySelectorAll(".band").forEach((group, i) => stretch(group.querySelector("rect"), scene.bands[i].rect));
  svg.querySelectorAll(".frame").forEach((group, i) => stretch(group.querySelector("rect"), scene.frames[i].rect));
  for (const header of svg.querySelectorAll(".header")) {
    const column = columns.get(header.dataset.zone);
    const [x, , w] = column.header;
    const folded = state.folded.has(column.id);
    const label = header.querySelector("text");
    label.setAttribute("x", round((across(x) + across(x + w)) / 2));
    header.classList.toggle("folded", folded);
    header.setAttribute("aria-expanded", String(!folded));
    const hit = header.querySelector(".hit");
    hit.setAttribute("x", round(across(x)));
    hit.setAttribute("width", round(across(x + w) - across(x)));
  }
  placePills();
  enlarged = 0;
}

function fold(zones, on) {
  for (const zone of zones) {
    if (on === undefined ? !state.folded.has(zone) : on) state.folded.add(zone);
    else state.folded.delete(zone);
  }
  if (state.chosen && isFolded(state.chosen)) choose(null);
  place();
  if (state.view) look(); else fit(false);
  writeState();
}

function foldAll() {
  const foldable = scene.columns.filter((c) => scene.boxes.some((b) => b.zone === c.id)).map((c) => c.id);
  fold(foldable, state.folded.size < foldable.length);
}

for (const header of svg.querySelectorAll(".header")) {
  const [x, y, w, h] = columns.get(header.dataset.zone).header;
  const label = header.querySelector("text").textContent;
  header.prepend(draw("rect", { class: "hit", x, y: y + 2, width: w, height: h - 2, rx: 6, fill: "transparent" }, null));
  header.setAttribute("tabindex", "0");
  header.setAttribute("role", "button");
  header.setAttribute("aria-label", `block ${label}: fold or unfold`);
  draw("title", {}, header, `${header.dataset.zone}: click to fold or unfold`);
}
