"""Which functions of a step are compiled: those that are called, each once."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from nldsl.native import lanes as lanes_of
from nldsl.native import step_form
from nldsl.native.graph import UnsupportedError
from nldsl.runtime import native as runtime
from tests.conformance.test_native_steps import MIXED, SIMPLE, pair, step
from tests.conformance.test_written_back import CHUNK, apart, flows

pytestmark = pytest.mark.skipif(not runtime.compiler(), reason="there is no C compiler")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that takes less time."""
    monkeypatch.setattr(runtime, "FLAGS", [[*"-O1 -shared -fPIC -lm".split()]])


def test_only_what_is_called_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step and its backward pass: two functions, whether heads are independent or not."""
    texts: list[str] = []
    made = lanes_of.built
    monkeypatch.setattr(lanes_of, "built", lambda *given: [texts.append(given[0]), made(*given)][1])
    for text in (SIMPLE, MIXED):
        _, native, report = pair(text, fresh=True)
        flows(native, CHUNK)
        assert report.running == 1
        assert len(texts) == 2, text
        texts.clear()


def test_a_pair_is_made_once_by_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, native, _ = pair(SIMPLE, fresh=True)
    flows(native, CHUNK)
    (form,), counts, start = step(native).forms._forms.values(), [], threading.Barrier(4)
    form.pairs.clear()
    slow = step_form.paired
    monkeypatch.setattr(step_form, "paired", lambda *given: [counts.append(1), slow(*given)][1])

    def run() -> None:
        start.wait()
        flows(native, CHUNK)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == len(form.pairs) == 1


def test_what_cannot_keep_more_keeps_inverses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise UnsupportedError("nothing to share")

    monkeypatch.setattr(step_form, "paired", refused)
    plain, native, report = pair(SIMPLE, fresh=True)
    assert apart(flows(native, CHUNK), flows(plain, CHUNK)) < 1e-10
    assert report.running == 1
    assert str(report).endswith(": in lanes; nothing more is kept for the way back, as nothing to share")
