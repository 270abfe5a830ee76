// The wires of all nets, drawn from their junctions for the places where the boxes stand now.
const CORNER = 7;
const LANE = 7;
const close = (a, b) => Math.abs(a - b) < 0.5;

function rounded(points) {
  const at = ([x, y]) => `${round(x)} ${round(y)}`;
  const toward = (a, b) => {
    const length = Math.hypot(b[0] - a[0], b[1] - a[1]);
    const share = length ? Math.min(1, CORNER / length) : 0;
    return [a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])];
  };
  let d = `M${at(points[0])}`;
  for (let i = 1; i < points.length - 1; i += 1) {
    d += `L${at(toward(points[i], points[i - 1]))}Q${at(points[i])} ${at(toward(points[i], points[i + 1]))}`;
  }
  return `${d}L${at(points[points.length - 1])}`;
}

// One junction: a path per line that leaves the trunk, the trunk, and a dot where three lines meet.
function strokes(y, ends) {
  const xs = ends.map((e) => e.x);
  const [low, high] = [Math.min(...xs), Math.max(...xs)];
  const together = (x) => ends.filter((e) => close(e.x, x)).length;
  const turns = (x) => high - low > 2 * CORNER && (close(x, low) || close(x, high)) && together(x) === 1;
  const paths = ends.map(({ x, to, arrow }) => {
    const start = turns(x) ? [[close(x, low) ? x + CORNER : x - CORNER, y], [x, y]] : [[x, y]];
    return { arrow, points: [...start, [x, to]] };
  });
  if (high - low < 0.5) return { paths, dots: [] };
  paths.push({ points: [[low + (turns(low) ? CORNER : 0), y], [high - (turns(high) ? CORNER : 0), y]] });
  const meets = (x) => (!close(x, low) && !close(x, high)) || together(x) > 1;
  return { paths, dots: [...new Set(xs.filter(meets))].map((x) => [x, y]) };
}

const zoneOf = (id) => boxes.get(id)?.zone || "";
const isInside = (net) => {
  const zones = new Set([...net.sources, ...net.targets].map((id) => zoneOf(id) || id));
  return zones.size === 1 && state.folded.has([...zones][0]);
};

// Nets that pass through a folded column, or leave it, run beside its pills: which ones at which side.
function passing(column) {
  const [left, , w] = column.rect;
  const found = [];
  for (const net of nets) {
    if (isInside(net)) continue;
    const xs = net.junctions.flatMap((j) => j.ends).filter(([x, , member]) => !member && x > left && x < left + w).map(([x]) => x);
    if (xs.length) found.push([net, xs.reduce((a, b) => a + b) / xs.length]);
  }
  found.sort((a, b) => a[1] - b[1]);
  const side = (at) => found.filter(([, x]) => (x < left + w / 2) === at).map(([net]) => net);
  return { left: side(true), right: side(false) };
}

const sideWidth = (lanes) => (lanes.length ? LANE * lanes.length + 6 : 0);

// The x of a line beside the pills of a folded column.
function beside(net, column) {
  const { left, right } = guests.get(column.id);
  const [x, , w] = column.rect;
  if (left.includes(net)) return across(x) + 8 + LANE * left.indexOf(net);
  return across(x + w) - 8 - LANE * (right.length - 1 - right.indexOf(net));
}

// Ends at one edge of a pill: one per net and direction, spread over the edge in their old order.
const edgeOf = (net, [, to, member, arrow]) => `${zoneOf(member)} ${boxes.get(member).rect[1]} ${to} ${arrow} ${net.index}`;

function spreadPins() {
  const edges = new Map();
  for (const net of nets) {
    if (isInside(net)) continue;
    for (const end of net.junctions.flatMap((j) => j.ends)) {
      if (!end[2] || !isFolded(end[2])) continue;
      const place = `${zoneOf(end[2])} ${end[1]}`;
      if (!edges.has(place)) edges.set(place, { zone: zoneOf(end[2]), pins: new Map() });
      const { pins } = edges.get(place);
      const key = edgeOf(net, end);
      if (!pins.has(key)) pins.set(key, end[0]);
    }
  }
  const found = new Map();
  for (const { zone, pins } of edges.values()) {
    const [x, w] = pillSpan(columns.get(zone));
    const sorted = [...pins].sort((a, b) => a[1] - b[1]);
    const pitch = Math.min(13, (w - 20) / Math.max(1, sorted.length - 1));
    sorted.forEach(([key], i) => found.set(key, x + w / 2 + pitch * (i - (sorted.length - 1) / 2)));
  }
  return found;
}

function endsNow(net, junction, pins) {
  const seen = new Set();
  const found = [];
  for (const end of junction.ends) {
    const [x, to, member, arrow] = end;
    if (member && isFolded(member)) {
      const key = edgeOf(net, end);
      if (!seen.has(key)) found.push({ x: pins.get(key), to, arrow });
      seen.add(key);
    } else if (member) found.push({ x: x + shiftOf(member), to, arrow, member });
    else {
      const column = [...columns.values()].find((c) => state.folded.has(c.id) && x > c.rect[0] && x < c.rect[0] + c.rect[2]);
      found.push({ x: column ? beside(net, column) : across(x), to, arrow });
    }
  }
  // A port follows the one line that comes to it, so that it stays straight.
  const [first, second] = found;
  if (found.length === 2) {
    for (const [port, other] of [[first, second], [second, first]]) {
      const at = ports.has(port.member) && boxes.get(port.member).rect;
      if (at && Math.abs(other.x - at[0] - at[2] / 2 - shiftOf(port.member)) < at[2] / 2 - 10) port.x = other.x;
    }
  }
  return found;
}

function drawNet(net, pins) {
  const inside = isInside(net);
  net.group.classList.toggle("inside", inside);
  net.group.replaceChildren();
  if (inside) return;
  const lines = [];
  for (const junction of net.junctions) {
    const ends = endsNow(net, junction, pins);
    if (ends.length < 2) continue;
    const { paths, dots } = strokes(junction.y, ends);
    for (const { points, arrow } of paths) {
      const d = rounded(points);
      const head = arrow ? { "marker-end": `url(#head-${net.kind})` } : {};
      draw("path", { class: `stroke-${net.kind}`, d, fill: "none", ...head }, net.group);
      lines.push(d);
    }
    for (const [cx, cy] of dots) draw("circle", { class: `fill-${net.kind}`, cx: round(cx), cy, r: 2.6 }, net.group);
  }
  // A wide line that nobody sees, so that a thin one can be pointed at.
  draw("path", { class: "reach", d: lines.join("") }, net.group);
}

function drawNets() {
  const pins = spreadPins();
  for (const net of nets) drawNet(net, pins);
}
