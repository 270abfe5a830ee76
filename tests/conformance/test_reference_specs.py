"""Library blocks, elaborated from their text, against recurrences written from the papers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from nldsl.diagnostics import DiagnosticBag
from nldsl.reference import Interpreter, flatten_state
from nldsl.spec import elaborate, load
from nldsl.spec.program import Program
from tests.conformance.builders import draw

torch.set_num_threads(1)
B, T, D, H = 2, 13, 8, 2
Tensors = dict[str, torch.Tensor]


def program_of(source: str, block: str | None = None, **arguments: Any) -> Program:
    bag = DiagnosticBag()
    bundle = load(source, bag)
    program = elaborate(bundle, block=block, arguments=arguments, bag=bag)
    assert program is not None, "\n".join(str(d) for d in bag.items)
    return program


def data(length: int = T) -> torch.Tensor:
    return torch.randn(B, length, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def l2norm(x: torch.Tensor) -> torch.Tensor:
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6)


def conv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Causal depthwise convolution of `[T, d]`."""
    window = weight.shape[1]
    padded = F.pad(x.T[None], (window - 1, 0))
    return F.conv1d(padded, weight[:, None], bias, groups=x.shape[1])[0].T


def short(p: Tensors, x: torch.Tensor, name: str) -> torch.Tensor:
    """linear, convolution, SiLU, split into heads `[T, H, d]`."""
    y = conv(x @ p[f"{name}.linear.weight"].T, p[f"{name}.conv.weight"], p[f"{name}.conv.bias"])
    return F.silu(y).reshape(x.shape[0], H, -1)


def delta_rule(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, beta: Any, alpha: Any) -> torch.Tensor:
    """M' = alpha M (I - beta k k^T) + beta v k^T (Eq. 65), the read below the write."""
    y = torch.zeros_like(v)
    for h in range(H):
        m = torch.zeros(v.shape[-1], k.shape[-1], dtype=torch.float64)
        for t in range(v.shape[0]):
            m = alpha[t, h] * m
            m = m - beta[t, h] * torch.outer(m @ k[t, h] - v[t, h], k[t, h])
            y[t, h] = m @ q[t, h]
    return y


def gated_deltanet(p: Tensors, x: torch.Tensor) -> torch.Tensor:
    q, k, v = (short(p, x, n) for n in "qkv")
    beta = torch.sigmoid(x @ p["beta.linear.weight"].T)
    alpha = torch.exp(-F.softplus(x @ p["alpha.linear.weight"].T))
    y = rms(delta_rule(l2norm(q), l2norm(k), v, beta, alpha), p["out.norm.weight"]).flatten(1)
    return (y * F.silu(x @ p["out.linear.weight"].T)) @ p["out.linear_2.weight"].T


def deltanet(p: Tensors, x: torch.Tensor) -> torch.Tensor:
    q, k, v = (short(p, x, n) for n in "qkv")
    beta = 2 * torch.sigmoid(x @ p["beta.linear.weight"].T)
    y = delta_rule(l2norm(q), l2norm(k), v, beta, torch.ones_like(beta))
    return rms(y, p["out.norm.weight"]).flatten(1) @ p["out.linear.weight"].T


