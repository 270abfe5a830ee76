"""The studio with a real server and a real browser: typed text, drawn graphs, saved files."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.browser.chrome import Chrome

BLOCK = """block fast(x, heads = 2) {
  level context every 1 token { memory S = matrix() per head init zero }
  q     = split(linear(x), heads)
  k     = l2norm(split(linear(x), heads))
  S[k] <- x  minimize l2  by gd(lr = 0.5)
  return linear(merge(S[q]))
}
"""


@contextmanager
def studio(*args: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A running studio: its address and its process."""
    command = [sys.executable, "-m", "nldsl", "studio", *args, "--no-open"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1], process
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0 and "Traceback" not in errors, errors


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """One studio for all tests: its address and its file."""
    file = tmp_path_factory.mktemp("studio") / "mine.nl"
    file.write_text(BLOCK)
    with studio(str(file)) as (address, _):
        yield address, file


@pytest.fixture
def file(running: tuple[str, Path]) -> Path:
    running[1].write_text(BLOCK)
    return running[1]


@pytest.fixture
def page(chrome: Chrome, running: tuple[str, Path], file: Path) -> Iterator[Chrome]:
    """The page of `mine.nl`, with its graph drawn; at the end nothing came from elsewhere."""
    address, _ = running
    chrome.accept = True
    chrome.open(address)
    drawn(chrome)
    assert text(chrome) == BLOCK
    yield chrome
    here = address.split("?")[0]
    assert [r for r in chrome.requests if not r.startswith((here, "about:", "blob:"))] == []


def _children(parent: int) -> list[int]:
    """The processes a process has started, as Linux tells; elsewhere none."""
    tasks = Path(f"/proc/{parent}/task")
    found = [(task / "children").read_text().split() for task in tasks.iterdir()] if tasks.exists() else []
    return [int(pid) for pids in found for pid in pids]


def drawn(chrome: Chrome, after: str = "") -> str:
    """Wait for a picture other than `after`; its address."""
    chrome.wait(
        "document.querySelectorAll('#view-graph iframe:not(.coming)').length === 1 &&"
        f" document.querySelector('#view-graph iframe:not(.coming)').src !== '{after}' &&"
        " document.getElementById('stale').hidden",
        60,
    )
    return str(chrome.run("document.querySelector('#view-graph iframe:not(.coming)').src"))


def text(chrome: Chrome) -> str:
    return str(chrome.run("document.getElementById('text').value"))


def caret(chrome: Chrome, before: str) -> None:
    """Put the caret in front of some words."""
    chrome.click("#text")
    chrome.run(f"(() => {{ const t = document.getElementById('text'); const i = t.value.indexOf({before!r});"
               " t.setSelectionRange(i, i); })()")  # fmt: skip


def findings(chrome: Chrome) -> str:
    return str(chrome.run("document.getElementById('findings').innerText"))


def finding(chrome: Chrome, words: str) -> None:
    chrome.until(lambda: words in findings(chrome), f"the finding {words!r}", 40)


def test_typing_a_program(page: Chrome) -> None:
    """Every prefix of a program is bad input; the editor, the findings and the graph live through it."""
    before = drawn(page)
    assert "no findings" in findings(page)
    assert page.run("document.querySelectorAll('#paint .t-keyword').length") > 5
    page.click("#text")
    page.key("a", control=True)
    page.key("Backspace")
    page.type('block one(x) {\nlevel c every 1 token { memory S = matrix() init zero }\n"half\n')
    finding(page, "error")
    assert "The picture is that of the last text" in page.run("document.getElementById('stale').innerText")
    for _ in range(len('"half\n') + 2):
        page.key("Backspace")
    page.type("\nS[l2norm(x)] <- x by gd(lr = 0.1)\nreturn S[x]\n}")
    page.key("Escape")
    page.until(lambda: "NL0105" not in findings(page) and "no findings" in findings(page), "a good text", 40)
    assert drawn(page, after=before) != before
    assert text(page).startswith("block one(x) {\n  level c every 1 token")
    assert page.run("document.getElementById('dirty').hidden") is False


def test_completion_by_keys(page: Chrome) -> None:
    caret(page, "by gd(lr")
    page.type("retain 0.9 ")
    caret(page, "linear(x), heads)")
    page.type("s")
    page.wait("!document.getElementById('proposals').hidden")
    # No name that has ceased to fit is on offer while the answer for the next letters is on its way.
    page.run("window.fetches = window.fetch; window.fetch = () => new Promise(() => {}); 0")
    page.type("il")
    assert page.run("document.querySelector('#proposals [aria-selected=true] span').textContent") == "silu"
    page.run("window.fetch = window.fetches; 0")
    page.key("Tab")
    assert "silu(" in text(page)
    page.key("Escape")
    caret(page, "return")
    page.key(" ", control=True)
    page.wait("!document.getElementById('proposals').hidden")
    labels = page.run("[...document.querySelectorAll('#proposals span')].map((e) => e.textContent)")
    assert "S" in labels and "q" in labels
    page.key("ArrowDown")
    page.key("Escape")
    assert page.run("document.getElementById('proposals').hidden")


def test_findings_can_be_visited_and_mended(page: Chrome) -> None:
    caret(page, "l2norm(split")
    page.type("😀")
    finding(page, "NL01")
    page.key("Backspace")
    caret(page, "norm(split")
    page.type("x")
    finding(page, "NL03")
    page.wait(
        "[...document.querySelectorAll('#paint .m-error')].map((e) => e.textContent).join() === 'l2xnorm'", 40
    )
    page.click("#findings .finding")
    assert page.run("getSelection().toString()") == "l2xnorm"
    page.click("#findings .fix")
    page.until(lambda: "no findings" in findings(page), "the mended text", 40)
    assert text(page) == BLOCK
    page.key("z", control=True)
    assert "l2xnorm" in text(page)


