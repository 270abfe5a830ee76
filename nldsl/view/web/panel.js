// The panel: what the chosen problem is, or an overview if none is chosen.
const about = byId("about");

function typeset(runs, parent, name = "math") {
  const line = make("div", undefined, parent, name);
  const tags = { italic: "i", sub: "sub", super: "sup" };
  for (const [text, style] of runs) {
    if (tags[style]) make(tags[style], text, line);
    else line.append(text);
  }
  return line;
}

function row(list, name, value) {
  if (value === "" || value === undefined || value === null) return null;
  make("dt", name, list);
  const cell = make("dd", undefined, list);
  if (value instanceof Node) cell.append(value); else cell.textContent = String(value);
  return cell;
}

function part(title, open = true) {
  const box = make("details", undefined, about);
  box.open = open;
  make("summary", title, box);
  return box;
}

function link(id, parent) {
  const button = make("button", called(id), parent, "link");
  button.type = "button";
  button.addEventListener("click", () => go(id));
  return button;
}

// Choose a problem from elsewhere than the picture: unfold what hides it, bring it into view.
function go(id) {
  if (isFolded(id)) fold([boxes.get(id).zone], false);
  choose(id);
  showBox(id);
  nodes.get(id)?.focus({ preventScroll: true });
}

function transfers(id, end, other, title) {
  const found = graph.transfers.filter((t) => t[end] === id);
  if (!found.length) return;
  const list = make("ul", undefined, part(title), "transfers");
  for (const t of found) {
    const item = make("li", undefined, list);
    item.style.setProperty("--dot", `var(--${t.kind})`);
    item.title = data.meaning[t.kind];
    if (t[other] === id) item.append("itself"); else link(t[other], item);
    make("small", ` ${t.kind}${t.carries.length ? `: ${t.carries.join(", ")}` : ""}${t.wraps ? " (to the next copy)" : ""}`, item);
  }
}

function equations(p, detail) {
  if (!detail) return;
  if (detail.update.length) {
    const box = part("Update, derived");
    for (const line of detail.update) typeset(line, box);
    detail.where.forEach((line, i) => typeset([[i ? "and " : "where ", ""], ...line], box, "math where"));
    const known = [detail.known_as, detail.paper].filter(Boolean).join(" — ");
    if (known) make("p", known, box, "known");
    if (detail.latex.length) {
      const copy = make("button", "copy LaTeX", box, "link");
      copy.type = "button";
      copy.addEventListener("click", () => copyText(detail.latex.join(" \\\\\n"), copy));
    }
    if (detail.reasons.length) {
      const why = make("details", undefined, box, "why");
      make("summary", "why this form", why);
      const list = make("ul", undefined, why);
      for (const reason of detail.reasons) make("li", reason.replaceAll("`", ""), list);
    }
  }
  stability(detail);
  const box = part("Problem");
  const list = make("dl", undefined, box);
  row(list, "context", p.context);
  row(list, "objective", p.objective);
  const indent = (runs) => { make("dt", "", list); typeset(runs, make("dd", undefined, list)); };
  if (detail.objective.length) indent(detail.objective);
  row(list, "map", p.map);
  if (detail.map.length) indent(detail.map);
  row(list, "rule", p.rule);
  for (const line of detail.rule) indent(line);
  row(list, "retention", p.retention);
  row(list, "starts at", p.start);
  row(list, "reset", p.reset === "every sequence" ? "" : p.reset);
}

function stability(detail) {
  if (!detail.transitions.length && !detail.gates.length) return;
  const box = part("Along the key");
  for (const [factor, said, admissible] of detail.transitions) {
    typeset(factor, box);
    make("p", said, box, "what");
    if (admissible.length) typeset([["admissible: ", ""], ...admissible], box, "math where");
  }
  if (!detail.gates.length) return;
  const list = make("dl", undefined, box);
  for (const [gate, range] of detail.gates) row(list, gate, `in ${range}`);
}

function copyText(text, button) {
  const said = button.textContent;
  const done = (word) => { button.textContent = word; setTimeout(() => { button.textContent = said; }, 1200); };
  const area = make("textarea", text, document.body);
  area.select();
  const worked = document.execCommand("copy");
  area.remove();
  done(worked ? "copied" : "not copied");
}

