"""A compiled model and a compiled optimiser in a loop of Lightning Fabric.

    python examples/interop/fabric.py [--steps 20]

Needs `lightning`.  Devices, precision and strategy are Fabric's; the rule `adamw` is a text of the library.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric

import nldsl

LENGTH, BATCH = 48, 4
TEXT = Path(__file__).read_bytes()


def run(steps: int) -> list[float]:
    """The losses (nats per byte) of so many steps."""
    fabric = Fabric(accelerator="cpu", devices=1)
    torch.manual_seed(0)
    compiled = nldsl.compile("gated_deltanet", dim=16, depth=1, heads=2)
    model, optimizer = fabric.setup(compiled, nldsl.optimizer("adamw", compiled, lr=3e-3))
    windows = torch.tensor(list(TEXT)).unfold(0, LENGTH + 1, 7)
    loader = torch.utils.data.DataLoader(windows, BATCH, shuffle=True, drop_last=True)
    batches = iter(fabric.setup_dataloaders(loader))
    losses = []
    for _ in range(steps):
        tokens = next(batches)
        logits, _ = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    losses = run(parser.parse_args().steps)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f} nats per byte")