def linear_attention(p: Tensors, x: torch.Tensor) -> torch.Tensor:
    """Eq. 15, all tokens at once: y_t = sum_{s <= t} (q_t . k_s) v_s."""
    q, k, v = ((x @ p[f"{n}.linear.weight"].T).reshape(x.shape[0], H, -1) for n in "qkv")
    scores = torch.einsum("thd,shd->hts", l2norm(q), l2norm(k)).tril()
    y = torch.einsum("hts,shd->thd", scores, v)
    return rms(y, p["out.norm.weight"]).flatten(1) @ p["out.linear.weight"].T


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Pairs (i, i + d/2) as complex numbers, turned by t / 10000^(2i/d)."""
    half = x.shape[-1] // 2
    pairs = torch.complex(x[..., :half], x[..., half:])
    angles = torch.arange(x.shape[0])[:, None] * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    turned = pairs * torch.exp(1j * angles)[:, None]
    return torch.cat([turned.real, turned.imag], -1)


def attention(p: Tensors, x: torch.Tensor) -> torch.Tensor:
    q, k, v = ((x @ p[f"{n}.linear.weight"].T).reshape(x.shape[0], H, -1) for n in "qkv")
    heads = (z.transpose(0, 1)[None] for z in (rotate(q), rotate(k), v))
    y = F.scaled_dot_product_attention(*heads, is_causal=True)[0].transpose(0, 1)
    return y.flatten(1) @ p["out.linear.weight"].T


def residual(w: tuple[torch.Tensor, torch.Tensor], z: torch.Tensor) -> torch.Tensor:
    """Eq. 89: z + W1 silu(W2 z)."""
    return z + w[1] @ F.silu(w[0] @ z)


def self_modifying_titans(p: Tensors, x: torch.Tensor, clocks: tuple[int, int] = (4, 6)) -> torch.Tensor:
    """Eq. 92 and 94-97 chunk-wise (Eq. 90) with the default reading of the findings, head by head.

    Everything is read at the last multiple of each memory's own clock (P1); gradient steps add up
    beside a running state whose decay and erase act on its distance from the learned start (P22).
    """
    u = F.silu(conv(x, p["u.conv.weight"], p["u.conv.bias"])) + x
    z_all = rms(u.reshape(len(x), H, -1), p["z.norm.weight"])
    q_all = l2norm((u @ p["q.linear.weight"].T).reshape(len(x), H, -1))
    names, y = ("Mk", "Mv", "Me", "Ma", "M"), torch.zeros_like(q_all)
    for h in range(H):
        start = {n: (p[f"{n}.W2"][h], p[f"{n}.W1"][h]) for n in names}
        run, seen = dict(start), dict(start)
        for t in range(len(x)):
            z = z_all[t, h]
            k, v = l2norm(residual(seen["Mk"], z)), l2norm(residual(seen["Mv"], z))
            e, a = residual(seen["Me"], z), residual(seen["Ma"], z)
            alpha = torch.sigmoid(a @ p["alpha.readout.weight"][h] + p["alpha.readout.bias"][h])
            # Below 1 + alpha, so that what is stored along a key is multiplied by less than one.
            eta = (1 + alpha) * torch.sigmoid(e @ p["eta.readout.weight"][h] + p["eta.readout.bias"][h])
            y[t, h] = residual(seen["M"], q_all[t, h])
            for n in names:
                target = l2norm(residual(seen[n], v))
                w2, w1 = seen[n]
                pre = w2 @ k
                s = torch.sigmoid(pre)
                hidden = pre * s
                grads = (
                    torch.outer(-(w1.T @ target) * (s + hidden * (1 - s)), k),
                    -torch.outer(target, hidden),
                )
                new = []
                for w, w0, own, g in zip(run[n], start[n], (k, hidden), grads, strict=True):
                    rate = eta / (1e-2 + own @ own)
                    new.append(w0 + alpha * (w - w0) - rate * (torch.outer((w - w0) @ own, own) + g))
                run[n] = (new[0], new[1])
            for n in names:
                if (t + 1) % (clocks[1] if n == "M" else clocks[0]) == 0:
                    seen[n] = run[n]
    return rms(y, p["out.norm.weight"]).flatten(1) @ p["out.linear.weight"].T


BLOCKS = {
    "linear_attention": (linear_attention, {}),
    "deltanet": (deltanet, {}),
    "gated_deltanet": (gated_deltanet, {}),
    "attention": (attention, {}),
    "self_modifying_titans": (self_modifying_titans, {"chunk": 4, "memory_chunk": 6}),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_block_equals_its_paper(name: str) -> None:
    """Outputs and the outer gradient of every parameter."""
    by_hand, arguments = BLOCKS[name]
    program = program_of(name, name, dim=D, heads=H, **arguments)
    parameters, x = draw(program, seed=4, grad=True), data()
    y, _ = Interpreter(program, parameters).run(x)
    expected = torch.stack([by_hand(parameters, row) for row in x])
    torch.testing.assert_close(y, expected, rtol=1e-11, atol=1e-11)
    way = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    values = list(parameters.values())
    left = torch.autograd.grad((y * way).sum(), values)
    right = torch.autograd.grad((expected * way).sum(), values)
    for path, got, want in zip(parameters, left, right, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11, msg=path)


SMALL = {"vocab": 11, "dim": D, "depth": 2, "heads": H}
FAST = """
  level "{block}.projections" every 2 tokens
  level "{block}.recall" every 4 tokens
