"""`nldsl.native`: the chunks of a model in compiled lanes, and what was put there in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakSet

from nldsl.native.filtered import filters_of, quicken_filters
from nldsl.native.forwards import hindered, taken_back
from nldsl.native.held import passes_of, quicken
from nldsl.native.lanes import AFTER
from nldsl.native.linears import Linears, linears_of, products
from nldsl.native.matrix_passes import matrices_of, quicken_matrices
from nldsl.native.projections import quicken_linears
from nldsl.native.steps import BACK, STEP, NativeStep, forms_of, steps_of
from nldsl.native.store import LEAST, STORE
from nldsl.runtime.arrays import ARRAYS
from nldsl.runtime.module import Module
from nldsl.runtime.native import REAL, compiler, no_compiler


class Seen(Protocol):
    """What running shows of a function that was replaced."""

    @property
    def reasons(self) -> dict[str, None]:
        """Why torch computes some calls."""

    @property
    def count(self) -> int:
        """How many forms of it have been compiled."""


@dataclass(frozen=True)
class Together:
    """What running shows of several kinds of passes in one function."""

    kinds: tuple[Seen, ...]

    @property
    def reasons(self) -> dict[str, None]:
        """Why torch computes some calls."""
        return dict.fromkeys(reason for kind in self.kinds for reason in kind.reasons)

    @property
    def notes(self) -> dict[str, None]:
        """What else is to be said."""
        return dict.fromkeys(note for kind in self.kinds for note in getattr(kind, "notes", ()))

    @property
    def count(self) -> int:
        """How many forms have been compiled."""
        return sum(kind.count for kind in self.kinds)


@dataclass(frozen=True)
class Part:
    """A function of a class of blocks, how many have it, and why torch computes it (empty: it does not)."""

    block: str
    function: str
    count: int
    reason: str = ""
    seen: Seen | None = None

    @property
    def native(self) -> bool:
        """Whether it was replaced."""
        return not self.reason

    def __str__(self) -> str:
        many = f" in {self.count} blocks" if self.count > 1 else ""
        said = f"torch, as {self.reason}" if self.reason else "in lanes"
        left = list(self.seen.reasons) if self.seen is not None else []
        if left:
            said += f", but where {'; '.join(left)}: there torch"
        said += "".join(f"; {note}" for note in getattr(self.seen, "notes", ()))
        return f"{self.block}.{self.function}{many}: {said}"


@dataclass(frozen=True)
class Report:
    """What `native` has replaced and what not.  What only running shows is added when calls have shown it."""

    parts: tuple[Part, ...]
    off: bool = False
    linears: tuple[Linears, ...] = ()
    """What makes the products of linear layers, where C is faster at that; not among `parts`."""

    @property
    def replaced(self) -> int:
        """How many functions of blocks run in lanes."""
        return sum(part.count for part in self.parts if part.native)

    @property
    def running(self) -> int:
        """How many forms of functions have been compiled so far."""
        return sum(part.seen.count for part in self.parts if part.seen is not None)

    @property
    def products(self) -> int:
        """Of how many shapes of weights products have been made in C so far."""
        return len(set[tuple[int, int]]().union(*(kind.shapes for kind in self.linears)))

    def __str__(self) -> str:
        if not self.parts and self.off:
            return "nothing to take back: no function was in lanes"
        lines = list(map(str, self.parts))
        if self.products:
            shapes = "one shape" if self.products == 1 else f"{self.products} shapes"
            lines.append(f"linear layers with weights of {shapes}: large products in C")
        elif self.linears and not lines:
            lines.append("linear layers: large products in C, of which none has come")
        if not lines:
            lines.append("nothing to compile: no block has a loop or a pass over chunks")
        return "\n".join(lines)


SWITCHED_OFF = "it was switched off"
IN_LANES: WeakSet[Module] = WeakSet()
"""What runs in lanes: while there is one, rows of the whole process come from the store."""


def native(model: Any, *, at_once: bool = False, off: bool = False) -> Report:
    """Compute chunks of memories of a compiled model or layer in C, one head of one sample at a time.

    Returns what was replaced, and what not and why: steps of loops over chunks, and passes over all chunks.
    Values, states and gradients are those of torch but for rounding.  A function is compiled for every width
    of a chunk (float32 or float64, on the CPU), which takes seconds, when the fifth chunk of that width
    comes, or `at_once` with the first: then nothing depends on the calls before.  There it is compared with
    torch's; where it has no such form, or differs, torch computes it, and the report says why.

    Large products of linear layers, there and back, are C too, where that is faster than torch: on processors
    of AMD with vectors of 64 bytes.

    Other models of the class stay as they are; copies of this one are as it is.  `off`: torch computes it
    all again, as if it had never been otherwise, and memory kept for the next step is given back.

    Raises:
        TypeError: not a compiled model or layer.

    Example:
        >>> import nldsl
        >>> layer = nldsl.compile("block squash(x) { return tanh(x) }", x=8)
        >>> str(nldsl.native(layer))
        'nothing to compile: no block has a loop or a pass over chunks'
    """
    root = getattr(model, "root", None)
    if not isinstance(root, Module):
        raise TypeError(f"`native` takes a compiled model or layer, not `{type(model).__name__}`")
    if off:
        IN_LANES.discard(root)
        report = Report(tuple(_switched_off(root)), off=True)
        _make_room()
        STORE.clear()
        return report
    IN_LANES.add(root)
    _make_room()
    blocks: dict[type[Module], list[Module]] = {}
    for module in root.modules():
        if isinstance(module, Module):
            blocks.setdefault(type(module), []).append(module)
    found: list[Part] = []
    linears: list[Linears] = []
    for kind, alike in blocks.items():
        found += _steps(kind, alike, at_once)
        found += _passes(kind, alike, at_once)
        linears += _linears(kind, alike)
    return Report(tuple(found), linears=tuple(linears))


def _make_room() -> None:
    """Whether passes over rows take memory of the step before, or that of torch."""
    ARRAYS.empty, ARRAYS.least = (STORE.empty, LEAST) if IN_LANES else (None, 0)


def _switched_off(root: Module) -> Iterator[Part]:
    """Every function that was replaced, once for its class."""
    counts: Counter[tuple[str, str]] = Counter()
    for module in root.modules():
        if isinstance(module, Module):
            steps = [name for name, own in vars(module).items() if isinstance(own, NativeStep)]
            for name in steps:
                object.__delattr__(module, name)
            again = ["forward"] if taken_back(module) else []
            counts.update((type(module).__name__, name) for name in (*steps, *again))
    for (block, function), count in counts.items():
        yield Part(block, function, count, SWITCHED_OFF)


PASSES = ((passes_of, quicken), (filters_of, quicken_filters), (matrices_of, quicken_matrices))
"""The kinds of passes over all chunks: which classes of blocks have them, and what puts them in lanes."""


def _passes(kind: type[Module], alike: list[Module], at_once: bool) -> Iterator[Part]:
    """The passes over all chunks of a class of blocks, which are one function."""
    quickened = [quicken for has, quicken in PASSES if has(kind)]
    if not quickened:
        return
    why = no_compiler() if not compiler() else next(filter(None, map(hindered, alike)), "")
    if why:
        yield Part(kind.__name__, "forward", len(alike), why)
        return
    after = 0 if at_once else None
    seen = [[quicken(module, after=after) for module in alike][0] for quicken in quickened]
    yield Part(kind.__name__, "forward", len(alike), seen=Together(tuple(seen)))


def _linears(kind: type[Module], alike: list[Module]) -> list[Linears]:
    """What makes the products of linear layers of a class of blocks, where C is faster than torch."""
    dtype = alike[0].like.dtype
    if not linears_of(kind) or dtype not in REAL or products(dtype) is None or any(map(hindered, alike)):
        return []
    return [quicken_linears(module) for module in alike][0]


def _steps(kind: type, alike: list[Module], at_once: bool) -> Iterator[Part]:
    """Every step of a class of blocks, replaced where it can be."""
    written = steps_of(alike[0])
    for name in (n for n in dir(kind) if n.startswith(STEP) and not n.endswith(BACK)):
        if name not in written:
            reason = "its backward pass is recorded: `nldsl plan` says why"
        else:
            reason = "" if compiler() else no_compiler()
        for module in alike if not reason else ():
            object.__setattr__(module, name, NativeStep(module, name))
        seen = None if reason else forms_of(kind, name)
        if seen is not None:
            seen.after = 0 if at_once else AFTER
        yield Part(kind.__name__, name, len(alike), reason, seen)
