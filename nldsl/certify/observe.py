"""What the memories of a compiled program really do, token by token: to hold beside a predicted timeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nldsl.certify.align import Key
from nldsl.certify.bench import build_module
from nldsl.certify.clocks import task_names
from nldsl.certify.draws import draw_inputs, draw_parameters
from nldsl.certify.learning import learns
from nldsl.certify.oracle import run_forward, run_learning
from nldsl.driver.compile import plan_of
from nldsl.graph.places import Place
from nldsl.reference import Interpreter
from nldsl.reference import State as MeantState
from nldsl.runtime.model import Layer, Model
from nldsl.runtime.state import flatten
from nldsl.spec.program import Block, Call, Memory, Program, Repeat, TaskWrite, Update, Write

SHOWN = ("committed", "delta", "running")
"""What reads see, by kind of memory: the first of these that a state has."""
LANES = ("writes", "commits", "bases", "resets")


@dataclass(frozen=True)
class Seen:
    """The tokens at which one copy of a memory was seen to change; `path` is its absolute path.

    `still` are tokens whose steps are zero by definition, as the interpreter says, `unmoved` those at which
    what reads see stays what it was: there a write or a commit has nothing to show.
    """

    problem: str
    path: str
    writes: tuple[int, ...]
    commits: tuple[int, ...]
    bases: tuple[int, ...]
    resets: tuple[int, ...]
    still: tuple[int, ...] = ()
    unmoved: tuple[int, ...] = ()


def observe(program: Program, tokens: int, seed: int = 0) -> tuple[Seen, ...]:
    """Run the compiled program on random input, one token a call, and note every change of its state.

    Memories that learn from the task are watched in `learn`, the others in `forward`.  Parameters are drawn
    so that no gate stands at an end.  A read leaves no trace in a state.

    Example:
        >>> from nldsl.graph import open_program
        >>> seen = observe(open_program("deltanet", dim=8, depth=1, heads=2, vocab=11), 3)
        >>> seen[0].problem, seen[0].commits
        ('blocks[*].deltanet.S', (0, 1, 2))
    """
    module = build_module(plan_of(program)).to(torch.float64)
    drawn = draw_parameters(program, seed)
    with torch.no_grad():
        for path, parameter in module.drawn_paths().items():
            parameter.copy_(drawn[path])
    inputs = draw_inputs(program, 1, tokens, seed, "observe")
    spots = list(_spots(program.root, Place.root(program), ("root",), ""))
    found: list[Seen] = []
    for kind, states in _runs(module, program, inputs, {s.kind for s in spots}):
        found += [_seen(spot, states) for spot in spots if spot.kind == kind]
    order = {spot.path: i for i, spot in enumerate(spots)}
    plain = {s.path for s in spots if s.kind == "memory" and s.memory.function is not None}
    if any(one.path in plain and len(one.writes) < tokens for one in found):
        defined = run_forward(program, drawn, inputs, lambda _: None)
        found = [_with_still(one, defined.states, tokens) if one.path in plain else one for one in found]
    due = {s.path: (tokens - 1) // s.memory.clock.every for s in spots if s.kind == "task"}
    late = [one for one in found if len(one.commits) < due.get(one.path, 0)]
    if late:
        meant = run_learning(program, drawn, inputs[0], range(1, tokens + 1))
        states = [Interpreter(program, drawn, torch.float64).initial_state(1), *meant.states]
        found = [_with_still(one, states, tokens) if one in late else one for one in found]
    return tuple(sorted(found, key=lambda s: order[s.path]))


def _with_still(one: Seen, states: list[MeantState], tokens: int) -> Seen:
    """What the interpreter leaves as it was, token by token."""
    entries = [_entries(state, one.path) for state in states]
    shown = next(s for s in SHOWN if any(n.startswith(s) for n in entries[0]))
    task = shown == "delta"
    parts = ("delta", "pending") if task else ("running", "slots", "gathered")
    still, unmoved = list[int](), list[int]()
    for t, (before, after) in enumerate(zip(entries, entries[1:], strict=False)):
        changed = {name for name, value in after.items() if not torch.equal(before[name], value)}
        if not any(n.startswith(parts) for n in changed):
            still.append(t)
        if not any(n.startswith(shown) for n in changed):
            unmoved.append(t)
    if task and not (one.writes or one.commits) and len(unmoved) == len(entries) - 1:
        still = unmoved  # a rule that moves nothing needs no gradients: none are gathered
    # Numbers that have left their range tell nothing any more.
    lost = range(len(entries) - 1, tokens)
    return replace(one, still=(*still, *lost), unmoved=(*unmoved, *lost))


def _entries(state: MeantState, path: str) -> dict[str, Tensor]:
    """The weights, slots and sums of one memory of the first sample."""
    return {n: v for n, v in state.samples[0].memories[path].entries() if v.is_floating_point()}


@dataclass(frozen=True)
class _Spot:
    problem: str
    path: str
    keys: tuple[Key, ...]
    memory: Memory
    kind: str
    gathers: bool


def _spots(block: Block, place: Place, keys: tuple[Key, ...], prefix: str) -> Iterator[_Spot]:
    """Every memory that something changes, each copy of a repeat by itself."""
    changed = {s.memory for s in block.body if isinstance(s, Write | Update | TaskWrite)}
    tasks = task_names(block)
    join = f"{prefix}." if prefix else ""
    for memory in block.memories:
        if memory.name in changed:
            writes = [s for s in block.body if isinstance(s, Write) and s.memory == memory.name]
            gathers = bool(writes) and all(s.at_commit for s in writes)
            kind = "task" if memory.name in tasks else "memory"
            own = (*keys, memory.path)
            yield _Spot(place.memory_id(memory), f"{join}{memory.path}", own, memory, kind, gathers)
    for step in block.body:
        if isinstance(step, Call):
            yield from _spots(step.block, place.call(step), (*keys, step.path), f"{join}{step.path}")
        elif isinstance(step, Repeat):
            for i in range(step.count):
                under = f"{join}{step.path}[{i}]"
                yield from _spots(step.block, place.repeat(step), (*keys, step.path, i), under)


def _runs(
    module: Layer, program: Program, inputs: tuple[Tensor, ...], kinds: set[str]
) -> Iterator[tuple[str, list[Any]]]:
    """The trees of state before the first token and behind every one."""
    if "memory" in kinds:
        state, trees = module.init_state(1), []
        trees.append(state.tree)
        with torch.no_grad():
            for t in range(inputs[0].shape[1]):
                _, state = module(*(x[:, t : t + 1] for x in inputs), state=state)
                trees.append(state.tree)
        yield "memory", trees
    if "task" in kinds and learns(program):
        assert isinstance(module, Model)
        state, trees = module.init_state(1), []
        trees.append(state.tree)
        for t in range(inputs[0].shape[1]):
            _, state = module.learn(inputs[0][:, t : t + 1], state)
            trees.append(state.tree)
        yield "task", trees


def _seen(spot: _Spot, trees: list[Any]) -> Seen:
    entries = []
    for tree in trees:
        for key in spot.keys:
            tree = tree[key]
        entries.append(tree)
    lanes: dict[str, list[int]] = {lane: [] for lane in LANES}
    for t, (before, after) in enumerate(zip(entries, entries[1:], strict=False)):
        for lane in _events(spot, before, after):
            lanes[lane].append(t)
    return Seen(spot.problem, spot.path, *(tuple(lanes[lane]) for lane in LANES))


def _events(spot: _Spot, before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """What happened to one memory between two tokens."""
    if spot.memory.function is None:
        yield from ("writes", "commits")
        if spot.memory.reset == "tokens" and int(after["count"]) == 0:
            yield "resets"
        return
    if spot.kind == "task":
        moved = _moved(before, after, "delta")
        if moved or _moved(before, after, "pending"):
            yield "writes"
    else:
        shown = "committed" if "committed" in after else "running"
        moved = _moved(before, after, shown)
        gathered = any(_moved(before, after, part) for part in after if part not in ("count", "base", shown))
        if moved or (gathered and not spot.gathers):
            yield "writes"
        if "base" in after and _moved(before, after, "base"):
            yield "bases"
    over = bool(spot.memory.reset == "tokens" and int(after["count"]) == 0)
    if moved:
        yield "commits"
    # `learn` holds the first token back: nothing is counted with it.
    if over and (spot.kind == "memory" or int(before["count"]) != 0):
        yield "resets"


def _moved(before: dict[str, Any], after: dict[str, Any], part: str) -> bool:
    old, new = (flatten(entry.get(part)) for entry in (before, after))
    return any(not torch.equal(x, old[name]) if name in old else bool(x.any()) for name, x in new.items())
