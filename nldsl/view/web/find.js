// Search over names, ids, kinds, maps, objectives, rules and clocks.
const find = byId("find");
const results = byId("results");
let active = -1;

const texts = new Map(graph.problems.map((p) => [p.id,
  [p.name, p.id, p.kind, p.map, p.objective, p.rule, p.level, p.clock.text, called(p.id)].join(" ").toLowerCase()]));

function matches(query) {
  const wanted = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!wanted.length) return [];
  const rank = (p) => (p.name.toLowerCase().startsWith(wanted[0]) ? 0 : 1);
  return graph.problems.filter((p) => wanted.every((w) => texts.get(p.id).includes(w))).sort((a, b) => rank(a) - rank(b));
}

function search() {
  const found = matches(find.value);
  const query = find.value.trim();
  results.replaceChildren();
  active = found.length ? 0 : -1;
  found.slice(0, 40).forEach((p, i) => {
    const item = make("li", undefined, results);
    item.id = `result-${i}`;
    item.dataset.id = p.id;
    item.setAttribute("role", "option");
    make("strong", called(p.id), item);
    make("small", `${p.kind} · ${p.zone} · ${p.clock.text}`, item);
  });
  if (query && !found.length) make("li", "nothing found", results, "none");
  results.hidden = !query;
  find.setAttribute("aria-expanded", String(!results.hidden));
  svg.classList.toggle("searching", Boolean(query));
  const hit = new Set(found.map((p) => p.id));
  for (const [id, node] of nodes) node.classList.toggle("hit-by-search", hit.has(id));
  for (const pill of pills.children) {
    pill.classList.toggle("hit-by-search", scene.boxes.some((b) => b.zone === pill.dataset.zone && hit.has(b.id)));
  }
  activate(active);
}

function activate(index) {
  active = index;
  [...results.children].forEach((item, i) => item.setAttribute("aria-selected", String(i === index)));
  const item = results.children[index];
  if (item && item.id) find.setAttribute("aria-activedescendant", item.id); else find.removeAttribute("aria-activedescendant");
  item?.scrollIntoView({ block: "nearest" });
}

function closeSearch() {
  find.value = "";
  search();
  find.blur();
}

find.addEventListener("input", search);
find.addEventListener("keydown", (event) => {
  const count = results.querySelectorAll("[role=option]").length;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    if (count) activate((active + (event.key === "ArrowDown" ? 1 : count - 1)) % count);
  } else if (event.key === "Enter") {
    const id = results.children[active]?.dataset.id;
    if (id) { closeSearch(); go(id); }
  } else if (event.key === "Escape") closeSearch();
  event.stopPropagation();
});
results.addEventListener("pointerdown", (event) => {
  const id = event.target.closest("li")?.dataset.id;
  event.preventDefault();
  if (id) { closeSearch(); go(id); }
});
