"""The page of a graph in a browser: real clicks and keys, from file://, with nothing from anywhere else."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nldsl.graph import build_graph, open_program
from nldsl.view import draw_svg, lay_out
from nldsl.view.page import draw_page
from tests.browser.chrome import Chrome

HOPE = open_program("hope")
MK, M, F1 = (
    f"blocks[*].{name}" for name in ("self_modifying_titans.Mk", "self_modifying_titans.M", "cms.F[1]")
)
TITANS = "blocks[*].self_modifying_titans"

# Every line of a net ends at a box, at a pill, or on another line of the same net.
DANGLING = """
(() => {
  const svg = document.querySelector("#stage svg");
  const within = (at, start, size) => at > start - 2 && at < start + size + 2;
  const near = (r, p) => within(p.x, r.x, r.width) && within(p.y, r.y, r.height);
  const shown = (e) => e.getClientRects().length && getComputedStyle(e).display !== "none";
  const moved = (e) => {
    const { x, y, width, height } = e.getBBox();
    return { x: x + (e.parentNode.transform.baseVal.consolidate()?.matrix.e ?? 0), y, width, height };
  };
  const groups = [...svg.querySelectorAll(".node, .pill")].filter(shown);
  const rects = groups.map((g) => moved(g.querySelector("rect")));
  const loose = [];
  let count = 0;
  for (const net of svg.querySelectorAll(".net:not(.inside)")) {
    net.removeAttribute("stroke-dasharray");
    const paths = [...net.querySelectorAll("path:not(.reach)")];
    for (const path of paths) {
      count += 1;
      for (const at of [0, path.getTotalLength()]) {
        const p = path.getPointAtLength(at);
        const point = Object.assign(svg.createSVGPoint(), { x: p.x, y: p.y });
        if (!rects.some((r) => near(r, p)) && !paths.some((o) => o !== path && o.isPointInStroke(point)))
          loose.push([net.dataset.net, p.x, p.y]);
      }
    }
  }
  return { count, loose };
})()
"""

# Text that can be seen and does not fit into its box, measured with the fonts of the browser.
SPILLS = """
[...document.querySelectorAll("#stage .node, #stage .pill")].flatMap((group) => {
  const box = group.querySelector("rect").getBoundingClientRect();
  const shown = (t) => !t.closest(".mark") && t.getBoundingClientRect().width;
  const inside = (t) =>
    t.left > box.left - 1 && t.right < box.right + 1 && t.top > box.top - 2 && t.bottom < box.bottom + 2;
  return [...group.querySelectorAll("text")]
    .filter((t) => shown(t) && !inside(t.getBoundingClientRect()))
    .map((t) => t.textContent);
})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("pages")
    (where / "hope.html").write_text(draw_page(HOPE))
    (where / "many.html").write_text(draw_page(open_program("hope", depth=48)))
    (where / "transformer.html").write_text(draw_page(open_program("transformer")))
    (where / "diff.html").write_text(draw_page(open_program("hope_attention"), HOPE))
    return where


def see(chrome: Chrome, folder: Path, name: str = "hope", hash: str = "#time=0", dark: bool = False) -> None:
    chrome.open(f"{(folder / f'{name}.html').as_uri()}{hash}", dark)
    chrome.wait("document.documentElement.classList.contains('live')")


def node(id: str) -> str:
    return f'.node[data-id="{id}"]'


def panel(chrome: Chrome) -> str:
    return str(chrome.run("document.getElementById('panel').innerText"))


def view(chrome: Chrome) -> list[float]:
    box = chrome.run("document.querySelector('#stage svg').getAttribute('viewBox')")
    return [float(part) for part in box.split()]


@pytest.mark.parametrize("name", ["hope", "many", "transformer", "diff"])
@pytest.mark.parametrize("dark", [False, True])
def test_pages_ask_for_nothing_and_hold_their_text(
    chrome: Chrome, folder: Path, name: str, dark: bool
) -> None:
    see(chrome, folder, name, hash="", dark=dark)
    paper = "rgb(16, 20, 27)" if dark else "rgb(255, 255, 255)"
    assert chrome.run("getComputedStyle(document.body).backgroundColor") == paper
    assert chrome.run(SPILLS) == []
    for _ in range(5):
        chrome.key("+")
    assert not chrome.run("document.querySelector('#stage svg').classList.contains('far')")
    assert chrome.run(SPILLS) == []
    found = chrome.run(DANGLING)
    assert found["count"] > 10 and found["loose"] == []
    assert [r for r in chrome.requests if not r.startswith(("file://", "about:"))] == []
    assert sum(r.startswith("file://") for r in chrome.requests) == 1


