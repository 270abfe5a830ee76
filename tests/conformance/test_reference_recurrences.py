"""The interpreter against ten-line recurrences written from the papers, in float64."""

from __future__ import annotations

import pytest
import torch

from nldsl.reference import Interpreter, flatten_state
from nldsl.spec.program import Clock, Function, Program, Rule, Slot, Value
from tests.conformance.builders import (
    Body,
    G,
    W,
    dgd,
    dot,
    draw,
    gd,
    interpret,
    l2,
    matrix,
    matrix_map,
    mlp_map,
    momentum,
    term,
    value,
)

torch.set_num_threads(1)
B, T, H, D = 2, 9, 2, 3


def projected(*gates: str) -> tuple[Body, Value, dict[str, Value]]:
    """Queries, keys, values `[H, D]` and gates `[H]` as inputs of the block, so tests own every number."""
    names = {n: value(n, H, D) for n in "qkv"}
    names |= {g: value(g, H, kind="heads") for g in gates}
    return Body(), names["q"], names


def tensors(names: dict[str, Value], seed: int = 1, length: int = T) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    made = {n: torch.randn(B, length, *v.shape, generator=g, dtype=torch.float64) for n, v in names.items()}
    return {n: t if n in "qkv" else torch.sigmoid(t) for n, t in made.items()}


def check(program: Program, data: dict[str, torch.Tensor], expected: torch.Tensor) -> Interpreter:
    machine = interpret(program)
    y, _ = machine.run(tuple(data.values()))
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    return machine


