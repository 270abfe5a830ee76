// Completion: names that fit the place, while a word is being typed or on Ctrl+Space.
const proposals = byId("proposals");
let known = [];
let offered = [];
let picked = -1;
let wordStart = 0;
let wanted = 0;

const open = () => !proposals.hidden;

function closeProposals() {
  wanted += 1;
  proposals.hidden = true;
  text.removeAttribute("aria-activedescendant");
}

async function propose(force) {
  if (open()) narrow();
  const mine = (wanted += 1);
  const asked = text.value;
  const at = text.selectionStart;
  const answer = await ask("complete", { text: asked, at });
  if (mine !== wanted || asked !== text.value || at !== text.selectionStart || answer.failed) return;
  wordStart = answer.start;
  known = answer.items;
  if (at > wordStart || force) offer(); else closeProposals();
}

// The known names that fit what is typed of the word by now. Until the server answers for the next letter the list
// is narrowed here: what is chosen is never a name that no longer fits.
function offer() {
  const word = text.value.slice(wordStart, text.selectionStart);
  const typed = word.toLowerCase();
  const rank = (item) => (item.label.toLowerCase().startsWith(typed) ? 0 : 1);
  offered = known.filter((item) => item.label.toLowerCase().includes(typed)).sort((a, b) => rank(a) - rank(b)).slice(0, 60);
  const complete = offered.length === 1 && offered[0].label === word;
  if (!offered.length || complete) { closeProposals(); return; }
  proposals.replaceChildren();
  offered.forEach((item, i) => {
    const line = make("li", undefined, proposals);
    line.id = `proposal-${i}`;
    line.setAttribute("role", "option");
    make("i", { function: "ƒ", definition: "◆", variable: "x", memory: "M", option: "=", keyword: "k", file: "f" }[item.kind] || "", line, item.kind);
    make("span", item.label, line);
    make("small", item.detail, line);
  });
  proposals.hidden = false;
  const { x, y, high } = spot(wordStart);
  const box = proposals.getBoundingClientRect();
  proposals.style.left = `${clamp(x - 8, 4, window.innerWidth - box.width - 8)}px`;
  proposals.style.top = `${y + high + box.height > window.innerHeight ? y - box.height - 4 : y + high + 2}px`;
  pick(0);
}

function narrow() {
  if (/^\w+$/.test(text.value.slice(wordStart, text.selectionStart))) offer(); else closeProposals();
}

function pick(index) {
  picked = (index + offered.length) % offered.length;
  [...proposals.children].forEach((line, i) => line.setAttribute("aria-selected", String(i === picked)));
  proposals.children[picked].scrollIntoView({ block: "nearest" });
  text.setAttribute("aria-activedescendant", `proposal-${picked}`);
}

function take(index = picked) {
  const item = offered[index];
  const start = wordStart;
  closeProposals();
  const indent = text.value.slice(lineStart(start), start).match(/^ */)[0];
  const words = item.text.replaceAll("\n", `\n${indent}`);
  insert(words, start, text.selectionStart);
  if (item.caret !== null) {
    const before = item.text.slice(0, item.caret).replaceAll("\n", `\n${indent}`).length;
    text.setSelectionRange(start + before, start + before);
  }
  closeProposals();
}

// True if the key was for the list of proposals.
function completing(event) {
  if (event.key === " " && event.ctrlKey) { event.preventDefault(); propose(true); return true; }
  if (!open()) return false;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") pick(picked + (event.key === "ArrowDown" ? 1 : -1));
  else if (event.key === "Enter" || event.key === "Tab") take();
  else if (event.key === "Escape") closeProposals();
  else return false;
  event.preventDefault();
  return true;
}

proposals.addEventListener("pointerdown", (event) => {
  event.preventDefault();
  const line = event.target.closest("li");
  if (line) take([...proposals.children].indexOf(line));
});
text.addEventListener("blur", () => closeProposals());
