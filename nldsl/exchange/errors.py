"""The findings of the exchange with other libraries: codes NL1101 to NL1119."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from nldsl.diagnostics import Diagnostic, SpecError


def refused(code: str, message: str, *, help: str = "", notes: tuple[str, ...] = ()) -> SpecError:
    """A `SpecError` that carries one coded finding; the caller raises it.

    Example:
        >>> str(refused("NL1101", "`x` is there already"))
        'error[NL1101]: `x` is there already'
    """
    return SpecError([Diagnostic(code=code, message=message, help=help, notes=notes)])


def needed(module: str, extra: str, what: str) -> Any:
    """The module of another library, loaded now.  Raises NL1007 if it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as wrong:
        if wrong.name is None or not module.startswith(wrong.name):
            raise
        package = module.partition(".")[0]
        raise refused("NL1007", f"{what} needs `{package}`", help=f"pip install 'nldsl[{extra}]'") from wrong
