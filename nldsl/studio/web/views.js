// The right side: the graph in a frame of its own, the tables, the emitted source.
const target = byId("target");
const frames = [];
let shown = "graph";
let chosenTarget = null;
let hash = "";
let source = { text: null, target: null };

function fresh(is, why) {
  byId("stale").hidden = is;
  byId("stale").textContent = is ? "" : why || "The picture is that of the last text without errors.";
  byId("right").classList.toggle("stale", !is);
}

function showTargets(found) {
  const names = found.map(([kind, name]) => `${kind} ${name}`);
  if ([...target.options].map((o) => o.value).join() === names.join()) return;
  target.replaceChildren();
  names.forEach((name) => { make("option", name, target).value = name; });
  if (names.includes(chosenTarget)) target.value = chosenTarget; else chosenTarget = null;
  byId("choose").hidden = names.length < 2;
}

const wantedTarget = () => (chosenTarget ? chosenTarget.split(" ") : null);

const draw = latest(async (changed) => {
  const answer = await ask("picture", { text: text.value, target: wantedTarget() });
  if (changed()) return;
  if (!answer.page) { fresh(false, answer.failed || (answer.errors || [])[0]?.split("\n")[0]); return; }
  fresh(true);
  frame(answer.page);
  tables(answer.tables);
  // Parsed as a picture, so that nothing in it can run.
  const drawn = new DOMParser().parseFromString(answer.timeline, "image/svg+xml").documentElement;
  byId("view-timeline").replaceChildren(document.importNode(drawn, true));
  if (shown === "source") emit();
});

// The new picture is loaded behind the old one, so that nothing flickers.
function frame(page) {
  const next = document.createElement("iframe");
  next.title = "level graph";
  next.setAttribute("sandbox", "allow-scripts allow-downloads allow-modals");
  next.src = `/graph/${page}?token=${encodeURIComponent(data.token)}#${hash}`;
  next.className = "coming";
  next.addEventListener("load", () => {
    next.className = "";
    for (const old of frames.splice(0)) if (old !== next) old.remove();
    frames.push(next);
    post({ theme: root.dataset.theme || "" });
  });
  byId("view-graph").append(next);
}

function post(message) {
  for (const each of frames) each.contentWindow?.postMessage({ nldsl: "studio", ...message }, "*");
}

window.addEventListener("message", (event) => {
  if (!frames.some((each) => each.contentWindow === event.source) || event.data?.nldsl !== "graph") return;
  if (typeof event.data.hash === "string") hash = event.data.hash;
  const { file, line, chosen } = event.data;
  if (chosen && file === data.name && Number.isInteger(line) && document.activeElement !== text) {
    const before = document.activeElement;
    jumpToLine(line);
    before?.focus?.();
  }
});

function tables(found) {
  const view = byId("view-explain");
  view.replaceChildren();
  for (const one of found) {
    make("h2", one.title, view);
    if (one.note) make("p", one.note, view, "soft");
    if (!one.rows.length) continue;
    const box = make("div", undefined, view, "wide");
    const table = make("table", undefined, box);
    const head = make("tr", undefined, make("thead", undefined, table));
    for (const column of one.columns) make("th", column, head).scope = "col";
    const body = make("tbody", undefined, table);
    for (const row of one.rows) {
      const line = make("tr", undefined, body);
      for (const cell of row.cells) make("td", cell, line);
    }
  }
}

const emit = latest(async (changed) => {
  const view = byId("view-source");
  const [asked, wanted] = [text.value, chosenTarget];
  if (source.text === asked && source.target === wanted) return;
  view.replaceChildren(make("p", "Compiling. The first time torch is loaded, which takes a moment.", null, "spinner"));
  const answer = await ask("source", { text: asked, target: wantedTarget() });
  if (changed()) return;
  view.replaceChildren();
  if (!answer.source) { make("pre", answer.missing || answer.failed || (answer.errors || []).join("\n\n"), view, "refusal"); return; }
  source = { text: asked, target: wanted };
  const bar = make("p", undefined, view, "classes");
  const code = make("pre", undefined, view, "python");
  const lines = answer.source.split("\n").map((line) => pythonLine(line, code));
  for (const [name, line] of Object.entries(answer.classes)) {
    const go = make("button", name, bar);
    go.type = "button";
    go.addEventListener("click", () => lines[line - 1].scrollIntoView({ block: "start" }));
  }
});

const PYTHON = /(#.*$)|("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|\b(class|def|return|import|from|for|in|if|else|elif|is|not|and|or|None|True|False|self|with|as|while|raise|lambda)\b|(\b\d[\d.e-]*\b)/g;
function pythonLine(line, parent) {
  const row = make("span", undefined, parent, "line");
  let at = 0;
  for (const match of line.matchAll(PYTHON)) {
    row.append(line.slice(at, match.index));
    make("span", match[0], row, `t-${match[1] ? "comment" : match[2] ? "string" : match[3] ? "keyword" : "number"}`);
    at = match.index + match[0].length;
  }
  row.append(`${line.slice(at)}\n`);
  return row;
}

function show(id) {
  shown = id;
  for (const tab of byId("tabs").children) {
    const mine = tab.id === `tab-${id}`;
    tab.setAttribute("aria-selected", String(mine));
    tab.tabIndex = mine ? 0 : -1;
    byId(tab.id.replace("tab", "view")).hidden = !mine;
  }
  if (id === "source") emit();
}

byId("tabs").addEventListener("click", (event) => {
  const tab = event.target.closest("[role=tab]");
  if (tab) show(tab.id.replace("tab-", ""));
});
byId("tabs").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const tabs = [...byId("tabs").children];
  const next = tabs[(tabs.findIndex((t) => t.getAttribute("aria-selected") === "true") + step + tabs.length) % tabs.length];
  show(next.id.replace("tab-", ""));
  next.focus();
});
target.addEventListener("change", () => { chosenTarget = target.value; hash = ""; draw(); });
