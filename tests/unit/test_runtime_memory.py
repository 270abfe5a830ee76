"""Chunk writes of stale-gradient memories against the recurrence, token by token."""

import itertools

import pytest
import torch

from nldsl.runtime.delta_back import delta_kept_pullback, delta_write_pullback
from nldsl.runtime.delta_pieces import pieces_of
from nldsl.runtime.memory import (
    apply_weight,
    decay_write,
    delta_write,
    retention,
    retention_kernel,
)

torch.set_num_threads(1)
B, H, C, IN, OUT = 2, 3, 37, 5, 4


def token_delta(weight, x, dy, erase, rate, retain, toward, valid):
    """`D_t = a D_{t-1} - erase (D_{t-1} x) x^T - rate dy x^T`, one token after the other."""
    D = weight - toward
    for t in range(x.shape[-2]):
        x_t, dy_t = x[..., t, :].unsqueeze(-1), dy[..., t, :].unsqueeze(-1)
        a, e, r = (g[..., t, None, None] for g in (retain, erase, rate))
        new = a * D - e * (D @ x_t) * x_t.mT - r * dy_t * x_t.mT
        D = torch.where(valid[:, t].view(-1, *(1,) * (D.dim() - 1)), new, D)
    return D + toward


def case(lead, shared_x, dtype=torch.float64, size=C):
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=dtype)  # noqa: E731
    stacked = len(lead) == 3
    gates = (*lead[:2], 1) if stacked else lead
    inputs = {
        "weight": draw(*lead, OUT, IN),
        "x": draw(*(gates if shared_x else lead), size, IN) / IN**0.5,
        "dy": draw(*lead, size, OUT),
        "erase": draw(*(gates if shared_x else lead), size).sigmoid(),
        "rate": draw(*(gates if shared_x else lead), size).sigmoid(),
        "retain": draw(*gates, size).sigmoid(),
        "toward": draw(*lead[1:], OUT, IN),
    }
    return {name: value.requires_grad_() for name, value in inputs.items()}


