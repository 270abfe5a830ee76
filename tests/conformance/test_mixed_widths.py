"""A few steep decays make some chunks of a pass narrower than others: values, states, gradients stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nldsl
from nldsl.runtime import chunk_pass, chunk_widths, quick_chunks, recurrence

torch.set_num_threads(1)
B, T, H, D = 2, 150, 2, 4
GATES = {
    "per head": ("g", "retain exp(-softplus(gate))", H),
    "per channel": ("split(g, heads)", "", H * D),
}
SPEC = """
block memory(x, g, heads = 2) {{
  level context every 1 token {{ memory S = matrix() per head(heads) init zero }}
  q = l2norm(split(linear(x), heads))
  k = l2norm(split(linear(x), heads))
  v = linear(x)
  gate = {gate}
  {decay}
  S[k] <- v  minimize {objective}  by gd(lr = sigmoid(linear(x, heads)))  {retain}
  return merge(S[q])
}}
"""


def layer(kind: str, objective: str, **options: Any) -> nldsl.Layer:
    gate, retain, width = GATES[kind]
    decay = "" if retain else "S *= exp(-softplus(gate))"
    text = SPEC.format(gate=gate, retain=retain, decay=decay, objective=objective)
    return nldsl.compile(text, block="memory", heads=H, x=H * D, g=width, seed=3, **options)


def inputs(kind: str, steep: float) -> list[torch.Tensor]:
    """Mild decays, and some tokens whose products leave the range of the numbers together."""
    draw = torch.Generator().manual_seed(0)
    x, g = (torch.randn(B, T, n, generator=draw) for n in (H * D, GATES[kind][2]))
    g[:, 40:43] = steep
    g[1, 147:, 1] = steep
    return [x, g]


def outcome(module: nldsl.Layer, given: list[torch.Tensor], mask: torch.Tensor | None) -> list[torch.Tensor]:
    """Answers, state, gradients of inputs and parameters."""
    given = [x.detach().requires_grad_() for x in given]
    y, state = module(*given, mask=mask)
    last = state.tree["root"]["S"]["running"]["weight"]
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    y = y if mask is None else y.masked_fill(~mask.unsqueeze(-1), 0.0)
    grads = torch.autograd.grad((y * weight).sum() + last.square().sum(), [*given, *module.parameters()])
    return [y.detach(), last.detach(), *grads]


def worst(kind: str, objective: str, dtype: torch.dtype, mask: torch.Tensor | None = None) -> float:
    """The largest difference from the token form in float64, in units of the largest number."""
    given = inputs(kind, 400.0 if dtype == torch.float64 else 45.0)
    got = outcome(layer(kind, objective).float().to(dtype), [x.to(dtype) for x in given], mask)
    token = layer(kind, objective, lowering="sequential").float().double()
    want = outcome(token, [x.double() for x in given], mask)
    apart = [(a.double() - b).abs().max() / (1 + b.abs().max()) for a, b in zip(got, want, strict=True)]
    return float(torch.stack(apart).max())


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the passes were given."""
    found, one_pass = [], chunk_pass.chunk_pass

    def counted(*given: Any, width: Any, **how: Any) -> Any:
        found.append(width)
        return one_pass(*given, width=width, **how)

    for owner in (recurrence, quick_chunks):
        monkeypatch.setattr(owner, "chunk_pass", counted)
    return found


MASK = (torch.arange(T) % 7 != 3).expand(B, T)
CASES = [(kind, objective) for kind in GATES for objective in ("l2", "dot")]


@pytest.mark.parametrize(("kind", "objective"), CASES)
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_mixed_widths_are_the_token_form(kind, objective, mask, dtype, bound, widths):
    assert worst(kind, objective, dtype, mask) < bound
    assert any(isinstance(width, tuple) and len(set(width)) > 1 for width in widths)


def _unmended(original: Any) -> Any:
    """Widths of halves beside sums of whole chunks."""

    def halved(log: Any, sums: Any, width: int, steep: Any) -> Any:
        found = original(log, sums, width, steep)
        return found and (sums, found[1])

    return halved


FAULTS = {
    "sums that do not start anew in a half": ("_halved", _unmended),
    "one anchor whatever the decay": ("steep_chunks", lambda original: lambda *given: []),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("kind", GATES)
def test_seeded_faults_are_found(name, kind, monkeypatch):
    attribute, change = FAULTS[name]
    monkeypatch.setattr(chunk_widths, attribute, change(getattr(chunk_widths, attribute)))
    assert not worst(kind, "l2", torch.float32) < 1e-4


@pytest.mark.parametrize(("farthest", "exact"), [(-1.0, True), (1e9, False)])
def test_a_state_goes_from_anchor_to_anchor_in_two_steps(farthest, exact, monkeypatch):
    """In one it is lost where a chunk ends steep and the next begins steep; in two it never is."""
    monkeypatch.setattr(chunk_pass, "FARTHEST", farthest)
    assert (worst("per head", "l2", torch.float64) < 1e-9) == exact


def test_no_mixture_makes_more_chunks_than_the_narrowest():
    log = torch.full((1, 64, 1), -0.5)
    log[:, 40:56] = -30.0
    assert chunk_widths.fitting(log, 64) is None
    log[:, 43:56] = -0.5
    sums, found = chunk_widths.fitting(log, 64)
    assert len(found) <= 8
    assert sum(found) == 64
    at = 0
    for width in found:
        torch.testing.assert_close(sums[:, at : at + width], log[:, at : at + width].cumsum(1))
        at += width
