// Keys: everything a pointer can do.
const help = byId("help");

const middle = (id) => {
  const [x, y, w, h] = boxes.get(id).rect;
  return [(across(x) + across(x + w)) / 2, y + h / 2];
};

// The nearest box in a direction; what lies to the side counts double.
function neighbour(id, [dx, dy]) {
  const from = middle(id);
  let best = null;
  let least = Infinity;
  for (const other of nodes.keys()) {
    if (other === id || isFolded(other)) continue;
    const [x, y] = middle(other).map((v, i) => v - from[i]);
    const along = x * dx + y * dy;
    const aside = Math.abs(x * dy) + Math.abs(y * dx);
    if (along < 8 || aside > 3 * along + 60) continue;
    const far = along + 2 * aside;
    if (far < least) { least = far; best = other; }
  }
  return best;
}

function walk(direction) {
  const shown = [...nodes.keys()].filter((id) => !isFolded(id));
  const focused = document.activeElement?.dataset?.id;
  const from = state.chosen ?? (shown.includes(focused) ? focused : null);
  const to = from === null ? shown.find((id) => problems.has(id)) : neighbour(from, direction);
  if (to) go(to);
}

const setTheme = (theme) => {
  state.theme = theme;
  if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
};

function otherTheme() {
  const dark = state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(dark ? "light" : "dark");
  writeState();
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const ACTIONS = {
  "/": () => find.focus(),
  "+": () => zoom(1.25),
  "=": () => zoom(1.25),
  "-": () => zoom(0.8),
  0: () => fit(),
  f: () => { const zone = boxes.get(state.chosen)?.zone || document.activeElement?.dataset?.zone; if (zone) fold([zone]); },
  F: foldAll,
  t: () => toggleTime(),
  d: otherTheme,
  s: saveSvg,
  p: savePng,
  "?": () => help.showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const target = event.target;
  if (["INPUT", "TEXTAREA"].includes(target.tagName) && target.type !== "checkbox") return;
  if (event.key === "Enter" || event.key === " ") {
    const zone = target.closest?.(".pill, .header")?.dataset.zone;
    const id = target.closest?.(".node")?.dataset.id;
    if (zone) fold([zone]); else if (id) choose(state.chosen === id && event.key === " " ? null : id); else return;
  } else if (ARROWS[event.key]) {
    if (target.closest?.("#panel, #time")) return;
    walk(ARROWS[event.key]);
  } else if (event.key === "Escape") choose(null);
  else if (ACTIONS[event.key]) ACTIONS[event.key]();
  else return;
  event.preventDefault();
});

const press = (id, action) => byId(id)?.addEventListener("click", () => action());
press("in", () => zoom(1.25));
press("out", () => zoom(0.8));
press("fit", () => fit());
press("fold", foldAll);
press("clock", () => toggleTime());
press("svg", saveSvg);
press("png", savePng);
press("theme", otherTheme);
press("help-button", () => help.showModal());
press("help-close", () => help.close());
