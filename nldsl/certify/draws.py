"""Seeded inputs and parameters: nothing stays at one, nothing at zero, gates stay between their ends."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from nldsl.certify.clocks import blocks_below
from nldsl.reference import parameters
from nldsl.spec.program import Apply, Parameter, Program

NOISE = 0.25
"""What is added to parameters that start constant (norms, biases, readouts), as a standard deviation."""
SMALLEST = 0.3
"""Parameters drawn at a smaller standard deviation (readouts) are drawn at this one, so that gates move."""
_VOCABULARY = 16


def generator(seed: int, purpose: str) -> torch.Generator:
    """A generator for one purpose; two purposes never share numbers."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def draw_parameters(program: Program, seed: int) -> dict[str, Tensor]:
    """A value for every slow parameter by its path, in float64."""
    return {path: _drawn(p, generator(seed, path)) for path, p in parameters(program.root).items()}


def _drawn(parameter: Parameter, source: torch.Generator) -> Tensor:
    noise = torch.randn(parameter.shape, generator=source, dtype=torch.float64)
    init = parameter.init
    if parameter.schedule is not None:
        # A rate stays between 0, where nothing would move, and its peak.
        return init.scale * torch.sigmoid(noise)
    if init.kind == "normal":
        return noise * max(init.scale, SMALLEST if parameter.role == "rest" else 0.0)
    if init.kind == "identity":
        return noise * NOISE + init.scale * torch.eye(*parameter.shape[-2:], dtype=torch.float64)
    return noise * NOISE + init.scale


def draw_inputs(program: Program, batch: int, tokens: int, seed: int, purpose: str) -> tuple[Tensor, ...]:
    """Every input stream, `[B, T, ...]`: tokens below the vocabulary, else normal numbers."""
    found = []
    for value in program.root.inputs:
        source = generator(seed, f"{purpose}:{value.name}")
        shape = (batch, tokens, *value.shape)
        if value.kind == "token":
            found.append(torch.randint(0, vocabulary(program), shape, generator=source))
        else:
            found.append(torch.randn(shape, generator=source, dtype=torch.float64))
    return tuple(found)


def vocabulary(program: Program) -> int:
    """How many tokens there are: the shortest embedding, or head, of the program."""
    sizes = [
        p.shape[0]
        for block in blocks_below(program.root)
        for step in block.body
        if isinstance(step, Apply)
        for p in step.parameters
        if p.role in ("embedding", "head")
    ]
    return min(sizes, default=_VOCABULARY)