def test_a_click_tells_everything_about_a_problem(chrome: Chrome, folder: Path) -> None:
    see(chrome, folder)
    assert "32 memories" in panel(chrome)
    chrome.click(node(MK))
    said = panel(chrome)
    assert said.startswith("Mk")
    wanted = (
        *("Level 4, every 16 tokens", "Update, derived", "Eq. 83-88", "W2 [64 × 64]", "FLOPs per token"),
        *("self_modifying_titans.nl", "memory Mk, Mv, Me, Ma", "Goes to", "Comes from"),
    )
    for words in wanted:
        assert words in said, words
    assert chrome.run("document.querySelector('.code .marked b').textContent").isdigit()
    chrome.wait("location.hash.includes('at=')")
    chrome.key("Escape")
    assert "32 memories" in panel(chrome)


def test_an_address_brings_back_what_was_seen(chrome: Chrome, folder: Path) -> None:
    see(chrome, folder, hash=f"#time=1&at={F1}&fold={TITANS}&theme=dark")
    assert panel(chrome).startswith("F[1]")
    assert chrome.run(f"document.querySelector('{node(MK)}').style.display") == "none"
    assert chrome.run("document.documentElement.dataset.theme") == "dark"
    assert chrome.run("!document.getElementById('time').hidden")


def test_pointing_at_a_line_says_its_transfer(chrome: Chrome, folder: Path) -> None:
    see(chrome, folder)
    place = chrome.run(
        "(() => { const path = document.querySelector('.net[data-kind=initialise] path');"
        " const p = path.getPointAtLength(path.getTotalLength() / 2);"
        " const m = path.getScreenCTM(); return [p.x * m.a + m.e, p.y * m.d + m.f]; })()"
    )
    chrome.mouse("mouseMoved", *place)
    chrome.wait("!document.getElementById('tip').hidden")
    said = chrome.run("document.getElementById('tip').innerText")
    assert said.startswith("initialise") and "where" in said and "start" in said
    assert chrome.run("document.querySelectorAll('.net.lit').length") == 1
    chrome.mouse("mouseMoved", 700, 900)
    chrome.wait("document.getElementById('tip').hidden")


def test_pan_and_zoom(chrome: Chrome, folder: Path) -> None:
    see(chrome, folder)
    whole = view(chrome)
    x, y = chrome.place(node(M))
    chrome.mouse("mouseWheel", x, y, deltaX=0, deltaY=-400)
    chrome.until(lambda: view(chrome)[2] < whole[2], "a closer look")
    # What was under the pointer stays under it.
    assert chrome.place(node(M)) == pytest.approx((x, y), abs=1.5)
    chrome.drag((500, 800), (620, 760))
    assert chrome.place(node(M)) == pytest.approx((x + 120, y - 40), abs=1.5)
    assert chrome.run("document.querySelectorAll('.node.chosen').length") == 0
    chrome.key("-")
    chrome.click("#in")
    chrome.key("0")
    assert view(chrome) == pytest.approx(whole, abs=0.5)


def test_labels_of_levels_stay_in_sight(chrome: Chrome, folder: Path) -> None:
    see(chrome, folder)
    for _ in range(4):
        chrome.key("+")
    chrome.drag((900, 500), (300, 500))
    for place in chrome.run(
        "[...document.querySelectorAll('.band-label text')].filter((t) => t.getClientRects().length)"
        ".map((t) => t.getBoundingClientRect().left)"
    ):
        assert 0 <= place < 60
    plate = chrome.run("getComputedStyle(document.querySelector('.band-label .plate')).display")
    assert plate != "none"


