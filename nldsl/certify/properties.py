"""What has to be true of every program, whatever its sizes, lengths, splits, masks and parameters.

A `Case` is one draw of all of these; `Tested.check` holds one property against it.  `hunt` draws cases with
hypothesis, `reduce` makes a program small that fails.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from nldsl.certify.align import align, places
from nldsl.certify.bench import call, call_in_parts
from nldsl.certify.cases import Case
from nldsl.certify.compare import CAUSAL, Finding, Pair, distance, farthest
from nldsl.certify.draws import draw_inputs, generator
from nldsl.reference import Interpreter
from nldsl.runtime.model import Layer, Model
from nldsl.runtime.state import State
from nldsl.spec.program import Program

LONGEST_READ = 20
"""Tokens the interpreter is asked for: it takes about ten milliseconds for each."""
AMPLIFIED = 32
"""So many times what rounding of the parameters does to the interpreter is no fault."""
LONGEST = 150
"""Tokens where only the compiled program runs: more than two chunks of its kernels."""


@dataclass
class Subject:
    """One program of one case, compiled, with its inputs."""

    program: Program
    module: Layer
    case: Case
    values: dict[str, Tensor]

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """The streams of the case, `[B, T, ...]`."""
        return draw_inputs(self.program, self.case.batch, self.case.tokens, self.case.seed, "case")

    @cached_property
    def mask(self) -> Tensor:
        """Which tokens are real."""
        mask = torch.ones(self.case.batch, self.case.tokens, dtype=torch.bool)
        for b, t in self.case.masked:
            if b < self.case.batch and t < self.case.tokens:
                mask[b, t] = False
        return mask

    @cached_property
    def cuts(self) -> tuple[int, ...]:
        """Ends of calls inside the sequence, and its end."""
        end = self.case.tokens
        return tuple(sorted({c for c in self.case.cuts if 0 < c < end} | {end}))

    @cached_property
    def whole(self) -> tuple[tuple[Tensor, ...], State]:
        """Outputs and state of one call without a mask."""
        with torch.no_grad():
            return call(self.module, self.inputs)

    def noise(self, tokens: int, purpose: str) -> tuple[Tensor, ...]:
        """Other inputs of the same kinds."""
        return draw_inputs(self.program, self.case.batch, tokens, self.case.seed, purpose)


Findings = Iterator[Finding]


def outputs_of(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> list[Pair]:
    """Outputs side by side."""
    return [Pair(f"output {i}", "", "", g, w) for i, (g, w) in enumerate(zip(found, wanted, strict=True))]


def states_of(found: State, wanted: State) -> list[Pair]:
    """Every tensor of two compiled states side by side."""
    got, want = found.tensors(), wanted.tensors()
    odd = got.keys() ^ want.keys()
    if odd:
        raise KeyError(f"only one of the states has `{sorted(odd)[0]}`")
    return [Pair(path, "state", "", got[path].double(), w.double()) for path, w in want.items()]


# --- the properties --------------------------------------------------------------------------


def interpreted(subject: Subject) -> Findings:
    """Outputs and states of the compiled program are those of the interpreter, masked tokens included."""
    machine = Interpreter(subject.program, subject.values)
    with torch.no_grad():
        want, after = machine.run(subject.inputs, mask=subject.mask)
        got, state = call(subject.module, subject.inputs, None, subject.mask)
    yield farthest(outputs_of(got, want if isinstance(want, tuple) else (want,)))
    yield farthest(align(places(subject.program), state, after))


def gradients(subject: Subject) -> Findings:
    """Gradients of a projection of the outputs, by every parameter, are those of the interpreter."""
    got, _ = call(subject.module, subject.inputs)
    mine = _projected(subject, got, subject.module.parameter_paths())
    want = _interpreted_gradients(subject, subject.values)
    found = farthest(_gradients_of(mine, want), cap=float("inf"))
    if not found.good:
        # Where rounding of the parameters does as much, what is left of a zero is compared.
        nudged = _interpreted_gradients(subject, {p: v * (1 + 2**-50) for p, v in subject.values.items()})
        noise = farthest(_gradients_of(nudged, want), cap=float("inf")).error
        found = Finding(found.where, found.error, max(found.bound, AMPLIFIED * noise))
    yield found


def _interpreted_gradients(subject: Subject, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the interpreter says with these parameters."""
    moved = subject.module.parameter_paths()
    leaves = {path: v.clone().requires_grad_() for path, v in values.items() if path in moved}
    y, _ = Interpreter(subject.program, {**values, **leaves}).run(subject.inputs)
    return _projected(subject, y if isinstance(y, tuple) else (y,), leaves)


