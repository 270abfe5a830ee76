"""Short clocks for a program: one set that keeps ratios, and one in which clocks do not divide.

Memories that are written in `forward` and memories that learn from the task are told apart, because
the clocks of the latter have to be multiples of the smallest of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import gcd

from nldsl.spec.program import (
    Block,
    Call,
    Clock,
    Memory,
    Program,
    Repeat,
    Statement,
    TaskWrite,
    Term,
    Write,
    option,
)

COPIES = (2, 1)
"""How often `repeat` runs at most in a small program: with the first set of clocks, and with the second."""
WINDOW = 3
"""Pairs that attention with a window keeps in a small program."""
_FURTHEST = 10_000
_PRIMES = tuple(n for n in range(2, 200) if all(n % p for p in range(2, n)))
"""More than any program has clocks; clocks beyond keep their values."""


@dataclass(frozen=True)
class Clocks:
    """Token clocks longer than one: of `forward` (with bases, windows, resets), and of task memories."""

    forward: tuple[int, ...]
    task: tuple[int, ...]


@dataclass(frozen=True)
class ClockSet:
    """How the clocks of a program are exchanged: (old, new) pairs."""

    name: str
    forward: tuple[tuple[int, int], ...] = ()
    task: tuple[tuple[int, int], ...] = ()
    copies: int = COPIES[0]


def blocks_below(block: Block) -> Iterator[Block]:
    """The block and every block it calls, once per call."""
    yield block
    for step in block.body:
        if isinstance(step, Call | Repeat):
            yield from blocks_below(step.block)


def memories_below(block: Block) -> Iterator[Memory]:
    """Every memory of a block and of the blocks below."""
    for inner in blocks_below(block):
        yield from inner.memories


def task_names(block: Block) -> frozenset[str]:
    """The memories of a block that minimise the task."""
    return frozenset(s.memory for s in block.body if isinstance(s, TaskWrite))


def token_clocks(program: Program) -> Clocks:
    """Every clock of a program that counts tokens and is longer than one.

    Example:
        >>> from nldsl.graph import open_program
        >>> token_clocks(open_program("hope"))
        Clocks(forward=(16, 64), task=(16, 64, 256))
    """
    forward: set[int] = set()
    task: set[int] = set()
    for block in blocks_below(program.root):
        tasks = task_names(block)
        for memory in block.memories:
            found = task if memory.name in tasks else forward
            found |= {memory.clock.every} if memory.clock.unit == "tokens" else set()
            found |= {memory.reset_every} if memory.reset == "tokens" else set()
        for step in block.body:
            if isinstance(step, Write):
                forward |= {step.base_every, *(t.window for t in step.terms)}
    return Clocks(_long(forward), _long(task))


def _long(found: set[int]) -> tuple[int, ...]:
    return tuple(sorted(c for c in found if c > 1))


def clock_sets(clocks: Clocks) -> tuple[ClockSet, ...]:
    """The sets a program is checked with.

    `ratios`: from 2 on, the smallest numbers that keep order and divisibility (16, 64, 256 -> 2, 4, 8).
    `no divisors`: clocks of `forward` become 4, 6, 10, 14, ... (3, 5, 7, ... if they have no common divisor),
    those of task memories three times what keeps their ratios (3, 6, 12).

    Example:
        >>> [dict(s.forward) for s in clock_sets(Clocks((16, 64), (16, 64, 256)))]
        [{16: 2, 64: 4}, {16: 4, 64: 6}]
    """
    joint = keep_ratios({*clocks.forward, *clocks.task})
    first = ClockSet("ratios", _pairs(clocks.forward, joint), _pairs(clocks.task, joint))
    if not joint:
        return (first,)
    own = keep_ratios(clocks.task)
    second = ClockSet(
        "no divisors",
        tuple(zip(clocks.forward, _apart(clocks), strict=False)),
        tuple((old, new * 3 // 2) for old, new in own.items()),
        COPIES[1],
    )
    return first, second


def _pairs(clocks: tuple[int, ...], new: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    return tuple((c, new[c]) for c in clocks)


def _apart(clocks: Clocks) -> list[int]:
    """Clocks none of which divides another, with a common chunk if there was one."""
    if len(clocks.forward) == 1:
        return [4 if clocks.task else 3]
    if gcd(*clocks.forward) > 1:
        return [2 * p for p in _PRIMES]
    return list(_PRIMES[1:])


def keep_ratios(clocks: Collection[int]) -> dict[int, int]:
    """The smallest numbers from 2 on with the same order and the same divisibility.

    Example:
        >>> keep_ratios([16, 24, 64])
        {16: 2, 24: 3, 64: 4}
    """
    new: dict[int, int] = {}
    for clock in sorted(clocks):
        start = max(new.values(), default=1) + 1
        fits = (
            n
            for n in range(start, _FURTHEST)
            if all((n % short == 0) == (clock % old == 0) for old, short in new.items())
        )
        found = next(fits, None)
        if found is None:
            return {c: c for c in sorted(clocks)}
        new[clock] = found
    return new


def with_clocks(program: Program, chosen: ClockSet) -> Program:
    """The program on other clocks, `repeat` cut, attention windows short; its names stay.

    Example:
        >>> from nldsl.graph import open_program
        >>> hope = open_program("hope")
        >>> token_clocks(with_clocks(hope, clock_sets(token_clocks(hope))[0]))
        Clocks(forward=(2, 4), task=(2, 4, 8))
    """
    forward, task = dict(chosen.forward), dict(chosen.task)

    @cache
    def changed(block: Block) -> Block:
        tasks = task_names(block)
        memories = tuple(_memory(m, task if m.name in tasks else forward) for m in block.memories)
        return replace(block, memories=memories, body=tuple(_step(s) for s in block.body))

    def _step(step: Statement) -> Statement:
        if isinstance(step, Call):
            return replace(step, block=changed(step.block))
        if isinstance(step, Repeat):
            return replace(step, block=changed(step.block), count=min(step.count, chosen.copies))
        if isinstance(step, Write):
            terms = tuple(_term(t, forward) for t in step.terms)
            return replace(step, terms=terms, base_every=_exchanged(step.base_every, forward))
        return step

    return replace(program, root=changed(program.root))


def _exchanged(clock: int, new: Mapping[int, int]) -> int:
    return new.get(clock, clock)


def _term(term: Term, new: Mapping[int, int]) -> Term:
    return replace(term, window=_exchanged(term.window, new))


def _memory(memory: Memory, new: Mapping[int, int]) -> Memory:
    clock = memory.clock
    if clock.unit == "tokens":
        clock = Clock(_exchanged(clock.every, new), "tokens")
    options = memory.options
    window = option(options, "window")
    if memory.function is None and isinstance(window, int) and window > WINDOW:
        options = tuple((n, WINDOW if n == "window" else v) for n, v in options)
    return replace(memory, clock=clock, reset_every=_exchanged(memory.reset_every, new), options=options)
