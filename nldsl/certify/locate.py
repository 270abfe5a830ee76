"""Where the compiled program first leaves the interpreter: token, level, memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from nldsl.certify.align import LayoutError
from nldsl.certify.bench import Bench, call
from nldsl.certify.certificate import Difference
from nldsl.certify.compare import BOUND, FLOOR, Pair, distance, size
from nldsl.certify.learning import School, with_carry
from nldsl.certify.oracle import run_learning
from nldsl.runtime.state import State as CompiledState

Step = Callable[[int], tuple[list[Pair], list[Pair]]]
"""Pairs of states, then of outputs, behind token t."""


def locate(bench: Bench) -> Difference | None:
    """Both side by side, growing prefixes in one call first, then token by token."""
    for calls, step in (("prefixes", _prefixes(bench)), ("token by token", _steps(bench))):
        found = _first(step, bench.tokens, calls)
        if found is not None:
            return found
    return None


def locate_learning(school: School) -> Difference | None:
    """The same for `learn`; the token is the one whose arrival made the difference."""
    length = school.tokens.shape[1]
    program = with_carry(school.bench.program, school.carry)
    detached = {path: v.detach() for path, v in school.bench.values.items()}
    want = run_learning(program, detached, school.tokens, range(1, length + 1))

    def prefix(t: int) -> tuple[list[Pair], list[Pair]]:
        _, state = school.model.learn(school.tokens[:, : t + 1])
        return school.bench.aligned(state, want.states[t]), []

    state: CompiledState | None = None

    def single(t: int) -> tuple[list[Pair], list[Pair]]:
        nonlocal state
        loss, state = school.model.learn(school.tokens[:, t : t + 1], state)
        pairs = school.bench.aligned(state, want.states[t])
        return pairs, [Pair("loss", "loss", "", loss, want.losses[t])]

    for calls, step in (("learn on prefixes", prefix), ("learn token by token", single)):
        found = _first(step, length, calls)
        if found is not None:
            return found
    return None


def _prefixes(bench: Bench) -> Step:
    def step(t: int) -> tuple[list[Pair], list[Pair]]:
        with torch.no_grad():
            y, state = call(bench.module, bench.part(0, t + 1))
        return bench.states(state, t + 1), bench.outputs(y, 0, t + 1)

    return step


def _steps(bench: Bench) -> Step:
    state: CompiledState | None = None

    def step(t: int) -> tuple[list[Pair], list[Pair]]:
        nonlocal state
        with torch.no_grad():
            y, state = call(bench.module, bench.part(t, t + 1), state)
        return bench.states(state, t + 1), bench.outputs(y, t, t + 1)

    return step


def _first(step: Step, tokens: int, calls: str) -> Difference | None:
    for t in range(tokens):
        try:
            states, outputs = step(t)
        except LayoutError as wrong:
            return Difference(t, str(wrong), "", "layout of the state", None, calls)
        except Exception as wrong:
            return Difference(t, f"{type(wrong).__name__}: {wrong}", "", "exception", None, calls)
        for pair in (*_apart(states), *_apart(outputs)):
            error = distance(pair.got, pair.want)
            return Difference(
                t, pair.path, pair.level, pair.part, error if math.isfinite(error) else None, calls
            )
    return None


def _apart(pairs: list[Pair]) -> Iterator[Pair]:
    """The pairs that differ by more than the bound, in program order."""
    floor = FLOOR * min(max((size(p.want) for p in pairs), default=0.0), 1.0)
    return (p for p in pairs if distance(p.got, p.want, floor) > BOUND)
