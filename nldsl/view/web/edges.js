// Pointing and choosing: what a problem is wired to lights up, an edge says what passes along it.
const tip = byId("tip");

function trace(id) {
  svg.classList.toggle("tracing", id !== null);
  for (const net of nets) net.group.classList.remove("lit");
  for (const node of nodes.values()) node.classList.remove("lit");
  for (const pill of pills.children) pill.classList.remove("lit");
  if (id === null) return;
  light(id);
  for (const net of nets) {
    if (!net.sources.includes(id) && !net.targets.includes(id)) continue;
    net.group.classList.add("lit");
    const seen = net.sources.includes(id) ? [...net.targets, ...(net.targets.includes(id) ? net.sources : [])] : net.sources;
    seen.forEach(light);
  }
}

function light(id) {
  nodes.get(id)?.classList.add("lit");
  if (isFolded(id)) for (const pill of pills.children) if (pill.dataset.zone === boxes.get(id).zone) pill.classList.add("lit");
}

function traceNet(net) {
  trace(null);
  svg.classList.add("tracing");
  net.group.classList.add("lit");
  [...net.sources, ...net.targets].forEach(light);
}

function sayAt(event, title, text, colour) {
  tip.replaceChildren();
  if (title) {
    const head = make("strong", title, tip);
    if (colour) head.style.color = `var(--${colour})`;
  }
  make("span", text, tip);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${clamp(event.clientX + 14, 4, window.innerWidth - box.width - 8)}px`;
  tip.style.top = `${event.clientY + 18 + box.height > window.innerHeight ? event.clientY - box.height - 12 : event.clientY + 18}px`;
}

const hush = () => { tip.hidden = true; };

function choose(id) {
  nodes.get(state.chosen)?.classList.remove("chosen");
  state.chosen = id;
  nodes.get(id)?.classList.add("chosen");
  trace(id);
  if (id === null) overview(); else show(id);
  byId("panel").scrollTop = 0;
  markTime(id);
  writeState();
  const detail = data.details[id];
  tell({ chosen: id, zone: problems.get(id)?.zone || "", file: detail?.file || "", line: detail?.line || 0 });
}

function applySwitches() {
  for (const net of nets) net.group.classList.toggle("off", state.hidden.has(net.kind));
  for (const box of document.querySelectorAll("#switches input")) box.checked = !state.hidden.has(box.value);
}

for (const [id, node] of nodes) {
  node.addEventListener("pointerenter", () => { if (!dragged()) trace(id); });
  node.addEventListener("pointerleave", () => trace(state.chosen));
  node.addEventListener("click", (event) => {
    event.stopPropagation();
    if (!dragged()) choose(state.chosen === id ? null : id);
  });
}
for (const net of nets) {
  net.group.setAttribute("aria-label", net.sentence);
  net.group.addEventListener("pointerenter", () => { if (!dragged()) traceNet(net); });
  net.group.addEventListener("pointermove", (event) => { if (!dragged()) sayAt(event, net.status ? `${net.kind}, ${net.status}` : net.kind, net.sentence, net.kind); });
  net.group.addEventListener("pointerleave", () => { trace(state.chosen); hush(); });
}
pills.addEventListener("click", (event) => {
  const pill = event.target.closest(".pill");
  event.stopPropagation();
  if (pill && !dragged()) fold([pill.dataset.zone], false);
});
svg.addEventListener("click", (event) => {
  if (dragged()) return;
  const header = event.target.closest(".header");
  if (header) fold([header.dataset.zone]);
  else if (state.chosen !== null) choose(null);
});
for (const box of document.querySelectorAll("#switches input")) {
  box.addEventListener("change", () => {
    if (box.checked) state.hidden.delete(box.value); else state.hidden.add(box.value);
    applySwitches();
    writeState();
  });
}
