// Data of the page, small helpers, and the wire to the server.
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const byId = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

const make = (tag, text, parent, name) => {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  if (name) element.className = name;
  if (parent) parent.append(element);
  return element;
};

let hushing = 0;
function say(words, bad = false) {
  clearTimeout(hushing);
  byId("said").textContent = words;
  byId("said").classList.toggle("bad", bad);
  if (words) hushing = setTimeout(() => say(""), bad ? 9000 : 3000);
}

async function ask(what, more = {}) {
  try {
    const answer = await fetch("/do", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Token": data.token },
      body: JSON.stringify({ what, ...more }),
    });
    if (!answer.ok) return { failed: answer.status === 413 ? "the text is too long" : `the server says ${answer.status}` };
    return await answer.json();
  } catch {
    return { failed: "the server has gone: start `nldsl studio` again", gone: true };
  }
}

// One request of a kind at a time; what changes meanwhile is asked once more, only the last answer counts.
function latest(job) {
  let running = false;
  let again = false;
  return async function run() {
    if (running) { again = true; return; }
    running = true;
    do {
      again = false;
      await job(() => again);
    } while (again);
    running = false;
  };
}

function later(job, wait) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(job, wait);
  };
}
