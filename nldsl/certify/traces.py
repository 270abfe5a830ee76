"""What a program computes on the way: every value and every memory, token by token, in any of its forms.

The interpreter tells everything.  A compiled form shows the memories in its state, after each prefix of the
sequence, and those values that its code has under their own names.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from nldsl.certify.align import Place, places
from nldsl.certify.bench import Build, build_module, call, other_forms
from nldsl.certify.clocks import task_names
from nldsl.driver.compile import plan_of
from nldsl.plan.plan import Plan
from nldsl.reference import Interpreter, State
from nldsl.reference.block import BlockMeaning
from nldsl.reference.states import ParametricState
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module
from nldsl.spec.program import Block, Call, Program, Repeat, Value


@dataclass(frozen=True)
class Key:
    """What is seen: a value of a statement, or a part of a memory (then with its level)."""

    path: str
    part: str
    level: str = ""

    @property
    def memory(self) -> bool:
        """Whether it belongs to a memory."""
        return self.part not in ("value", "output")


@dataclass
class Trace:
    """`rows[t]`: what was seen at token t."""

    rows: list[dict[Key, Tensor]] = field(default_factory=list)


def keys_of(program: Program) -> tuple[Key, ...]:
    """Everything there is to see, in the order in which a token meets it; outputs come last."""
    homes: dict[str, list[Key]] = {}
    for place in places(program):
        if place.kind == "memory":
            homes.setdefault(_home(place), []).extend(_parts(place))
    found = list(_walk(program.root, "", homes))
    return (*found, *(Key(v.name, "output") for v in program.root.outputs))


def _home(place: Place) -> str:
    """The path of the block a memory is in."""
    assert place.memory is not None
    return place.path[: -len(place.memory.path)].rstrip(".")


def _parts(place: Place) -> Iterator[Key]:
    memory = place.memory
    assert memory is not None and memory.function is not None
    shown = ("running", "committed") if memory.clock.every > 1 else ("running",)
    for part in shown:
        yield from (Key(place.path, f"{part} {w.name}", place.level) for w in memory.function.weights)


def _walk(block: Block, prefix: str, homes: Mapping[str, list[Key]]) -> Iterator[Key]:
    for step in block.body:
        if isinstance(step, Call):
            yield from _walk(step.block, _join(prefix, step.path), homes)
        elif isinstance(step, Repeat):
            for i in range(step.count):
                yield from _walk(step.block, _join(prefix, f"{step.path}[{i}]"), homes)
        yield from (Key(_join(prefix, v.name), "value") for v in _defined(step))
    yield from homes.get(prefix, ())


def _defined(step: Any) -> tuple[Value, ...]:
    outs = getattr(step, "outs", None)
    if outs is not None:
        return tuple(outs)
    out = getattr(step, "out", None)
    return () if out is None else (out,)


def _join(left: str, right: str) -> str:
    return f"{left}.{right}" if left and right else left or right


# --- the interpreter -------------------------------------------------------------------------


def interpreter_trace(program: Program, values: Mapping[str, Tensor], inputs: tuple[Tensor, ...]) -> Trace:
    """Every value of every block, and every memory behind every token, of one sequence."""
    machine = Interpreter(program, values)
    row: dict[Key, Tensor] = {}
    _watch(machine.root, row)
    memories = [p for p in places(program) if p.kind == "memory"]
    trace, state = Trace(), machine.initial_state(1)
    with torch.no_grad():
        for t in range(inputs[0].shape[1]):
            row.clear()
            y, state = machine.run(tuple(s[:, t : t + 1] for s in inputs), state)
            outputs = y if isinstance(y, tuple) else (y,)
            ends = {
                Key(v.name, "output"): o[0, 0] for v, o in zip(program.root.outputs, outputs, strict=True)
            }
            trace.rows.append({**row, **_held(memories, state), **ends})
    return trace


def _watch(meaning: BlockMeaning, row: dict[Key, Tensor]) -> None:
    """Note the values that every statement of a block defines, here and below."""
    plain = meaning.statement

    def statement(index: int, step: Any, sample: Any, values: dict[str, Tensor], report: Any) -> None:
        plain(index, step, sample, values, report)
        for value in _defined(step):
            row[Key(_join(meaning.path, value.name), "value")] = values[value.name].detach().clone()

    meaning.statement = statement  # type: ignore[method-assign, assignment]
    for children in meaning.children.values():
        for child in children:
            _watch(child, row)


def _held(memories: list[Place], state: State) -> dict[Key, Tensor]:
    found: dict[Key, Tensor] = {}
    for place in memories:
        held = state.samples[0].memories[place.path]
        assert isinstance(held, ParametricState)
        for part, weights in (("running", held.running), ("committed", held.committed or {})):
            found |= {Key(place.path, f"{part} {n}", place.level): w for n, w in weights.items()}
    return found


# --- compiled forms --------------------------------------------------------------------------


def form_plan(program: Program, form: str) -> Plan | None:
    """The plan of a form; `None` if the program has no such form."""
    plan = plan_of(program)
    if form == "compiled":
        return plan
    return next((p for label, p in other_forms(plan) if label.split()[0] == form), None)


def compiled_trace(
    program: Program,
    values: Mapping[str, Tensor],
    inputs: tuple[Tensor, ...],
    plan: Plan,
    build: Build = build_module,
) -> Trace:
    """Named values and outputs of one call of everything, and the memories behind every prefix."""
    module: Layer = build(plan).to(torch.float64)
    with torch.no_grad():
        for path, parameter in module.drawn_paths().items():
            parameter.copy_(values[path])
    tokens = inputs[0].shape[1]
    seen: dict[Key, Tensor] = {}
    with torch.no_grad(), _watched(module, plan, tokens, seen):
        outputs, _ = call(module, inputs)
    ends = zip(program.root.outputs, outputs, strict=True)
    seen |= {Key(v.name, "output"): y for v, y in ends}
    trace = Trace([{key: x[0, t] for key, x in seen.items()} for t in range(tokens)])
    memories = [p for p in places(program) if p.kind == "memory"]
    for t in range(tokens):
        with torch.no_grad():
            _, state = call(module, tuple(s[:, : t + 1] for s in inputs))
        for place in memories:
            entry: Any = state.tree
            for key in place.keys:
                entry = entry[key]
            for part in ("running", "committed"):
                held = entry.get(part) or {}
                trace.rows[t] |= {Key(place.path, f"{part} {n}", place.level): w[0] for n, w in held.items()}
    return trace


class _watched:
    """While it is entered: what `forward` of the emitted blocks has under the names of the program."""

    def __init__(self, module: Layer, plan: Plan, tokens: int, seen: dict[Key, Tensor]) -> None:
        self.tokens, self.seen = tokens, seen
        self.names: dict[int, tuple[str, Block]] = {}
        self._name(module.root, plan.program.root, "")

    def _name(self, module: Module, block: Block, path: str) -> None:
        self.names[id(module)] = (path, block)
        parts = module.attached()
        for step in block.body:
            if isinstance(step, Call):
                self._name(parts[step.path], step.block, _join(path, step.path))
            elif isinstance(step, Repeat):
                for i in range(step.count):
                    name = f"{step.path}[{i}]"
                    self._name(parts[name], step.block, _join(path, name))

    def _left(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "return" or frame.f_code.co_name != "forward":
            return
        found = self.names.get(id(frame.f_locals.get("self")))
        if found is None:
            return
        path, block = found
        shadowed = {m.name for m in block.memories} | task_names(block)
        for value in (v for step in block.body for v in _defined(step)):
            x = frame.f_locals.get(value.name)
            wanted = (1, self.tokens, *value.shape)
            if value.name not in shadowed and isinstance(x, Tensor) and tuple(x.shape) == wanted:
                self.seen[Key(_join(path, value.name), "value")] = x.detach().clone()

    def __enter__(self) -> None:
        self.before = sys.getprofile()
        sys.setprofile(self._left)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self.before)