"""
MODELS = {
    "hope": ({"chunks": [4, 8]}, "self_modifying_titans"),
    "hope_l2": ({"chunks": [4, 8]}, "self_modifying_titans_l2"),
    "hope_literal": ({"chunks": [4, 8]}, "self_modifying_titans_literal"),
    "hope_attention": ({"chunks": [2, 4]}, ""),
    "transformer": ({"window": 3}, ""),
    "deltanet": ({}, ""),
    "gated_deltanet": ({}, ""),
    "linear_attention": ({}, ""),
}


def small(name: str) -> Program:
    """A library model at small size, its clocks short enough to tick several times."""
    arguments, block = MODELS[name]
    given = ", ".join(f"{k} = {v}" for k, v in {**SMALL, **arguments}.items())
    edits = FAST.format(block=block) if block else ""
    return program_of(f"variant small of {name}({given}) {{ {edits} }}\n")


@pytest.mark.parametrize("name", MODELS)
def test_whole_models_learn_and_split(name: str) -> None:
    """Forward and `learn` do not depend on how a sequence is cut; every parameter gets a gradient."""
    program = small(name)
    parameters = draw(program, grad=True)
    machine = Interpreter(program, parameters)
    tokens = torch.randint(0, 11, (B, 11), generator=torch.Generator().manual_seed(0))
    y, _ = machine.run(tokens)
    assert isinstance(y, torch.Tensor) and y.shape == (B, 11, 11) and torch.isfinite(y).all()
    first, state = machine.run(tokens[:, :5])
    rest, _ = machine.run(tokens[:, 5:], state)
    torch.testing.assert_close(torch.cat([first, rest], 1), y, rtol=1e-11, atol=1e-11)
    whole, final = machine.learn(tokens)
    loss, state = machine.learn(tokens[:, :6])
    more, state = machine.learn(tokens[:, 6:], state)
    torch.testing.assert_close(loss + more, whole, rtol=1e-11, atol=1e-11)
    left, right = flatten_state(state), flatten_state(final)
    for path in right:
        torch.testing.assert_close(left[path], right[path], rtol=1e-9, atol=1e-11, msg=path)
    grads = torch.autograd.grad(whole, list(parameters.values()), allow_unused=True)
    assert [p for p, g in zip(parameters, grads, strict=True) if g is None or not g.any()] == []


HEADER = """
block probe(x, heads = 2) {{
  {declarations}
  q = l2norm(split(linear(x), heads))
  k = l2norm(split(linear(x), heads))
  v = split(linear(x), heads)
  eta, alpha = parts(sigmoid(linear(x, 2 * heads)), heads, heads)
  {body}
}}
"""
MATRIX = "level context every {c} tokens {{ memory S = matrix() per head init zero }}"
DEEP = "level context every {c} tokens {{ memory S = residual_mlp() per head }}"
LINES = {
    "titans": (
        MATRIX,
        1,
        "S[k] <- v minimize huber(delta = 1) by momentum(lr = eta, beta = 0.9) retain alpha",
    ),
    "omega": (MATRIX, 3, "S[k] <- v minimize l2 over 2 tokens weighted alpha by gd(lr = eta)"),
    "mini-batch": (DEEP, 1, "S[k] <- v minimize l2 by gd(lr = eta) gradient every 3 tokens"),
    "lact": (DEEP, 3, "S[k] <- v minimize dot by muon(lr = 0.1) weighted eta at commit project rownorm"),
    "adam": (MATRIX, 2, "S[k] <- v minimize lp(p = 3) by adamw(lr = 0.1) retain alpha toward init"),
    "m3": (MATRIX, 1, "S[k] <- v by m3(lr = eta, slow = 2, iterations = 2) retain alpha"),
    "rwkv": (
        MATRIX,
        1,
        "write S { [q] <- 0 minimize l2 by gd(lr = eta); [k] <- v minimize dot by gd(lr = 1) }",
    ),
    "channels": (
        MATRIX,
        1,
        "S *= values(sigmoid(v)); S[k] <- v minimize dot by gd(lr = eta) retain sigmoid(linear(x))",
    ),
    "resets": (MATRIX.replace("zero", "zero reset every 4 tokens"), 2, "S[k] <- v by proximal(lr = eta)"),
    "first": (DEEP.replace("head }", 'head init learned("first") }'), 2, "S[k] <- v by dgd(lr = eta)"),
}


@pytest.mark.parametrize("name", LINES)
def test_lines_of_the_language_report(name: str) -> None:
    """Every form of a write: splits, padding and the outer gradient through it."""
    declaration, clock, line = LINES[name]
    text = HEADER.format(
        declarations=declaration.format(c=clock), body=f"{line}\n  return linear(merge(S[q]))"
    )
    program = program_of(text, x=D)
    parameters = draw(program, grad=True)
    machine, x = Interpreter(program, parameters), data(9)
    y, final = machine.run(x)
    assert isinstance(y, torch.Tensor) and torch.isfinite(y).all()
    first, state = machine.run(x[:, :4])
    rest, state = machine.run(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, rest], 1), y, rtol=1e-10, atol=1e-10)
    left, right = flatten_state(state), flatten_state(final)
    for path in right:
        torch.testing.assert_close(left[path], right[path], rtol=1e-9, atol=1e-10, msg=path)
    grads = torch.autograd.grad(y.pow(2).sum(), list(parameters.values()), allow_unused=True)
    for path, grad in zip(parameters, grads, strict=True):
        assert grad is not None and torch.isfinite(grad).all() and (grad != 0).any(), path
