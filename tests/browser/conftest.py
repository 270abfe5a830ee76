"""One browser for all tests that need one; without a Chromium they are skipped, and counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.chrome import Chrome, executable


@pytest.fixture(scope="session")
def browser() -> Iterator[Chrome]:
    if executable() is None:
        pytest.skip("no Chromium is installed (or named by NLDSL_CHROMIUM)")
    try:
        chrome = Chrome()
    except (OSError, RuntimeError, TimeoutError) as wrong:
        pytest.skip(f"{executable()} does not start: {wrong}")
    yield chrome
    chrome.close()


@pytest.fixture
def chrome(browser: Chrome) -> Iterator[Chrome]:
    """The browser in a window of the usual size; at the end nothing may have gone wrong in the page."""
    browser.resize(1500, 950)
    yield browser
    assert browser.errors == []
