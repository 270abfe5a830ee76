"""Errors as data: stable code, place, cause, help."""

from nldsl.diagnostics.diagnostic import Diagnostic, DiagnosticBag, Edit, Label, SpecError
from nldsl.diagnostics.suggest import did_you_mean

__all__ = ["Diagnostic", "DiagnosticBag", "Edit", "Label", "SpecError", "did_you_mean"]