function cost(p) {
  const list = make("dl", undefined, part("Cost"));
  const copies = [p.copies > 1 ? `${p.copies} heads` : "", p.multiplicity > 1 ? `×${p.multiplicity} blocks` : ""];
  row(list, "copies", copies.filter(Boolean).join(", "));
  if (p.parameters) row(list, "parameters", p.parameters.toLocaleString("en"));
  if (p.state_bytes) row(list, "state", `${size(p.state_bytes)} per sequence${p.multiplicity > 1 ? ` and block, ${size(p.state_bytes * p.multiplicity)} in all` : ""}`);
  if (p.bytes_per_token) row(list, "grows", `${size(p.bytes_per_token)} per token`);
  const flops = data.details[p.id]?.flops;
  if (flops && flops.some(Boolean)) {
    const all = (fixed, context) => `${many(fixed * p.multiplicity)} FLOPs per token${context ? `, ${many(context * p.multiplicity)} more per token of context` : ""}`;
    row(list, "decode", all(flops[0], flops[1]));
    row(list, "training", all(flops[2], flops[3]));
  }
  const shapes = document.createDocumentFragment();
  for (const t of p.tensors) make("code", `${t.name} [${t.shape.join(" × ")}]`, shapes, "shape");
  if (p.tensors.length) row(list, "shapes", shapes);
}

function excerpts(detail) {
  if (!detail || !detail.excerpts.length) return;
  const box = part(`Text: ${detail.file}:${detail.line}`);
  for (const excerpt of detail.excerpts) {
    const code = make("pre", undefined, box, "code");
    code.tabIndex = 0;
    code.setAttribute("aria-label", `${excerpt.file} from line ${excerpt.first}`);
    excerpt.lines.forEach((line, i) => {
      const number = excerpt.first + i;
      const shown = make("span", undefined, code, excerpt.marked.includes(number) ? "marked" : "");
      make("b", String(number), shown);
      shown.append(`${line}\n`);
    });
  }
}

function changesOf(id) {
  const found = data.comparison ? data.comparison.changes.filter((c) => c.subject === "problem" && c.id === id) : [];
  if (!found.length) return;
  const list = make("ul", undefined, part("Difference"), "changes");
  for (const change of found) {
    const item = make("li", undefined, list, change.status);
    if (change.status !== "changed") { item.textContent = `${change.status} in ${change.status === "added" ? data.comparison.after : data.comparison.before}`; continue; }
    make("span", `${change.what}: `, item);
    make("del", change.before || "none", item);
    item.append(" ");
    make("ins", change.after || "none", item);
  }
}

function show(id) {
  const p = problems.get(id);
  about.replaceChildren();
  make("h2", p ? (p.kind === "slow parameters" ? `${p.name}` : p.name) : called(id), about);
  if (!p) {
    make("p", ports.get(id).kind, about, "what");
    transfers(id, "source", "target", "Goes to");
    transfers(id, "target", "source", "Comes from");
    return;
  }
  make("p", `${p.kind} · ${p.id}`, about, "what");
  const level = levelOf.get(id);
  const said = make("p", undefined, about, "level");
  make("strong", `Level ${level.number}, ${level.frequency}`, said);
  said.append(` — ${level.reason.replaceAll("`", "")}`);
  const detail = data.details[id];
  changesOf(id);
  equations(p, detail);
  cost(p);
  excerpts(detail);
  transfers(id, "source", "target", "Goes to");
  transfers(id, "target", "source", "Comes from");
}

function overview() {
  about.replaceChildren();
  make("h2", data.comparison ? `${data.comparison.before} → ${data.comparison.after}` : graph.name, about);
  make("p", data.summary, about, "what");
  if (data.comparison) differences();
  const box = part("Levels, fastest first");
  for (const level of [...graph.levels].reverse()) {
    const item = make("div", undefined, box, "level");
    make("strong", `Level ${level.number}, ${level.frequency}`, item);
    make("small", ` ${level.names.join(" · ")}`, item);
    const list = make("p", undefined, item);
    for (const id of level.problems) link(id, list);
  }
  make("p", "Point at a line to read what passes along it. Click a problem to see its equations, cost and text. Press ? for keys.", about, "hint");
}

function differences() {
  const groups = { problem: [], transfer: [] };
  for (const change of data.comparison.changes) groups[change.subject].push(change);
  for (const [subject, found] of Object.entries(groups)) {
    if (!found.length) continue;
    const list = make("ul", undefined, part(`${found.length} ${subject === "problem" ? "differences of problems" : "transfers differ"}`, subject === "problem"), "changes");
    for (const change of found) {
      const item = make("li", undefined, list, change.status);
      if (subject === "problem") {
        const button = make("button", change.sentence, item, "link");
        button.type = "button";
        button.addEventListener("click", () => go(change.id));
      } else item.textContent = change.sentence;
    }
  }
  if (!data.comparison.changes.length) make("p", "The two are the same.", about);
}
