"""Rules that torch does not have, as the papers print them: plain recurrences on (W, g, memories, step).

Nothing here comes from nldsl.  A recurrence keeps what it remembers in the dictionary `s`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]
Recurrence = Callable[[Tensor, Tensor, State, int], Tensor]


def newton_schulz(a: Tensor, steps: int = 5) -> Tensor:
    """The quintic of Muon (Jordan et al. 2024)."""
    x = a / max(float(a.norm()), 1e-7)
    x = x.T if a.shape[0] > a.shape[1] else x
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    return x.T if a.shape[0] > a.shape[1] else x


def lion(lr: float = 0.01, b1: float = 0.9, b2: float = 0.99, decay: float = 0.0) -> Recurrence:
    def step(W: Tensor, g: Tensor, s: State, t: int) -> Tensor:
        m = s.get("m", torch.zeros_like(W))
        s["m"] = b2 * m + (1 - b2) * g
        return W - lr * ((b1 * m + (1 - b1) * g).sign() + decay * W)

    return step


def signum(lr: float, beta: float) -> Recurrence:
    def step(W: Tensor, g: Tensor, s: State, t: int) -> Tensor:
        s["m"] = beta * s.get("m", 0) + (1 - beta) * g
        return W - lr * s["m"].sign()

    return step


def muon(lr: float, beta: float, nesterov: bool, decay: float = 0.0) -> Recurrence:
    """Momentum, Nesterov's if asked, orthogonalised."""

    def step(W: Tensor, g: Tensor, s: State, t: int) -> Tensor:
        s["m"] = beta * s.get("m", 0) + g
        return (1 - lr * decay) * W - lr * newton_schulz(g + beta * s["m"] if nesterov else s["m"])

    return step


def adamuon(lr: float, beta: float, decay: float) -> Recurrence:
    """Si, Zhang and Shen (2025), Algorithm 1."""

    def step(W: Tensor, g: Tensor, s: State, t: int) -> Tensor:
        s["m"] = beta * s.get("m", 0) + g
        o = newton_schulz(s["m"].sign())
        s["v"] = beta * s.get("v", 0) + (1 - beta) * o * o
        o = o / (s["v"].sqrt() + 1e-8)
        size = 0.2 * (W.shape[0] * W.shape[1]) ** 0.5 / o.norm()
        return W - lr * (size * o + decay * W)

    return step


def m3(lr: float, b1: float, b2: float, b3: float, alpha: float, slow: int) -> Recurrence:
    """Algorithm 1 of Nested Learning: O2 is made of what was gathered before the running period."""

    def step(W: Tensor, g: Tensor, s: State, t: int) -> Tensor:
        zero = torch.zeros_like(W)
        if (t - 1) % slow == 0:
            s["m2"] = s.get("m2", zero) + b3 * s.get("gathered", zero)
            s["o2"], s["gathered"] = newton_schulz(s["m2"]), zero
        s["m1"] = s.get("m1", zero) + b1 * g
        s["v"] = s.get("v", zero) + b2 * g * g
        s["gathered"] = s["gathered"] + g
        return W - lr * (newton_schulz(s["m1"]) + alpha * s["o2"]) / (s["v"].sqrt() + 1e-8)

    return step


def m3_ema(lr: float, b1: float, b2: float, b3: float, alpha: float, slow: int) -> Recurrence:
    """The same with averages; the slow one is seen as it was at the last multiple of `slow` steps."""

    def step(W: Tensor, g: Tensor, s: State, t: int) -> Tensor:
        zero = torch.zeros_like(W)
        seen = s.get("seen", zero)
        s["m1"] = b1 * s.get("m1", zero) + (1 - b1) * g
        s["v"] = b2 * s.get("v", zero) + (1 - b2) * g * g
        s["m2"] = b3 * s.get("m2", zero) + (1 - b3) * g
        d = newton_schulz(s["m1"]) + alpha * newton_schulz(seen)
        if t % slow == 0:
            s["seen"] = s["m2"]
        return W - lr * d / ((s["v"] / (1 - b2**t)).sqrt() + 1e-8)

    return step


def root(a: Tensor, power: float, eps: float) -> Tensor:
    values, vectors = torch.linalg.eigh(a)
    return vectors @ torch.diag((values.clamp(min=0) + eps) ** power) @ vectors.T


def shampoo(lr: float, beta: float, eps: float, slow: int) -> Recurrence:
    """Gupta, Koren and Singer (2018), Algorithm 1: L^(-1/4) G R^(-1/4)."""

    def step(W: Tensor, g: Tensor, s: State, t: int) -> Tensor:
        if W.ndim == 1:
            s["v"] = s.get("v", 0) + g * g
            u = g / (s["v"] + eps).sqrt()
        else:
            s["l"], s["r"] = s.get("l", 0) + g @ g.T, s.get("r", 0) + g.T @ g
            if t % slow == 0:
                s["roots"] = root(s["l"], -0.25, eps), root(s["r"], -0.25, eps)
            u = s["roots"][0] @ g @ s["roots"][1] if t >= slow else g
        s["m"] = beta * s.get("m", 0) + u
        return W - lr * s["m"]

    return step


