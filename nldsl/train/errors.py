"""The findings of training: bad data, bad groups, runs that cannot go on.  Codes NL0951 to NL0999."""

from __future__ import annotations

from nldsl.diagnostics import Diagnostic, SpecError
from nldsl.source import Span

OTHERWISE = {"compiled": "--compile", "arguments": "--set", "source": "SPEC"}
"""What the commands do not call as Python does."""


def option(name: str) -> str:
    """How the commands call what Python calls `name`: findings speak of what a person typed.

    Example:
        >>> option("on_fault"), option("compiled")
        ('--on-fault', '--compile')
    """
    return OTHERWISE.get(name) or f"--{name.replace('_', '-')}"


def fault(
    code: str, message: str, *, help: str = "", notes: tuple[str, ...] = (), span: Span | None = None
) -> SpecError:
    """A `SpecError` that carries one coded finding; the caller raises it.

    Example:
        >>> str(fault("NL0951", "no such file or folder: `x`"))
        'error[NL0951]: no such file or folder: `x`'
    """
    return SpecError([Diagnostic(code=code, message=message, help=help, notes=notes, span=span)])
