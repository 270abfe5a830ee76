"""A process that is forked behind loops of several threads, and sets nothing itself, has one thread there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nldsl.runtime import native

SCRIPT = """
import os
import torch
from nldsl.runtime import row_loops
from nldsl.runtime.c_calls import threads
from nldsl.runtime.gates import times_silu

torch.set_num_threads(2)
row_loops.LEAST = 1
a, b = torch.ones(64, 64), torch.ones(64, 64)


def forked(several):
    child = os.fork()
    if not child:
        right = torch.allclose(times_silu(a, b), a * torch.nn.functional.silu(b))
        os._exit(not (right and threads() == several))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# A process without loops so far may have threads of its own.
assert forked(2) == 0
times_silu(a, b)
assert forked(1) == 0 and threads() == 2
print("equal")
"""


@pytest.mark.skipif(not native.compiler() or sys.platform != "linux", reason="needs a C compiler and `fork`")
def test_loops_in_a_forked_process_do_not_wait(tmp_path: Path) -> None:
    script = tmp_path / "forked.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "equal", done.stderr[-2000:]
