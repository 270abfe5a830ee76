"""Scans of memories with a gate per entry: the pass with its way back against the tokens one by one."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nldsl.runtime import element_scan, matrix_scan
from nldsl.runtime.matrix_scan import scan_memory
from nldsl.runtime.matrix_tokens import Gate, Piece, Write

torch.set_num_threads(1)
B, H, V, K = 2, 2, 3, 4
GATES = {
    "per entry": (H, V, K),
    "per entry, all heads": (1, V, K),
    "per row": (H, V, 1),
    "per key": (H, K),
    "per head": (H,),
}


def scanned(
    tokens: int, shape: tuple[int, ...], log: bool, *, pieces: int, masked: bool, inside: bool
) -> Any:
    """Answers, state and gradients."""
    draw = torch.Generator().manual_seed(tokens)

    def rows(*size: int) -> torch.Tensor:
        return torch.randn(B, tokens, *size, generator=draw, dtype=torch.float64).requires_grad_()

    gate, asked = rows(*shape), [rows(2 * H, K), rows(H, K)]
    written = [(rows(H, K), rows(H, V)) for _ in range(pieces)]
    state = torch.randn(B, H, V, K, generator=draw, dtype=torch.float64).requires_grad_()
    made = Gate(log=-gate.exp()) if log else Gate(gate.sin())
    write = Write(tuple(Piece(*w) for w in written), made if inside else None)
    steps = (write,) if inside else (made, write)
    mask = torch.rand(B, tokens, generator=draw) < 0.7 if masked else None
    got = scan_memory(state, steps, [(q, len(steps)) for q in asked], mask=mask)
    leaves = [gate, state, *asked, *(x for w in written for x in w)]
    weights = [torch.linspace(-1, 1, y.numel()).view_as(y) for y in (*got.reads, got.state)]
    total = sum((y * w).sum() for y, w in zip((*got.reads, got.state), weights, strict=True))
    return [*got.reads, got.state, *torch.autograd.grad(total, leaves)]


def apart(*given: Any, **how: Any) -> float:
    """The largest difference between the pass and the tokens one by one."""
    with mock.patch.object(matrix_scan, "_at_once", lambda *_: None):
        want = scanned(*given, **how)
    got = scanned(*given, **how)
    return max(float((a - b).detach().abs().max()) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("shape", GATES.values(), ids=GATES)
@pytest.mark.parametrize("log", [True, False], ids=["log", "value"])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "all"])
def test_the_pass_is_the_tokens(shape, log, masked):
    for tokens, pieces, inside in ((2, 1, True), (32, 2, False), (33, 1, False), (70, 2, True)):
        assert apart(tokens, shape, log, pieces=pieces, masked=masked, inside=inside) < 1e-12


def test_the_pass_is_taken():
    with mock.patch.object(matrix_scan, "element_scan", side_effect=ZeroDivisionError):
        with pytest.raises(ZeroDivisionError):
            scanned(40, (H, V, K), True, pieces=1, masked=False, inside=True)


def _still(original: Any) -> Any:
    """No gradient goes from one piece to that before it."""
    return lambda one, log, old, dy, flow, room, made: original(
        one, log, old, dy, torch.zeros_like(flow), room, made
    )


def _first(original: Any) -> Any:
    """One of two pieces written."""
    return lambda left, right, out: original(left[..., :1, :], right[..., :1, :], out)


@pytest.mark.parametrize(("attribute", "change"), [("_back", _still), ("_outer", _first)])
def test_seeded_faults_are_found(attribute, change, monkeypatch):
    monkeypatch.setattr(element_scan, attribute, change(getattr(element_scan, attribute)))
    assert apart(40, (H, V, K), True, pieces=2, masked=False, inside=True) > 1e-3


class Filled(TorchDispatchMode):
    """How many numbers are written by all operations together."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and not function.is_view:
            self.numbers += made.numel()
        return made


@pytest.mark.parametrize("fast", [True, False])
def test_work_grows_with_the_tokens(fast):
    """Slices of single tokens would fill zeros for all tokens at each of them."""
    counted = {}
    with mock.patch.object(matrix_scan, "_at_once", matrix_scan._at_once if fast else lambda *_: None):
        for tokens in (64, 512):
            with Filled() as filled:
                scanned(tokens, (H, V, K), True, pieces=1, masked=False, inside=True)
            counted[tokens] = filled.numbers
    assert counted[512] < 8.5 * counted[64]
