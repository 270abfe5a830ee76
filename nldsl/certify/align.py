"""Lay the state of a compiled program beside that of the interpreter, tensor by tensor.

Every leaf of the compiled state must have a counterpart; one that has none is an error, never
skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from nldsl.certify.clocks import task_names
from nldsl.certify.compare import Pair
from nldsl.reference.hidden import tail_length
from nldsl.reference.inner import Lesson
from nldsl.reference.states import CacheState, ParametricState, Sample, State, TaskState
from nldsl.runtime.state import State as CompiledState
from nldsl.spec.program import Apply, Block, Call, Memory, Program, Read, Repeat, TaskWrite, Update, Write

Key = str | int
PlaceKind = Literal["memory", "cache", "task", "tail", "count"]
COUNTING = ("rope", "stretched_rope", "position", "add_position")
"""Primitives whose whole state is the number of tokens."""


class LayoutError(Exception):
    """The two states do not hold the same things; the message names what is missing or too much."""


@dataclass(frozen=True)
class Place:
    """Where something is remembered: its path in the program and its keys in the compiled state."""

    path: str
    keys: tuple[Key, ...]
    kind: PlaceKind
    memory: Memory | None = None

    @property
    def level(self) -> str:
        """`level projections, every 16 tokens`, or what else it is."""
        if self.memory is None:
            return "hidden state"
        clock = self.memory.clock
        word = "token" if clock.every == 1 else "tokens"
        every = f"every {clock.every} {word}" if clock.unit == "tokens" else clock.unit
        return f"level {self.memory.level}, {every}" if self.memory.level else every


def places(program: Program) -> tuple[Place, ...]:
    """Everything a program remembers, in the order in which a token meets it."""
    return tuple(_walk(program.root, "", ("root",)))


def _walk(block: Block, prefix: str, keys: tuple[Key, ...]) -> Iterator[Place]:
    met: set[str] = set()
    written = {s.memory for s in block.body if isinstance(s, Write | Update | TaskWrite)}
    tasks = task_names(block)
    for step in block.body:
        if isinstance(step, Call):
            yield from _walk(step.block, _join(prefix, step.path), (*keys, step.path))
        elif isinstance(step, Repeat):
            for i in range(step.count):
                yield from _walk(step.block, _join(prefix, f"{step.path}[{i}]"), (*keys, step.path, i))
        elif isinstance(step, Apply):
            if step.op in COUNTING or tail_length(step):
                kind: PlaceKind = "count" if step.op in COUNTING else "tail"
                yield Place(_join(prefix, step.path), (*keys, step.path), kind)
        elif isinstance(step, Read | Write | Update | TaskWrite):
            if step.memory in written and step.memory not in met:
                met.add(step.memory)
                memory = next(m for m in block.memories if m.name == step.memory)
                kind = "cache" if memory.function is None else "task" if memory.name in tasks else "memory"
                yield Place(_join(prefix, memory.path), (*keys, memory.path), kind, memory)


def _join(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if prefix and path else prefix or path


def align(found: Sequence[Place], got: CompiledState, want: State) -> list[Pair]:
    """All pairs of tensors, in the order of `found`; the token held back by `learn` comes last.

    Errors: `LayoutError`.
    """
    pairs: list[Pair] = []
    used: set[tuple[Key, ...]] = set()
    for place in found:
        entry = _at(got.tree, place)
        used.add(place.keys)
        pairs += _ALIGN[place.kind](place, entry, want.samples)
    extra = [k for k in _leaves(got.tree, ()) if k[0] != "held" and not any(k[: len(u)] == u for u in used)]
    # Windows of one token remember nothing, but may keep an empty tensor.
    extra = [k for k in extra if _get(got.tree, k).numel()]
    if extra:
        raise LayoutError(
            f"the compiled state holds `{'/'.join(map(str, extra[0]))}`, the interpreter does not"
        )
    return pairs + _held(got.tree.get("held"), want.samples)


def _get(tree: Any, keys: tuple[Key, ...]) -> Any:
    for key in keys:
        tree = tree[key]
    return tree


def _at(tree: Any, place: Place) -> Any:
    try:
        return _get(tree, place.keys)
    except (KeyError, IndexError, TypeError):
        raise LayoutError(f"the compiled state has nothing for `{place.path}`") from None


def _leaves(tree: Any, keys: tuple[Key, ...]) -> Iterator[tuple[Key, ...]]:
    if isinstance(tree, Tensor):
        yield keys
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, (*keys, key))
    elif isinstance(tree, list | tuple):
        for i, value in enumerate(tree):
            yield from _leaves(value, (*keys, i))


def _named(place: Place, entry: dict[str, Any], known: Sequence[str]) -> None:
    for key, value in entry.items():
        if key not in known and any(True for _ in _leaves(value, ())):
            raise LayoutError(f"the compiled state of `{place.path}` holds `{key}`, the interpreter does not")


def _count(place: Place, got: Tensor, want: list[int]) -> Pair:
    return Pair(place.path, "count", place.level, got.double(), torch.tensor(want, dtype=torch.float64))


def _memory(place: Place, entry: Any, samples: list[Sample]) -> list[Pair]:
    """running, committed (visible), bases, origin, slots, what is gathered, lessons, count."""
    found = [s.memories[place.path] for s in samples]
    states = [s for s in found if isinstance(s, ParametricState)]
    assert len(states) == len(found)
    want: dict[str, list[dict[str, Tensor]]] = {"running": [s.running for s in states]}
    if states and states[0].committed is not None:
        want["committed"] = [s.committed for s in states if s.committed is not None]
    bases = _bases(place, states)
    kept = bases if states else [k for k in entry if k.startswith("base")]
    known = ("running", "committed", *kept, "origin", "slots", "gathered", "windows", "count")
    _named(place, entry, known)
    for name, every in bases.items():
        want[name] = [s.bases[every] for s in states]
    if "origin" in entry:
        want["origin"] = [s.origin for s in states]
    got = {**entry, "gathered": _flat(entry.get("gathered", {}))}
    if states and states[0].slots:
        want["slots"] = [_flat(s.slots) for s in states]
    if states and states[0].gathered:
        want["gathered"] = [_flat({str(n): w for n, w in s.gathered.items()}) for s in states]
    pairs = [pair for part, weights in want.items() for pair in _weights(place, part, got.get(part), weights)]
    for term, held in entry.get("windows", {}).items():
        want_lessons = _lessons([s.windows[int(term)] for s in states], held)
        pairs += [Pair(place.path, f"lessons {n}", place.level, held[n], w) for n, w in want_lessons.items()]
    return [*pairs, _count(place, entry["count"], [s.count for s in states])]


def _bases(place: Place, states: list[ParametricState]) -> dict[str, int]:
    """The bases a compiled memory keeps beside its running and committed weights, by name."""
    assert place.memory is not None
    clocks = sorted(b for b in (states[0].bases if states else ()) if b != place.memory.clock.every)
    return {("base" if len(clocks) == 1 else f"base_{b}"): b for b in clocks}


def _lessons(windows: list[list[list[Lesson]]], got: dict[str, Tensor]) -> dict[str, Tensor]:
    """The lessons the next token looks back upon, oldest first; zero weights where there are none yet."""
    want = {
        "key": got["key"].clone(),
        "target": got["target"].clone(),
        "weight": torch.zeros_like(got["weight"]),
    }
    size, headed = got["weight"].shape[-1], got["key"].dim() == 4
    for b, copies in enumerate(windows):
        for h, kept in enumerate(copies):
            recent = kept[-size:] if size else []
            for place, lesson in enumerate(recent, size - len(recent)):
                where = (b, h, place) if headed else (b, place)
                want["key"][where], want["target"][where] = lesson.keys[0], lesson.targets[0]
                want["weight"][where] = 1.0 if lesson.weight is None else lesson.weight
    return want


def _flat(slots: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{slot}.{weight}": w for slot, weights in slots.items() for weight, w in weights.items()}


def _weights(place: Place, part: str, got: Any, want: list[dict[str, Tensor]]) -> Iterator[Pair]:
    if got is None:
        raise LayoutError(f"the compiled state of `{place.path}` has no `{part}`")
    if want and got.keys() != want[0].keys():
        raise LayoutError(f"`{place.path}` {part}: found {sorted(got)}, expected {sorted(want[0])}")
    for name, tensor in got.items():
        yield Pair(place.path, f"{part} {name}", place.level, tensor, _stack([w[name] for w in want], tensor))


def _stack(rows: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(rows) if rows else like.new_zeros(like.shape)


def _cache(place: Place, entry: Any, samples: list[Sample]) -> list[Pair]:
    """Pairs in their order, whatever room the compiled cache leaves between them."""
    _named(place, entry, ("keys", "values", "valid", "count"))
    pairs = []
    for b, sample in enumerate(samples):
        state = sample.memories[place.path]
        assert isinstance(state, CacheState)
        for part, rows in (("keys", state.keys), ("values", state.values)):
            got = entry[part][b]
            got = got if entry["valid"] is None else got[entry["valid"][b]]
            pairs.append(Pair(place.path, f"{part} of sequence {b}", place.level, got, _stack(rows, got)))
            if not rows and got.numel():
                raise LayoutError(f"`{place.path}` {part}: the compiled cache holds pairs, expected none")
    return pairs


def _task(place: Place, entry: Any, samples: list[Sample]) -> list[Pair]:
    """delta, pending, slots (zero until `learn` has run), count; `open` are the variables of a segment."""
    states = [s.memories[place.path] for s in samples]
    assert all(isinstance(s, TaskState) for s in states)
    _named(place, entry, ("delta", "pending", "slots", "open", "count", "seen", "anchor"))
    pairs = list(_noted(place, entry.get("seen", {}), states))  # type: ignore[arg-type]
    if "anchor" in entry:
        pairs += _weights(place, "anchor", entry["anchor"], [s.anchor for s in states])  # type: ignore[union-attr]
    # What never moves gathers nothing; that it should have moved would show in the deltas.
    for part in ("delta", "pending", "slots") if entry["delta"] is not None else ("delta",):
        wanted = [_flat(s.slots) if part == "slots" else getattr(s, part) for s in states]  # type: ignore[union-attr]
        got = entry.get(part)
        if not got:
            got = {
                n: torch.zeros_like(torch.stack([w[n] for w in wanted]))
                for n in (wanted[0] if wanted else {})
            }
        pairs += _weights(place, part, got, wanted)
    return [*pairs, _count(place, entry["count"], [s.count for s in states])]


def _noted(place: Place, seen: dict[str, Tensor], states: list[TaskState]) -> Iterator[Pair]:
    """What a task memory keeps of the last token: the values of its rule and its gate, zero before one."""
    for name, got in seen.items():
        told = [s.gate if name == "retain" else s.arguments.get(name) for s in states]
        want = [torch.zeros_like(got[0]) if v is None else v for v in told]
        yield Pair(place.path, f"seen {name}", place.level, got, _stack(want, got))


def _tail(place: Place, entry: Any, samples: list[Sample]) -> list[Pair]:
    got = entry["tail"]
    want = _stack([torch.stack(s.tails[place.path]) for s in samples], got)
    return [Pair(place.path, "tail", place.level, got, want)]


def _position(place: Place, entry: Any, samples: list[Sample]) -> list[Pair]:
    return [_count(place, entry["count"], [s.position for s in samples])]


def _held(entry: Any, samples: list[Sample]) -> list[Pair]:
    """The token `learn` held back, -1 where there is none."""
    want = torch.tensor([-1.0 if s.held is None else float(s.held[0]) for s in samples], dtype=torch.float64)
    got = torch.full_like(want, -1.0)
    if entry is not None:
        got = torch.where(entry["valid"], entry["token"].double(), got)
    return [Pair("the token held back", "token", "learn", got, want)]


_ALIGN = {"memory": _memory, "cache": _cache, "task": _task, "tail": _tail, "count": _position}
