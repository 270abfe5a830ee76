"""What memories do in training: how large they are, how much they change, forget and learn, and are used.

Looked at on a few held-out windows, as they are and without changing anything.  Numbers per memory are
means over samples and over the copies of a repeated block; a level has the means of its memories.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from nldsl.certify.align import Place, places
from nldsl.certify.forget import entry, forgotten
from nldsl.evaluate import writes_task
from nldsl.evaluate.bits import learn_labels, read_labels, without_padding
from nldsl.runtime.module import Module
from nldsl.runtime.state import State, flatten
from nldsl.spec.program import Apply, Block, Call, Program, Repeat, Update, Value, Write

EMITTED = "<nldsl "
"""How the file names of emitted modules begin."""
QUANTITIES = ("state_norm", "write_norm", "retention", "rate", "used")
Names = tuple[tuple[str, bool], ...]
"""What emitted code may call a value, and whether that is its logarithm."""
Seen = dict[tuple[str, str], list[Tensor]]
"""By the pattern of a block and the name of a value in it: what it was, call by call."""


@dataclass(frozen=True)
class Lived:
    """One memory, the copies of a repeated block together (`blocks[*].deltanet.S`).

    `state_norm`: Frobenius norm of its weights at the end of the windows (of what it learned, for memories
    that minimise the task); `write_norm`: of their change since the middle; `retention`, `rate`: means of the
    gate and of the rule's rate, where tokens have them; `used`: how much the logits of the second half
    change, relatively, if the memory forgets at the middle what it has learned.  A memory that has learned
    and whose `used` is 0 is dead: nobody reads it.
    """

    memory: str
    level: str
    state_norm: float
    write_norm: float
    retention: float | None
    rate: float | None
    used: float


def lives(model: Any, tokens: Tensor) -> tuple[Lived, ...]:
    """Every memory with weights of a model, on the windows `tokens` `[B, T]`, T at least 4; padding is -1.

    Example:
        >>> import nldsl
        >>> model = nldsl.compile("gated_deltanet", dim=16, depth=2, heads=2)
        >>> found = lives(model, torch.arange(32).view(2, 16))
        >>> [(m.memory, m.level) for m in found], 0 < found[0].retention < 1, found[0].used > 0
        ([('blocks[*].gated_deltanet.S', 'context')], True, True)
    """
    names = dict(_blocks(model.program.root, "", ""))
    groups: dict[str, list[Place]] = defaultdict(list)
    for place in places(model.program):
        if place.kind in ("memory", "task"):
            block, _, own = place.path.rpartition(".")
            groups[_join(names[block], own)].append(place)
    if not groups:
        return ()
    middle, seen = tokens.shape[1] // 2, Seen()
    with torch.no_grad(), _listening(model.root, model.program, seen):
        before = _read(model, tokens[:, :middle], None)[1]
    logits, after = _read(model, tokens[:, middle:], before)
    gates, fresh = dict(_gates(model.program.root, "")), model.init_state(tokens.shape[0])
    made = []
    for name, copies in groups.items():
        lost, _ = _read(model, tokens[:, middle:], forgotten(before, fresh, copies))
        retain, rate = (_mean(seen, name, value) for value in gates.get(name, ((), ())))
        memory = copies[0].memory
        made.append(
            Lived(
                name,
                memory.level if memory is not None else "",
                _average([_norm(after, place) for place in copies]),
                _average([_norm(after, place, before) for place in copies]),
                retain,
                rate,
                float((lost - logits).norm() / logits.norm().clamp_min(1e-30)),
            )
        )
    return tuple(made)


def by_level(found: tuple[Lived, ...]) -> dict[str, dict[str, float]]:
    """The mean of every quantity over the memories of a level, as far as they have it and it is finite."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in found:
        for quantity in QUANTITIES:
            value = getattr(one, quantity)
            if value is not None and math.isfinite(value):
                values[one.level or one.memory][quantity].append(value)
    return {level: {name: _average(v) for name, v in of.items()} for level, of in values.items()}


# --- reading ---------------------------------------------------------------------------------


