"""A specification by name, path or text -> `Program`, for everyone who needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nldsl.diagnostics import DiagnosticBag, SpecError
from nldsl.source import SourceFile
from nldsl.spec import elaborate, load
from nldsl.spec.program import Program


def open_program(source: str | Path | SourceFile, *, block: str | None = None, **arguments: Any) -> Program:
    """Load, parse and elaborate a specification.

    Raises:
        SpecError: everything that was found, if any of it is an error.
    """
    bag = DiagnosticBag()
    bundle = load(source, bag)
    bag.raise_if_errors()
    program = elaborate(bundle, block=block, arguments=arguments, bag=bag)
    bag.raise_if_errors()
    if program is None:
        raise SpecError(bag.items)
    return program


def open_sized(
    source: str | Path | SourceFile, width: int, *, block: str | None = None, **arguments: Any
) -> tuple[Program, dict[str, Any]]:
    """As `open_program`, and the arguments in force: a block whose inputs nobody sized gets `width` channels.

    Example:
        >>> open_sized("block f(x) { return linear(x) }\\n", 8)[1]
        {'dim': 8}
    """
    try:
        return open_program(source, block=block, **arguments), arguments
    except SpecError as wrong:
        if any(d.code != "NL0319" for d in wrong.diagnostics if d.severity == "error"):
            raise
    given = {**arguments, "dim": width}
    return open_program(source, block=block, **given), given
