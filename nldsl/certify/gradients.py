"""Outer gradients: of every parameter and input, through outputs and states, in every form of the program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from nldsl.certify.bench import Bench, call, call_in_parts
from nldsl.certify.bench import other_forms as forms_of
from nldsl.certify.compare import Finding, Pair, farthest
from nldsl.certify.draws import generator
from nldsl.runtime.model import Layer
from nldsl.runtime.state import State as CompiledState

Run = Callable[[Layer, tuple[Tensor, ...]], tuple[tuple[Tensor, ...], CompiledState]]


def gradients(bench: Bench) -> Iterator[Finding]:
    """Of a random projection of outputs and final state: in one call, and through carried states."""
    end = bench.reference.tame
    (cuts,) = bench.splits(1, "gradients", end)
    yield from _compare(bench, bench.module, "in one call", lambda m, x: call(m, x))
    yield from _compare(
        bench, bench.module, f"calls that end at {cuts}", lambda m, x: call_in_parts(m, x, cuts)
    )


def other_forms(bench: Bench) -> Iterator[Finding]:
    """Every lowering that accepts a unit, chunks recomputed in the backward pass: values and gradients."""
    for label, plan in forms_of(bench.plan):
        yield from _compare(bench, bench.load(plan), label, lambda m, x: call(m, x), values=True)


def _compare(bench: Bench, module: Layer, label: str, run: Run, values: bool = False) -> Iterator[Finding]:
    end = bench.reference.tame
    inputs = tuple(_leaf(s) for s in bench.part(0, end))
    y, state = run(module, inputs)
    outputs, states = bench.outputs(y, 0, end), bench.states(state, end)
    if values:
        yield _at(label, farthest(outputs))
        yield _at(label, farthest(states))
    pairs = [p for p in (*outputs, *states) if p.want.is_floating_point() and p.want.requires_grad]
    if not pairs:
        return
    own = module.parameter_paths()
    got = _differentiate(pairs, "got", bench.seed, [*(own[n] for n in bench.learned), *_floats(inputs)])
    want = _wanted(bench, pairs)
    names = [*bench.learned, *(f"input {v.name}" for v in bench.program.root.inputs if v.kind != "token")]
    # The interpreter's inputs may be longer than what is compared.
    cut = [w if g.shape == w.shape else w[:, :end] for g, w in zip(got, want, strict=True)]
    paired = [Pair(n, "gradient", "", g, w) for n, g, w in zip(names, got, cut, strict=True)]
    yield _at(label, farthest(paired, cap=float("inf")))


def _wanted(bench: Bench, pairs: Sequence[Pair]) -> list[Tensor]:
    """The same for the interpreter, once for every set of outputs and states: forms keep different ones."""
    asked = tuple(pair.where for pair in pairs)
    if asked not in bench.reference.gradients:
        leaves = [*(bench.values[n] for n in bench.learned), *_floats(bench.reference.inputs)]
        bench.reference.gradients[asked] = _differentiate(pairs, "want", bench.seed, leaves)
    return bench.reference.gradients[asked]


def _differentiate(pairs: Sequence[Pair], side: str, seed: int, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a projection whose weights depend on the names of the tensors alone."""
    total = torch.zeros((), dtype=torch.float64)
    for pair in pairs:
        weights = torch.randn(pair.want.shape, generator=generator(seed, pair.where), dtype=torch.float64)
        total = total + (weights * getattr(pair, side)).sum()
    if not total.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(total, list(leaves), retain_graph=True, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]


def _leaf(stream: Tensor) -> Tensor:
    return stream.detach().clone().requires_grad_() if stream.is_floating_point() else stream


def _floats(streams: Sequence[Tensor]) -> list[Tensor]:
    return [s for s in streams if s.is_floating_point()]


def _at(label: str, found: Finding) -> Finding:
    return Finding(f"{label}: {found.where}", found.error, found.bound)
