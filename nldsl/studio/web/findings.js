// What is wrong, as one types: underlines, a list below, a word when the pointer rests on it.
const list = byId("findings").querySelector("ul");
const tip = byId("tip");

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

function showFindings() {
  const count = (severity) => findings.filter((f) => f.severity === severity).length;
  const parts = ["error", "warning", "note"].filter(count).map((s) => plural(count(s), s));
  byId("findings-title").textContent = parts.join(", ") || "no findings";
  byId("findings").className = count("error") ? "bad" : "";
  list.replaceChildren();
  for (const f of findings) {
    const item = make("li", undefined, list, f.severity);
    const button = make("button", undefined, item, "finding");
    button.type = "button";
    make("b", `${f.line}`, button);
    make("span", `${f.message.replaceAll("`", "")}`, button);
    make("code", f.code, button);
    button.addEventListener("click", () => jump(f.start, f.end));
    for (const fix of f.fixes) {
      const mend = make("button", fix.title.replaceAll("`", ""), item, "fix");
      mend.type = "button";
      mend.addEventListener("click", () => insert(fix.text, fix.start, fix.end));
    }
  }
}

const check = latest(async (changed) => {
  const asked = text.value;
  const answer = await ask("check", { text: asked });
  if (changed() || asked !== text.value) return;
  if (answer.failed) { say(answer.failed, true); return; }
  findings = answer.findings || [];
  showTargets(answer.targets || []);
  showFindings();
  repaint();
  if (!findings.some((f) => f.severity === "error")) draw(); else fresh(false);
});

function tellAt(x, y, build) {
  tip.replaceChildren();
  build(tip);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${clamp(x, 4, window.innerWidth - box.width - 8)}px`;
  tip.style.top = `${y + 22 + box.height > window.innerHeight ? y - box.height - 8 : y + 22}px`;
}

const hush = () => { tip.hidden = true; };

function about(found, parent) {
  make("strong", `${found.severity} ${found.code}`, parent, found.severity);
  make("p", `${found.message}${found.label ? `: ${found.label}` : ""}`, parent);
  for (const note of found.notes) make("p", `note: ${note}`, parent, "soft");
  if (found.help) make("p", `help: ${found.help}`, parent, "soft");
}

// Markdown as the server writes it: fences, and the rest in paragraphs.
function markdown(source, parent) {
  source.split(/```\w*\n?/).forEach((part, i) => {
    if (i % 2) make("pre", part.trimEnd(), parent);
    else for (const paragraph of part.split(/\n{2,}/)) if (paragraph.trim()) make("p", paragraph.replace(/[`*]{1,2}/g, "").trim(), parent);
  });
}

let resting = 0;
text.addEventListener("mousemove", (event) => {
  clearTimeout(resting);
  const at = offsetAt(event.clientX, event.clientY);
  const here = findings.filter((f) => f.start <= at && at < Math.max(f.end, f.start + 1));
  if (here.length) { tellAt(event.clientX, event.clientY, (box) => here.forEach((f) => about(f, box))); return; }
  hush();
  if (at < 0 || !/[\w@<]/.test(text.value[at])) return;
  resting = setTimeout(async () => {
    const asked = text.value;
    const answer = await ask("tell", { text: asked, at });
    if (answer.text && asked === text.value) tellAt(event.clientX, event.clientY, (box) => markdown(answer.text, box));
  }, 450);
});
text.addEventListener("mouseleave", () => { clearTimeout(resting); hush(); });