def soap(lr: float, b1: float, b2: float, slow: int, decay: float) -> Recurrence:
    """Vyas et al. (2024), Algorithms 3 and 4."""

    def basis(a: Tensor) -> Tensor:
        return torch.linalg.eigh(a).eigenvectors.flip(1)

    def step(W: Tensor, g: Tensor, s: State, t: int) -> Tensor:
        if W.ndim == 1:
            left = right = None
            rotate = back = lambda a: a
        else:
            if t == 1:
                s["l"], s["r"] = g @ g.T, g.T @ g
                s["ql"], s["qr"] = basis(s["l"]), basis(s["r"])
            left, right = s["ql"], s["qr"]
            rotate = lambda a: left.T @ a @ right  # noqa: E731
            back = lambda a: left @ a @ right.T  # noqa: E731
        s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0) + (1 - b2) * rotate(g) ** 2
        n = rotate(s["m"]) / (1 - b1**t) / ((s["v"] / (1 - b2**t)).sqrt() + 1e-8)
        if W.ndim == 2:
            s["l"], s["r"] = b2 * s["l"] + (1 - b2) * g @ g.T, b2 * s["r"] + (1 - b2) * g.T @ g
            if t % slow == 0:
                s["ql"], s["qr"] = (
                    torch.linalg.qr(a @ q)[0] for a, q in ((s["l"], s["ql"]), (s["r"], s["qr"]))
                )
        return (1 - lr * decay) * W - lr * back(n)

    return step


def ademamix(lr: float, b3: float, alpha: float, warmup: int, decay: float) -> Recurrence:
    """Pagliardini, Ablin and Grangier (2024), Algorithm 1, with the warm-ups of its Eq. (alpha, beta3)."""
    b1, b2 = 0.9, 0.999

    def step(W: Tensor, g: Tensor, s: State, t: int) -> Tensor:
        import math

        a, b = alpha, b3
        if warmup:
            x = min(t / warmup, 1.0)
            a = x * alpha
            b = math.exp(math.log(b1) * math.log(b3) / ((1 - x) * math.log(b3) + x * math.log(b1)))
            b = min(b, b3)
        s["m1"] = b1 * s.get("m1", 0) + (1 - b1) * g
        s["m2"] = b * s.get("m2", 0) + (1 - b) * g
        s["v"] = b2 * s.get("v", 0) + (1 - b2) * g * g
        d = (s["m1"] / (1 - b1**t) + a * s["m2"]) / ((s["v"] / (1 - b2**t)).sqrt() + 1e-8)
        return W - lr * (d + decay * W)

    return step


def schedule_free(lr: float, b1: float, b2: float, decay: float, warmup: int) -> Recurrence:
    """Defazio et al. (2024), Algorithm 1; W is y."""

    def step(W: Tensor, g: Tensor, s: State, t: int) -> Tensor:
        z, x = s.get("z", W), s.get("x", W)
        rate = lr * (1 - b2**t) ** 0.5 * (min(1.0, t / warmup) if warmup else 1.0)
        s["v"] = b2 * s.get("v", 0) + (1 - b2) * g * g
        z = z - rate * g / (s["v"].sqrt() + 1e-8) - rate * decay * W
        s["total"] = s.get("total", 0.0) + rate**2
        c = rate**2 / s["total"]
        s["z"], s["x"] = z, (1 - c) * x + c * z
        return (1 - b1) * s["z"] + b1 * s["x"]

    return step


def lookahead(inner: Recurrence, slow: int, mix: float) -> Recurrence:
    """Zhang et al. (2019), Algorithm 1: slow weights that follow the fast ones."""

    def step(W: Tensor, g: Tensor, s: State, t: int) -> Tensor:
        anchor = s.setdefault("anchor", W)
        W = inner(W, g, s.setdefault("inner", {}), t)
        if t % slow == 0:
            W = s["anchor"] = anchor + mix * (W - anchor)
        return W

    return step


def feature_momentum(lr: float, beta: float, cubic: float) -> Recurrence:
    """Eq. 51."""

    def step(W: Tensor, g: Tensor, s: State, t: int) -> Tensor:
        s["m"] = beta * s.get("m", 0) - lr * (g + cubic * g * g * g)
        return W + s["m"]

    return step


def nonlinear_momentum(lr: float, beta: float, answer: Callable[[Tensor], Tensor]) -> Recurrence:
    """Eq. 52: W' = W + sigma(m')."""

    def step(W: Tensor, g: Tensor, s: State, t: int) -> Tensor:
        s["m"] = beta * s.get("m", torch.zeros_like(W)) - lr * g
        return W + answer(s["m"])

    return step


def delta_momentum(lr: float, beta: float, exact: bool = False) -> Recurrence:
    """Eq. 48-49 with the step size on the erase term (reading P14), or the exact rate of Eq. 57 there."""

    def step(W: Tensor, g: Tensor, s: State, t: int) -> Tensor:
        m = s.get("m", torch.zeros_like(W))
        e = lr / (1 + lr * float(g.norm()) ** 2) if exact else lr
        s["m"] = m @ (beta * torch.eye(W.shape[1], dtype=W.dtype) - e * g.T @ g) - lr * g
        return W + s["m"]

    return step


def learned_preconditioner(lr: float, zeta: float) -> Recurrence:
    """Eq. 41: one step of gradient descent on Eq. 43 per gradient, by autograd, at the normalised rate."""

    def step(W: Tensor, g: Tensor, s: State, t: int) -> Tensor:
        matrix = W.ndim == 2
        size = (g * g).sum() if matrix else (g * g).mean()
        u = g / (size + 1e-12).sqrt()
        start = torch.eye(len(g), dtype=g.dtype) if matrix else torch.ones_like(g)
        P = s.get("P", start).detach().requires_grad_()
        with torch.enable_grad():
            a = P @ u if matrix else P * u
            distance = a @ a.T - torch.eye(len(g), dtype=g.dtype) if matrix else a * a - 1
            (slope,) = torch.autograd.grad((distance**2).sum() / 4, P)
        a = a.detach()
        s["P"] = P.detach() - zeta / (1 + ((a * a).sum() if matrix else a * a)) * slope
        return W - lr * (s["P"] @ u if matrix else s["P"] * u)

    return step
