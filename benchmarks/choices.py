"""Alternatives that were measured before one was chosen; `docs/performance.md` quotes them.

python -m benchmarks.choices
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import best_seconds, heading
from nldsl.runtime import triangular
from nldsl.runtime.recurrence import delta_recurrence
from nldsl.runtime.sequence import conv


def neumann_inverse(strict: Tensor, base: int = 16) -> Tensor:
    """`(I + N)^-1` with diagonal blocks by `(I - N)(I + N^2)(I + N^4)...`, joined like the runtime's."""
    size = strict.shape[-1]
    out = torch.zeros_like(strict)
    for start in range(0, size, base):
        block = slice(start, start + base)
        power = strict[:, block, block]
        inverse = torch.eye(base) - power
        for _ in range(base.bit_length() - 2):
            power = power @ power
            inverse = inverse + inverse @ power
        out[:, block, block] = inverse
    width = base
    while width < size:
        for start in range(0, size, 2 * width):
            a, b = slice(start, start + width), slice(start + width, start + 2 * width)
            out[:, b, a] = -out[:, b, b] @ strict[:, b, a] @ out[:, a, a]
        width *= 2
    return out


def inverses(count: int = 80, size: int = 64) -> None:
    strict = 1.9 * torch.ones(count, size, size).tril(-1)
    eye = torch.eye(size)
    exact = torch.linalg.inv((strict + eye).double())
    ways = {
        "blocks of 32 by substitution": triangular.unit_lower_inverse,
        "one substitution": lambda n: torch.linalg.solve_triangular(
            n + eye, eye.expand_as(n), upper=False, unitriangular=True
        ),
        "blocks of 16 by powers": neumann_inverse,
    }
    seconds = best_seconds({name: lambda way=way: way(strict) for name, way in ways.items()}, 20)
    print(f"inverse of {count} unit lower triangular matrices of size {size}")
    for name, way in ways.items():
        error = (way(strict) - exact).abs().max().item()
        print(f"  {name:30s} {seconds[name] * 1e6:7.0f} us, error at repeated keys {error:.0e}")


def convolutions(batch: int = 4, tokens: int = 1024, width: int = 256, window: int = 4) -> None:
    x, tail = torch.randn(batch, tokens, width, requires_grad=True), torch.zeros(batch, window - 1, width)
    weight, bias = torch.randn(width, window, requires_grad=True), torch.randn(width, requires_grad=True)
    # What comes back from a linear layer has the channels last, whatever the layout of the output.
    upstream = torch.randn(batch, tokens, width)

    def taps() -> Tensor:
        return conv(x, weight, bias, state={"tail": tail}, mask=None)[0]

    def shifts() -> Tensor:
        y, seen = bias, torch.cat([tail, x], 1)
        for j, tap in enumerate(weight.unbind(1)):
            y = torch.addcmul(y, seen[:, j : j + tokens], tap)
        return y

    def conv1d() -> Tensor:
        return F.conv1d(torch.cat([tail, x], 1).mT, weight.unsqueeze(1), bias, groups=width).mT

    def both(way):
        return torch.autograd.grad(way(), (x, weight, bias), upstream)

    seconds = best_seconds({way.__name__: lambda way=way: both(way) for way in (taps, shifts, conv1d)}, 10)
    print(f"causal convolution, {batch} x {tokens} x {width}, window {window}, forward and backward")
    for name, time in seconds.items():
        print(f"  {name:30s} {time * 1e3:7.1f} ms")


def widths(batch: int = 4, tokens: int = 1024, heads: int = 4, size: int = 64) -> None:
    q, k, v = (torch.randn(batch, tokens, heads, size) for _ in range(3))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    gates = -0.1 * torch.rand(batch, tokens, heads), torch.rand(batch, tokens, heads)
    given = [x.requires_grad_() for x in (q, k, v, *gates)]
    state = torch.zeros(batch, heads, size, size)

    def both(chunk: int) -> object:
        log, erase = given[3:]
        y, _ = delta_recurrence(*given[:3], erase, state, log_decay=log, feedback="decayed", chunk=chunk)
        return torch.autograd.grad(y, given, torch.ones_like(y))

    seconds = best_seconds({chunk: lambda chunk=chunk: both(chunk) for chunk in (16, 32, 64)}, 10)
    print(f"delta rule, {batch} x {tokens} tokens, {heads} heads of {size}, forward and backward")
    for chunk, time in seconds.items():
        print(f"  chunks of {chunk:2d} {time * 1e3:6.1f} ms")


def groups(size: int = 64) -> None:
    print(f"batched products of {size} x {size}, results in new memory")
    for count in (16, 64, 256):
        a, b = torch.randn(count, size, size), torch.randn(count, size, size)
        (time,) = best_seconds({"": lambda a=a, b=b: torch.bmm(a, b)}, 40).values()
        print(f"  {count:3d} at once {2e-9 * count * size**3 / time:6.1f} GFLOP/s")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    heading(__doc__)
    inverses()
    convolutions()
    widths()
    groups()