def compare(got, want, inputs, tolerance=1e-10):
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    seeds = [torch.randn(a.shape, generator=torch.Generator().manual_seed(1), dtype=a.dtype) for a in got]
    grads = [
        torch.autograd.grad(
            sum((o * s).sum() for o, s in zip(outs, seeds, strict=True)),
            inputs,
            allow_unused=True,
            retain_graph=True,
        )
        for outs in (got, want)
    ]
    for a, b in zip(*grads, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


LEADS = [((B,), False), ((B, H), False), ((B, H, 4), False), ((B, H, 4), True)]


@pytest.mark.parametrize(("lead", "shared"), LEADS)
@pytest.mark.parametrize(
    ("masked", "gate", "toward"), list(itertools.product((0, 1), ("none", "plain", "log"), (0, 1)))
)
def test_delta_write(lead, shared, masked, gate, toward):
    c = case(lead, shared)
    valid = torch.rand(B, C, generator=torch.Generator().manual_seed(2)) > 0.3 if masked else None
    kernel, retain = None, torch.ones_like(c["retain"])
    if gate == "plain":
        retain = c["retain"] * 2 - 1.2  # negative and zero too
        retain = retain * (torch.arange(C) != 3)
        kernel = retention_kernel(retain=retain, valid=valid)
    elif gate == "log":
        retain = c["retain"]
        kernel = retention_kernel(log_retain=retain.log(), valid=valid)
    to = c["toward"] if toward else None
    got = delta_write(
        c["weight"], c["x"], c["dy"], erase=c["erase"], rate=c["rate"], gate=kernel, toward=to, valid=valid
    )
    on = torch.ones(B, C, dtype=torch.bool) if valid is None else valid
    zero = torch.zeros_like(c["toward"])
    want = token_delta(
        c["weight"], c["x"], c["dy"], c["erase"], c["rate"], retain, to if toward else zero, on
    )
    compare([got], [want], list(c.values()))


@pytest.mark.parametrize(("lead", "shared"), LEADS[1:3])
@pytest.mark.parametrize("gate", ["none", "plain", "log"])
def test_a_chunk_of_three_pieces(lead, shared, gate):
    """Recorded, and with the backward pass written out from the inverses that the write has kept."""
    size = 70
    c = case(lead, shared, size=size)
    assert len(pieces_of(c["weight"], c["x"])) == 3
    options = {n: c[n] for n in ("erase", "rate", "toward")}
    kernel, retain = None, torch.ones_like(c["retain"])
    if gate == "plain":
        retain = (c["retain"] * 2 - 1.2) * (torch.arange(size) != 33)
        kernel = retention_kernel(retain=retain)
    elif gate == "log":
        retain = c["retain"]
        kernel = retention_kernel(log_retain=retain.log())
    rows = (c["weight"], c["x"], c["dy"])
    got = delta_write(*rows, **options, gate=kernel)
    on = torch.ones(B, size, dtype=torch.bool)
    want = token_delta(*rows, c["erase"], c["rate"], retain, c["toward"], on)
    compare([got], [want], list(c.values()))
    d, kept = torch.randn(got.shape, dtype=got.dtype), []
    names = ("weight", "x", "dy", "erase", "rate", "toward")
    asked = [c[n] for n in names] + list(kernel or ())
    recorded = torch.autograd.grad(got, asked, d)
    with torch.no_grad():
        again = delta_write(*rows, **options, gate=kernel, kept=kept)
        found = delta_write_pullback(d, *rows, **options, gate=kernel, inverse=kept[0])
        left = delta_kept_pullback(
            d, c["weight"], c["x"], erase=c["erase"], gate=kernel, toward=c["toward"], inverse=kept[0]
        )
        alone = delta_kept_pullback(d, c["weight"], c["x"], erase=c["erase"], gate=kernel)
    torch.testing.assert_close(again, got)
    for a, b in zip((*left, alone[0]), (found.weight, found.toward, found.weight), strict=True):
        torch.testing.assert_close(a, b)
    made = [getattr(found, n) for n in names] + list(found.gate or ())
    for a, b in zip(made, recorded, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("lead", "shared"), LEADS)
@pytest.mark.parametrize(("masked", "gated"), list(itertools.product((0, 1), (0, 1))))
def test_decay_write(lead, shared, masked, gated):
    c = case(lead, shared)
    valid = torch.rand(B, C, generator=torch.Generator().manual_seed(2)) > 0.3 if masked else None
    on = torch.ones(B, C, dtype=torch.bool) if valid is None else valid
    retain = c["retain"] * 2 - 1.2 if gated else torch.ones_like(c["retain"])
    gate = retention(retain=retain, valid=valid) if gated else None
    got = decay_write(
        c["weight"], c["x"], c["dy"], rate=c["rate"], gate=gate, toward=c["toward"], valid=valid
    )
    nothing = torch.zeros_like(c["erase"])
    want = token_delta(c["weight"], c["x"], c["dy"], nothing, c["rate"], retain, c["toward"], on)
    compare([got], [want], [v for k, v in c.items() if k != "erase"])


def test_log_gates_that_underflow_keep_finite_gradients():
    c = case((B, H), False)
    log = (c["retain"] * -200).detach().requires_grad_()
    new = delta_write(
        c["weight"], c["x"], c["dy"], erase=c["erase"], rate=c["rate"], gate=retention_kernel(log_retain=log)
    )
    (grad,) = torch.autograd.grad(new.sum(), log)
    assert torch.isfinite(new).all() and torch.isfinite(grad).all()


@pytest.mark.parametrize(("rows", "bound"), [(3, 1e-5), (400, 1e-4)])
def test_repeated_keys_in_float32_stay_exact(rows, bound):
    """Erasing twice a key that never changes: the triangular system is at its worst, in both forms."""
    x = torch.zeros(1, 64, 4)
    x[..., 0] = 1.0
    dy, rate = torch.ones(1, 64, rows), torch.full((1, 64), 1.9)
    weight = torch.ones(1, rows, 4)
    got = delta_write(weight, x, dy, erase=rate, rate=rate)
    want = token_delta(
        weight.double(), x.double(), dy.double(), rate.double(), rate.double(), torch.ones(1, 64).double(),
        torch.zeros(rows, 4).double(), torch.ones(1, 64, dtype=torch.bool),
    )  # fmt: skip
    torch.testing.assert_close(got.double(), want, rtol=0, atol=bound)


@pytest.mark.parametrize("size", [0, 1])
def test_chunks_of_no_and_one_token(size):
    c = case((B, H), False, size=size)
    valid = torch.zeros(B, size, dtype=torch.bool)
    new = delta_write(c["weight"], c["x"], c["dy"], erase=c["erase"], rate=c["rate"], valid=valid)
    torch.testing.assert_close(new, c["weight"], rtol=0, atol=0)


def test_apply_weight_shares_inputs():
    x, w = torch.randn(2, 3, 1, 7, 5, dtype=torch.float64), torch.randn(2, 3, 4, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(apply_weight(x, w), x @ w.mT)
    torch.testing.assert_close(apply_weight(x[:, :, 0], w[:, :, 0]), x[:, :, 0] @ w[:, :, 0].mT)


@pytest.mark.parametrize("dtype", [torch.float32])
def test_delta_write_in_single_precision(dtype):
    c = case((B, H), False, dtype)
    args = (c["weight"], c["x"], c["dy"])
    got = delta_write(
        *args, erase=c["erase"], rate=c["rate"], gate=retention_kernel(log_retain=c["retain"].log())
    )
    on, zero = torch.ones(B, C, dtype=torch.bool), torch.zeros_like(c["toward"])
    want = token_delta(*args, c["erase"], c["rate"], c["retain"], zero, on)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
