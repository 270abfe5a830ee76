"""A compiled model in a plain PyTorch loop: an `nn.Module`, an optimizer of torch, a loss.

    python examples/interop/pytorch.py [--steps 20]

Hope has memories that learn the task while it reads: `learn` gives the loss and performs their writes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import nldsl

LENGTH, BATCH = 48, 4
TEXT = Path(__file__).read_bytes()


def batch(step: int) -> torch.Tensor:
    """Windows of this file, `[BATCH, LENGTH + 1]`."""
    places = torch.randint(len(TEXT) - LENGTH, (BATCH,), generator=torch.Generator().manual_seed(step))
    return torch.tensor([list(TEXT[p : p + LENGTH + 1]) for p in places.tolist()])


def run(steps: int) -> list[float]:
    """The losses (nats per byte) of so many steps."""
    model = nldsl.compile("hope_tiny", dim=16, depth=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5)
    losses = []
    for step in range(steps):
        tokens = batch(step)
        summed, state = model.learn(tokens)
        loss = summed / state.scored
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    losses = run(parser.parse_args().steps)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f} nats per byte")