def loop(data: dict[str, torch.Tensor], step, start=None) -> torch.Tensor:
    """Run `step(state, token) -> (state, output)` for every sample, head and token."""
    out = torch.zeros(B, data["q"].shape[1], H, D, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            state = torch.zeros(D, D, dtype=torch.float64) if start is None else start(h)
            for t in range(out.shape[1]):
                state, out[b, t, h] = step(state, {n: x[b, t, h] for n, x in data.items()})
    return out


def test_linear_attention() -> None:
    """Eq. 15: M' = M + v k^T, y = M' q; dot-product objective, one step of size one, read below the write."""
    b, q, n = projected()
    b.memory("S", matrix_map(D, D), key_size=D, value_size=D, heads=H)
    b.write("S", term(n["k"], n["v"], dot(D), gd(1.0)))
    y = b.read("S", q)

    def step(m, x):
        m = m + torch.outer(x["v"], x["k"])
        return m, m @ x["q"]

    data = tensors(n)
    check(b.program(tuple(n.values()), y), data, loop(data, step))


@pytest.mark.parametrize("read_first", [True, False])
def test_delta_rule(read_first: bool) -> None:
    """Eq. 65: M' = M (I - beta k k^T) + beta v k^T; program order decides which state a read sees (P2)."""
    b, q, n = projected("beta")
    b.memory("S", matrix_map(D, D), key_size=D, value_size=D, heads=H)
    early = b.read("S", q) if read_first else None
    b.write("S", term(n["k"], n["v"], l2(D), gd(n["beta"])))
    y = early or b.read("S", q)

    def step(m, x):
        k, v, beta = x["k"], x["v"], x["beta"]
        new = m @ (torch.eye(D, dtype=m.dtype) - beta * torch.outer(k, k)) + beta * torch.outer(v, k)
        return new, (m if read_first else new) @ x["q"]

    data = tensors(n)
    check(b.program(tuple(n.values()), y), data, loop(data, step))


def test_gated_delta_rule() -> None:
    """`S *= alpha` above the write moves its base: M' = alpha M (I - beta k k^T) + beta v k^T."""
    b, q, n = projected("beta", "alpha")
    b.memory("S", matrix_map(D, D), key_size=D, value_size=D, heads=H)
    b.update("S", "scale", n["alpha"])
    b.write("S", term(n["k"], n["v"], l2(D), gd(n["beta"])))
    y = b.read("S", q)

    def step(m, x):
        k, v, beta, alpha = x["k"], x["v"], x["beta"], x["alpha"]
        m = alpha * m @ (torch.eye(D, dtype=m.dtype) - beta * torch.outer(k, k)) + beta * torch.outer(v, k)
        return m, m @ x["q"]

    data = tensors(n)
    check(b.program(tuple(n.values()), y), data, loop(data, step))


@pytest.mark.parametrize("axis", ["key", "value"])
def test_channel_gates(axis: str) -> None:
    """Gated linear attention: retention per key channel (columns) or per value channel (rows)."""
    b, q, n = projected()
    n["a"] = value("a", H, D)
    b.memory("S", matrix_map(D, D), key_size=D, value_size=D, heads=H)
    b.write("S", term(n["k"], n["v"], dot(D), gd(1.0)), retain=n["a"], retain_axis=axis)
    y = b.read("S", q)

    def step(m, x):
        gate = x["a"][None, :] if axis == "key" else x["a"][:, None]
        m = gate * m + torch.outer(x["v"], x["k"])
        return m, m @ x["q"]

    data = tensors(n)
    check(b.program(tuple(n.values()), y), data, loop(data, step))


def test_momentum() -> None:
    """Eq. 33: m' = beta m - theta g, M' = alpha M + m' (Titans with a matrix memory)."""
    b, q, n = projected("theta", "beta", "alpha")
    b.memory("S", matrix_map(D, D), key_size=D, value_size=D, heads=H)
    b.write("S", term(n["k"], n["v"], l2(D), momentum(n["theta"], n["beta"])), retain=n["alpha"])
    y = b.read("S", q)

    def step(state, x):
        m, w = state
        m = x["beta"] * m - x["theta"] * torch.outer(w @ x["k"] - x["v"], x["k"])
        w = x["alpha"] * w + m
        return torch.stack([m, w]), w @ x["q"]

    data = tensors(n)
    start = loop(data, step, lambda h: torch.zeros(2, D, D, dtype=torch.float64))
    machine = check(b.program(tuple(n.values()), y), data, start)
    _, state = machine.run(tuple(data.values()))
    assert flatten_state(state)["S.slots.m.weight"].shape == (B, H, D, D)


def test_omega_rule() -> None:
    """Eq. 68: gradients of the last c tokens, each with its own gamma, all at the present state (P18)."""
    c = 3
    b, q, n = projected("eta", "gamma", "alpha")
    b.memory("S", matrix_map(D, D), key_size=D, value_size=D, heads=H)
    t = term(n["k"], n["v"], l2(D), gd(n["eta"]), weight=n["gamma"], window=c)
    b.write("S", t, retain=n["alpha"])
    y = b.read("S", q)
    data = tensors(n)
    expected = torch.zeros(B, T, H, D, dtype=torch.float64)
    for s in range(B):
        for h in range(H):
            m = torch.zeros(D, D, dtype=torch.float64)
            for i in range(T):
                x = {name: z[s, :, h] for name, z in data.items()}
                g = torch.zeros_like(m)
                for j in range(max(0, i - c + 1), i + 1):
                    g = g + x["gamma"][j] * torch.outer(m @ x["k"][j] - x["v"][j], x["k"][j])
                m = x["alpha"][i] * m - x["eta"][i] * g
                expected[s, i, h] = m @ x["q"][i]
    check(b.program(tuple(n.values()), y), data, expected)


def test_two_terms_step_together() -> None:
    """RWKV-7: erase along kappa and write along k, both gradients at the same state."""
    b, q, n = projected("a", "alpha")
    n["r"] = value("r", H, D)
    b.memory("S", matrix_map(D, D), key_size=D, value_size=D, heads=H)
    zero = b.number(0.0)
    erase, store = term(n["r"], zero, l2(D), gd(n["a"])), term(n["k"], n["v"], dot(D), gd(1.0))
    b.write("S", erase, store, retain=n["alpha"])
    y = b.read("S", q)

    def step(m, x):
        new = x["alpha"] * m - x["a"] * torch.outer(m @ x["r"], x["r"]) + torch.outer(x["v"], x["k"])
        return new, new @ x["q"]

    data = tensors(n)
    check(b.program(tuple(n.values()), y), data, loop(data, step))


@pytest.mark.parametrize("rate", ["raw", "normalised", "proximal"])
@pytest.mark.parametrize("toward", ["zero", "init"])
def test_delta_gradient_descent_on_a_deep_memory(rate: str, toward: str) -> None:
    """Eq. 57 and 88 with reading P5: each weight erases along its own input, toward r (P22)."""
    b, q, n = projected("eta", "alpha")
    b.memory("M", mlp_map(D, 5), key_size=D, value_size=D, heads=H, learned=True)
    b.write("M", term(n["k"], n["v"], dot(D), dgd(n["eta"], rate)), retain=n["alpha"], toward=toward)
    y = b.read("M", q)
    program, data = b.program(tuple(n.values()), y), tensors(n)
    start = draw(program)
    expected = torch.zeros(B, T, H, D, dtype=torch.float64)

    def r(eta: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        size = (z * z).sum()
        return {"raw": eta, "normalised": eta / (1e-2 + size), "proximal": eta / (1 + eta * size)}[rate]

    for s in range(B):
        for h in range(H):
            w2, w1 = start["M.W2"][h], start["M.W1"][h]
            r2, r1 = (w2, w1) if toward == "init" else (torch.zeros_like(w2), torch.zeros_like(w1))
            for i in range(T):
                k, v, eta, alpha, query = (data[c][s, i, h] for c in ("k", "v", "eta", "alpha", "q"))
                a = w2 @ k
                sig = torch.sigmoid(a)
                z = a * sig
                g1 = -torch.outer(v, z)
                g2 = torch.outer(-(w1.T @ v) * (sig + a * sig * (1 - sig)), k)
                w1, w2 = (
                    r1 + alpha * (w1 - r1) - r(eta, z) * (torch.outer((w1 - r1) @ z, z) + g1),
                    r2 + alpha * (w2 - r2) - r(eta, k) * (torch.outer((w2 - r2) @ k, k) + g2),
                )
                hidden = w2 @ query
                expected[s, i, h] = query + w1 @ (hidden * torch.sigmoid(hidden))
    check(program, data, expected)


@pytest.mark.parametrize(("c", "b_every"), [(4, 4), (1, 3), (4, 2), (3, 1)])
def test_chunks_and_bases(c: int, b_every: int) -> None:
    """Reads see the last multiple of C, gradients the last multiple of b; the recurrence runs on."""
    b, q, n = projected("eta", "alpha")
    b.memory("S", matrix_map(D, D), key_size=D, value_size=D, heads=H, every=c)
    b.write("S", term(n["k"], n["v"], l2(D), gd(n["eta"])), retain=n["alpha"], base_every=b_every)
    y = b.read("S", q)
    data = tensors(n)
    expected = torch.zeros(B, T, H, D, dtype=torch.float64)
    for s in range(B):
        for h in range(H):
            running = base = committed = torch.zeros(D, D, dtype=torch.float64)
            for i in range(T):
                k, v, eta, alpha, query = (data[x][s, i, h] for x in ("k", "v", "eta", "alpha", "q"))
                base = running if i % b_every == 0 else base
                running = alpha * running - eta * torch.outer(base @ k - v, k)
                expected[s, i, h] = (running if c == 1 else committed) @ query
                committed = running if (i + 1) % c == 0 else committed
    check(b.program(tuple(n.values()), y), data, expected)


def test_at_commit() -> None:
    """`at commit`: weighted gradients gathered over the chunk, one step with the last token's gate (LaCT)."""
    c = 3
    b, q, n = projected("eta", "alpha")
    b.memory("S", matrix_map(D, D), key_size=D, value_size=D, heads=H, every=c)
    t = term(n["k"], n["v"], l2(D), gd(0.5), weight=n["eta"])
    b.write("S", t, retain=n["alpha"], base_every=c, at_commit=True, project="rownorm")
    y = b.read("S", q)
    data = tensors(n)
    expected = torch.zeros(B, T, H, D, dtype=torch.float64)
    for s in range(B):
        for h in range(H):
            m = total = torch.zeros(D, D, dtype=torch.float64)
            for i in range(T):
                k, v, eta, alpha, query = (data[x][s, i, h] for x in ("k", "v", "eta", "alpha", "q"))
                total = total + eta * torch.outer(m @ k - v, k)
                expected[s, i, h] = m @ query
                if (i + 1) % c == 0:
                    m = alpha * m - 0.5 * total
                    m = m / torch.sqrt((m * m).sum(1, keepdim=True) + 1e-6)
                    total = torch.zeros_like(m)
    check(b.program(tuple(n.values()), y), data, expected)


def test_solve_read() -> None:
    """Mesa: y = H_v (H_k + ridge I)^-1 q is ridge regression on the past."""
    b, q, n = projected()
    b.memory("Hk", matrix_map(D, D), key_size=D, value_size=D, heads=H)
    b.memory("Hv", matrix_map(D, D), key_size=D, value_size=D, heads=H)
    b.write("Hk", term(n["k"], n["k"], dot(D), gd(1.0)))
    b.write("Hv", term(n["k"], n["v"], dot(D), gd(1.0)))
    exact = b.read("Hv", q, solve=("Hk", 0.7, 0))
    program, data = b.program(tuple(n.values()), exact), tensors(n)
    expected = torch.zeros(B, T, H, D, dtype=torch.float64)
    for s in range(B):
        for h in range(H):
            for i in range(T):
                k, v = data["k"][s, : i + 1, h], data["v"][s, : i + 1, h]
                x = torch.linalg.solve(k.T @ k + 0.7 * torch.eye(D, dtype=k.dtype), data["q"][s, i, h])
                expected[s, i, h] = v.T @ (k @ x)
    check(program, data, expected)


def test_slot_on_a_slow_clock() -> None:
    """Algorithm 1: what the slow memory gathers in one period of steps is used in the next (P12)."""
    r = Body()
    seen, running = matrix("m_visible", 0, 0), matrix("m", 0, 0)
    gathered = r("add", running, G)
    new = r("sub", W, r("mul", r.number(0.1), r("add", G, seen), like=W))
    function = Function("slow", (W, G, running, seen), (), tuple(r.statements), (new, gathered))
    rule = Rule("slow", function, (Slot("m", "W", Clock(3, "steps"), "m_visible"),), (), ())
    b, q, n = projected()
    b.memory("S", matrix_map(D, D), key_size=D, value_size=D, heads=H)
    b.write("S", term(n["k"], n["v"], l2(D), rule))
    y = b.read("S", q)

    def step(state, x):
        m, shown, w, count = state[0], state[1], state[2], state[3] + 1
        g = torch.outer(w @ x["k"] - x["v"], x["k"])
        m, w = m + g, w - 0.1 * (g + shown)
        shown = m if int(count[0, 0]) % 3 == 0 else shown
        return torch.stack([m, shown, w, count]), w @ x["q"]

    data = tensors(n)
    check(
        b.program(tuple(n.values()), y),
        data,
        loop(data, step, lambda h: torch.zeros(4, D, D, dtype=torch.float64)),
    )


@pytest.mark.parametrize("op", ["scale", "add", "set"])
def test_updates_of_the_running_state(op: str) -> None:
    """`M *= a` per head, `M += E` and `M = E` with one matrix for all heads; a read below sees them."""
    b, q, n = projected("a")
    e = value("e", D, D, kind="matrix")
    b.memory("S", matrix_map(D, D), key_size=D, value_size=D, heads=H)
    b.write("S", term(n["k"], n["v"], dot(D), gd(1.0)))
    b.update("S", op, n["a"] if op == "scale" else e)
    y = b.read("S", q)
    data = tensors(n)
    matrices = torch.randn(B, T, D, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = torch.zeros(B, T, H, D, dtype=torch.float64)
    for s in range(B):
        for h in range(H):
            m = torch.zeros(D, D, dtype=torch.float64)
            for i in range(T):
                m = m + torch.outer(data["v"][s, i, h], data["k"][s, i, h])
                m = {"scale": data["a"][s, i, h] * m, "add": m + matrices[s, i], "set": matrices[s, i]}[op]
                expected[s, i, h] = m @ data["q"][s, i, h]
    check(b.program((*n.values(), e), y), {**data, "e": matrices}, expected)


def test_more_heads_than_copies() -> None:
    """Grouped queries: with m H query heads on H copies, m consecutive heads read the same one."""
    b, _, n = projected()
    wide = value("w", 2 * H, D)
    b.memory("S", matrix_map(D, D), key_size=D, value_size=D, heads=H)
    b.write("S", term(n["k"], n["v"], dot(D), gd(1.0)))
    y = b.read("S", wide)
    data = tensors({**n, "w": wide})
    out, _ = interpret(b.program((*n.values(), wide), y)).run(tuple(data.values()))
    sums = torch.einsum("bthv,bthk->bthvk", data["v"], data["k"]).cumsum(1)
    expected = torch.einsum("bthvk,bthk->bthv", sums.repeat_interleave(2, 2), data["w"])
    torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-11)


def test_objective_that_sees_the_memory() -> None:
    """Oja (Eq. 66-67, P17): M' = alpha M + eta v (k - M^T v)^T; the third argument is the memory."""
    o = Body()
    pred, target, m = value("pred", D), value("target", D), matrix("M", D, D)
    back = o("matmul", o("transpose", m), target, out=value("back", D))
    size = o("sum", o("mul", back, back), out=value("size"))
    half = o("mul", o.number(0.5), size, like=size)
    total = o("sub", half, o("sum", o("mul", pred, target), out=value("match")))
    oja = Function("oja", (pred, target, m), (), tuple(o.statements), (total,))
    b, q, n = projected("eta", "alpha")
    b.memory("S", matrix_map(D, D), key_size=D, value_size=D, heads=H)
    b.write("S", term(n["k"], n["v"], oja, gd(n["eta"])), retain=n["alpha"])
    y = b.read("S", q)

    def step(w, x):
        w = x["alpha"] * w + x["eta"] * torch.outer(x["v"], x["k"] - w.T @ x["v"])
        return w, w @ x["q"]

    data = tensors(n)
    check(b.program(tuple(n.values()), y), data, loop(data, step))
