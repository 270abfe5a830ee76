"""The built site in a browser: nothing from elsewhere, no faults, nothing too wide, search that finds."""

from __future__ import annotations

import functools
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.browser.chrome import Chrome, executable
from tests.docs.fences import ROOT

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(executable() is None, reason="no Chromium on this machine"),
]
PAGES = (
    "index.html",
    "tutorial/memory.html",
    "language/writes.html",
    "library/index.html",
    "library/models/hope.html",
    "library/blocks/gated_deltanet.html",
    "library/rules/muon.html",
    "diagnostics/names-and-definitions.html",
    "commands/train.html",
    "reference/primitives.html",
    "reference/python.html",
    "paper/equations.html",
    "performance.html",
)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """No log."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The site, built and served from a folder."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(params=[(1400, False), (420, True)], ids=["wide and light", "narrow and dark"])
def chrome(request: pytest.FixtureRequest) -> Iterator[tuple[Chrome, bool]]:
    width, dark = request.param
    browser = Chrome(width, 900)
    yield browser, dark
    browser.close()


def test_pages(address: str, chrome: tuple[Chrome, bool]) -> None:
    browser, dark = chrome
    wanted = "slate" if dark else "default"
    for page in PAGES:
        browser.open(f"{address}/{page}", dark=dark)
        browser.wait(f"document.body.getAttribute('data-md-color-scheme') === {json.dumps(wanted)}")
        outside = [r for r in browser.requests if not r.startswith((address, "data:", "about:", "blob:"))]
        assert outside == [], page
        assert browser.errors == [], page
        root = "document.documentElement"
        assert browser.run(f"{root}.scrollWidth <= {root}.clientWidth"), f"{page} is wider than the window"


def test_code_is_coloured_and_graphs_fit(address: str, chrome: tuple[Chrome, bool]) -> None:
    browser, dark = chrome
    browser.open(f"{address}/library/models/hope.html", dark=dark)
    colour = "getComputedStyle(document.querySelector('.language-nl {}')).color"
    assert browser.run(colour.format(".kd")) != browser.run(colour.format(".n"))
    paper = browser.run("getComputedStyle(document.querySelector('.nl-graph .fill-paper')).fill")
    assert paper == ("rgb(16, 20, 27)" if dark else "rgb(255, 255, 255)")
    box = "document.querySelector('.nl-graph').getBoundingClientRect()"
    assert browser.run(f"{box}.right <= innerWidth && {box}.left >= 0")
    assert browser.run("document.querySelectorAll('.nl-formula math').length") >= 3


def test_search_finds(address: str, chrome: tuple[Chrome, bool]) -> None:
    browser, dark = chrome
    browser.open(f"{address}/index.html", dark=dark)
    if browser.run("innerWidth") < 1000:
        browser.click("label[for=__search].md-header__button")
    browser.click("input.md-search__input")
    browser.type("NL0301")
    browser.wait("document.querySelectorAll('.md-search-result__link').length > 0")
    links = browser.run(
        "[...document.querySelectorAll('.md-search-result__link')].map(a => a.href).join(' ')"
    )
    assert "names-and-definitions.html" in links