def _read(model: Any, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
    """The logits of windows and the state behind them; memories that minimise the task learn on the way."""
    with torch.no_grad():
        if tokens.dim() == 3:
            logits, behind = read_labels(model, tokens, state)
            if writes_task(model.program):
                behind = learn_labels(model, tokens, state)[1]
            return logits, behind.detach()
        real, mask = without_padding(tokens)
        logits, behind = model(real, state, mask)
        if writes_task(model.program):
            behind = model.learn(real, state, mask)[1]
    return logits, behind.detach()


def _weights(state: State, place: Place) -> dict[str, Tensor]:
    found = entry(state, place)
    if isinstance(found, dict):
        found = found["delta" if place.kind == "task" else "running"]
    return flatten(found)


def _norm(state: State, place: Place, since: State | None = None) -> float:
    """The norm of a memory's weights, or of their change, on average over samples."""
    now = _weights(state, place)
    then = {name: torch.zeros_like(x) for name, x in now.items()} if since is None else _weights(since, place)
    squares = [(x.double() - then[name].double()).square().flatten(1).sum(1) for name, x in now.items()]
    return float(torch.stack(squares).sum(0).sqrt().mean()) if squares else 0.0


def _average(values: list[float]) -> float:
    return sum(values) / len(values)


# --- gates -----------------------------------------------------------------------------------


def _blocks(block: Block, path: str, name: str) -> Iterator[tuple[str, str]]:
    """Every block by its path, with the name that all copies of it share."""
    yield path, name
    for step in block.body:
        if isinstance(step, Call):
            yield from _blocks(step.block, _join(path, step.path), _join(name, step.path))
        elif isinstance(step, Repeat):
            for i in range(step.count):
                below = _join(path, f"{step.path}[{i}]")
                yield from _blocks(step.block, below, _join(name, f"{step.path}[*]"))


def _gates(block: Block, name: str) -> Iterator[tuple[str, tuple[Names, Names]]]:
    """By memory: what holds how much is kept, and at which rate is learned, token by token."""
    paths = {m.name: _join(name, m.path) for m in block.memories}
    keeps: dict[str, Names] = {}
    rates: dict[str, Names] = {}
    for step in block.body:
        if isinstance(step, Update) and step.op == "scale":
            keeps.setdefault(step.memory, _names(block, step.value))
        elif isinstance(step, Write):
            if step.retain is not None:
                keeps.setdefault(step.memory, _names(block, step.retain))
            given = [value for term in step.terms for rule, value in term.rule.arguments if rule == "lr"]
            rates.setdefault(step.memory, _names(block, given[0]) if given else ())
        elif isinstance(step, Call):
            yield from _gates(step.block, _join(name, step.path))
        elif isinstance(step, Repeat):
            yield from _gates(step.block, _join(name, f"{step.path}[*]"))
    for memory in keeps.keys() | rates.keys():
        yield paths[memory], (keeps.get(memory, ()), rates.get(memory, ()))


def _names(block: Block, value: Value) -> Names:
    """The names under which emitted code has a value, and whether it is its logarithm there."""
    made = next((s for s in block.body if isinstance(s, Apply) and s.out.name == value.name), None)
    exponent = ((made.args[0].name, True),) if made is not None and made.op == "exp" else ()
    return ((value.name, False), (f"{value.name}__log", True), *exponent)


def _join(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if prefix and path else prefix or path


def _mean(seen: Seen, memory: str, names: Names) -> float | None:
    """The mean of what the block of a memory has under one of these names."""
    block = memory.rpartition(".")[0]
    for name, logarithm in names:
        found = seen.get((block, name), [])
        whole = torch.cat([x.double().flatten() for x in found]) if found else torch.empty(0)
        if whole.numel():
            return float((whole.exp() if logarithm else whole).mean())
    return None


@contextmanager
def _listening(root: Module, program: Program, seen: Seen) -> Iterator[None]:
    """Note the tensors that emitted functions leave in their local variables, by block and name."""
    shared = dict(_blocks(program.root, "", ""))
    blocks = {identity: shared.get(path) for identity, path in _modules(root, "")}
    before = sys.getprofile()

    def hear(frame: FrameType, event: str, _: Any) -> None:
        if event != "return" or not frame.f_code.co_filename.startswith(EMITTED):
            return
        block = blocks.get(id(frame.f_locals.get("self")))
        if block is not None:
            for name, value in frame.f_locals.items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    seen.setdefault((block, name), []).append(value.detach())

    sys.setprofile(hear)
    try:
        yield
    finally:
        sys.setprofile(before)


def _modules(module: Module, path: str) -> Iterator[tuple[int, str]]:
    """Every emitted module by its identity, with its path."""
    yield id(module), path
    for name, below in module._attached.items():
        yield from _modules(below, _join(path, name))
