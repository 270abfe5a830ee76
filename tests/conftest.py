"""What every test process starts with."""

from __future__ import annotations

import signal

# What collects doctests puts a module it is the first to import in the place of the function of that name.
import nldsl.diagnostics  # noqa: F401

# A shell that runs the tests in the background leaves Ctrl-C ignored, and every child would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
