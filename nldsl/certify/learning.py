"""The checks of `learn`: loss, targets, states and outer gradients, in one call and in many, with masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from nldsl.certify.align import Place
from nldsl.certify.bench import Bench, call, listed_lengths
from nldsl.certify.compare import Finding, Pair, farthest
from nldsl.certify.draws import draw_inputs
from nldsl.certify.oracle import Learning, run_learning
from nldsl.reference import Interpreter, State
from nldsl.runtime.model import Model
from nldsl.runtime.state import State as CompiledState
from nldsl.spec.program import Program, TrainPlan

Carry = Literal["trunc", "exact"]
CARRIES: tuple[Carry, ...] = ("trunc", "exact")


def learns(program: Program) -> bool:
    """Whether `learn` has a meaning: a model of one token stream with the next token as its task."""
    task = "next_token" if program.train is None else program.train.task
    return program.kind == "model" and task == "next_token" and len(program.root.inputs) == 1


def with_carry(program: Program, carry: Carry) -> Program:
    """The program under another `carry`."""
    train = program.train or TrainPlan("next_token", carry, ())
    return replace(program, train=replace(train, carry=carry))


@dataclass
class School:
    """One bench, one `carry`, and what the interpreter said about learning under it."""

    bench: Bench
    carry: Carry
    want: Learning

    @property
    def model(self) -> Model:
        """The compiled model under this `carry`."""
        model = self.bench.module
        assert isinstance(model, Model)
        model.carry = self.carry
        return model

    @property
    def tokens(self) -> Tensor:
        """What is learned."""
        return self.want.tokens

    @property
    def loss(self) -> Tensor:
        """The interpreter's loss of all calls."""
        return torch.stack(self.want.losses).sum()


