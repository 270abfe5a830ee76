"""The course of a weight that mixes with what its rules remember, against its recurrence, token by token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from nldsl.runtime import course_states, state_filter
from nldsl.runtime.course_states import Erased, Mixing, StatesCourse, Taken

torch.set_num_threads(1)
B, H, C, IN, OUT = 2, 3, 7, 4, 5


class Draw:
    """Numbers that ask for gradients, one seed after the other."""

    def __init__(self) -> None:
        self.seed, self.leaves = 0, list[Tensor]()

    def __call__(self, *shape: int) -> Tensor:
        self.seed += 1
        made = torch.randn(*shape, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
        self.leaves.append(made.requires_grad_())
        return made


Case = tuple[tuple[Tensor, ...], list[Taken], list[Erased], list[list[Any]], list[list[Any]], Tensor, Tensor]


def case(d: Draw, states: int, terms: list[tuple[int, bool]], erases: list[int]) -> Case:
    """`terms`: window and whether lessons are weighted; `erases`: the states they look at."""
    rows: list[list[Any]] = [[(0.5 * d(B, H, C)).tanh() for _ in range(states)] for _ in range(states)]
    rows[-1][0], rows[0][-1] = 0.0, 0.3
    ways: list[list[Any]] = [[0.3 * d(B, H, C) for _ in range(states)] for _ in (*terms, *erases)]
    ways[0][-1] = 1.0
    taken = [
        Taken(d(B, H, C + w - 1, IN) / 2, d(B, H, C + w - 1, OUT), n, d(B, H, C + w - 1) if s else None, w)
        for n, (w, s) in enumerate(terms)
    ]
    erased = [Erased(d(B, H, C, IN) / 2, len(terms) + n, of) for n, of in enumerate(erases)]
    held = tuple(d(B, H, OUT, IN) for _ in range(states))
    return held, taken, erased, rows, ways, d(H, OUT, IN), d(B, H, C, IN)


def at(entry: Any, t: int) -> Any:
    return entry[..., t, None, None] if isinstance(entry, Tensor) else entry


def literally(c: Case, valid: Tensor) -> list[Tensor]:
    """The definition; states behind the chunk, answers behind and in front of every token."""
    held, taken, erased, rows, ways, toward, z = c
    Z, after, before = [held[0] - toward, *held[1:]], [], []
    for t in range(C):
        before.append(z[..., t, None, :] @ (Z[0] + toward).mT)
        new = [sum(at(e, t) * s for e, s in zip(row, Z, strict=True)) for row in rows]
        for one in taken:
            w = torch.ones(B, H, C + one.window - 1) if one.weight is None else one.weight
            lessons = range(t, t + one.window)
            g = sum(w[..., j, None, None] * one.dy[..., j, :, None] * one.x[..., j, None, :] for j in lessons)
            new = [s - at(b, t) * g for b, s in zip(ways[one.way], new, strict=True)]
        for gone in erased:
            x = gone.x[..., t, :, None]
            new = [s - at(b, t) * (Z[gone.of] @ x) @ x.mT for b, s in zip(ways[gone.way], new, strict=True)]
        on = valid[:, t, None, None, None]
        Z = [torch.where(on, a, b) for a, b in zip(new, Z, strict=True)]
        after.append(z[..., t, None, :] @ (Z[0] + toward).mT)
    return [Z[0] + toward, *Z[1:], torch.cat(after, -2), torch.cat(before, -2)]


def by_course(c: Case, valid: Tensor | None) -> list[Tensor]:
    held, taken, erased, rows, ways, toward, z = c
    mixing = Mixing(z, rows, ways, valid)
    course = StatesCourse(held[0], held[1:], taken, erased, mixing, toward)
    return [*course.close(), course.after(z), course.before(z)]


KINDS: dict[str, tuple[int, list[tuple[int, bool]], list[int]]] = {
    "two states": (2, [(1, False)], []),
    "three states, two terms": (3, [(1, True), (1, False)], []),
    "a window": (3, [(3, True)], []),
    "a window longer than the chunk": (2, [(9, False)], []),
    "an erase": (2, [(1, False)], [0]),
    "erases of several states": (4, [(3, True), (1, False)], [2, 0, 1]),
    "the weight alone": (1, [(1, False)], [0]),
}


def distances(kind: str, masked: bool) -> tuple[float, float]:
    """How far values and gradients are apart."""
    d = Draw()
    c = case(d, *KINDS[kind])
    valid = torch.arange(C) < torch.tensor([[4], [0]]) if masked else torch.ones(B, C, dtype=torch.bool)
    got, want = by_course(c, valid if masked else None), literally(c, valid)
    shown = valid[:, None, :, None]
    for outs in (got, want):
        outs[-2:] = [y * shown for y in outs[-2:]]
    values = max(float((a - b).abs().max().detach()) for a, b in zip(got, want, strict=True))
    grads = []
    for outs in (got, want):
        seeds = [
            torch.randn(o.shape, generator=torch.Generator().manual_seed(1), dtype=o.dtype) for o in outs
        ]
        total = sum((o * s).sum() for o, s in zip(outs, seeds, strict=True))
        wanted = {"allow_unused": True, "materialize_grads": True, "retain_graph": True}
        grads.append(torch.autograd.grad(total, d.leaves, **wanted))
    return values, max(float((a - b).abs().max()) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_course(kind: str, masked: bool) -> None:
    values, gradients = distances(kind, masked)
    assert values < 1e-11 and gradients < 1e-10


FAULTS: dict[str, tuple[str, Any, str, Callable[[Any], Any]]] = {
    "empty slots step": ("two states", course_states, "lift", lambda old: lambda v, x: old(v | True, x)),
    "a lesson counts for its own token only": (
        "a window",
        course_states,
        "lessons_seen",
        lambda old: lambda one, kernel: old(one, kernel.diagonal(dim1=-2, dim2=-1).diag_embed()),
    ),
    "what is left behind is not weighed": (
        "a window",
        course_states,
        "lessons_of",
        lambda old: lambda one, left, wide: old(one._replace(weight=None), left, wide),
    ),
    "erases do not see one another": (
        "erases of several states",
        course_states,
        "solve_unit_lower",
        lambda old: lambda system, seen: seen,
    ),
    "another state is looked at": (
        "erases of several states",
        state_filter,
        "_unit",
        lambda old: lambda state, token: old(0, token),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_seeded_faults_are_found(name: str) -> None:
    kind, owner, attribute, change = FAULTS[name]
    with mock.patch.object(owner, attribute, change(getattr(owner, attribute))):
        values, _ = distances(kind, True)
    assert values > 1e-6
