"""What every test process starts with."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile

# What collects doctests puts a module it is the first to import in the place of the function of that name.
import nldsl.diagnostics  # noqa: F401

# A shell that runs the tests in the background leaves Ctrl-C ignored, and every child would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What is compiled to C is kept for one run of the tests, by all its processes, and not among what the user
# has; `NLDSL_TEST_CACHE` names a folder that stays from one run to the next.
if "NLDSL_TEST_CACHE" not in os.environ:
    os.environ["NLDSL_TEST_CACHE"] = tempfile.mkdtemp(prefix="nldsl-tests-")
    atexit.register(shutil.rmtree, os.environ["NLDSL_TEST_CACHE"], ignore_errors=True)
os.environ["NLDSL_CACHE_DIR"] = os.environ["NLDSL_TEST_CACHE"]
