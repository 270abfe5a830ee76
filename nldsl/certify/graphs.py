"""`torch.compile`, C and `torch.export` of an emitted module: the same numbers, or the reason why not."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from nldsl.certify.bench import Build, call
from nldsl.certify.certificate import CheckResult, Lowering, Section
from nldsl.certify.clocks import Clocks, clock_sets, with_clocks
from nldsl.certify.compare import BOUND, Finding, LeftOutError, Pair, farthest
from nldsl.certify.draws import draw_inputs, draw_parameters, generator
from nldsl.certify.examine import run
from nldsl.driver.compile import plan_of
from nldsl.native import native
from nldsl.native.linears import every_product
from nldsl.plan.export import CODE, against_export
from nldsl.plan.plan import Plan
from nldsl.runtime.model import Layer
from nldsl.spec.program import Program

BATCH = 2
NATIVE = "native"
"""Among the back ends: `nldsl.native`."""
Numbers = dict[str, Tensor]
Called = Callable[..., tuple[tuple[Tensor, ...], dict[str, Tensor]]]


def graphs(
    program: Program,
    clocks: Clocks,
    seed: int,
    say: Callable[[str], None],
    build: Build,
    backends: Sequence[str],
    exported: bool,
) -> Section:
    """Every back end asked for, on short clocks, at a length at which every memory commits twice."""
    chosen = clock_sets(clocks)[0]
    short = with_clocks(program, chosen)
    plan = plan_of(short)
    tokens = 2 * max((1, *(new for _, new in chosen.forward))) + 3
    module = _module(short, plan, build, seed)
    inputs = draw_inputs(short, BATCH, tokens, seed, "graphs")
    results = []
    for backend in backends:
        title = "native lanes" if backend == NATIVE else f"torch.compile, {backend}"
        say(title)
        results.append(run(title, lambda b=backend: compiled(module, inputs, seed, b)))  # type: ignore[misc]
    if exported:
        say("torch.export")
        reason = against_export(plan)
        others = draw_inputs(short, BATCH, tokens, seed, "other graphs")
        results.append(
            CheckResult("torch.export", True, 0, None, BOUND, note=f"not as one graph ({CODE}): {reason}")
            if reason
            else run("torch.export", lambda: export(module, inputs, others))
        )
    rows = tuple(Lowering(*row) for row in plan.rows())
    return Section(
        "ratios, as graphs",
        chosen.forward,
        chosen.task,
        chosen.copies,
        tokens,
        (tokens,),
        None,
        rows,
        tuple(results),
    )


def _module(program: Program, plan: Plan, build: Build, seed: int) -> Layer:
    module: Layer = build(plan).to(torch.float64)
    drawn = draw_parameters(program, seed)
    with torch.no_grad():
        for path, parameter in module.drawn_paths().items():
            parameter.copy_(drawn[path])
    return module


def compiled(module: Layer, inputs: tuple[Tensor, ...], seed: int, backend: str) -> Iterator[Finding]:
    """Outputs, states and gradients of the module as it is and as `torch.compile` makes it, or `native`."""

    plain = _as_tensors(module)
    if backend == NATIVE:
        yield from in_lanes(module, inputs, seed)
        return
    torch._dynamo.reset()
    want = _numbers(module, plain, inputs, seed)
    torch._dynamo.utils.counters.clear()
    # That there are several graphs is said below; where they break is not asked for.
    logger = logging.getLogger("torch._dynamo")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        got = _numbers(module, torch.compile(plain, backend=backend), inputs, seed)
    finally:
        logger.setLevel(level)
    stats = torch._dynamo.utils.counters["stats"]
    count = stats.get("unique_graphs", 0)
    label = "one graph" if count == 1 else f"{count} graphs"
    torch._dynamo.reset()
    yield from _compared(label, got, want)


def _as_tensors(module: Layer) -> Called:
    def plain(*streams: Tensor) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        y, state = call(module, streams)
        return y, state.tensors()

    return plain


def in_lanes(module: Layer, inputs: tuple[Tensor, ...], seed: int) -> Iterator[Finding]:
    """Outputs, states and gradients of the module as it is, and with its steps in C."""
    want = _numbers(module, _as_tensors(module), inputs, seed)
    twin = copy.deepcopy(module)
    report = native(twin, at_once=True)
    with every_product():
        got = _numbers(twin, _as_tensors(twin), inputs, seed)
    if not report.running and not report.products:
        raise LeftOutError("; ".join(str(report).splitlines()))
    yield from _compared("lanes", got, want)


def export(module: Layer, inputs: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> Iterator[Finding]:
    """Outputs and states of the exported program, on inputs it was not traced with.

    Exported for inference: parameters that ask for gradients would have their hand-written backward
    passes traced as if they were part of the graph.
    """
    frozen = copy.deepcopy(module).requires_grad_(False).eval()
    program = torch.export.export(frozen, inputs, strict=False).module()
    with torch.no_grad():
        y, state = program(*others)
        want, after = call(frozen, others)
    outputs = y if isinstance(y, tuple) else (y,)
    yield from _compared("another input", _named(outputs, state.tensors()), _named(want, after.tensors()))


def _numbers(
    module: Layer,
    called: Called,
    inputs: tuple[Tensor, ...],
    seed: int,
) -> Numbers:
    """Outputs, states, and the gradients of a projection of both."""
    found = _named(*called(*inputs))
    total = torch.zeros((), dtype=torch.float64)
    for name, x in found.items():
        if x.is_floating_point() and x.requires_grad:
            weights = torch.randn(x.shape, generator=generator(seed, name), dtype=torch.float64)
            total = total + (weights * x).sum()
    own = module.parameter_paths()
    if not total.requires_grad:
        return found
    gradients = torch.autograd.grad(total, list(own.values()), allow_unused=True)
    return found | {
        f"gradient of `{path}`": torch.zeros_like(p) if g is None else g
        for (path, p), g in zip(own.items(), gradients, strict=True)
    }


def _named(outputs: tuple[Tensor, ...], states: dict[str, Tensor]) -> Numbers:
    return {f"output {i}": y for i, y in enumerate(outputs)} | {f"state `{n}`": x for n, x in states.items()}


def _compared(label: str, got: Numbers, want: Numbers) -> Iterator[Finding]:
    if got.keys() != want.keys():
        odd = sorted(got.keys() ^ want.keys())[0]
        yield Finding(f"{label}: only one of them has {odd}", math.inf)
        return
    for kind in ("output", "state", "gradient"):
        pairs = [
            Pair(name, "", "", got[name].double(), w.double())
            for name, w in want.items()
            if name.startswith(kind)
        ]
        found = farthest(pairs, cap=math.inf if kind == "gradient" else 1.0)
        yield Finding(f"{label}: {found.where.strip('` ')}", found.error, found.bound)
