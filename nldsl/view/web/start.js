// Everything is in place: bring the page into the state that the address asks for.
const CROWDED = 10;
const EMPTY = 0.4;

const asked = readState();
if (!asked.has("fold") && !asked.has("view") && scene.columns.length > CROWDED) {
  // Many blocks: begin with the overview, all of them folded.
  state.folded = new Set(scene.columns.filter((c) => scene.boxes.some((b) => b.zone === c.id)).map((c) => c.id));
}
setTheme(state.theme);
root.classList.add("live");
const embedded = window.parent !== window;
root.classList.toggle("embedded", embedded);
svg.removeAttribute("width");
svg.removeAttribute("height");
place();
applySwitches();
// A wide picture leaves room below: the timeline fills it, unless the address says otherwise.
const flat = extent().h * Math.min(1.35, room().w / extent().w);
showTime(state.time ?? (Boolean(time) && !embedded && room().w >= NARROW_WINDOW && flat < (1 - EMPTY) * room().h));
if (state.view) {
  const seen = extent();
  [camera.x, camera.y, camera.k] = [state.view[0] + seen.x, state.view[1] + seen.y, state.view[2]];
  look();
} else fit(false);
if (state.chosen && isFolded(state.chosen)) fold([boxes.get(state.chosen).zone], false);
choose(state.chosen);

window.addEventListener("beforeprint", () => svg.setAttribute("viewBox", `0 0 ${canvas[0]} ${canvas[1]}`));
window.addEventListener("afterprint", () => look());
window.addEventListener("message", (event) => {
  if (event.source !== window.parent || event.data?.nldsl !== "studio") return;
  if (event.data.theme !== undefined) setTheme(event.data.theme);
  if (event.data.line) {
    const hit = graph.problems.find((p) => (data.details[p.id]?.excerpts || []).some((e) => e.file === event.data.file && e.marked.includes(event.data.line)));
    if (hit && hit.id !== state.chosen) choose(hit.id);
  }
});
