"""Compiled code against the interpreter: outputs, states, and the gradient of every parameter and input."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nldsl.driver import compile
from nldsl.reference import Interpreter, flatten_state
from nldsl.runtime.model import Layer
from nldsl.runtime.state import State

TOLERANCE = 1e-9
LOWERINGS = ("auto", "sequential")


@dataclass
class Run:
    """What one way of computing gave."""

    outputs: tuple[Tensor, ...]
    states: dict[str, Tensor]
    gradients: list[Tensor | None] = field(default_factory=list)


def compiled(source: str, lowering: str = "auto", seed: int = 0, **options: Any) -> Layer:
    """A float64 layer whose parameters are all away from their special first values."""
    layer = compile(source, lowering=lowering, dtype=torch.float64, seed=seed, **options)
    for path, parameter in sorted(layer.parameter_paths().items()):
        noise = torch.Generator().manual_seed(sum(path.encode()))
        with torch.no_grad():
            drawn = torch.randn(parameter.shape, generator=noise, dtype=torch.float64)
            parameter.add_(0.1 * drawn)
    return layer


def inputs_of(layer: Layer, batch: int, tokens: int, seed: int = 0) -> list[Tensor]:
    """Random inputs: token numbers for token streams, else normal."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for value in layer.program.root.inputs:
        shape = (batch, tokens, *value.shape)
        if value.kind == "token":
            vocab = next(iter(dict(layer.program.root.static).get(k) for k in ("vocab",)), None) or 7
            found.append(torch.randint(0, int(vocab), shape, generator=generator))
        else:
            drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
            found.append(drawn.requires_grad_())
    return found


def run_compiled(
    layer: Layer, inputs: list[Tensor], mask: Tensor | None = None, pieces: tuple[int, ...] | None = None
) -> tuple[tuple[Tensor, ...], State]:
    """Outputs and state, in one call or in calls of `pieces` tokens each."""
    state: State | None = None
    collected: list[tuple[Tensor, ...]] = []
    start = 0
    for size in pieces or (inputs[0].shape[1],):
        stop = start + size
        part = None if mask is None else mask[:, start:stop]
        y, state = layer(*(x[:, start:stop] for x in inputs), state=state, mask=part)
        collected.append(y if isinstance(y, tuple) else (y,))
        start = stop
    assert state is not None
    return tuple(torch.cat(c, 1) for c in zip(*collected, strict=True)), state