def test_search(chrome: Chrome, folder: Path) -> None:
    see(chrome, folder)
    chrome.key("/")
    chrome.type("task 64")
    assert chrome.run("[...document.querySelectorAll('#results strong')].map((e) => e.textContent)") == [
        "F[1]"
    ]
    chrome.key("Enter")
    assert panel(chrome).startswith("F[1]")
    chrome.key("/")
    chrome.type("zebra")
    assert chrome.run("document.getElementById('results').innerText") == "nothing found"
    chrome.key("Escape")
    assert chrome.run("document.getElementById('results').hidden")


def test_blocks_fold_and_unfold(chrome: Chrome, folder: Path) -> None:
    see(chrome, folder)
    wide = view(chrome)[2]
    chrome.click(f'.header[data-zone="{TITANS}"] text')
    assert chrome.run(f"document.querySelector('{node(MK)}').style.display") == "none"
    assert "4 memories" in chrome.run("document.querySelector('.pills').textContent")
    assert view(chrome)[2] < wide
    assert chrome.run(DANGLING)["loose"] == [] and chrome.run(SPILLS) == []
    chrome.click(".pill rect")
    assert chrome.run(f"document.querySelector('{node(MK)}').style.display") == ""
    chrome.key("F")
    # The pills of training, of the model's own parameters, and three or four rows of both blocks.
    assert chrome.run("document.querySelectorAll('.pill').length") == 9
    assert chrome.run("document.querySelectorAll('#stage .node.memory').length") == 5
    assert chrome.run(DANGLING)["loose"] == [] and chrome.run(SPILLS) == []
    chrome.key("F")
    assert chrome.run("document.querySelectorAll('.pill').length") == 0
    chrome.click(node(MK))
    chrome.key("f")
    assert chrome.run("document.querySelectorAll('.pill').length") == 3


def test_keys_do_what_a_pointer_can(chrome: Chrome, folder: Path) -> None:
    see(chrome, folder)
    chrome.click(node(MK))
    chrome.key("ArrowRight")
    assert panel(chrome).startswith("Mv")
    chrome.key("ArrowDown")
    assert panel(chrome).startswith("M\n")
    chrome.key("Escape")
    chrome.run("document.querySelector('#help-button').focus()")
    for _ in range(30):
        chrome.key("Tab")
        if chrome.run(f"document.activeElement.dataset.id === '{MK}'"):
            break
    chrome.key("Enter")
    assert panel(chrome).startswith("Mk")
    chrome.key("?")
    assert chrome.run("document.getElementById('help').open")
    chrome.key("Escape")
    chrome.wait("!document.getElementById('help').open")
    chrome.key("d")
    assert chrome.run("document.documentElement.dataset.theme") == "dark"


def test_transfers_can_be_hidden(chrome: Chrome, folder: Path) -> None:
    see(chrome, folder)
    chrome.click("#switches input[value=generate]")
    shown = (
        "[...document.querySelectorAll('.net')].filter((g) => getComputedStyle(g).display !== 'none')"
        ".map((g) => g.dataset.kind)"
    )
    assert set(chrome.run(shown)) == {"condition", "backpropagate", "initialise"}


def test_the_timeline_in_the_page(chrome: Chrome, folder: Path) -> None:
    see(chrome, folder)
    assert chrome.run("document.getElementById('time').hidden")
    chrome.key("t")
    left, right = (
        chrome.run(f"Number(document.querySelector('#time svg').dataset.{side})")
        for side in ("left", "right")
    )
    box = chrome.run(
        "(({x, y, width}) => [x, y, width])(document.querySelector('#time svg').getBoundingClientRect())"
    )
    scale = box[2] / chrome.run("document.querySelector('#time svg').viewBox.baseVal.width")
    token = left + (right - left) * 15.5 / 512
    chrome.mouse("mouseMoved", box[0] + scale * token, chrome.place(".track rect")[1])
    chrome.wait("!document.getElementById('tip').hidden")
    said = chrome.run("document.getElementById('tip').innerText")
    assert "at token 15" in said and "commits" in said and "at the start" in said
    chrome.click(".track:nth-of-type(3) text")
    assert chrome.run("document.querySelectorAll('.node.chosen').length") == 1
    assert chrome.run("document.querySelectorAll('.track.dim').length") > 0


