// Pan and zoom by the view box; labels of levels stay at the left edge; a map where not all fits.
const LEAST = 0.08;
const MOST = 4;
const NARROW_WINDOW = 640;
const camera = { x: 0, y: 0, k: 1 };
const map = byId("map");

// What there is to see: without the heading and the legend, which the page shows elsewhere.
function extent() {
  const bands = scene.bands.map((b) => b.rect);
  const boxesEnd = Math.max(...scene.boxes.map((b) => b.rect[1] + b.rect[3]));
  const start = Math.min(...scene.columns.map((c) => c.header[1]), ...scene.frames.map((f) => f.rect[1] - 10), ...bands.map((b) => b[1])) - 12;
  return { x: 0, y: start, w: canvas[0], h: Math.max(boxesEnd, ...bands.map((b) => b[1] + b[3])) + 16 - start };
}

function room() {
  return { w: stage.clientWidth || 1, h: stage.clientHeight || 1 };
}

function look() {
  const { w, h } = room();
  svg.setAttribute("viewBox", [camera.x, camera.y, w / camera.k, h / camera.k].map((n) => n.toFixed(2)).join(" "));
  enlarge();
  stickLabels();
  drawMap();
}

// From afar the fine print goes and names grow, as far as their boxes let them.
function enlarge(k = camera.k) {
  const big = Math.round(clamp(0.95 / k, 1, 2.6) * 10) / 10;
  if (big === enlarged) return;
  enlarged = big;
  const far = big > 1.25;
  svg.classList.toggle("far", far);
  svg.style.setProperty("--line", round(1.7 * Math.min(big, 1.6)));
  const grow = (text, least, wide) => {
    const most = wide / (0.6 * Math.max(1, text.textContent.length));
    const size = Math.max(least, Math.min(least * big, most));
    text.style.fontSize = far ? `${round(size)}px` : "";
    return size;
  };
  for (const [id, node] of nodes) {
    const [, y, w, h] = boxes.get(id).rect;
    const name = node.querySelector("text");
    name.dataset.y ||= name.getAttribute("y");
    name.dataset.full ||= name.textContent;
    const p = problems.get(id);
    name.textContent = far && p?.kind === "slow parameters" ? `slow · ${compact(p.parameters)}` : name.dataset.full;
    const size = p ? grow(name, 13, w - 18) : Math.min(grow(name, 12, w - 18), 16);
    if (!p && far) name.style.fontSize = `${round(size)}px`;
    name.setAttribute("y", far ? round(y + h / 2 + 0.36 * size) : name.dataset.y);
  }
  const said = labels.map((label) => label.querySelectorAll("text"));
  const size = (i, least) => Math.min(...said.map((texts, j) => grow(texts[i], least, scene.bands[j].label[2])));
  const [first, second] = [size(0, 15), size(1, 12.5)];
  said.forEach(([number, often], i) => {
    const y = scene.bands[i].label[1];
    for (const [text, high] of [[number, first], [often, second]]) text.style.fontSize = far ? `${round(high)}px` : "";
    number.setAttribute("y", round(far ? y + first : y + 16));
    often.setAttribute("y", round(far ? y + first + 1.35 * second : y + 34));
  });
  svg.querySelectorAll(".frame").forEach((group, i) => badge(group, scene.frames[i], far ? Math.min(big, 1.9) : 1));
  for (const header of svg.querySelectorAll(".header")) {
    const column = columns.get(header.dataset.zone);
    grow(header.querySelector("text"), 13, state.folded.has(column.id) ? narrow(column) : column.rect[2]);
  }
  for (const pill of pills.children) {
    const [rect, text] = [pill.querySelector("rect"), pill.querySelector("text")];
    const size = grow(text, 13, Number(rect.getAttribute("width")) - 8);
    const y = Number(rect.getAttribute("y")) + Number(rect.getAttribute("height")) / 2;
    text.setAttribute("y", round(far ? y + 0.36 * size : y - 3));
  }
}

// The badge of a repeat: from afar only how often.
function badge(group, frame, big) {
  const [, pill, said] = group.children;
  said.dataset.full ||= said.textContent;
  pill.dataset.wide ||= pill.getAttribute("width");
  said.textContent = big > 1 ? said.dataset.full.split(" · ")[0] : said.dataset.full;
  pill.setAttribute("width", big > 1 ? round(18 + 6.6 * said.textContent.length) : pill.dataset.wide);
  const x = Number(pill.getAttribute("x"));
  said.setAttribute("x", round(x + Number(pill.getAttribute("width")) / 2));
  const y = Number(pill.getAttribute("y")) + 9.5;
  const moved = across(frame.rect[0]) - frame.rect[0];
  for (const part of [pill, said]) part.setAttribute("transform", `translate(${round(moved)} 0) translate(${x} ${y}) scale(${big}) translate(${-x} ${-y})`);
}

function stickLabels() {
  scene.bands.forEach((band, i) => {
    const label = labels[i];
    const moved = Math.max(0, camera.x + 6 - band.rect[0]);
    const last = across(band.rect[0] + band.rect[2]) - band.label[2] - 40;
    label.setAttribute("transform", `translate(${round(Math.min(moved, Math.max(0, last)))} 0)`);
    label.classList.toggle("stuck", moved > 0);
  });
}

function remember() {
  const seen = extent();
  state.view = [camera.x - seen.x, camera.y - seen.y, camera.k];
  writeState();
}

