"""Errors as data: stable code, place, cause, help."""

from nldsl.diagnostics.bag import DiagnosticBag, SpecError
from nldsl.diagnostics.catalogue import catalogue
from nldsl.diagnostics.diagnostic import Diagnostic, Edit, Label
from nldsl.diagnostics.entry import Entry
from nldsl.diagnostics.fixes import apply_edits, fix_of
from nldsl.diagnostics.machine import to_json
from nldsl.diagnostics.render import render, render_all
from nldsl.diagnostics.suggest import did_you_mean

__all__ = [
    "Diagnostic",
    "DiagnosticBag",
    "Edit",
    "Entry",
    "Label",
    "SpecError",
    "apply_edits",
    "catalogue",
    "did_you_mean",
    "fix_of",
    "render",
    "render_all",
    "to_json",
]
