"""Delta momentum against momentum on the toy function of Eq. 53 (Fig. 4).

psi(r, th) = r^2 + K (r - th + A sin(w r))^2 from (-3.5, 2), with K = 5, A = 1, w = 3.  Both rules get every
rate of one list; what is compared is the best of each.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import nldsl

K, A, W = 5.0, 1.0, 3.0
RATES = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03)
RULES = {"momentum": "momentum(lr = {lr})", "delta momentum": 'delta_momentum(lr = {lr}, rate = "proximal")'}
COLOURS = {"momentum": "#b4532a", "delta momentum": "#2a6fb4"}
REACHED = 1e-2
WIDTH, HEIGHT, MARGIN = 640, 360, 48


def psi(weights: Tensor) -> Tensor:
    """Eq. 53 at `[[r, theta]]`."""
    r, theta = weights.flatten()
    return r**2 + K * (r - theta + A * torch.sin(W * r)) ** 2


def descend(rule: str, steps: int) -> list[float]:
    """The value of psi before every step; infinite from where it diverged."""
    weights = nn.Parameter(torch.tensor([[-3.5, 2.0]], dtype=torch.float64))
    optimizer = nldsl.optimizer(rule, [weights], nonfinite="ignore")
    values: list[float] = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = psi(weights)
        if not math.isfinite(value.item()):
            return values + [math.inf] * (steps - len(values))
        value.backward()
        values.append(value.item())
        optimizer.step()
    return values


def reached(values: Sequence[float]) -> int | None:
    """The first step from which on psi stays below `REACHED`."""
    first = len(values)
    while first and values[first - 1] < REACHED:
        first -= 1
    return first if first < len(values) else None


def picture(curves: dict[str, list[float]]) -> str:
    """The curves on a logarithmic axis."""
    top, bottom = 2.0, -6.0
    steps = max(map(len, curves.values()))

    def at(step: int, value: float) -> str:
        level = min(top, max(bottom, math.log10(max(value, 1e-12))))
        x = MARGIN + (WIDTH - 2 * MARGIN) * step / (steps - 1)
        y = MARGIN + (HEIGHT - 2 * MARGIN) * (top - level) / (top - bottom)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for power in range(int(bottom), int(top) + 1, 2):
        y = float(at(0, 10.0**power).split(",")[1])
        parts.append(f'<path d="M{MARGIN},{y} H{WIDTH - MARGIN}" stroke="#ddd"/>')
        parts.append(f'<text x="8" y="{y + 4}" font-size="12">1e{power}</text>')
    for i, (name, values) in enumerate(curves.items()):
        points = " ".join(at(t, v) for t, v in enumerate(values))
        colour = COLOURS[name.partition(",")[0]]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="{WIDTH - 260}" y="{24 + 16 * i}" font-size="13" fill="{colour}">{name}</text>'
        )
    parts.append(
        f'<text x="{MARGIN}" y="{HEIGHT - 14}" font-size="12">psi of Eq. 53 over {steps} steps</text>'
    )
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Print the steps to the optimum for every rate, and draw the best of each rule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("fig4.svg"))
    options = parser.parse_args()
    curves: dict[str, list[float]] = {}
    print(f"{'':16}" + "".join(f"{lr:>8}" for lr in RATES))
    for name, rule in RULES.items():
        runs = {lr: descend(rule.format(lr=lr), options.steps) for lr in RATES}
        found = {lr: reached(values) for lr, values in runs.items()}
        print(f"{name:16}" + "".join(f"{'-' if n is None else n:>8}" for n in found.values()))
        good = {lr: n for lr, n in found.items() if n is not None}
        best = min(good, key=good.__getitem__) if good else RATES[0]
        curves[f"{name}, lr = {best}"] = runs[best]
    options.out.write_text(picture(curves), encoding="utf-8")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
