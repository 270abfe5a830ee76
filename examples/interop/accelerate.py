"""A compiled model in a loop of accelerate.

    python examples/interop/accelerate.py [--steps 20]

Needs `accelerate`.  State is handed on from batch to batch, as it would be in a stream.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# The folder of a script comes first on the path of modules, and this script has the name of one.
sys.path = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from accelerate import Accelerator  # noqa: E402

import nldsl  # noqa: E402

LENGTH, BATCH = 48, 4
TEXT = Path(__file__).read_bytes()


def run(steps: int) -> list[float]:
    """The losses (nats per byte) of so many steps."""
    accelerator = Accelerator(cpu=True)
    compiled = nldsl.compile("hope_tiny", dim=16, depth=1)
    model, optimizer = accelerator.prepare(compiled, torch.optim.AdamW(compiled.parameters(), lr=3e-3))
    rows = torch.tensor(list(TEXT[: len(TEXT) // BATCH * BATCH])).view(BATCH, -1)
    state, losses = None, []
    for step in range(steps):
        begin = step * LENGTH % (rows.shape[1] - LENGTH - 1)
        tokens = rows[:, begin : begin + LENGTH + 1].to(accelerator.device)
        logits, state = model(tokens[:, :-1], state)
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        state = state.detach()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    losses = run(parser.parse_args().steps)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f} nats per byte")
