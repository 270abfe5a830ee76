"""`%%nldsl` in a real IPython, and what models and graphs show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("IPython")

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import nldsl

CELL = """
block tiny(x, heads = 2) {
  level context every 1 token { memory S = matrix() per head }
  k = l2norm(split(linear(x), heads))
  S[k] <- k  by gd(lr = 0.5)
  return linear(merge(S[k]))
}
"""


@pytest.fixture(scope="module")
def shell() -> Iterator[InteractiveShell]:
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "nldsl")
    yield shell
    InteractiveShell.clear_instance()


def run(shell: InteractiveShell, line: str, cell: str) -> tuple[Any, list[dict[str, Any]]]:
    with capture_output() as said:
        result = shell.run_cell(f"%%nldsl {line}\n{cell}")
    return result, [output.data for output in said.outputs]


def test_a_cell_becomes_a_layer(shell: InteractiveShell) -> None:
    result, shown = run(shell, "layer --set x=8", CELL)
    assert result.success
    assert any(data.get("image/svg+xml", "").startswith("<svg") for data in shown)
    layer = shell.user_ns["layer"]
    assert isinstance(layer, nldsl.Layer)
    texts, _ = shell.display_formatter.format(layer)
    assert "Layer tiny" in texts["text/plain"] and "level" in texts["text/plain"]
    assert "<table>" in texts["text/html"] and "128 parameters" in texts["text/html"]


def test_findings_are_shown_with_carets(shell: InteractiveShell) -> None:
    shell.user_ns.pop("bad", None)
    result, shown = run(shell, "bad --set x=8", CELL.replace("linear(merge", "linaer(merge"))
    assert result.success
    assert "NL0302" in shown[0]["text/plain"] and "^^^^^^" in shown[0]["text/plain"]
    assert "NL0302" in shown[0]["text/html"]
    assert "bad" not in shell.user_ns


def test_check_compiles_nothing(shell: InteractiveShell) -> None:
    shell.user_ns.pop("unused", None)
    result, shown = run(shell, "unused --check --block tiny --set x=8", CELL)
    assert result.success and shown and "unused" not in shell.user_ns


@pytest.mark.parametrize("line", ["2x", "--sett x=1", "a --set x", "'"])
def test_wrong_use_says_how(shell: InteractiveShell, line: str) -> None:
    with capture_output() as said:
        result = shell.run_cell(f"%%nldsl {line}\n{CELL}")
    assert not result.success
    assert "Traceback" not in said.stderr
    assert "%%nldsl [NAME]" in said.stderr


def test_graphs_draw_themselves(shell: InteractiveShell) -> None:
    graph = nldsl.graph("gated_deltanet")
    assert str(graph._repr_svg_()).startswith("<svg")
    data, _ = shell.display_formatter.format(graph)
    assert data["image/svg+xml"].startswith("<svg")
