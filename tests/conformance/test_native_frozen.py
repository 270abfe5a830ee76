"""Linear layers in C whose weights, or whose rows, ask for no gradient: what is not needed is not kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nldsl.native import linears, projections
from nldsl.runtime.native import compiler
from nldsl.runtime.values import linear
from tests.conformance.test_native_linears import drawn, everywhere

pytestmark = pytest.mark.skipif(not compiler(), reason="there is no C compiler")
__all__ = ["everywhere"]


def one(x: Tensor, w: Tensor, thin: Tensor, b: Tensor) -> list[Tensor]:
    own = linears.Linears(linear)
    made = [own(x, w), own(x, thin, b)]
    assert len(own.shapes) == 2
    return made


def several(x: Tensor, w: Tensor, thin: Tensor, b: Tensor) -> list[Tensor]:
    single = linears.Linears(linear)
    made = projections.Projections(single)(x, (w,), (thin, b))
    assert len(single.shapes) == 2
    return [made.take(0), made.take(1)]


def leaves(asked: tuple[str, ...]) -> dict[str, Tensor]:
    shapes = {"x": (2, 9, 20), "w": (40, 20), "thin": (5, 20), "b": (5,)}
    return {
        name: drawn(*shape, seed=n).requires_grad_(name in asked)
        for n, (name, shape) in enumerate(shapes.items())
    }


@pytest.mark.parametrize("layers", [one, several])
@pytest.mark.parametrize("asked", [("x",), ("w",), ("b",), ("x", "b"), ("w", "b"), ("x", "thin")])
def test_what_may_change_in_place(layers: Any, asked: tuple[str, ...], everywhere: None) -> None:
    """As by torch: rows are needed by weights that learn, weights by rows that are given gradients."""
    for name in ("x", "w", "thin", "b"):
        found = []
        for call in (layers, lambda x, w, thin, b: [x @ w.mT, x @ thin.mT + b]):
            given = leaves(asked)
            y = call(**given)
            total = y[0].mul(drawn(2, 9, 40, seed=7)).sum() + y[1].mul(drawn(2, 9, 5, seed=8)).sum()
            with torch.no_grad():
                given[name].mul_(2.0)
            try:
                found.append(torch.autograd.grad(total, [given[n] for n in asked], allow_unused=True))
            except RuntimeError as error:
                assert "inplace" in str(error)
                found.append(())
        own, plain = found
        assert len(own) == len(plain), (asked, name)
        for a, b in zip(own, plain, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layers", [one, several])
def test_frozen_weights_keep_no_rows(layers: Any, everywhere: None) -> None:
    kept: list[tuple[int, ...]] = []
    given = leaves(("x", "b"))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(tuple(t.shape)), t)[1], lambda t: t):
        layers(**given)
    assert kept and (2, 9, 20) not in kept
