// The picture as it stands: places of boxes and wires, with folded columns squeezed.
//
// The layout was made once.  Folding a column maps its range of x onto a narrow one and shifts what lies
// to the right; since the map is monotone and wires run along the axes, the routing stays as it was.
const NARROW = 118;
const CORNER = 6;
const nets = [...svg.querySelectorAll(".net")].map((group, i) => ({ ...scene.nets[i], group }));
const nodes = new Map([...svg.querySelectorAll(".node")].map((n) => [n.dataset.id, n]));
const boxes = new Map(scene.boxes.map((b) => [b.id, b]));
const columns = new Map(scene.columns.map((c) => [c.id, c]));
const pills = draw("g", { class: "pills" }, null);
svg.insertBefore(pills, svg.querySelector(".legend"));
let canvas = scene.canvas;
let across = (x) => x;
let enlarged = 0;

function narrow(column) {
  return Math.min(column.rect[2], Math.max(NARROW, 16 + 7.4 * column.label.length));
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

function rounded(points) {
  const at = ([x, y]) => `${round(x)} ${round(y)}`;
  const toward = (a, b) => {
    const length = Math.hypot(b[0] - a[0], b[1] - a[1]);
    const share = length ? Math.min(1, Math.min(CORNER, length / 2) / length) : 0;
    return [a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])];
  };
  let d = `M${at(points[0])}`;
  for (let i = 1; i < points.length - 1; i += 1) {
    d += `L${at(toward(points[i], points[i - 1]))}Q${at(points[i])} ${at(toward(points[i], points[i + 1]))}`;
  }
  return `${d}L${at(points[points.length - 1])}`;
}

// Wires inside of a folded column go; of those that end in one of its pills one per net is enough.
function placeNet(net) {
  const zones = new Set([...net.sources, ...net.targets].map((id) => boxes.get(id)?.zone || id));
  const inside = zones.size === 1 && state.folded.has([...zones][0]);
  net.group.classList.toggle("inside", inside);
  const seen = new Set();
  const paths = net.group.querySelectorAll("path");
  net.wires.forEach((wire, i) => {
    const box = wire.member ? boxes.get(wire.member) : null;
    const place = box && state.folded.has(box.zone) ? `${box.zone} ${box.rect[1]} ${wire.arrow}` : "";
    paths[i].style.display = place && seen.has(place) ? "none" : "";
    if (place) seen.add(place);
    paths[i].setAttribute("d", rounded(wire.points.map(([x, y]) => [across(x), y])));
  });
  net.group.querySelectorAll("circle").forEach((dot, i) => dot.setAttribute("cx", round(across(net.dots[i][0]))));
}

function placeBox(id) {
  const [x] = boxes.get(id).rect;
  const node = nodes.get(id);
  node.style.display = isFolded(id) ? "none" : "";
  node.setAttribute("transform", `translate(${round(across(x) - x)} 0)`);
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
    const [left, , w] = columns.get(zone).rect;
    for (const [y, row] of rows) {
      const kinds = [...new Set(row.map((b) => problems.get(b.id).kind))];
      const x = across(left) + 6;
      const wide = across(left + w) - across(left) - 12;
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
  across = mapping(state.folded);
  canvas = [across(scene.canvas[0]), scene.canvas[1]];
  for (const id of nodes.keys()) placeBox(id);
  for (const net of nets) placeNet(net);
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
