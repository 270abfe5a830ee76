"""Hope's memories stay finite, stay alive and matter: 16,384 tokens, random and trained.

"No blow-up" alone is a bad test: a memory that has collapsed to its initial state passes it.  So every
memory must also have moved away from its start, and the writes must change what the model says.
"""

from __future__ import annotations

import argparse
import inspect
import math
import typing
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import nldsl

pytestmark = pytest.mark.long
MEMORIES = ("Mk", "Mv", "Me", "Ma", "M")
TOKENS = 16_384


def without_writes(model: nldsl.Model) -> nldsl.Model:
    """The same weights with every write rate at zero: eta = (1 + alpha) sigmoid(-inf)."""
    off = nldsl.compile(model.program)
    off.load_state_dict(model.state_dict())
    with torch.no_grad():
        for path, parameter in off.parameter_paths().items():
            if ".eta.readout." in path:
                parameter.fill_(-1e9 if path.endswith("bias") else 0.0)
    return off


def norms(model: nldsl.Model, state: nldsl.State) -> dict[str, tuple[float, float]]:
    """`||M|| / ||M_init||` and `||M - M_init|| / ||M_init||` of every memory, worst sample."""
    parameters = model.parameter_paths()
    found: dict[str, tuple[float, float]] = {}
    for key, now in state.tensors().items():
        parts = key.split("/")
        if "running" not in parts or parts[-3] not in MEMORIES:
            continue
        layer, weight = int(parts[parts.index("blocks") + 1]), parts[-1]
        path = f"blocks[{layer}].self_modifying_titans.{parts[-3]}.{weight}"
        start = parameters[path].detach().unsqueeze(0)
        size = start.norm()
        ratio = (now.flatten(1).norm(dim=1) / size).tolist()
        moved = ((now - start).flatten(1).norm(dim=1) / size).tolist()
        found[path] = (max(ratio, key=lambda r: abs(math.log(r))), min(moved))
    return found


def alive(model: nldsl.Model, tokens: torch.Tensor) -> list[str]:
    """What is wrong with the model's memories after these tokens; nothing if they live."""
    with torch.no_grad():
        logits, state = model(tokens)
        silent, _ = without_writes(model)(tokens)
    if not torch.isfinite(logits).all():
        return ["the output is not finite"]
    problems = []
    for path, (ratio, moved) in norms(model, state).items():
        if not 0.2 <= ratio <= 5.0:
            problems.append(f"{path}: norm is {ratio:.3g} times its start")
        if moved < 0.02:
            problems.append(f"{path}: moved by {moved:.2e} of its start only")
    change = ((logits - silent).norm() / silent.norm()).item()
    if change < 0.01:
        problems.append(f"writes change the output by {100 * change:.2g}% only")
    return problems


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    data = b"".join(Path(module.__file__).read_bytes() for module in (argparse, inspect, typing))
    assert len(data) >= 2 * TOKENS
    return torch.tensor(list(data[: 2 * TOKENS])).view(2, TOKENS)


def trained(steps: int = 120) -> nldsl.Model:
    """A small `hope` after some steps on the text of `argparse`."""
    data = torch.tensor(list(Path(argparse.__file__).read_bytes()))
    model = nldsl.compile("hope", dim=64, depth=2, heads=2, chunks=[64, 128])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        start = torch.randint(0, len(data) - 257, (8,), generator=generator)
        batch = torch.stack([data[s : s + 257] for s in start])
        loss = F.cross_entropy(model(batch[:, :-1])[0].flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 3.5
    return model


def test_random_hope_is_alive_at_16k_tokens(tokens: torch.Tensor) -> None:
    assert alive(nldsl.compile("hope"), tokens) == []


def test_trained_hope_is_alive_at_16k_tokens(tokens: torch.Tensor) -> None:
    assert alive(trained(), tokens) == []


def test_a_hope_that_never_writes_is_found_dead(tokens: torch.Tensor) -> None:
    problems = alive(without_writes(nldsl.compile("hope", dim=64, depth=1, heads=2)), tokens[:, :512])
    assert any("moved by" in p for p in problems)
    assert any("writes change the output" in p for p in problems)