def test_what_a_word_is(page: Chrome) -> None:
    x, y = page.run(
        "(() => { const calls = [...document.querySelectorAll('#paint .t-call')];"
        " const t = calls.find((e) => e.textContent === 'l2norm');"
        " const b = t.getBoundingClientRect(); return [b.x + 12, b.y + 8]; })()"
    )
    page.mouse("mouseMoved", x, y)
    page.mouse("mouseMoved", x + 1, y)
    page.wait("!document.getElementById('tip').hidden", 30)
    assert "l2norm" in page.run("document.getElementById('tip').innerText")


def test_format_and_save(page: Chrome, file: Path) -> None:
    caret(page, "q     =")
    page.type("    ")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="F", code="KeyF", modifiers=10,
              windowsVirtualKeyCode=70)  # fmt: skip
    page.until(lambda: text(page) == BLOCK, "the tidy text", 40)
    caret(page, "block")
    page.type("# mine\n")
    page.key("s", control=True)
    page.wait("document.getElementById('dirty').hidden", 30)
    assert file.read_text() == "# mine\n" + BLOCK
    page.open(page.run("location.href"))
    assert text(page) == "# mine\n" + BLOCK


def test_a_file_that_changed_is_not_overwritten_unasked(page: Chrome, file: Path) -> None:
    file.write_text("# theirs\n")
    caret(page, "block")
    page.type("# mine\n")
    page.accept = False
    page.click("#save")
    page.until(lambda: page.run("1") == 1 and bool(page.dialogs), "a question")
    assert "mine.nl has changed on the disk" in page.dialogs[-1]
    assert file.read_text() == "# theirs\n" and text(page).startswith("# mine\n")
    assert page.run("document.getElementById('dirty').hidden") is False
    page.accept = True
    page.click("#save")
    page.wait("document.getElementById('dirty').hidden", 30)
    assert file.read_text() == "# mine\n" + BLOCK
    # Now the page knows the file again.
    caret(page, "block")
    page.type("# more\n")
    page.key("s", control=True)
    page.until(lambda: "# more" in file.read_text(), "the second save")
    assert len(page.dialogs) == 2


def test_tables_timeline_and_source(page: Chrome) -> None:
    page.click("#tab-explain")
    assert "every token" in page.run("document.getElementById('view-explain').innerText")
    page.key("ArrowRight")
    assert page.run("document.querySelectorAll('#view-timeline .track').length") > 0
    page.click("#tab-source")
    page.wait("document.querySelectorAll('.classes button').length > 0", 90)
    assert "class Fast" in page.run("document.querySelector('.python').textContent")


def test_graph_and_text_point_at_each_other(page: Chrome) -> None:
    before = drawn(page)
    caret(page, "S[k] <- x")
    page.run("addEventListener('message', (event) => { window.heard = event.data?.hash || window.heard; })")
    page.key("ArrowRight")
    page.wait("(window.heard || '').includes('at=S')")
    page.type(" ")
    # The next picture comes with the memory chosen whose line the caret is in.
    assert "at=S" in drawn(page, after=before)
    x, y, high = page.run(
        "(({x, y, height}) => [x, y, height])(document.querySelector('iframe').getBoundingClientRect())"
    )

    def line() -> int:
        area = "document.getElementById('text')"
        return int(page.run(f"{area}.value.slice(0, {area}.selectionStart).split('\\n').length"))

    def searched() -> bool:
        # On a busy machine the first click and keys for a frame that has just come into view can be lost.
        page.click_at(x + 8, y + high - 8)
        page.key("/")
        page.type("slow")
        page.key("Enter")
        time.sleep(1)
        return line() != 5

    page.until(searched, "the line of what was found", 40)
    assert text(page) == BLOCK.replace("S[k] <-", "S [k] <-")


def test_both_themes_reach_the_graph(page: Chrome) -> None:
    x, y, high = page.run(
        "(({x, y, height}) => [x, y, height])(document.querySelector('iframe').getBoundingClientRect())"
    )
    page.until(lambda: page.colour(x + 4, y + high - 4) == (255, 255, 255), "a light graph")
    page.click("#theme")
    page.until(lambda: page.colour(x + 4, y + high - 4) == (16, 20, 27), "a dark graph")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(16, 20, 27)"


def test_the_studio_ends_cleanly_and_says_when_a_port_is_taken(chrome: Chrome, tmp_path: Path) -> None:
    file = tmp_path / "mine.nl"
    file.write_text(BLOCK)
    with studio(str(file)) as (address, process):
        port = address.split(":")[2].split("/")[0]
        second = subprocess.run(
            [sys.executable, "-m", "nldsl", "studio", str(file), "--no-open", "--port", port],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert second.returncode == 2
        assert "error[NL" in second.stderr and port in second.stderr and "Traceback" not in second.stderr
        chrome.open(address)
        drawn(chrome)
        children = _children(process.pid)
        assert len(children) >= 2
    chrome.until(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "the end of all processes"
    )
    # The page outlives its server: what was typed stays, and the page says what has happened.
    chrome.click("#text")
    chrome.type("# still here\n")
    chrome.wait("document.getElementById('said').textContent.includes('the server has gone')", 30)
    assert "# still here" in text(chrome)
    chrome.errors = [e for e in chrome.errors if "ERR_CONNECTION_REFUSED" not in e]
