"""Gates per channel of the side that is not erased: rows fade apart and share one triangular system."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch

from nldsl.certify.verify import verify
from nldsl.graph import open_program
from nldsl.lowerings.forms import plan_program
from nldsl.plan.export import against_export
from nldsl.runtime import across, matrix_chunks, matrix_memory
from nldsl.view import explain
from tests.conformance.agreement import compiled, disagreements
from tests.conformance.test_matrix_memories import WRITE, program

DELTA, HEBB = f"{WRITE} l2 by gd(lr = beta)", f"{WRITE} dot by gd(lr = beta)"
FORMS: dict[str, tuple[str, str]] = {
    "rows": ("delta_channel", program(f"S *= values(fade)\n{DELTA}")),
    "grouped": ("delta_channel", program(f"S *= values(fade)\n{DELTA}", "S[q6]")),
    "steep": (
        "delta_channel",
        program(f"S *= values(steep)\ny = S[k]\nS *= sign\n{DELTA}\nw = S[k2]", "S[q] + w + y"),
    ),
    "rows and columns": ("delta_channel", program(f"S *= values(fade)\nS *= rate\n{DELTA}")),
    "rows and waves": ("delta_channel", program(f"S *= values(fade)\nS *= wave\n{DELTA}")),
    "below": ("delta_channel", program(f"y = S[q]\nS *= rate\n{DELTA}\nS *= values(fade)", "S[q] + y")),
    "gla": ("linear_channel", program(f"S *= values(fade)\nS *= rate\n{HEBB}")),
    "gla by columns": ("linear_channel", program(f"S *= values(wave)\nS *= fade\n{HEBB}")),
    "oja": ("delta_value", program(f"S *= fade\n{WRITE} oja by gd(lr = beta)")),
    "oja, both": ("delta_value", program(f"S *= fade\nS *= values(rate)\n{WRITE} oja by gd(lr = beta)")),
    "two terms": (
        "delta_block",
        program(
            "S *= values(fade)\nwrite S { [k2] <- 0 minimize l2 by gd(lr = rate); "
            "[k] <- v minimize dot by gd(lr = 1) } retain keep"
        ),
    ),
    "a write that only adds": (
        "delta_block",
        program(
            f"S[k2] <- v2 minimize dot by gd(lr = 1) retain values(fade) toward init\n{DELTA} toward init",
            init="learned",
        ),
    ),
    "a window": ("filtered", program(f"S *= values(fade)\n{WRITE} l2 over 3 tokens by gd(lr = beta)")),
    "resets": ("delta_channel", program(f"S *= values(fade)\n{DELTA}", init="learned reset every 3 tokens")),
}


def form(text: str) -> tuple[str, str]:
    """The form of the one memory, and what the rank-one forms say."""
    (unit,) = [u for b in plan_program(open_program(text, x=8)).blocks for u in b.units if u.memories]
    return unit.lowering, next(v.reason for v in unit.verdicts if v.family == "recurrence")


@pytest.mark.parametrize("name", FORMS)
def test_equals_the_interpreter(name: str) -> None:
    """Whole, in pieces, with masked tokens and a fully masked sample."""
    lowering, text = FORMS[name]
    layer = compiled(text, x=8)
    assert form(text)[0] == lowering and "channel scale what is written" in form(text)[1]
    mask = torch.rand(3, 9, generator=torch.Generator().manual_seed(1)) > 0.3
    mask[1] = False
    assert disagreements(layer, tokens=9, batch=3, mask=mask, pieces=(1, 4, 0, 4)) == []
    assert disagreements(layer, tokens=40, batch=1) == []


@pytest.mark.parametrize("name", ["steep", pytest.param("oja, both", marks=pytest.mark.long)])
def test_verify_is_green(name: str) -> None:
    """Every form against the interpreter: lengths around the chunk, gradients, slopes, float32."""
    certificate = verify(FORMS[name][1], x=8)
    assert certificate.passed, certificate.failures()


OTHERS = {
    f"{DELTA} retain values(fade)": ("sequential", "`M *= a` above it does not"),
    f"S *= values(wave)\n{DELTA}": ("sequential", "may not be positive"),
    f"S *= values(fade)\n{WRITE} l2 by momentum(lr = beta, beta = mu)": ("sequential", "rule remembers"),
    f"S *= values(wave)\nS *= wave\n{HEBB}": ("scan", "a scan over the tokens"),
    f"{DELTA} retain values(fade)\nS *= rate": ("scan", "a scan over the tokens"),
}


@pytest.mark.parametrize("body", OTHERS)
def test_rows_with_systems_of_their_own_are_told(body: str) -> None:
    lowering, reason = form(program(body))
    assert lowering == OTHERS[body][0] and OTHERS[body][1] in reason
    assert disagreements(compiled(program(body), x=8), tokens=6) == []


def test_the_plan_says_so() -> None:
    text = FORMS["rows and columns"][1]
    (memory,) = explain(text, x=8).equations
    assert memory.letter == "R"
    (row,) = explain(text, x=8).lowerings
    assert "scaled by its own gates around the middle of the chunk" in row.form
    assert "`S`" in against_export(plan_program(open_program(text, x=8)))


def test_a_call_with_steeper_gates_takes_narrower_chunks() -> None:
    """Where not even one token has an anchor, the recurrence is walked."""
    gates = [across.Gate(log=-s * torch.ones(1, 64, 1, 1), across=True) for s in (0.01, 2.0, 20.0, 99.0)]
    k = torch.ones(1, 64, 1, 1)
    write = matrix_chunks.Write((matrix_chunks.Piece(k, k),))
    assert [matrix_chunks.chunk_for((g, write), None, 64) for g in gates] == [64, 16, 1, 0]


@pytest.mark.parametrize("steepness", [0.01, 1.0, 8.0, 25.0, 60.0, 1e4])
def test_float32_is_close_at_every_decay(steepness: float) -> None:
    random = torch.Generator().manual_seed(0)
    log = -steepness * torch.rand(2, 70, 2, 3, generator=random, dtype=torch.float64)
    k = torch.nn.functional.normalize(torch.randn(2, 70, 2, 4, generator=random, dtype=torch.float64), dim=-1)
    v = torch.randn(2, 70, 2, 3, generator=random, dtype=torch.float64)
    rate = torch.rand(2, 70, 2, generator=random, dtype=torch.float64)
    found = []
    for kind in (torch.float32, torch.float64):
        gate = across.Gate(log=log.to(kind), across=True)
        piece = matrix_chunks.Piece(k.to(kind), v.to(kind), k.to(kind), rate.to(kind))
        zero = torch.zeros(2, 2, 3, 4, dtype=kind)
        memory = matrix_memory.MatrixMemory(zero, (gate, matrix_chunks.Write((piece,))), mask=None)
        found.append([memory.read(k.to(kind), at=at).double() for at in (0, 1, 2)] + [memory.state.double()])
    for a, b in zip(*found, strict=True):
        assert float((a - b).abs().max() / b.abs().max()) < 2e-5


def _still(original: Any) -> Any:
    """Nothing fades from chunk to chunk."""

    def scan(*given: Any) -> Any:
        return original(*given[:6], None if given[6] is None else torch.zeros_like(given[6]))

    return scan


def _shifted(original: Any) -> Any:
    """Seen in front of its gate."""
    return lambda self, rows, at: original(self, rows, tuple(p._replace(gates=0) for p in at))


FAULTS = {
    "values as they are": ("rows", across.Across, "written", lambda f: lambda self, add, of: add),
    "nothing fades between chunks": ("rows", matrix_chunks, "memory_scan", _still),
    "gates of the token left out": ("rows", across.Across, "shown", _shifted),
    "one anchor whatever the decay": ("steep", matrix_chunks, "anchored", lambda f: lambda *given: True),
    "the first anchor forgotten": ("rows", across.Across, "begun", lambda f: lambda self, state: state),
}


@pytest.mark.parametrize("name", FAULTS)
def test_seeded_faults_are_found(name: str) -> None:
    chosen, owner, attribute, change = FAULTS[name]
    with mock.patch.object(owner, attribute, change(getattr(owner, attribute))):
        layer = compiled(FORMS[chosen][1], x=8)
        found = disagreements(layer, tokens=9, pieces=(2, 7)) + disagreements(layer, tokens=90, batch=1)
    assert found