def _projected(
    subject: Subject, outputs: tuple[Tensor, ...], leaves: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Gradients of a random projection of the outputs, by path."""
    total = torch.zeros((), dtype=torch.float64)
    for i, y in enumerate(outputs):
        source = generator(subject.case.seed, f"projection {i}")
        total = total + (y * torch.randn(y.shape, generator=source, dtype=torch.float64)).sum()
    if not total.requires_grad:
        return {}
    told = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return {
        p: torch.zeros_like(leaf) if g is None else g
        for (p, leaf), g in zip(leaves.items(), told, strict=True)
    }


def _gradients_of(got: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> list[Pair]:
    return [Pair(p, "gradient", "", got[p], w) for p, w in want.items() if p in got]


def splits(subject: Subject) -> Findings:
    """A sequence in several calls is the sequence in one."""
    y, state = subject.whole
    with torch.no_grad():
        got, after = call_in_parts(subject.module, subject.inputs, subject.cuts)
    yield farthest(outputs_of(got, y))
    yield farthest(states_of(after, state))


def steps(subject: Subject) -> Findings:
    """One token per call is the sequence in one."""
    y, state = subject.whole
    with torch.no_grad():
        got, after = call_in_parts(subject.module, subject.inputs, range(1, subject.case.tokens + 1))
    yield farthest(outputs_of(got, y))
    yield farthest(states_of(after, state))


def causality(subject: Subject) -> Findings:
    """What comes later changes nothing before it."""
    y, _ = subject.whole
    others = subject.noise(subject.case.tokens, "later")
    with torch.no_grad():
        for t in subject.cuts:
            mixed = tuple(
                torch.cat([s[:, :t], o[:, t:]], 1) for s, o in zip(subject.inputs, others, strict=True)
            )
            got, _ = call(subject.module, mixed)
            for i, (g, w) in enumerate(zip(got, y, strict=True)):
                yield Finding(f"output {i} before token {t}", distance(g[:, :t], w[:, :t]), CAUSAL)


def batches(subject: Subject) -> Findings:
    """A sequence alone is the sequence beside others, in outputs and states."""
    y, state = subject.whole
    with torch.no_grad():
        for b in range(subject.case.batch):
            got, after = call(subject.module, tuple(s[b : b + 1] for s in subject.inputs))
            yield farthest(outputs_of(got, tuple(x[b : b + 1] for x in y)))
            yield farthest(states_of(after, state.map(lambda x, b=b: x[b : b + 1])))  # type: ignore[misc]


def padding(subject: Subject) -> Findings:
    """Masked tokens, whatever they hold, change no output of a real token, and not what comes behind them."""
    mask, more = subject.mask, subject.noise(2, "more")
    others = subject.noise(subject.case.tokens, "padding")
    filled = tuple(
        torch.where(mask.view(*mask.shape, *(1,) * (s.dim() - 2)), s, o)
        for s, o in zip(subject.inputs, others, strict=True)
    )
    with torch.no_grad():
        got, after = call(subject.module, filled, None, mask)
        behind, _ = call(subject.module, more, after)
        for b in range(subject.case.batch):
            real = tuple(s[b : b + 1, mask[b]] for s in subject.inputs)
            want, state = call(subject.module, real)
            yield farthest(outputs_of(tuple(x[b : b + 1, mask[b]] for x in got), want))
            then, _ = call(subject.module, tuple(s[b : b + 1] for s in more), state)
            yield farthest(outputs_of(tuple(x[b : b + 1] for x in behind), then))


def saved(subject: Subject) -> Findings:
    """A state that was saved and loaded goes on as the one in memory."""
    _, state = subject.whole
    more = subject.noise(3, "more")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        state.save(Path(folder) / "state.safetensors")
        loaded = subject.module.load_state(Path(folder) / "state.safetensors")
        want, last = call(subject.module, more, state)
        got, after = call(subject.module, more, loaded)
    for pair in (*outputs_of(got, want), *states_of(after, last)):
        yield Finding(pair.where, distance(pair.got, pair.want), CAUSAL)


def learning(subject: Subject) -> Findings:
    """`learn` scores what the interpreter scores, in one call and in several, masked tokens included."""
    model = subject.module
    assert isinstance(model, Model)
    tokens, mask = subject.inputs[0], subject.mask
    want, after = Interpreter(subject.program, subject.values).learn(tokens, mask=mask)
    loss, state = model.learn(tokens, mask=mask)
    yield Finding("loss of one call", distance(loss, want, 1e-6))
    yield farthest(align(places(subject.program), state, after))
    total, parts = torch.zeros((), dtype=torch.float64), None
    for start, end in zip((0, *subject.cuts), subject.cuts, strict=False):
        loss, parts = model.learn(tokens[:, start:end], parts, mask=mask[:, start:end])
        total = total + loss
    assert parts is not None
    yield Finding(f"loss of calls that end at {subject.cuts}", distance(total, want, 1e-6))
    yield farthest(align(places(subject.program), parts, after))


@dataclass(frozen=True)
class Property:
    """A property, and the longest sequence it is tried on."""

    check: Callable[[Subject], Findings]
    longest: int = LONGEST
    models_only: bool = False


PROPERTIES: dict[str, Property] = {
    "interpreted": Property(interpreted, LONGEST_READ),
    "gradients": Property(gradients, LONGEST_READ),
    "splits": Property(splits),
    "steps": Property(steps),
    "causality": Property(causality),
    "batches": Property(batches),
    "padding": Property(padding),
    "saved": Property(saved),
    "learning": Property(learning, LONGEST_READ, models_only=True),
}
