// Keys and buttons of the whole page; then the first look at the text.
const soon = later(check, 120);

function changed() {
  byId("dirty").hidden = text.value === saved;
  // Underlines move with the text until the server has spoken.
  const shift = text.value.length - lastLength;
  const at = text.selectionStart;
  for (const f of findings) if (f.start >= at - shift) { f.start += shift; f.end += shift; }
  lastLength = text.value.length;
  repaint();
  soon();
}
let lastLength = 0;

text.addEventListener("input", (event) => {
  changed();
  hush();
  const typed = event.inputType === "insertText" && /^[A-Za-z_]$/.test(event.data || "");
  if (typed || (open() && /delete/.test(event.inputType || ""))) propose(false); else closeProposals();
});
text.addEventListener("keydown", (event) => { if (!completing(event)) typing(event); });
for (const name of ["click", "keyup"]) {
  text.addEventListener(name, (event) => {
    if (name === "keyup" && !event.key.startsWith("Arrow")) return;
    if (open() && name === "click") closeProposals();
    post({ file: data.name, line: text.value.slice(0, text.selectionStart).split("\n").length });
  });
}

async function save(anyway = false) {
  if (!data.save) { download(); return; }
  const words = text.value;
  const answer = await ask("save", { text: words, seen: data.seen, anyway });
  if (answer.conflict) {
    if (window.confirm(`${answer.conflict}. Overwrite it?`)) save(true);
    return;
  }
  if (!answer.saved) { say(answer.failed || "not saved", true); return; }
  saved = words;
  data.seen = answer.seen;
  byId("dirty").hidden = text.value === saved;
  say("saved");
}

function download() {
  const address = URL.createObjectURL(new Blob([text.value], { type: "text/plain" }));
  const anchor = make("a", undefined, document.body);
  anchor.href = address;
  anchor.download = data.name;
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(address), 2000);
  if (!data.save) { saved = text.value; byId("dirty").hidden = true; }
}

async function format() {
  const asked = text.value;
  const answer = await ask("format", { text: asked });
  if (answer.text === undefined) { say(answer.failed || "the text has errors: it stays as it is", true); return; }
  if (asked === text.value && answer.text !== asked) replaceAll(answer.text);
  say("formatted");
}

function theme() {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  post({ theme: root.dataset.theme });
}

document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey)) return;
  if (event.key === "s") save(); else if (event.key === "F" && event.shiftKey) format(); else return;
  event.preventDefault();
});
byId("save")?.addEventListener("click", () => save());
byId("download").addEventListener("click", download);
byId("format").addEventListener("click", format);
byId("theme").addEventListener("click", theme);
window.addEventListener("beforeunload", (event) => { if (text.value !== saved) event.preventDefault(); });

const divider = byId("divider");
const widen = (x) => document.body.style.setProperty("--left", `${clamp((100 * x) / window.innerWidth, 18, 80)}%`);
divider.addEventListener("pointerdown", (event) => {
  divider.setPointerCapture(event.pointerId);
  root.classList.add("dragging");
});
divider.addEventListener("pointermove", (event) => { if (event.buttons) widen(event.clientX); });
divider.addEventListener("pointerup", () => root.classList.remove("dragging"));
divider.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -24, ArrowRight: 24 }[event.key];
  if (step) widen(divider.getBoundingClientRect().left + step);
});

text.value = data.text;
// As a text area holds it: its line ends are its own.
saved = text.value;
lastLength = text.value.length;
text.setSelectionRange(0, 0);
repaint();
show("graph");
text.focus();
check();
