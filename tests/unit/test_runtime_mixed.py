"""A memory and what its rules remember, as states that mix by numbers: against the recurrence as written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from nldsl.runtime import state_filter
from nldsl.runtime.matrix_tokens import Gate, Mixing, Side, Write
from tests.unit.test_runtime_matrix import (
    CHUNK,
    B,
    Case,
    Draw,
    H,
    K,
    Made,
    V,
    added,
    at_its_key,
    by_chunks,
    distances,
    drawn,
    faded,
)


def slots(d: Draw, count: int) -> tuple[Tensor, ...]:
    """What the rules remember; with it the memory is written as `mixed` says."""
    return tuple(d.normal(B, H, V, K) for _ in range(count))


def mixing(d: Draw, pieces: int, states: int, of: tuple[int, ...] = ()) -> Mixing:
    """Rotations and decays of all states into one another, some numbers the same for all."""
    drawn = [[(0.8 * d.normal(*d.rows)).tanh() for _ in range(states)] for _ in range(states)]
    rows = [[d.detach().requires_grad_() for d in row] for row in drawn]
    given: list[list[Any]] = [list(row) for row in rows]
    given[-1][0] = 0.0
    given[0][1] = -0.5
    into = [[d.normal(*d.rows) for _ in range(states)] for _ in range(pieces)]
    ways: list[list[Any]] = [list(way) for way in into]
    ways[0][-1] = 1.0
    return Mixing(tuple(map(tuple, given)), tuple(map(tuple, ways)), of or (0,) * pieces)


MIXED: dict[str, Callable[[Draw], Made]] = {
    "two states": lambda d: (
        [Write((at_its_key(d.erase()),), d.scalar(), mixing(d, 1, 2)), d.scalar()],
        slots(d, 1),
    ),
    "three states": lambda d: (
        [d.signed(), Write((d.erase(), d.only()), None, mixing(d, 2, 3)), d.scalar()],
        slots(d, 2),
    ),
    "a sum": lambda d: ([Write((d.only(),), d.scalar(), mixing(d, 1, 3))], slots(d, 2)),
    "several writes": lambda d: (
        [
            Write((d.erase(2), d.only()), d.scalar(), mixing(d, 2, 3, (2, 0))),
            Write((d.erase(),), d.scalar()),
            Write((d.only(), d.erase()), None, mixing(d, 2, 3, (0, 1))),
        ],
        slots(d, 2),
    ),
    "coupled": lambda d: ([Write((d.erase(),), None, mixing(d, 1, 3))], slots(d, 2)),
    "between gates": lambda d: (
        [d.scalar(), Write((at_its_key(d.erase()),), None, mixing(d, 1, 3)), d.signed()],
        slots(d, 2),
    ),
    "channels mixed": lambda d: (
        [d.channel(), Write((d.erase(), d.only()), d.holes(), mixing(d, 2, 2)), d.scalar()],
        slots(d, 1),
    ),
    "a sum of channels": lambda d: ([Write((d.only(),), d.channel(60.0), mixing(d, 1, 2))], slots(d, 1)),
}


def mixed_literally(c: Case, mask: Tensor | None, shown: tuple[int, ...]) -> list[Tensor]:
    """`Z_i <- sum_j A_ij Z_j + sum_p b_pi piece_p`, the first diagonal entry a gate."""
    tokens, states = c.queries[0].shape[1], [c.state, *c.held]
    reads: list[list[Tensor]] = [[] for _ in c.queries]

    def entry(e: Any, t: int) -> Any:
        return e[:, t, :, None, None] if isinstance(e, Tensor) else e

    for t in range(tokens):
        places = [states]
        for step in c.steps:
            Z = list(places[-1])
            gate = step if isinstance(step, Gate) else step.gate
            first = Z[0] if gate is None else faded(Z[0], gate, c.side, t)
            if isinstance(step, Gate) or step.mixing is None:
                plain = [] if isinstance(step, Gate) else [added(Z[0], Z[0], step, c.side, t)]
                places.append([sum(plain, first), *Z[1:]])
                continue
            rows, into, of = step.mixing
            new = [sum(entry(e, t) * z for e, z in zip(row, Z, strict=True)) for row in rows]
            new[0] = first + sum(entry(e, t) * z for e, z in zip(rows[0][1:], Z[1:], strict=True))
            for piece, way, looked in zip(step.pieces, into, of, strict=True):
                change = added(Z[looked], Z[looked], Write((piece,)), c.side, t)
                new = [z + entry(e, t) * change for e, z in zip(way, new, strict=True)]
            places.append(new)
        live = torch.ones(B, dtype=torch.bool) if mask is None else mask[:, t]
        seen = [places[p] for p in shown] if shown else places
        for out, (M, *_), q in zip(reads, seen, c.queries, strict=True):
            y = torch.einsum("bhvk,bhmk->bhmv", M, q[:, t].unflatten(1, (H, -1))).flatten(1, 2)
            out.append(y * live[:, None, None])
        chosen = live[:, None, None, None]
        states = [torch.where(chosen, a, b) for a, b in zip(places[-1], states, strict=True)]
    return [*(torch.stack(rows, 1) for rows in reads), *states]


def given(kind: str, tokens: int, side: Side = "key", queries: int = 2) -> Case:
    draw = Draw(tokens, side)
    return drawn(draw, MIXED[kind](draw), queries=queries)


def masks(tokens: int) -> tuple[Tensor | None, ...]:
    return None, torch.rand(B, tokens, generator=torch.Generator().manual_seed(tokens)) > 0.3


@pytest.mark.parametrize("side", ["key", "value"])
@pytest.mark.parametrize("kind", MIXED)
def test_chunks_equal_the_recurrence(kind: str, side: Side) -> None:
    """Lengths around the chunk, with and without a mask; values, all states, gradients."""
    for tokens in (1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 2):
        for mask in masks(tokens):
            values, gradients = distances(given(kind, tokens, side), mask, loop=mixed_literally)
            assert values < 1e-11 and gradients < 1e-10, (tokens, mask is not None)


@pytest.mark.parametrize("kind", ["two states", "between gates"])
@pytest.mark.parametrize("first", [0, 1, -1])
def test_one_pass_equals_the_recurrence(kind: str, first: int) -> None:
    """The read that the pass takes stands above, between and below the steps; all others follow."""
    for tokens in (CHUNK - 1, 2 * CHUNK + 3):
        c = given(kind, tokens, queries=1)
        only = replace(c, queries=[c.queries[first]])
        for some, places in ((only, (first % len(c.queries),)), (c, ())):
            for mask in masks(tokens):
                values, gradients = distances(some, mask, places, mixed_literally)
                assert values < 1e-11 and gradients < 1e-10, (tokens, mask is not None, places)


def test_no_tokens_leave_every_state_as_it_was() -> None:
    c = given("three states", 0)
    *reads, state, first, second = by_chunks(c, None)
    assert all(r.shape == (B, 0, 2 * H, V) for r in reads)
    assert all(torch.equal(a, b) for a, b in zip((state, first, second), (c.state, *c.held), strict=True))


def test_decays_down_to_nothing_stay_exact() -> None:
    """Products far below the smallest number are zero, in values and in gradients: nothing is divided."""
    draw = Draw(40, "key")
    none = torch.full(draw.rows, 1e-30, dtype=torch.float64).requires_grad_()
    zero = torch.zeros(draw.rows, dtype=torch.float64).requires_grad_()
    way = ((1.0, 1.0),)
    write = Write((at_its_key(draw.erase()),), Gate(none), Mixing(((0.0, 1.0), (0.0, zero)), way, (0,)))
    values, gradients = distances(drawn(draw, ([write], slots(draw, 1))), loop=mixed_literally)
    assert values < 1e-11 and gradients < 1e-10


FAULTS: dict[str, tuple[str, str, Any]] = {
    "matrices the wrong way round": ("coupled", "product", lambda old: lambda a, b: old(b, a)),
    "tokens behind the end decay": (
        "two states",
        "_whole",
        lambda old: lambda token: torch.cat([token, 0.5 * old(token)[:, token.shape[1] :]], 1),
    ),
    "another state is looked at": ("several writes", "_unit", lambda old: lambda state, token: old(0, token)),
    "a token does not see its own writes": (
        "several writes",
        "StateFilter._own",
        lambda old: lambda self, at, of: 0.0 * old(self, at, of),
    ),
    "what a half leaves is not carried over the next": (
        "a sum",
        "_row_times",
        lambda old: lambda rows, matrix: rows if matrix.dim() == 6 else old(rows, matrix),
    ),
    "channels share one number": (
        "a sum of channels",
        "product",
        lambda old: lambda a, b: old(a, b).mean(-1, keepdim=True).expand_as(a),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_seeded_faults_are_found(name: str) -> None:
    kind, place, change = FAULTS[name]
    owner, _, attribute = place.rpartition(".")
    where = getattr(state_filter, owner) if owner else state_filter
    with mock.patch.object(where, attribute, change(getattr(where, attribute))):
        values, _ = distances(given(kind, 2 * CHUNK - 3), loop=mixed_literally)
    assert values > 1e-6
