"""Processes that are forked behind passes in C: what workers of a `DataLoader` do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nldsl.runtime import native

SCRIPT = """
import torch
import nldsl

torch.set_num_threads(2)
torch.manual_seed(0)
layer = nldsl.compile("gated_deltanet", block="gated_deltanet", x=32, heads=2)
nldsl.native(layer, at_once=True)
x = torch.randn(4, 128, 32)


@torch.no_grad()
def answered():
    return layer(x)[0]


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, n):
        return answered()


layer(x)[0].square().sum().backward()
mine = answered()
loader = torch.utils.data.DataLoader
rows = list(loader(Rows(), batch_size=None, num_workers=2, multiprocessing_context="fork"))
assert len(rows) == 2
for theirs in rows:
    assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5)
print("equal")
"""


@pytest.mark.long
@pytest.mark.skipif(not native.compiler() or sys.platform != "linux", reason="needs a C compiler and `fork`")
def test_workers_that_are_forked_behind_threads(tmp_path: Path) -> None:
    """They have one thread each, as torch sets it: loops in C start no others.

    Only forward: torch built for CUDA refuses to go back in a process forked behind a backward pass.
    """
    script = tmp_path / "forked.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == "equal", done.stderr[-2000:]
