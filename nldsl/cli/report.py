"""Findings on stderr, with colours where a person reads them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from nldsl.diagnostics import Diagnostic, render_all


def print_findings(diagnostics: Iterable[Diagnostic]) -> None:
    """Print every finding on stderr; `NO_COLOR` is respected."""
    found = list(diagnostics)
    if found:
        color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        print(render_all(found, color=color), file=sys.stderr)
