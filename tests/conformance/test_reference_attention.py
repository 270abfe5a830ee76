"""The non-parametric memory against Eq. 62 written as sums."""

from __future__ import annotations

import math

import pytest
import torch

from nldsl.catalog.values import Initialiser
from nldsl.spec.program import Clock, Memory, Parameter, Program, Value
from tests.conformance.builders import Body, dot, draw, gd, interpret, term, value

torch.set_num_threads(1)
B, T, D = 2, 7, 3


def attention(
    copies: int, heads: int, start: int = 0, read_first: bool = False, **options: object
) -> Program:
    b = Body()
    q, k, v = value("q", heads, D), value("k", copies, D), value("v", copies, D)
    options["start"] = start
    owned = tuple(
        Parameter(f"A.{name}", (copies, start, D), Initialiser("normal", 1.0), "rest")
        for name in ("keys", "values")
        if start
    )
    b.memories.append(
        Memory("A", "A", "", Clock(0, "always"), None, True, copies, D, D, "learned" if start else "zero",
               owned, options=tuple(sorted(options.items())))  # type: ignore[arg-type]
    )  # fmt: skip
    early = b.read("A", q) if read_first else None
    b.write("A", term(k, v, dot(D), gd(1.0)), append=True)
    y: Value = early or b.read("A", q)
    return b.program((q, k, v), y)


@pytest.mark.parametrize(
    ("copies", "heads", "start", "window", "read_first"),
    [(2, 2, 0, 0, False), (2, 4, 0, 0, False), (2, 2, 0, 3, False), (1, 2, 2, 3, False), (2, 2, 0, 0, True)],
)
def test_softmax_attention(copies: int, heads: int, start: int, window: int, read_first: bool) -> None:
    """Causal, windowed, grouped, with persistent tokens; a read above the append does not see its token."""
    program = attention(copies, heads, start, read_first, window=window)
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, T, n, D, generator=g, dtype=torch.float64) for n in (heads, copies, copies))
    parameters = draw(program)
    y, _ = interpret(program).run((q, k, v))
    for b in range(B):
        for t in range(T):
            last = t if read_first else t + 1
            first = max(0, last - window) if window else 0
            for h in range(heads):
                c = h * copies // heads
                keys, values = list(k[b, first:last, c]), list(v[b, first:last, c])
                if start:
                    keys = [*parameters["A.keys"][c], *keys]
                    values = [*parameters["A.values"][c], *values]
                weights = [math.exp(float(q[b, t, h] @ x) / math.sqrt(D)) for x in keys]
                pairs = zip(weights, values, strict=True)
                total = sum((w * x for w, x in pairs), torch.zeros(D, dtype=q.dtype))
                expected = total / sum(weights) if weights else total
                torch.testing.assert_close(y[b, t, h], expected, rtol=1e-11, atol=1e-11)


def test_attention_that_looks_ahead_is_refused() -> None:
    with pytest.raises(ValueError, match="looks ahead"):
        interpret(attention(1, 1, causal=False))
