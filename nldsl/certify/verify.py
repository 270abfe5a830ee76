"""`verify`: the compiled form of a specification against the interpreter."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import nldsl
from nldsl.certify.align import places
from nldsl.certify.bench import Build, build_module
from nldsl.certify.certificate import Certificate, Growth, Lowering, Section
from nldsl.certify.clocks import Clocks, ClockSet, clock_sets, token_clocks, with_clocks
from nldsl.certify.compare import BOUND, CAUSAL
from nldsl.certify.examine import examine, examine_forward, prepare, prepare_forward, run
from nldsl.certify.graphs import graphs
from nldsl.certify.growth import NONSENSE
from nldsl.certify.lasting import LENGTHS, PRECISIONS, TOKENS, Endurance, alive, rounding, spelt, told
from nldsl.certify.lasting_task import alive_task
from nldsl.certify.render import LONG
from nldsl.certify.shrink import Shrunk, shrink
from nldsl.spec.program import Program

LONGEST = 400
"""Tokens that `full` runs at most: the interpreter takes about ten milliseconds for each."""

Progress = Callable[[str], None]


def verify(
    source: str | Path,
    *,
    block: str | None = None,
    seed: int = 0,
    full: bool = False,
    long: bool = False,
    compiled: Sequence[str] = (),
    exported: bool = False,
    progress: Progress | None = None,
    build: Build = build_module,
    **arguments: Any,
) -> Certificate:
    """Compare the compiled form of a specification with the interpreter, on a small twin of it.

    source, block, arguments: as in `compile`.  seed: of parameters and inputs.  full: the original
    clocks, `forward` alone (sizes are still small).  long: also rounding over 4,096 tokens, in float32 and
    bfloat16, and whether memories stay bounded and alive over 16,384.  compiled: back ends of
    `torch.compile` that must give the same numbers.  exported: so must `torch.export`.  progress: told what
    is being done.  build: makes the module of a plan; the compiler unless you test something else.

    Errors: `SpecError` of the specification, and NL0701 for what the compiler does not support yet.

    Example:
        >>> certificate = verify("linear_attention", block="linear_attention", dim=8)
        >>> certificate.passed, certificate.sections[0].lowerings[0].lowering
        (True, 'linear')
    """
    begun = time.monotonic()
    say = progress or (lambda _: None)
    say("shrinking")
    small = shrink(source, block, arguments)
    clocks = token_clocks(small.program)
    sections: tuple[Section, ...]
    if full:
        sections = (_full(small.program, clocks, seed, say, build),)
    else:
        sections = tuple(
            _section(with_clocks(small.program, chosen), chosen, seed, say, build, first=not n)
            for n, chosen in enumerate(clock_sets(clocks))
        )
    if compiled or exported:
        sections += (graphs(small.program, clocks, seed, say, build, compiled, exported),)
    if long:
        sections += (_long(small.program, seed, say, build),)
    return _certificate(small, sections, seed, full, time.monotonic() - begun)


def _section(
    program: Program, chosen: ClockSet, seed: int, say: Progress, build: Build, *, first: bool
) -> Section:
    def told(text: str) -> None:
        say(f"clocks {chosen.name}: {text}" if chosen.forward or chosen.task else text)

    return examine(prepare(program, chosen, seed, told, both=first), build, told)


def _full(program: Program, clocks: Clocks, seed: int, say: Progress, build: Build) -> Section:
    """One call that passes the slowest commit by the fastest clock and three tokens."""
    short = with_clocks(program, ClockSet("original"))
    every = (*clocks.forward, *clocks.task) or (1,)
    wanted = max(every) + min(every) + 3
    subject = prepare_forward(short, seed, min(wanted, LONGEST), say)
    if wanted > LONGEST:
        subject.notes = (f"{LONGEST} tokens instead of {wanted}: the interpreter is slow",)
    return examine_forward(subject, build, say)


def _long(program: Program, seed: int, say: Progress, build: Build) -> Section:
    """Rounding and life over thousands of tokens, on the clocks as they are."""
    subject = Endurance(program, build, seed)
    growth: list[Growth] = []
    results = []
    for name, _, _ in PRECISIONS:
        say(f"{name} over {max(LENGTHS)} tokens")
        found, findings = rounding(subject, name)
        result = run(f"{name} growth", lambda f=findings: f)  # type: ignore[misc]
        results.append(replace(result, where=spelt(found)) if result.passed else result)
        growth += found
    say(f"{TOKENS} tokens")
    notes: list[str] = []
    results.append(run("bounded and alive", lambda: told(alive(subject), notes)))
    if any(p.kind == "task" for p in places(program)):
        say(f"learning from the task over {TOKENS} tokens")
        results.append(run("bounded and alive in learning", lambda: told(alive_task(subject), notes)))
    rows = tuple(Lowering(*row) for row in subject.plan.rows())
    return Section(
        *(LONG, (), (), 0, TOKENS, LENGTHS, None, rows, tuple(results), tuple(growth)),
        notes=tuple(notes),
    )


def _certificate(
    small: Shrunk, sections: tuple[Section, ...], seed: int, full: bool, seconds: float
) -> Certificate:
    program = small.program
    return Certificate(
        program.name,
        program.kind,
        nldsl.__version__,
        torch.__version__,
        program.sources,
        hashlib.sha256(repr(program.root).encode()).hexdigest(),
        small.arguments,
        small.notes,
        seed,
        full,
        (("float64", BOUND), ("causality", CAUSAL), ("float32", NONSENSE)),
        sections,
        round(seconds, 2),
    )
