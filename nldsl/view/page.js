"use strict";
// The page of a level graph: hover shows what a problem is wired to, a click shows what it is.
(() => {
  const graph = JSON.parse(document.getElementById("graph").textContent);
  const svg = document.querySelector("#picture svg");
  const details = document.getElementById("about");
  const problems = new Map(graph.problems.map((p) => [p.id, p]));
  const nets = [...svg.querySelectorAll(".net")];
  const nodes = new Map([...svg.querySelectorAll(".node")].map((n) => [n.dataset.id, n]));
  const ends = graph.nets;
  let chosen = null;

  const make = (tag, text, parent) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };

  function trace(id) {
    svg.classList.toggle("tracing", id !== null);
    for (const element of [...nets, ...nodes.values()]) element.classList.remove("lit");
    if (id === null) return;
    nodes.get(id)?.classList.add("lit");
    for (const net of nets) {
      const { sources, targets } = ends[Number(net.dataset.net)];
      if (!sources.includes(id) && !targets.includes(id)) continue;
      net.classList.add("lit");
      const seen = sources.includes(id) ? [...targets, ...(targets.includes(id) ? sources : [])] : sources;
      for (const other of seen) nodes.get(other)?.classList.add("lit");
    }
  }

  function traceNet(net) {
    trace(null);
    svg.classList.add("tracing");
    net.classList.add("lit");
    const { sources, targets } = ends[Number(net.dataset.net)];
    for (const id of [...sources, ...targets]) nodes.get(id)?.classList.add("lit");
  }

  function row(list, name, value, code) {
    if (value === "" || value === undefined || value === null) return;
    make("dt", name, list);
    const cell = make("dd", code ? undefined : String(value), list);
    if (code) make("code", String(value), cell);
  }

  const size = (bytes) => {
    const units = ["bytes", "KiB", "MiB", "GiB"];
    let i = 0;
    while (bytes >= 1024 && i < 3) { bytes /= 1024; i += 1; }
    return `${Number(bytes.toFixed(i ? 1 : 0))} ${units[i]}`;
  };

  function transfers(id, end, other, title) {
    const found = graph.transfers.filter((t) => t[end] === id);
    if (!found.length) return;
    make("h3", title, details);
    const list = make("ul", undefined, details);
    for (const t of found) {
      const item = make("li", undefined, list);
      item.style.setProperty("--dot", `var(--${t.kind})`);
      const far = problems.get(t[other]);
      item.append(`${t.kind}: ${t[other] === id ? "itself" : far ? far.zone + " / " + far.name : t[other]}`);
      make("br", undefined, item);
      make("small", t.carries.join(", ") + (t.wraps ? " (to the next copy)" : ""), item);
    }
  }

  function show(id) {
    const p = problems.get(id);
    details.replaceChildren();
    make("h2", p ? p.name : id, details);
    if (!p) { transfers(id, "source", "target", "Goes to"); transfers(id, "target", "source", "Comes from"); return; }
    make("p", `${p.kind} · ${p.id}`, details).className = "what";
    const level = graph.levels.find((l) => l.problems.includes(id));
    const list = make("dl", undefined, details);
    row(list, "level", `${level.number}, ${level.frequency}`);
    row(list, "because", level.reason);
    row(list, "context", p.context);
    row(list, "objective", p.objective);
    row(list, "", p.objective_equation, true);
    row(list, "map", p.map);
    row(list, "", p.map_equation, true);
    row(list, "rule", p.rule);
    row(list, "", p.rule_equation.replaceAll("; ", "\n"), true);
    row(list, "retention", p.retention);
    row(list, "starts at", p.start);
    row(list, "reset", p.reset === "never" ? "never" : p.reset.startsWith("every") ? p.reset : "");
    row(list, "copies", [p.copies > 1 ? `${p.copies} heads` : "", p.multiplicity > 1 ? `×${p.multiplicity} blocks` : ""]
      .filter(Boolean).join(", "));
    if (p.parameters) row(list, "numbers", p.parameters.toLocaleString("en"));
    if (p.state_bytes) row(list, "state", `${size(p.state_bytes)} per sequence and copy`);
    if (p.bytes_per_token) row(list, "grows", `${size(p.bytes_per_token)} per token`);
    row(list, "shapes", p.tensors.map((t) => `${t.name} [${t.shape.join(", ")}]`).join("\n"), true);
    row(list, "source", p.source);
    row(list, "", p.text, true);
    transfers(id, "source", "target", "Goes to");
    transfers(id, "target", "source", "Comes from");
  }

  function choose(id) {
    nodes.get(chosen)?.classList.remove("chosen");
    chosen = chosen === id ? null : id;
    nodes.get(chosen)?.classList.add("chosen");
    trace(chosen);
    if (chosen !== null) show(chosen); else details.replaceChildren(make("p", details.dataset.hint));
  }

  for (const [id, node] of nodes) {
    node.addEventListener("pointerenter", () => trace(id));
    node.addEventListener("pointerleave", () => trace(chosen));
    node.addEventListener("click", (event) => { event.stopPropagation(); choose(id); });
    node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(id); }
    });
  }
  for (const net of nets) {
    net.addEventListener("pointerenter", () => traceNet(net));
    net.addEventListener("pointerleave", () => trace(chosen));
  }
  svg.addEventListener("click", () => { if (chosen !== null) choose(chosen); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && chosen !== null) choose(chosen); });
  const fit = document.getElementById("fit");
  fit.addEventListener("change", () => document.getElementById("picture").classList.toggle("fit", fit.checked));
  for (const box of document.querySelectorAll("#switches input[value]")) {
    box.addEventListener("change", () => {
      for (const net of nets) if (net.dataset.kind === box.value) net.classList.toggle("off", !box.checked);
    });
  }
})();
