"""A specification by name, path or text -> `Program`, for everyone who needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nldsl.diagnostics import DiagnosticBag, SpecError
from nldsl.spec import elaborate, load
from nldsl.spec.program import Program


def open_program(source: str | Path, *, block: str | None = None, **arguments: Any) -> Program:
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