def test_a_difference_shows_what_changed(chrome: Chrome, folder: Path) -> None:
    see(chrome, folder, "diff")
    counts = {
        status: chrome.run(f"document.querySelectorAll('.node.{status}').length")
        for status in ("added", "removed", "changed")
    }
    assert counts == {"added": 2, "removed": 6, "changed": 3}
    assert "2 added" in panel(chrome) and "attention A added" in panel(chrome)
    chrome.click(".changes .removed button")
    assert "removed in hope" in panel(chrome)
    chrome.key("Escape")
    chrome.click(node("train[0].muon.m"))
    assert "[7471104]" in panel(chrome) and "[7340032]" in panel(chrome)


def test_save_as_svg_is_the_whole_picture(chrome: Chrome, folder: Path) -> None:
    see(chrome, folder)
    assert chrome.run("document.querySelector('#stage svg').classList.contains('far')")
    chrome.key("s")
    saved = ElementTree.parse(chrome.downloaded("svg"))
    drawn = ElementTree.fromstring(draw_svg(lay_out(build_graph(HOPE))))
    text = "{http://www.w3.org/2000/svg}text"
    places = [
        sorted((t.text, t.get("x"), t.get("y")) for t in root.iter(text)) for root in (saved.getroot(), drawn)
    ]
    assert places[0] == places[1]
    assert all(not (t.get("style") or "").strip("font-size:; ") for t in saved.iter(text))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_save_as_png(chrome: Chrome, folder: Path, theme: str) -> None:
    see(chrome, folder, "transformer", hash=f"#theme={theme}")
    for old in chrome.downloads.glob("*.png"):
        old.unlink()
    chrome.click("#png")
    saved = chrome.downloaded("png").read_bytes()
    wide, high = struct.unpack(">II", saved[16:24])
    canvas = lay_out(build_graph(open_program("transformer"))).canvas
    assert saved[:8] == b"\x89PNG\r\n\x1a\n" and (wide, high) == (round(2 * canvas.w), round(2 * canvas.h))
    assert len(saved) > 60_000


def test_print_is_one_sheet(chrome: Chrome, folder: Path) -> None:
    see(chrome, folder, hash="#time=1")
    answer = chrome.call("Page.printToPDF", landscape=True, printBackground=True, preferCSSPageSize=True)
    paper = base64.b64decode(answer["data"])
    assert paper[:5] == b"%PDF-" and paper.count(b"/Type /Page\n") == 1


def test_a_narrow_window(chrome: Chrome, folder: Path) -> None:
    chrome.resize(400, 760)
    see(chrome, folder, hash="")
    assert chrome.run("document.documentElement.scrollWidth") <= 400
    names = chrome.run(
        "[...document.querySelectorAll('.node:not(.port) > text:first-of-type')]"
        ".map((t) => t.getBoundingClientRect().height)"
    )
    assert min(names) >= 9
    chrome.click(node(MK))
    assert panel(chrome).startswith("Mk")


def test_without_scripts_there_is_the_picture(chrome: Chrome, folder: Path) -> None:
    chrome.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chrome.open((folder / "hope.html").as_uri())
        assert chrome.place("#stage svg")[0] > 0
        assert chrome.run("getComputedStyle(document.getElementById('bar')).display") == "none"
    finally:
        chrome.call("Emulation.setScriptExecutionDisabled", value=False)


def test_text_of_a_spec_cannot_leave_its_place(chrome: Chrome, tmp_path: Path) -> None:
    bad = "</script><img src=x onerror=boom()>"
    (tmp_path / "bad.nl").write_text(
        f"# {bad}\nblock bad(x) {{\n"
        f"  level c every 1 token {{ memory S = matrix() init zero }}   # {bad}\n"
        "  S[x] <- x by gd(lr = 0.1)\n  return S[x]\n}\n"
    )
    program = open_program(str(tmp_path / "bad.nl"), block="bad", dim=8)
    (tmp_path / "bad.html").write_text(draw_page(program))
    see(chrome, tmp_path, "bad")
    chrome.click(".node.memory")
    assert bad in panel(chrome)
    assert chrome.run("document.images.length") == 0