def run_interpreter(
    layer: Layer, inputs: list[Tensor], mask: Tensor | None = None
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """The same by definition, with the layer's own parameters."""
    meaning = Interpreter(layer.program, dict(layer.drawn_paths()), dtype=torch.float64)
    given = inputs[0] if len(inputs) == 1 else tuple(inputs)
    y, state = meaning.run(given, mask=mask)
    return (y if isinstance(y, tuple) else (y,)), flatten_state(state)


def comparable(state: State) -> dict[str, Tensor]:
    """Entries of a compiled state under the interpreter's names."""
    found = {}
    for name, tensor in state.tensors().items():
        found[name.removeprefix("root/").replace("/", ".").replace("[", ".").replace("]", "")] = tensor
    return found


def compare_states(mine: dict[str, Tensor], theirs: dict[str, Tensor], batch: int) -> list[str]:
    """Every entry of the interpreter's state that compiled code keeps, and none of them missing."""
    problems = []
    caches = {n.removesuffix(".keys") for n in mine if n.endswith(".keys")}
    for name, expected in theirs.items():
        plain = name.replace("[", ".").replace("]", "")
        if plain == "position" or plain.rsplit(".", 1)[0] in caches:
            continue
        if plain not in mine:
            if not _constant(plain, mine):
                problems.append(f"state `{plain}` is missing")
            continue
        found = mine[plain]
        if found.shape != expected.shape:
            problems.append(f"state `{plain}` has shape {list(found.shape)}, not {list(expected.shape)}")
        elif found.numel() and (error := _distance(found, expected)) > TOLERANCE:
            problems.append(f"state `{plain}` differs by {error:.2e}")
    for cache in sorted(caches):
        problems += _compare_cache(cache, mine, theirs, batch)
    return problems


def _constant(name: str, mine: dict[str, Tensor]) -> bool:
    """A memory that `forward` never changes has no state; neither has a convolution of one token."""
    owner = name.split(".running.")[0].split(".committed.")[0].removesuffix(".count")
    return not any(n.startswith(owner + ".") for n in mine)


def _compare_cache(cache: str, mine: dict[str, Tensor], theirs: dict[str, Tensor], batch: int) -> list[str]:
    theirs = {n.replace("[", ".").replace("]", ""): t for n, t in theirs.items()}
    problems = []
    valid = mine.get(f"{cache}.valid")
    for part in ("keys", "values"):
        found, expected = mine[f"{cache}.{part}"], theirs.get(f"{cache}.{part}")
        for b in range(batch):
            total = int(theirs[f"{cache}.count"][b]) * _pairs_per_token(expected, theirs[f"{cache}.count"])
            kept = found[b] if valid is None else found[b][valid[b]]
            if expected is None:
                if kept.shape[0]:
                    problems.append(f"cache `{cache}` holds {kept.shape[0]} pairs, expected none")
                continue
            wanted = expected[b, :total][-kept.shape[0] :] if kept.shape[0] else expected[b, :0]
            if wanted.shape != kept.shape or (kept.numel() and _distance(kept, wanted) > TOLERANCE):
                problems.append(f"cache `{cache}.{part}` differs")
    return problems


def _pairs_per_token(cached: Tensor | None, counts: Tensor) -> int:
    """How many pairs every token appends: the longest cache is full (but for a window)."""
    return 1 if cached is None else max(1, cached.shape[1] // max(1, int(counts.max())))


def _distance(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().to(torch.float64), b.detach().to(torch.float64)
    if not bool(torch.isfinite(b).all()):
        return 0.0 if torch.equal(torch.isnan(a), torch.isnan(b)) else float("inf")
    if not bool(torch.isfinite(a).all()):
        return float("inf")
    return float((a - b).abs().max() / b.abs().max().clamp_min(1.0))


def _scalar(outputs: tuple[Tensor, ...], states: dict[str, Tensor], skip: frozenset[str]) -> Tensor:
    """A number that depends on every output and every float entry of the states."""
    total = torch.zeros((), dtype=torch.float64)
    named = {f"out{i}": y for i, y in enumerate(outputs)}
    named |= {n.replace("[", ".").replace("]", ""): s for n, s in states.items()}
    for name, tensor in sorted(named.items()):
        if tensor.is_floating_point() and name not in skip and tensor.numel() and tensor.requires_grad:
            generator = torch.Generator().manual_seed(sum(name.encode()))
            weights = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            total = total + (tensor.to(torch.float64) * weights).sum()
    return total


def disagreements(
    layer: Layer,
    *,
    tokens: int = 7,
    batch: int = 2,
    mask: Tensor | None = None,
    pieces: tuple[int, ...] | None = None,
    seed: int = 0,
    gradients: bool = True,
) -> list[str]:
    """Everything in which `layer` is not what the interpreter says; empty if they agree."""
    inputs = inputs_of(layer, batch, tokens, seed)
    outputs, state = run_compiled(layer, inputs, mask, pieces)
    expected, states = run_interpreter(layer, inputs, mask)
    mine = comparable(state)
    problems = [
        f"output {i}: {list(y.shape)} against {list(e.shape)}"
        for i, (y, e) in enumerate(zip(outputs, expected, strict=True))
        if y.shape != e.shape
    ]
    if problems:
        return problems
    for i, (y, e) in enumerate(zip(outputs, expected, strict=True)):
        if y.numel() and (error := _distance(y, e)) > TOLERANCE:
            problems.append(f"output {i} differs by {error:.2e}")
    problems += compare_states(mine, states, batch)
    if problems or not gradients:
        return problems
    return _compare_gradients(layer, inputs, (outputs, mine), (expected, states))


def _compare_gradients(
    layer: Layer,
    inputs: list[Tensor],
    mine: tuple[tuple[Tensor, ...], dict[str, Tensor]],
    theirs: tuple[tuple[Tensor, ...], dict[str, Tensor]],
) -> list[str]:
    paths = layer.parameter_paths()
    leaves = {**paths, **{f"input {i}": x for i, x in enumerate(inputs) if x.is_floating_point()}}
    both = {n for n in mine[1]} & {n.replace("[", ".").replace("]", "") for n in theirs[1]}
    everything = set(mine[1]) | {n.replace("[", ".").replace("]", "") for n in theirs[1]}
    skip = frozenset(
        (everything - both) | {n for n in everything if n.rsplit(".", 1)[-1] in ("keys", "values")}
    )
    gradients = []
    for outputs, states in (mine, theirs):
        loss = _scalar(outputs, states, skip)
        if not loss.requires_grad:
            gradients.append([None] * len(leaves))
            continue
        gradients.append(list(torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)))
    problems = []
    for name, leaf, a, b in zip(leaves, leaves.values(), *gradients, strict=True):
        a, b = (torch.zeros_like(leaf) if g is None else g for g in (a, b))
        if a.numel() and (error := _distance(a, b)) > 10 * TOLERANCE:
            problems.append(f"gradient of `{name}` differs by {error:.2e}")
    return problems


def lint(text: str, folder: Path) -> str:
    """What ruff has to say about an emitted file; empty if nothing."""
    file = folder / "emitted.py"
    file.write_text(text)
    checks = (["format", "--check", "--line-length", "100"], ["check", "--isolated", "--select", "E9,F"])
    said = ""
    for check in checks:
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, str(file)], capture_output=True, text=True, check=False
        )
        said += "" if done.returncode == 0 else done.stdout + done.stderr
    return said
