"""The first token, level and statement at which two forms, or two specifications, part."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from nldsl.certify.bench import Build, build_module
from nldsl.certify.clocks import clock_sets, token_clocks, with_clocks
from nldsl.certify.compare import FLOOR, distance, size
from nldsl.certify.draws import draw_inputs, draw_parameters
from nldsl.certify.traces import Key, Trace, compiled_trace, form_plan, interpreter_trace, keys_of
from nldsl.driver.compile import plan_of
from nldsl.spec.program import Program

TOLERANCE = 1e-9
SHOWN = 4
"""Names that only one side has, in the text."""
MOST = 100
"""Tokens that are looked at if nobody says how many."""


class BisectError(ValueError):
    """Two things that cannot be held beside each other; the message says why."""


@dataclass(frozen=True)
class Parting:
    """The first difference of a level, or of a value: `first` and `second`, where they are farthest apart."""

    token: int
    path: str
    part: str
    level: str
    first: float
    second: float
    error: float | None

    def __str__(self) -> str:
        what = f"`{self.path}` {self.part}"
        where = f"{self.level}: {what}" if self.level else what
        return f"token {self.token}, {where}: {self.first:.9g} and {self.second:.9g}"


@dataclass(frozen=True)
class Bisection:
    """Where two sides part: in time first, then in the order in which a token meets things."""

    sides: tuple[str, str]
    tokens: int
    compared: int
    only: tuple[tuple[str, ...], tuple[str, ...]]
    """Memories and parameters that only one of them has."""
    first: Parting | None
    levels: tuple[Parting, ...]
    """The first difference in every level, in the order of time."""

    def text(self) -> str:
        """The finding for people."""
        head = f"{self.sides[0]} against {self.sides[1]}"
        lines = [f"{head}: {self.tokens} tokens, {self.compared} values and weights compared"]
        for side, names in zip(self.sides, self.only, strict=True):
            rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            lines += [f"  only in {side}: {', '.join(names[:SHOWN])}{rest}"] if names else []
        if self.first is None:
            return "\n".join([*lines, "no difference"])
        lines.append(f"first difference: {self.first}")
        if self.levels:
            lines.append("first difference of every level:")
            lines += [f"  {p}" for p in self.levels]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The finding as data for JSON."""
        return asdict(self) | {"equal": self.first is None}


def length_of(programs: list[Program]) -> int:
    """Two commits of the slowest memory and three tokens, `MOST` at most."""
    return min(MOST, 2 * max(c for p in programs for c in (1, *token_clocks(p).forward)) + 3)


def shortened(program: Program) -> Program:
    """The program on clocks that commit within `MOST` tokens."""
    clocks = token_clocks(program)
    if 2 * max((1, *clocks.forward)) + 3 <= MOST:
        return program
    return with_clocks(program, clock_sets(clocks)[0])


def bisect(
    first: Program,
    second: Program,
    forms: tuple[str, str],
    *,
    tokens: int | None = None,
    seed: int = 0,
    names: tuple[str, str] = ("first", "second"),
    build: Build = build_module,
) -> Bisection:
    """Run both on the same input with the same parameters, by path, and look for the first difference.

    Errors: `BisectError` for programs that take other inputs, or a form that a program does not have.

    Example:
        >>> from nldsl.graph import open_program
        >>> program = open_program("linear_attention", block="linear_attention", dim=8)
        >>> bisect(program, program, ("interpreter", "compiled"), tokens=5).text().splitlines()[-1]
        'no difference'
    """
    programs, count = (first, second), tokens or length_of([first, second])
    kinds = [[(v.kind, v.shape) for v in p.root.inputs] for p in programs]
    if kinds[0] != kinds[1]:
        raise BisectError(f"they take other inputs: {_inputs(first)} and {_inputs(second)}")
    # The smaller vocabulary, so that every token is one of both.
    inputs = min(
        (draw_inputs(p, 1, count, seed, "bisect") for p in programs), key=lambda s: float(s[0].max())
    )
    traces = [
        trace_of(p, draw_parameters(p, seed), inputs, form, build)
        for p, form in zip(programs, forms, strict=True)
    ]
    return _compared(programs, traces, names, count)


def _inputs(program: Program) -> str:
    return ", ".join(f"`{v.name}` {v.kind} {list(v.shape)}" for v in program.root.inputs)


def trace_of(
    program: Program, values: Mapping[str, Tensor], inputs: tuple[Tensor, ...], form: str, build: Build
) -> Trace:
    """What a form of a program computes.

    Errors: `BisectError` if it has no such form.
    """
    if form == "interpreter":
        return interpreter_trace(program, values, inputs)
    plan = form_plan(program, form)
    if plan is None:
        own = {u.lowering for b in plan_of(program).blocks for u in b.units if u.memories}
        already = f"the compiled form of `{program.name}` is {form} already"
        raise BisectError(already if own == {form} else f"`{program.name}` has no {form} form")
    return compiled_trace(program, values, inputs, plan, build)


def _compared(
    programs: tuple[Program, Program], traces: list[Trace], names: tuple[str, str], count: int
) -> Bisection:
    order = keys_of(programs[0])
    other = {(k.path, k.part): k for k in keys_of(programs[1])}
    first: Parting | None = None
    levels: dict[str, Parting] = {}
    compared: set[Key] = set()
    for t in range(count):
        left, right = (trace.rows[t] for trace in traces)
        shared = [(k, other[k.path, k.part]) for k in order if (k.path, k.part) in other]
        shared = [(a, b) for a, b in shared if a in left and b in right]
        floor = FLOOR * min(1.0, max((size(left[a]) for a, _ in shared), default=0.0))
        compared |= {a for a, _ in shared}
        for a, b in shared:
            error = distance(right[b], left[a], floor)
            if error <= TOLERANCE:
                continue
            found = _parting(t, a, left[a], right[b], error)
            first = first or found
            if a.memory:
                levels.setdefault(a.level, found)
    only = (_alone(programs[0], programs[1]), _alone(programs[1], programs[0]))
    if not compared:
        raise BisectError("they have nothing in common that could be compared")
    return Bisection(names, count, len(compared), only, first, tuple(levels.values()))


def _alone(one: Program, two: Program) -> tuple[str, ...]:
    """What only the first has: memories by their part, and parameters."""
    mine = {k.path for k in keys_of(one) if k.memory} | set(draw_parameters(one, 0))
    theirs = {k.path for k in keys_of(two) if k.memory} | set(draw_parameters(two, 0))
    return tuple(f"`{name}`" for name in sorted(mine - theirs))


def _parting(token: int, key: Key, left: Tensor, right: Tensor, error: float) -> Parting:
    if left.shape != right.shape:
        return Parting(token, key.path, f"{key.part}, shapes", key.level, left.numel(), right.numel(), None)
    place = (left - right).abs().nan_to_num(nan=math.inf).flatten().argmax()
    a, b = (float(x.flatten()[place]) for x in (left, right))
    shown = (a if math.isfinite(a) else 0.0, b if math.isfinite(b) else 0.0)
    return Parting(token, key.path, key.part, key.level, *shown, error if math.isfinite(error) else None)
