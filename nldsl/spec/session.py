"""What the elaboration of one program shares: findings, limits, what was elaborated already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nldsl.diagnostics import Diagnostic, DiagnosticBag, Edit, Label
from nldsl.source import Span
from nldsl.spec.items import POISON, Poison
from nldsl.spec.loader import standard_library
from nldsl.spec.program import Block, Call, Repeat

MAX_WORK = 20_000
"""Expressions and statements that one elaboration may visit, unrolled `for`s and calls included."""
MAX_UNFOLDED = 50_000
"""Statements of a program with every call and every copy of a `repeat` counted."""
MAX_DEPTH = 24
"""Blocks inside one another."""
MAX_COPIES = 4096
"""Copies of one `repeat`."""
MAX_SIZE = 1 << 24
"""Elements along one axis of a value."""
MAX_PARAMETERS = 1 << 40
"""Slow parameters of a program, in elements."""
MAX_FINDINGS = 100
"""Findings after which elaboration stops: more would bury the first ones."""


class StopElaborationError(Exception):
    """Unwinds an elaboration that ran into a limit; the limit is reported before it is raised."""


@dataclass
class Session:
    """One elaboration: the bag of the moment, the work left, and what is known."""

    bag: DiagnosticBag
    work: int = MAX_WORK
    parameters: int = 0
    unfolded: dict[int, tuple[Block, int]] = field(default_factory=dict)
    """Blocks by identity, with the number of statements below them."""
    memo: dict[Any, Any] = field(default_factory=dict)
    trail: list[tuple[int, str, Span]] = field(default_factory=list)
    """Definitions being elaborated, outermost first: their identity, name and the place of the call."""

    def report(
        self,
        code: str,
        message: str,
        span: Span | None,
        label: str = "",
        *,
        severity: Any = "error",
        secondary: tuple[Label, ...] = (),
        notes: tuple[str, ...] = (),
        help: str = "",  # noqa: A002
        edit: Edit | None = None,
    ) -> Poison:
        """Add a finding and return the poison that keeps it from being reported again downstream.

        What a call makes go wrong inside of the library is a finding about the call.
        """
        call = self._call_into_library(span)
        if call is not None and span is not None:
            secondary = (Label(span, label), *secondary)
            span, label = call[1], f"in this use of `{call[0]}`"
        notes = (*notes, *self.called_from(span))
        self.bag.add(Diagnostic(code, message, span, label, severity, secondary, notes, help, edit))
        if len(self.bag.items) > MAX_FINDINGS:
            raise StopElaborationError
        return POISON

    def _call_into_library(self, span: Span | None) -> tuple[str, Span] | None:
        """For a place in the library: what was called, and the innermost call that is not."""
        files = {id(unit.file) for unit in standard_library().units.values()}
        if span is None or id(span.file) not in files:
            return None
        calls = [(n, at) for _, n, at in self.trail if at.end > at.start and id(at.file) not in files]
        return calls[-1] if calls else None

    def called_from(self, span: Span | None) -> tuple[str, ...]:
        """For a finding in another file: the call that led there, and the outermost one."""
        if span is None or not self.trail:
            return ()
        calls = [(name, at) for _, name, at in self.trail if at.file is not span.file and at.end > at.start]
        chosen = [*calls[-1:], *(calls[:1] if len(calls) > 1 else ())]
        return tuple(f"`{name}` is elaborated for {at}" for name, at in chosen)

    def spend(self, span: Span | None, amount: int = 1) -> None:
        """Count work; stop with a finding once the program is too large."""
        self.work -= amount
        if self.work < 0:
            self.stop("NL0813", "the program is too large", span, f"after {MAX_WORK} unrolled expressions")

    def measure(self, block: Block, span: Span | None) -> None:
        """Count the statements below a block; stop with a finding if nobody could walk over them."""
        size = 1
        for statement in block.body:
            size += 1
            if isinstance(statement, Call | Repeat):
                copies = statement.count if isinstance(statement, Repeat) else 1
                size += copies * self.unfolded[id(statement.block)][1]
        self.unfolded[id(block)] = (block, size)
        if size > MAX_UNFOLDED:
            self.stop(
                "NL0813", "the program is too large", span, f"{size} statements, calls and copies counted"
            )

    def stop(self, code: str, message: str, span: Span | None, label: str) -> None:
        """Report a limit and unwind."""
        self.report(code, message, span, label, help="use `repeat` instead of `for`, or smaller numbers")
        raise StopElaborationError

    @contextmanager
    def bounded(self, span: Span | None) -> Iterator[None]:
        """End quietly where a limit was reported; nesting beyond Python's stack is one more limit."""
        bag = self.bag
        try:
            yield
        except StopElaborationError:
            pass
        except RecursionError:
            self.bag = bag
            self.trail.clear()
            self.report("NL0814", "statements and calls nest too deep", span, "too deep to follow")

    @contextmanager
    def collecting(self) -> Iterator[DiagnosticBag]:
        """Findings go to a bag of their own for a while."""
        outer, self.bag = self.bag, DiagnosticBag()
        try:
            yield self.bag
        except StopElaborationError:
            for item in self.bag.items:
                outer.add(item)
            raise
        finally:
            self.bag = outer

    @contextmanager
    def inside(self, key: int, name: str, span: Span) -> Iterator[bool]:
        """Enter a definition; yields `False`, after a report, if it is being elaborated already."""
        keys = [k for k, _, _ in self.trail]
        if key in keys:
            path = " -> ".join(f"`{n}`" for _, n, _ in [*self.trail[keys.index(key) :], (key, name, span)])
            self.report("NL0315", f"`{name}` calls itself: {path}", span, "this closes the circle")
            yield False
            return
        if len(self.trail) >= MAX_DEPTH:
            self.stop("NL0814", f"calls nest more than {MAX_DEPTH} deep", span, "one call too deep")
        self.trail.append((key, name, span))
        try:
            yield True
        finally:
            self.trail.pop()
