"""The checks of `forward`: each yields its comparisons one by one, the cheapest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from nldsl.certify.align import Key
from nldsl.certify.bench import Bench, call, call_in_parts
from nldsl.certify.compare import BOUND, CAUSAL, Finding, Pair, distance, farthest
from nldsl.reference import Interpreter, State
from nldsl.reference.states import ParametricState
from nldsl.runtime.state import State as CompiledState

Findings = Iterator[Finding]

NUDGE = 1e-15
MARGIN = 30.0
UNCLEAR = 1e-6


def _at(label: str, found: Finding) -> Finding:
    return Finding(f"{label}: {found.where}", found.error, found.bound)


def lengths(bench: Bench) -> Findings:
    """Outputs and states of every listed length, in one call."""
    with torch.no_grad():
        for n in bench.lengths:
            y, state = call(bench.module, bench.part(0, n))
            yield _at(f"{n} tokens", farthest(bench.outputs(y, 0, n)))
            yield _at(f"behind {n} tokens", farthest(bench.states(state, n)))


def one_call(bench: Bench) -> Findings:
    """Outputs and states of the longest length.

    Over hundreds of tokens a program may amplify rounding itself.  What it does to its parameters moved
    by `NUDGE` is measured, and `MARGIN` times as much is allowed, up to `UNCLEAR`.
    """
    n, inputs = bench.tokens, bench.part(0, bench.tokens)
    moved = bench.load(bench.plan)
    with torch.no_grad():
        for path, parameter in moved.parameter_paths().items():
            noise = torch.randn(
                parameter.shape, generator=bench.generator(f"nudge {path}"), dtype=torch.float64
            )
            parameter.mul_(1.0 + NUDGE * noise)
        y, state = call(bench.module, inputs)
        z, other = call(moved, inputs)
    outputs, states = bench.outputs(y, 0, n), bench.states(state, n)
    for found, shifted in ((outputs, bench.outputs(z, 0, n)), (states, bench.states(other, n))):
        drift = farthest(replace(p, want=q.got) for p, q in zip(found, shifted, strict=True)).error
        worst = farthest(found)
        bound = min(max(BOUND, MARGIN * drift), UNCLEAR)
        yield Finding(f"{n} tokens: {worst.where}", worst.error, bound)


def token_by_token(bench: Bench) -> Findings:
    """One token per call, as in generation: every output, every state."""
    rows, states = bench.steps
    for t, y in enumerate(rows):
        yield _at(f"token {t}", farthest(bench.outputs(y, t, t + 1)))
        yield _at(f"behind token {t}", farthest(bench.states(states[t + 1], t + 1)))


def splits(bench: Bench) -> Findings:
    """Calls that end at the listed lengths, and at random ones."""
    listed = tuple(n for n in bench.lengths if n)
    with torch.no_grad():
        for cuts in (listed, *bench.splits(3, "splits")):
            y, state = call_in_parts(bench.module, bench.part(0, cuts[-1]), cuts)
            label = f"calls that end at {', '.join(map(str, cuts))}"
            yield _at(label, farthest(bench.outputs(y, 0, cuts[-1])))
            yield _at(label, farthest(bench.states(state, cuts[-1])))


def padding(bench: Bench) -> Findings:
    """Masked tokens left, right, in the middle and scattered, one sequence masked altogether.

    Then the same sequences go on from uneven counts, with a mask and without one.
    """
    most = bench.tokens
    if most < 3:
        return
    held = [max(0, most - 3 - (most // 3) * b) for b in range(bench.batch)]
    for pattern in ("left", "right", "middle", "scattered"):
        places = [_places(bench, pattern, n, max(held) + 3, b) for b, n in enumerate(held)]
        with torch.no_grad():
            yield from _padded(bench, pattern, held, places)
    yield from _same_mask(bench)


def _places(bench: Bench, pattern: str, count: int, width: int, b: int) -> list[int]:
    """Where the real tokens of sequence `b` stand."""
    gap = width - count
    if pattern == "left":
        return list(range(gap, width))
    if pattern == "right":
        return list(range(count))
    if pattern == "middle":
        return [*range(count // 2), *range(count // 2 + gap, width)]
    order = torch.randperm(width, generator=bench.generator(f"scattered {b}")).tolist()
    return sorted(order[:count])


def _padded(bench: Bench, pattern: str, held: list[int], places: list[list[int]]) -> Findings:
    batch, width = bench.batch + 1, max(held) + 3
    mask = torch.zeros(batch, width, dtype=torch.bool)
    streams = tuple(s.clone() for s in bench.noise(width, f"padding {pattern}", batch))
    want = [y.new_zeros(batch, width, *y.shape[2:]) for y in bench.reference.outputs]
    for b, where in enumerate(places):
        mask[b, where] = True
        for stream, source in zip(streams, bench.reference.inputs, strict=True):
            stream[b, where] = source[b, : held[b]].detach()
        for y, source in zip(want, bench.reference.outputs, strict=True):
            y[b, where] = source[b, : held[b]].detach()
    got, state = call(bench.module, streams, None, mask)
    label = f"padding {pattern}"
    yield _at(label, farthest(Pair("outputs", "", "", y, w) for y, w in zip(got, want, strict=True)))
    yield _at(label, farthest(bench.aligned(state, _uneven(bench, held, 0))))
    rest = 2
    more = tuple(
        torch.cat([torch.stack([s[b, n : n + rest] for b, n in enumerate(held)]), s[:1, :rest]]).detach()
        for s in bench.reference.inputs
    )
    _, dense = call(bench.module, more, state)
    yield _at(f"{label}, then 2 tokens each", farthest(bench.aligned(dense, _uneven(bench, held, rest))))
    sign = torch.tensor([[True, False]]).expand(batch, 2)
    _, thin = call(bench.module, more, state, sign)
    yield _at(f"{label}, then 1 token of 2", farthest(bench.aligned(thin, _uneven(bench, held, 1))))


def _uneven(bench: Bench, held: list[int], rest: int) -> State:
    """The state where sequence b has seen `held[b] + rest` tokens, and one more `rest` of the first."""
    states = bench.reference.states
    samples = [states[n + rest].samples[b] for b, n in enumerate(held)]
    return State([*samples, states[rest].samples[0]])


def _same_mask(bench: Bench) -> Findings:
    """The interpreter itself under a random mask."""
    n = min(bench.tokens, 6)
    mask = torch.rand(bench.batch, n, generator=bench.generator("mask")) > 0.4
    values = {path: v.detach() for path, v in bench.values.items()}
    with torch.no_grad():
        want, after = Interpreter(bench.program, values).run(bench.part(0, n), mask=mask)
        got, state = call(bench.module, bench.part(0, n), None, mask)
    wanted = want if isinstance(want, tuple) else (want,)
    yield _at(
        "random mask", farthest(Pair("outputs", "", "", y, w) for y, w in zip(got, wanted, strict=True))
    )
    yield _at("random mask", farthest(bench.aligned(state, after)))


def batches(bench: Bench) -> Findings:
    """Sequences never meet: permuted, alone, beside others."""
    n = bench.tokens
    inputs = bench.part(0, n)
    with torch.no_grad():
        together, _ = call(bench.module, inputs)
        order = list(reversed(range(bench.batch)))
        permuted, _ = call(bench.module, tuple(s[order] for s in inputs))
        for y, p in zip(together, permuted, strict=True):
            yield Finding("sequences in another order", distance(p, y[order]))
        for b in range(bench.batch):
            alone, state = call(bench.module, tuple(s[b : b + 1] for s in inputs))
            for y, a in zip(together, alone, strict=True):
                yield Finding(f"sequence {b} alone", distance(a, y[b : b + 1]))
            want = State([bench.reference.states[n].samples[b]])
            yield _at(f"sequence {b} alone", farthest(bench.aligned(state, want)))
        others = tuple(
            torch.cat([s[:1], o[1:]]) for s, o in zip(inputs, bench.noise(n, "others"), strict=True)
        )
        beside, _ = call(bench.module, others)
        for y, o in zip(together, beside, strict=True):
            yield Finding("sequence 0 beside others", distance(o[:1], y[:1]), CAUSAL)


def causality(bench: Bench) -> Findings:
    """A token changes nothing before it, and something from it on."""
    n = bench.tokens
    inputs = bench.part(0, n)
    with torch.no_grad():
        base, _ = call(bench.module, inputs)
        for t in sorted({0, 1, n // 2, n - 1} & set(range(n))):
            changed, _ = call(bench.module, tuple(_moved(s, t, bench) for s in inputs))
            for y, c in zip(base, changed, strict=True):
                yield Finding(f"outputs before token {t}", distance(c[:, :t], y[:, :t]), CAUSAL)
            moved = any(not torch.equal(c[:, t:], y[:, t:]) for y, c in zip(base, changed, strict=True))
            yield Finding(f"outputs from token {t} on, which should change", 0.0 if moved else float("inf"))


def _moved(stream: Tensor, t: int, bench: Bench) -> Tensor:
    """The stream with another token at `t` in every sequence."""
    changed = stream.detach().clone()
    if stream.is_floating_point():
        changed[:, t] += 1.0
        return changed
    others = bench.noise(64, f"moved {t}")[0][0]
    for b in range(stream.shape[0]):
        different = others[others != stream[b, t]]
        changed[b, t] = different[0] if len(different) else stream[b, t]
    return changed


def modes(bench: Bench) -> Findings:
    """`train()`, `eval()`, with and without gradients: the same numbers."""
    inputs = bench.part(0, bench.tokens)
    try:
        trained, after = call(bench.module.train(), inputs)
        frozen, without = call(bench.module.eval(), inputs)
        with torch.no_grad():
            plain, _ = call(bench.module, inputs)
    finally:
        bench.module.train()
    for t, f, p in zip(trained, frozen, plain, strict=True):
        yield Finding("outputs of train() and eval()", distance(f, t), CAUSAL)
        yield Finding("outputs with and without gradients", distance(p, t), CAUSAL)
    others = without.tensors()
    for path, tensor in after.tensors().items():
        yield Finding(
            f"state `{path}` of train() and eval()", distance(others[path].double(), tensor.double()), CAUSAL
        )


def commits(bench: Bench) -> Findings:
    """Per level: the interpreter commits floor(T / C) times, the compiled state changes at those tokens."""
    _, states = bench.steps
    for place in bench.places:
        memory = place.memory
        if place.kind != "memory" or memory is None or memory.clock.unit != "tokens":
            continue
        every = memory.clock.every
        for b in range(bench.batch):
            told = [
                e.token
                for e in bench.reference.events
                if (e.memory, e.sample, e.kind) == (place.path, b, "commit")
            ]
            where = f"`{place.path}` ({place.level}), sequence {b}: commits"
            if memory.reset == "sequence":
                yield Finding(f"{where} of the interpreter", abs(len(told) - bench.tokens // every))
            if every > 1:
                # A reset between two commits brings back the start, which reads see at once.
                when = told if memory.reset == "sequence" else range(bench.tokens)
                expected = [t for t in when if _commits(bench.reference.states, place.path, b, t)]
                found = [t for t in range(bench.tokens) if _moves(states, place.keys, b, t)]
                yield Finding(f"{where} at {found}, expected {expected}", float(found != expected))


def _commits(states: list[State], path: str, b: int, t: int) -> bool:
    before, after = (states[i].samples[b].memories[path] for i in (t, t + 1))
    assert isinstance(before, ParametricState) and isinstance(after, ParametricState)
    old, new = before.committed or {}, after.committed or {}
    return any(not torch.equal(old[n], new[n]) for n in new)


def _moves(states: list[CompiledState], keys: tuple[Key, ...], b: int, t: int) -> bool:
    before, after = (states[i].tree for i in (t, t + 1))
    for key in keys:
        before, after = before[key], after[key]
    weights = after["committed"]
    return any(not torch.equal(before["committed"][n][b], weights[n][b]) for n in weights)
