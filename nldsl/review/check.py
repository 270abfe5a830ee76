"""`check`: everything there is to say about a source; `review`: what there is to say about one program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nldsl.diagnostics import Diagnostic, DiagnosticBag
from nldsl.review.allow import without_allowed
from nldsl.review.findings import write_findings
from nldsl.review.future import future_findings
from nldsl.review.roots import root_findings
from nldsl.review.schedule import clock_findings
from nldsl.review.scores import score_findings
from nldsl.source import SourceFile
from nldsl.spec.elaborate import examine, in_order
from nldsl.spec.program import Block, Call, Program, Repeat
from nldsl.spec.reach import idle_memories


def check(
    source: str | Path | SourceFile,
    *,
    block: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    run_length: int | None = None,
) -> list[Diagnostic]:
    """Everything there is to say about a source: what is wrong, and what is legal but can hardly be meant.

    `block` and `arguments` narrow it to one program.  `run_length` is the number of tokens of a sequence:
    with it, levels that never fire are named.

    Example:
        >>> check("block twice(x) { return 2 * x + y }")[0].code
        'NL0301'
    """
    findings, programs, file = examine(source, block=block, arguments=arguments)
    bag = DiagnosticBag(findings)
    if not bag.errors:
        for program in programs:
            for finding in review(program, run_length=run_length):
                bag.add(finding)
    whole = block is None and not arguments
    return in_order(without_allowed(bag.items, [file] if whole else []))


def review(program: Program, *, run_length: int | None = None) -> list[Diagnostic]:
    """The findings about one elaborated program, each place once.

    Example:
        >>> from nldsl.spec.elaborate import examine
        >>> [review(p) for p in examine("gated_deltanet", block="gated_deltanet", arguments={"x": 64})[1]]
        [[]]
    """
    bag = DiagnosticBag()
    for finding in _all(program, run_length):
        bag.add(finding)
    return bag.items


def _all(program: Program, run_length: int | None) -> Iterator[Diagnostic]:
    yield from future_findings(program)
    yield from score_findings(program)
    yield from clock_findings(program, run_length)
    yield from _dead_levels(program)
    for block in _distinct(program.root):
        yield from write_findings(block)
        yield from root_findings(block)


def _distinct(root: Block) -> Iterator[Block]:
    """Every block below `root`, each text with the same sizes once."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        block = stack.pop()
        if id(block) in seen:
            continue
        seen.add(id(block))
        yield block
        stack += [s.block for s in block.body if isinstance(s, Call | Repeat)]


def _dead_levels(program: Program) -> Iterator[Diagnostic]:
    """NL0508: memories whose answers reach nothing that is returned."""
    for block, memories in idle_memories(program):
        levels: dict[str, list[str]] = {}
        for memory in memories:
            levels.setdefault(memory.level, []).append(memory.name)
        for level, names in levels.items():
            whole = {m.name for m in block.memories if m.level == level} == set(names)
            shown = ", ".join(f"`{n}`" for n in names)
            one = len(names) == 1
            first = next(m for m in memories if m.name == names[0])
            what = f"level `{level}` is" if whole and level else f"{shown} {'is' if one else 'are'}"
            answers = "answers" if one else "answer"
            yield Diagnostic(
                "NL0508",
                f"{what} dead: nothing that is returned depends on what {shown} {answers}",
                first.span,
                "read, but to no effect",
                "warning",
                help="use the answer in what is returned, or remove the memory",
            )