// All of it, but in a narrow window not smaller than can be read: there one pans.
function fit(store = true) {
  const seen = extent();
  const { w, h } = room();
  const least = w < NARROW_WINDOW ? Math.min(0.4, h / seen.h) : LEAST;
  camera.k = clamp(Math.min(w / seen.w, h / seen.h), least, 1.35);
  camera.x = seen.x - Math.max(0, (w / camera.k - seen.w) / 2);
  camera.y = seen.y - Math.max(0, (h / camera.k - seen.h) / 2);
  look();
  if (store) { state.view = null; writeState(); }
}

function zoom(factor, at = [room().w / 2, room().h / 2]) {
  const k = clamp(camera.k * factor, LEAST, MOST);
  camera.x += at[0] / camera.k - at[0] / k;
  camera.y += at[1] / camera.k - at[1] / k;
  camera.k = k;
  look();
  remember();
}

function pan(dx, dy) {
  camera.x += dx / camera.k;
  camera.y += dy / camera.k;
  look();
  remember();
}

// Bring a box into view, and not below a size at which it can be read.
function showBox(id) {
  const rect = boxes.get(id)?.rect;
  if (!rect) return;
  const { w, h } = room();
  if (camera.k < 0.5) camera.k = 0.8;
  const [x, y, right, end] = [across(rect[0]) - 40, rect[1] - 40, across(rect[0] + rect[2]) + 40, rect[1] + rect[3] + 40];
  const left = camera.x + 190;
  if (x < left) camera.x -= left - x;
  else if (right > camera.x + w / camera.k) camera.x = right - w / camera.k;
  if (y < camera.y) camera.y = y;
  else if (end > camera.y + h / camera.k) camera.y = end - h / camera.k;
  look();
}

function drawMap() {
  const seen = extent();
  const { w, h } = room();
  const all = seen.w * camera.k <= w * 1.02 && seen.h * camera.k <= h * 1.02;
  map.toggleAttribute("hidden", all);
  if (all) return;
  const scale = Math.min(220 / seen.w, 130 / seen.h);
  map.setAttribute("viewBox", `${seen.x} ${seen.y} ${seen.w} ${seen.h}`);
  map.setAttribute("width", round(seen.w * scale));
  map.setAttribute("height", round(seen.h * scale));
  map.replaceChildren();
  scene.bands.forEach((b, i) => draw("rect", { x: b.rect[0], y: b.rect[1], width: across(b.rect[0] + b.rect[2]) - b.rect[0], height: b.rect[3], class: i % 2 ? "fill-band-b" : "fill-band-a" }, map));
  for (const b of scene.boxes) {
    const kind = problems.get(b.id)?.kind.replaceAll(" ", "-");
    const x = across(b.rect[0]);
    draw("rect", { x, y: b.rect[1], width: Math.max(4, across(b.rect[0] + b.rect[2]) - x), height: b.rect[3], class: kind ? `fill-${kind}-edge` : "fill-port" }, map);
  }
  draw("rect", { x: camera.x, y: camera.y, width: w / camera.k, height: h / camera.k, class: "window", "stroke-width": 2 / scale }, map);
}

stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const step = event.deltaMode === 1 ? 16 : 1;
  if (event.shiftKey) { pan((event.deltaX || event.deltaY) * step, 0); return; }
  const box = stage.getBoundingClientRect();
  zoom(Math.exp(clamp(-event.deltaY * step, -240, 240) * 0.0018), [event.clientX - box.left, event.clientY - box.top]);
}, { passive: false });

let drag = null;
const fingers = new Map();
stage.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  fingers.set(event.pointerId, event);
  drag = { x: event.clientX, y: event.clientY, moved: false };
});
window.addEventListener("pointermove", (event) => {
  if (!drag || !fingers.has(event.pointerId)) return;
  const before = fingers.get(event.pointerId);
  fingers.set(event.pointerId, event);
  if (fingers.size === 2) {
    const other = [...fingers.values()].find((f) => f.pointerId !== event.pointerId);
    const gap = (f) => Math.hypot(f.clientX - other.clientX, f.clientY - other.clientY);
    const box = stage.getBoundingClientRect();
    zoom(gap(event) / (gap(before) || 1), [other.clientX - box.left, other.clientY - box.top]);
    drag.moved = true;
    return;
  }
  if (!drag.moved && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 4) return;
  drag.moved = true;
  root.classList.add("panning");
  pan(before.clientX - event.clientX, before.clientY - event.clientY);
});
for (const name of ["pointerup", "pointercancel"]) {
  window.addEventListener(name, (event) => {
    fingers.delete(event.pointerId);
    root.classList.remove("panning");
    // The click that ends a drag still comes: it must not choose anything.
    if (drag) setTimeout(() => { if (!fingers.size) drag = null; }, 0);
  });
}
const dragged = () => Boolean(drag && drag.moved);

map.addEventListener("pointerdown", (event) => {
  const box = map.getBoundingClientRect();
  const seen = extent();
  const { w, h } = room();
  const go = (e) => {
    camera.x = seen.x + ((e.clientX - box.left) / box.width) * seen.w - w / camera.k / 2;
    camera.y = seen.y + ((e.clientY - box.top) / box.height) * seen.h - h / camera.k / 2;
    look();
    remember();
  };
  go(event);
  map.setPointerCapture(event.pointerId);
  map.onpointermove = (e) => { if (e.buttons) go(e); };
  event.stopPropagation();
});
new ResizeObserver(() => { if (state.view) look(); else fit(false); }).observe(stage);
