// The picture as it stands, as a file: colours written out, nothing hidden in style sheets.
function standalone() {
  // From afar names are larger than their boxes allow for; a file shows everything at its own size.
  enlarge(1);
  const copy = svg.cloneNode(true);
  enlarge();
  const seen = { w: canvas[0], h: canvas[1] };
  copy.setAttribute("viewBox", `0 0 ${round(seen.w)} ${round(seen.h)}`);
  copy.setAttribute("width", round(seen.w));
  copy.setAttribute("height", round(seen.h));
  copy.removeAttribute("class");
  copy.removeAttribute("style");
  for (const gone of copy.querySelectorAll(".reach, .hit, .plate, .inside, .off")) gone.remove();
  for (const label of copy.querySelectorAll(".band-label")) label.removeAttribute("transform");
  for (const line of copy.querySelectorAll(".net path")) line.setAttribute("stroke-width", 1.7);
  const colours = getComputedStyle(root);
  for (const element of copy.querySelectorAll("[class]")) {
    for (const name of element.classList) {
      const [, what, role] = name.match(/^(fill|stroke)-(.+)$/) || [];
      const value = role && colours.getPropertyValue(`--${role}`).trim();
      if (value) element.setAttribute(what, value);
    }
  }
  for (const element of copy.querySelectorAll(".lit, .chosen")) element.classList.remove("lit", "chosen");
  const paper = copy.querySelector(".fill-paper");
  paper.setAttribute("width", round(seen.w));
  return { text: `<?xml version="1.0" encoding="UTF-8"?>\n${new XMLSerializer().serializeToString(copy)}`, ...seen };
}

function download(blob, name) {
  const address = URL.createObjectURL(blob);
  const anchor = make("a", undefined, document.body);
  anchor.href = address;
  anchor.download = name;
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(address), 2000);
}

const fileName = (ending) => `${graph.name.replace(/[^\w.-]+/g, "-")}.${ending}`;

function saveSvg() {
  download(new Blob([standalone().text], { type: "image/svg+xml" }), fileName("svg"));
}

function savePng() {
  const { text, w, h } = standalone();
  // Browsers refuse canvases that are larger; then the picture is made coarser.
  const scale = Math.min(2, 16000 / w, 16000 / h);
  const address = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  const image = new Image();
  image.onload = () => {
    const sheet = document.createElement("canvas");
    sheet.width = Math.round(w * scale);
    sheet.height = Math.round(h * scale);
    sheet.getContext("2d").drawImage(image, 0, 0, sheet.width, sheet.height);
    URL.revokeObjectURL(address);
    sheet.toBlob((blob) => { if (blob) download(blob, fileName("png")); }, "image/png");
  };
  image.src = address;
}