def make_reference(
    program: Program, values: dict[str, Tensor], carry: Carry, seed: int, stream: Tensor
) -> Learning:
    """The interpreter's run of `learn`: its first and last tokens one by one, the rest in two calls."""
    tokens = stream.shape[1]
    (more,) = draw_inputs(program, stream.shape[0], 3, seed, "learn more")
    cuts = sorted({1, 2, tokens // 2, tokens - 1, tokens} & set(range(1, tokens + 1)))
    return run_learning(with_carry(program, carry), values, stream, cuts, (more,))


def learning_tokens(clocks: Sequence[int]) -> int:
    """So many that the slowest task clock commits three times, and one token is held back."""
    return max(listed_lengths(clocks or [1])) + 1


def learned(school: School) -> Iterator[Finding]:
    """Loss, targets, states and outer gradients: in the interpreter's calls, in one call, by `backward =`."""
    total, state = torch.zeros((), dtype=torch.float64), None
    calls = zip(
        (0, *school.want.cuts), school.want.cuts, school.want.losses, school.want.states, strict=False
    )
    for start, end, loss, want in calls:
        got, state = school.model.learn(school.tokens[:, start:end], state)
        total = total + got
        yield _at(f"tokens {start} to {end}", farthest([Pair("loss", "", "", got, loss), _unit(school.loss)]))
        yield _at(f"behind {end} tokens", farthest(school.bench.aligned(state, want)))
    yield _at("forward behind learn", _used(school, state))
    yield from _gradient(school, f"calls that end at {school.want.cuts}", total)
    whole, state = school.model.learn(school.tokens)
    yield from _total(school, "one call", whole, state)
    yield from _gradient(school, "one call", whole)
    yield from _backward(school)


def _unit(loss: Tensor) -> Pair:
    """A pair that sets the scale: the loss of a call with one target may be near zero."""
    return Pair("loss of all", "", "", loss, loss)


def _used(school: School, state: CompiledState | None) -> Finding:
    """`forward` with what was learned, the held token first."""
    with torch.no_grad():
        y, _ = call(school.model, school.want.more, state)
    return farthest(
        Pair("outputs", "", "", got, want) for got, want in zip(y, school.want.after, strict=True)
    )


def _total(
    school: School,
    label: str,
    loss: Tensor,
    state: CompiledState,
    want: State | None = None,
    scored: int | None = None,
) -> Iterator[Finding]:
    """The loss of everything, the targets scored, the state behind it."""
    found, expected = state.scored if scored is None else scored, school.want.scored
    yield _at(label, farthest([Pair("loss", "", "", loss, school.loss)]))
    yield Finding(f"{label}: {found} targets scored, expected {expected}", float(found != expected))
    yield _at(label, farthest(school.bench.aligned(state, want or school.want.states[-1])))


def _gradient(school: School, label: str, loss: Tensor) -> Iterator[Finding]:
    parameters = school.model.parameter_paths()
    got = dict(zip(parameters, _gradients(loss, list(parameters.values())), strict=True))
    yield _at(label, _farthest_gradient(school, got))


def _backward(school: School) -> Iterator[Finding]:
    """`backward =` adds the same gradient to the parameters, segment by segment."""
    parameters = school.model.parameter_paths()
    for parameter in parameters.values():
        parameter.grad = None
    school.model.learn(school.tokens, backward=0.5)
    got = {n: torch.zeros_like(p) if p.grad is None else 2.0 * p.grad for n, p in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = None
    yield _at("learn(backward = 0.5)", _farthest_gradient(school, got))


def _gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]


def _farthest_gradient(school: School, got: dict[str, Tensor]) -> Finding:
    values = {path: school.bench.values[path] for path in school.bench.learned}
    if school.want.gradients is None:
        school.want.gradients = _gradients(school.loss, list(values.values()))
    wanted = dict(zip(values, school.want.gradients, strict=True))
    return farthest([Pair(n, "gradient", "", g, wanted[n]) for n, g in got.items()], cap=float("inf"))


def stepped(school: School) -> Iterator[Finding]:
    """Other splits, token by token above all: values, and per level the commits at their tokens.

    Values do not depend on `carry`; under `trunc` less history is kept, which is much faster.
    """
    whole = school.want.cuts[-1]
    states: list[CompiledState] = []
    for label, cuts in (
        ("token by token", tuple(range(1, whole + 1))),
        ("random calls", next(school.bench.splits(1, "learning", whole))),
    ):
        states, loss, scored = _learn(school, school.tokens, cuts)
        yield from _total(school, label, loss, states[-1], None, scored)
        if label == "token by token":
            yield from _commits(school, states)


def _commits(school: School, states: list[CompiledState]) -> Iterator[Finding]:
    """The interpreter steps floor(felt / C) times, the compiled delta moves at those tokens."""
    felt = school.tokens.shape[1] - 1
    for place in school.bench.places:
        if place.kind != "task" or place.memory is None:
            continue
        every = place.memory.clock.every
        for b in range(school.tokens.shape[0]):
            told = sum((e.memory, e.sample, e.kind) == (place.path, b, "commit") for e in school.want.events)
            where = f"`{place.path}` ({place.level}), sequence {b}: commits"
            yield Finding(f"{where} of the interpreter", float(told != felt // every))
            # The error of token t is felt in the call that brings token t + 1.
            found = [t for t in range(1, felt + 1) if _moves(states, place, b, t)]
            expected = list(range(every, felt + 1, every))
            yield Finding(f"{where} at {found}, expected {expected}", float(found != expected))


def masked(school: School) -> Iterator[Finding]:
    """Padding left, right and scattered, and a sequence that is masked altogether."""
    initial = Interpreter(school.bench.program, school.bench.values).initial_state(1)
    want = State([*school.want.states[-1].samples, *initial.samples])
    for pattern in ("left and right", "scattered"):
        stream, mask = _padded(school, pattern)
        width = stream.shape[1]
        for cuts in ((width,), (3, width // 2, width)):
            states, loss, scored = _learn(school, stream, cuts, mask)
            yield from _total(
                school, f"padding {pattern}, calls that end at {cuts}", loss, states[-1], want, scored
            )
    loss, _ = school.model.learn(stream, None, mask)
    yield from _gradient(school, "padding scattered, one call", loss)


def _padded(school: School, pattern: str) -> tuple[Tensor, Tensor]:
    """The sequences between other tokens, which the mask leaves out, and one more that is all masked."""
    batch, length = school.tokens.shape
    width = length + 4
    source = school.bench.generator(f"learn mask {pattern}")
    places = [sorted(torch.randperm(width, generator=source)[:length].tolist()) for _ in range(batch)]
    if pattern != "scattered":
        places = [list(range(4, width)) if b % 2 == 0 else list(range(length)) for b in range(batch)]
    stream = draw_inputs(school.bench.program, batch + 1, width, school.bench.seed, f"learn {pattern}")[0]
    mask = torch.zeros(batch + 1, width, dtype=torch.bool)
    for b, where in enumerate(places):
        mask[b, where] = True
        stream[b, where] = school.tokens[b]
    return stream, mask


def _moves(states: list[CompiledState], place: Place, b: int, t: int) -> bool:
    before, after = (states[i].tree for i in (t - 1, t))
    for key in place.keys:
        before, after = before[key], after[key]
    old = before["delta"] or {}
    return any(
        not torch.equal(w[b], old[n][b] if n in old else torch.zeros_like(w[b]))
        for n, w in (after["delta"] or {}).items()
    )


def _learn(
    school: School, tokens: Tensor, cuts: Sequence[int], mask: Tensor | None = None
) -> tuple[list[CompiledState], Tensor, int]:
    """Values alone: the state behind every call, the loss of all, the targets scored."""
    model = school.model
    model.carry = "trunc"
    state: CompiledState | None = None
    states: list[CompiledState] = []
    total, scored = torch.zeros((), dtype=torch.float64), 0
    for start, end in zip((0, *cuts), cuts, strict=False):
        part = None if mask is None else mask[:, start:end]
        loss, state = model.learn(tokens[:, start:end], state, part)
        states.append(state)
        total, scored = total + loss.detach(), scored + state.scored
    return states, total, scored


def _at(label: str, found: Finding) -> Finding:
    return Finding(f"{label}: {found.where}", found.error, found.bound)
