// The timeline below the picture: what happens at the token or step under the pointer.
const time = byId("time");
const tracks = time ? [...time.querySelectorAll(".track")] : [];

function showTime(on) {
  if (!time) return;
  time.hidden = !on;
  root.classList.toggle("timed", on);
  share();
  byId("clock").setAttribute("aria-pressed", String(on));
}

// The picture gets the height it has when it fills the width; what is left is for the timeline.
function share() {
  if (!time || time.hidden) return;
  const seen = extent();
  const flat = seen.h * Math.min(1.35, room().w / seen.w) + 24;
  const all = window.innerHeight - stage.getBoundingClientRect().top;
  root.style.setProperty("--time", `${Math.round(clamp(all - flat, 0.38 * all, 0.6 * all))}px`);
}
window.addEventListener("resize", share);

function toggleTime() {
  if (!time) return;
  state.time = time.hidden;
  showTime(state.time);
  writeState();
}

function markTime(id) {
  for (const track of tracks) {
    const { problems: members } = data.timeline.tracks[Number(track.dataset.track)];
    track.classList.toggle("dim", id !== null && problems.has(id) && !members.includes(id));
  }
}

const happens = (times, at) => {
  if (!times) return false;
  if (times.at) return times.at.includes(at);
  const steps = (at - times.first) / times.every;
  return Number.isInteger(steps) && steps >= 0 && steps < times.count;
};

const last = (times, at) => {
  if (!times) return -1;
  if (times.at) return Math.max(-1, ...times.at.filter((t) => t <= at));
  const steps = Math.min(Math.floor((at - times.first) / times.every), times.count - 1);
  return steps < 0 ? -1 : times.first + steps * times.every;
};

function sayTime(event, track) {
  const line = data.timeline.tracks[Number(track.dataset.track)];
  const picture = time.querySelector("svg");
  const box = picture.getBoundingClientRect();
  const scale = picture.viewBox.baseVal.width / box.width;
  const [left, right] = [Number(picture.dataset.left), Number(picture.dataset.right)];
  const length = data.timeline[line.unit];
  const at = Math.floor((((event.clientX - box.left) * scale - left) / (right - left)) * length);
  if (at < 0 || at >= length) { hush(); return; }
  const unit = line.unit.slice(0, -1);
  const now = ["reads", "writes", "commits", "bases", "resets"].filter((name) => happens(line[name], at));
  const seen = last(line.commits, at - 1);
  const age = line.unit === "tokens" && line.reads.count && line.commits.count
    ? ` A read here sees what was committed ${seen < 0 ? "at the start" : `behind ${unit} ${seen}`}.` : "";
  sayAt(event, `${line.names.join(", ")} at ${unit} ${at}`, `${now.join(", ") || "rests"}.${age}`);
}

for (const track of tracks) {
  track.addEventListener("pointermove", (event) => sayTime(event, track));
  track.addEventListener("pointerleave", hush);
  track.addEventListener("click", () => {
    const members = data.timeline.tracks[Number(track.dataset.track)].problems;
    const next = members[(members.indexOf(state.chosen) + 1) % members.length];
    go(next);
  });
}
