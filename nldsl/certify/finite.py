"""Outer gradients of both sides against finite differences, through at least two writes of every memory.

Autograd of the compiled form and autograd of the interpreter could be wrong alike where both rest on the
same torch function.  Differences of values know nothing of either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from nldsl.certify.bench import Bench, call
from nldsl.certify.clocks import blocks_below, memories_below
from nldsl.certify.compare import Finding, LeftOutError, Pair
from nldsl.certify.draws import generator
from nldsl.reference import Interpreter
from nldsl.spec.program import Apply, Program, TaskWrite, Write

BOUND = 1e-6
"""Relative to the slope, or to what a random direction sees of the gradient where that is larger."""
STEPS = (1e-3, 1e-4, 1e-5, 1e-6)
"""Along a direction of unit length: the first that is fine enough counts (programs that amplify bend)."""
DIRECTIONS = 3
WRITES = 2
JUMPS = frozenset({"sign", "eq", "ne", "lt", "le", "gt", "ge", "where", "rank", "multiple_of"})
"""Operations whose values jump, or choose between values that differ."""
MORE = 3
"""So many more directions are tried where values may jump."""
AGREED = 1e-4
"""Quotients of two step lengths apart by more than this have a jump between their points."""

Leaves = dict[str, Tensor]
Side = Callable[[Leaves, int], tuple[Tensor, Leaves]]
"""Leaves and tokens -> the projection, and the tensors it can be differentiated by."""


def finite_differences(bench: Bench) -> Iterator[Finding]:
    """Slopes along random directions in all parameters and inputs; of a projection of outputs and states."""
    reason = without_slope(bench.program)
    if reason:
        raise LeftOutError(reason)
    long = bench.reference.tame
    short = min(two_writes(max((1, *bench.clocks.forward))), long)
    leaves, stepped, told = _leaves(bench), jumps(bench.program), False
    compiled, interpreter = _compiled(bench), _interpreter(bench)
    runs = (("compiled", compiled, short, DIRECTIONS), ("interpreter", interpreter, short, 1))
    for label, side, tokens, directions in (*runs, ("compiled", compiled, long, 1)):
        for n, error in enumerate(_errors(side, leaves, tokens, bench.seed, directions, stepped)):
            told = True
            yield Finding(f"{label}, {tokens} tokens, direction {n + 1}", error, BOUND)
    if not told:
        raise LeftOutError("its values jump along every direction tried")


def two_writes(clock: int) -> int:
    """So many tokens that a memory on this clock is written twice and seen once more.

    Example:
        >>> two_writes(4)
        9
    """
    return WRITES * clock + 1


def without_slope(program: Program) -> str:
    """Why the gradient of a program is not its slope, if the program says so itself."""
    if any(isinstance(s, Apply) and s.op == "detach" for b in blocks_below(program.root) for s in b.body):
        return "`detach` makes a gradient that is not the slope"
    if any(m.init == "first" for m in memories_below(program.root)):
        return '`init learned("first")` makes a gradient that is not the slope'
    return ""


def jumps(program: Program) -> bool:
    """Whether some operation of a block, map, objective or rule may make values jump.

    Example:
        >>> from nldsl.graph import open_program
        >>> jumps(open_program("yaad")), jumps(open_program("deltanet"))
        (True, False)
    """
    bodies = [b.body for b in blocks_below(program.root)]
    steps = [s for body in bodies for s in body]
    functions = [m.function for m in memories_below(program.root) if m.function is not None]
    for write in (s for s in steps if isinstance(s, Write)):
        functions += [f for t in write.terms for f in (t.objective, t.rule.function) if f is not None]
    functions += [s.rule.function for s in steps if isinstance(s, TaskWrite)]
    inner = [a for f in functions for a in f.body]
    return any(isinstance(s, Apply) and s.op in JUMPS for s in (*steps, *inner))


def _leaves(bench: Bench) -> Leaves:
    """Everything that can be moved: parameters by path, inputs by name."""
    streams = zip(bench.program.root.inputs, bench.reference.inputs, strict=True)
    inputs = {f"input {v.name}": s for v, s in streams if s.is_floating_point()}
    return {name: x.detach() for name, x in (*((n, bench.values[n]) for n in bench.learned), *inputs.items())}


def _streams(bench: Bench, leaves: Leaves, tokens: int) -> tuple[tuple[Tensor, ...], Leaves]:
    named = zip(bench.program.root.inputs, bench.reference.inputs, strict=True)
    streams = tuple(leaves.get(f"input {v.name}", s).detach() for v, s in named)
    moving = {
        f"input {v.name}": s.requires_grad_()
        for v, s in zip(bench.program.root.inputs, streams, strict=True)
        if s.is_floating_point()
    }
    return tuple(s[:, :tokens] for s in streams), moving


def _compiled(bench: Bench) -> Side:
    module = bench.load(bench.plan)
    own = module.parameter_paths()

    def run(leaves: Leaves, tokens: int) -> tuple[Tensor, Leaves]:
        with torch.no_grad():
            for path, parameter in own.items():
                parameter.copy_(leaves[path])
        streams, moving = _streams(bench, leaves, tokens)
        y, state = call(module, streams)
        total = _projected(bench.seed, [*bench.outputs(y, 0, tokens), *bench.states(state, tokens)], "got")
        return total, {**own, **moving}

    return run


def _interpreter(bench: Bench) -> Side:
    def run(leaves: Leaves, tokens: int) -> tuple[Tensor, Leaves]:
        own = {path: leaves[path].detach().requires_grad_() for path in bench.learned}
        streams, moving = _streams(bench, leaves, tokens)
        y, state = Interpreter(bench.program, bench.values | own).run(streams)
        outputs = y if isinstance(y, tuple) else (y,)
        # What the compiled module keeps says which parts of the state there are, and in which order.
        _, kept = call(bench.module, streams)
        pairs = [
            Pair(v.name, "output", "", w, w) for v, w in zip(bench.program.root.outputs, outputs, strict=True)
        ]
        return _projected(bench.seed, [*pairs, *bench.aligned(kept, state)], "want"), {**own, **moving}

    return run


def _projected(seed: int, pairs: Sequence[Pair], side: str) -> Tensor:
    """A sum of everything with weights that depend on the names alone."""
    total = torch.zeros((), dtype=torch.float64)
    for pair in (p for p in pairs if p.want.is_floating_point() and p.want.numel() and not _constant(p)):
        weights = torch.randn(pair.want.shape, generator=generator(seed, pair.where), dtype=torch.float64)
        total = total + (weights * getattr(pair, side)).sum()
    return total


def _constant(pair: Pair) -> bool:
    """Whether the state holds it without its history: the rate of a task write is a constant of the task."""
    return pair.part.startswith("seen ")


def _errors(
    side: Side, leaves: Leaves, tokens: int, seed: int, directions: int, stepped: bool
) -> Iterator[float]:
    """|<gradient, d> - difference quotient| along every direction d.

    Where a program is `stepped`, its values may jump between the points: then the quotients of two step
    lengths do not agree, nothing is learned, and another direction is taken.
    """
    gradient, usual = _gradient(*side(leaves, tokens))
    told = 0
    for n in range(directions * (1 + MORE * stepped)):
        d = _direction(gradient, f"slope {n}", seed)
        slope = float(sum((gradient[k] * d[k]).sum() for k in gradient))
        scale = max(abs(slope), usual, 1e-12)
        found: list[float] = []
        for h in STEPS:
            found.append(_quotient(side, leaves, d, tokens, h))
            if abs(found[-1] - slope) <= BOUND * scale:
                break
        error = min(abs(q - slope) / scale for q in found)
        if error > BOUND and stepped and abs(found[-1] - found[-2]) > AGREED * scale:
            continue
        told += 1
        yield error
        if told == directions:
            return


def _gradient(total: Tensor, variables: Leaves) -> tuple[Leaves, float]:
    """The gradient by name, in a fixed order, and the size of its typical entry."""
    names = sorted(variables)
    asked = [variables[n] for n in names]
    found = (
        torch.autograd.grad(total, asked, allow_unused=True) if total.requires_grad else [None] * len(asked)
    )
    gradient = {
        n: torch.zeros_like(v) if g is None else g for n, v, g in zip(names, asked, found, strict=True)
    }
    entries = sum(g.numel() for g in gradient.values())
    return gradient, math.sqrt(sum(float(g.square().sum()) for g in gradient.values()) / max(entries, 1))


def _direction(gradient: Leaves, purpose: str, seed: int) -> Leaves:
    """A random direction of unit length."""
    drawn = {
        k: torch.randn(g.shape, generator=generator(seed, f"{purpose} {k}"), dtype=torch.float64)
        for k, g in gradient.items()
    }
    length = math.sqrt(sum(float(d.square().sum()) for d in drawn.values()))
    return {k: x / max(length, 1e-300) for k, x in drawn.items()}


def _quotient(side: Side, leaves: Leaves, d: Leaves, tokens: int, h: float) -> float:
    """`(8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h`: exact up to the fourth order in h."""
    with torch.no_grad():
        value = {
            k: float(side({n: x + k * h * d[n] for n, x in leaves.items()}, tokens)[0])
            for k in (-2, -1, 1, 2)
        }
    return (8 * (value[1] - value[-1]) - (value[2] - value[-2])) / (12 * h)
