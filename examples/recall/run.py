"""In-context recall: does the memory store what it has just read?

Eight (key, value) pairs, sixteen tokens of filler, then the eight keys in another order, each to be
answered by its value.  Keys, values and filler are disjoint sets of symbols; the pairing is drawn
anew for every sequence, so only a working memory can answer (guessing a value: 1 in 24).

    python examples/recall/run.py --steps 1500 [--writes off] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import nldsl

SPEC = Path(__file__).with_name("recall.nl")
PAIRS, FILLER, KEYS, VALUES = 8, 16, 24, 24
LENGTH = 4 * PAIRS + FILLER


def batch(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens and targets `[size, 48]`; a target of -100 is no question."""
    keys = torch.rand(size, KEYS, generator=generator).argsort(1)[:, :PAIRS] + 1
    values = torch.randint(1 + KEYS, 1 + KEYS + VALUES, (size, PAIRS), generator=generator)
    order = torch.rand(size, PAIRS, generator=generator).argsort(1)
    tokens = torch.randint(1 + KEYS + VALUES, 60, (size, LENGTH), generator=generator)
    tokens[:, 0 : 2 * PAIRS : 2], tokens[:, 1 : 2 * PAIRS : 2] = keys, values
    asked = 2 * PAIRS + FILLER
    tokens[:, asked::2], tokens[:, asked + 1 :: 2] = keys.gather(1, order), values.gather(1, order)
    targets = torch.full((size, LENGTH), -100)
    targets[:, asked::2] = values.gather(1, order)
    return tokens, targets


def writes_off(model: nldsl.Model) -> None:
    """Hold every write rate at zero: eta = (1 + alpha) sigmoid(-inf)."""
    for path, parameter in model.parameter_paths().items():
        if ".eta.readout." in path:
            parameter.requires_grad_(False).fill_(-1e9 if path.endswith("bias") else 0.0)


def accuracy(model: nldsl.Model, generator: torch.Generator, size: int = 256) -> float:
    """Share of the questions answered by the right value."""
    tokens, targets = batch(size, generator)
    with torch.no_grad():
        answers = model(tokens)[0].argmax(-1)
    asked = targets >= 0
    return (answers[asked] == targets[asked]).double().mean().item()


def train(
    steps: int, seed: int, writes: bool, report: int = 250
) -> tuple[nldsl.Model, list[tuple[int, float]]]:
    """AdamW at 3e-3 with warm-up and cosine decay, batches of 32; the model and (step, accuracy)."""
    model = nldsl.compile(SPEC, seed=seed)
    if not writes:
        writes_off(model)
    generator = torch.Generator().manual_seed(seed + 3)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.01)
    history = []
    for step in range(steps + 1):
        rate = 3e-3 * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / (steps + 1)))
        optimizer.param_groups[0]["lr"] = rate
        tokens, targets = batch(32, generator)
        loss = F.cross_entropy(model(tokens)[0].flatten(0, 1), targets.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % report == 0 or step == steps:
            history.append((step, accuracy(model, torch.Generator().manual_seed(seed + 99))))
            print(f"step {step:5d}  loss {loss.item():.3f}  recall {100 * history[-1][1]:5.1f}%", flush=True)
    return model, history


def main() -> None:
    """Train, report recall with writes on and, for the same weights, off."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--writes", choices=("on", "off"), default="on", help="off: train without any write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, history = train(arguments.steps, arguments.seed, arguments.writes == "on")
    result = {"writes": arguments.writes, "recall": history[-1][1]}
    if arguments.writes == "on":
        with torch.no_grad():
            writes_off(model)
        result["same weights, writes off"] = accuracy(
            model, torch.Generator().manual_seed(arguments.seed + 99)
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
