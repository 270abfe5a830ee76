"""Random functions in C, lane by lane, against torch."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nldsl.native.lanes import Lanes
from nldsl.runtime import native
from nldsl.runtime.triangular import unit_lower_inverse

pytestmark = pytest.mark.skipif(not native.compiler(), reason="needs a C compiler")
SIDE = 4
Picked = Callable[[random.Random, list[Tensor]], Tensor]


def stacked(r: random.Random, known: list[Tensor]) -> Tensor:
    axis = r.choice((-3, -2, -1))
    made = torch.stack([r.choice(known) for _ in range(3)], axis)
    if axis == -3 and r.random() < 0.5:
        made = torch.tanh(made @ r.choice(known).unsqueeze(-3))
    return made.sum(axis) if r.random() < 0.5 else made.select(axis, 1)


def put_in(r: random.Random, known: list[Tensor]) -> Tensor:
    made = r.choice(known).clone()
    at = r.randrange(SIDE)
    if r.random() < 0.5:
        made[..., at] = r.choice(known)[..., r.randrange(SIDE)]
    else:
        made[..., at:, :] = r.choice(known)[..., : SIDE - at, :]
    return made


def written_over(r: random.Random, known: list[Tensor]) -> Tensor:
    made = r.choice(known) * 1.0
    return made.mul_(r.choice(known)).add_(r.choice(known).mT).clamp_(-3, 3)


STEPS: list[Picked] = [
    lambda r, k: torch.tanh(r.choice(k) @ r.choice(k)),
    lambda r, k: torch.baddbmm(*(r.choice(k).flatten(0, 1) for _ in range(3)), beta=0.5, alpha=-0.3).view_as(
        k[0]
    ),
    lambda r, k: r.choice(k).mT @ r.choice(k) * 0.3,
    lambda r, k: r.choice(k) @ r.choice(k).mT * 0.3,
    lambda r, k: r.choice(k) + r.choice(k).mT,
    lambda r, k: r.choice(k) * torch.sigmoid(r.choice(k)),
    lambda r, k: r.choice(k) - r.choice(k).sum(r.choice((-1, -2)), keepdim=True) / SIDE,
    lambda r, k: r.choice(k) / (1.0 + r.choice(k).square().sum((-1, -2), keepdim=True)),
    lambda r, k: r.choice(k).flip(r.choice((-1, -2))).tril(r.randrange(-1, 2)),
    lambda r, k: torch.softmax(r.choice(k), r.choice((-1, -2))),
    lambda r, k: r.choice(k).cumsum(r.choice((-1, -2))) / SIDE,
    lambda r, k: torch.where(r.choice(k) > r.choice(k), r.choice(k), r.choice(k).mT),
    lambda r, k: torch.cat((r.choice(k)[..., 1:], r.choice(k)[..., :1]), -1),
    lambda r, k: torch.cat((r.choice(k)[..., 2:, :], r.choice(k)[..., :2, :]), -2),
    lambda r, k: unit_lower_inverse(r.choice(k).flatten(0, -3) * 0.3).view_as(k[0]),
    lambda r, k: r.choice(k).mT.reshape(k[0].shape[0], -1, SIDE * SIDE).flip(-1).view_as(k[0]),
    lambda r, k: r.choice(k).amax(-1, keepdim=True).clamp(-2, 2) * r.choice(k),
    lambda r, k: r.choice(k)[:, :1].expand_as(k[0]) * 0.5 + r.choice(k).sum(1, keepdim=True) * 0.2,
    stacked,
    put_in,
    written_over,
]


def random_function(seed: int, steps: int) -> Callable[..., tuple[Tensor, ...]]:
    def function(*given: Tensor) -> tuple[Tensor, ...]:
        r, known = random.Random(seed), list(given)
        for _ in range(steps):
            known.append(r.choice(STEPS)(r, known[-8:] + known[:2]))
        return tuple(r.sample(known[2:], 4)) + (known[-1], known[-1].mT)

    return function


@pytest.mark.parametrize("seed", range(8))
def test_random_functions(seed: int) -> None:
    torch.manual_seed(seed)
    function, count = random_function(seed, 25), random.Random(seed).choice((1, 3, 5))
    given = [torch.randn(3, count, SIDE, SIDE, dtype=torch.float64) for _ in range(2)]
    compiled = Lanes(function, axes=1)
    compiled(*given)
    assert compiled.compiled == 1, compiled.reasons
    given = [torch.randn_like(x) for x in given]
    for own, other in zip(compiled(*given), function(*given), strict=True):
        assert own is not None
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)
