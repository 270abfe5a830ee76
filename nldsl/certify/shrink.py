"""Make a specification small by a rule that is printed with the result, and is the same every time.

Arguments of the root definition: integers above 16 are halved until they are at most 16, defaults of
3 to 16 become 2; what the caller gave and is at most 16 stays, and so does an argument that sets a
clock.  If the small program cannot be elaborated, or its memories would have fewer than 4 key channels,
arguments go back to what they were, in the order of the list: one, then the first two, and so on.
`repeat` runs at most twice, with clocks that do not divide once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nldsl.certify.clocks import memories_below, token_clocks
from nldsl.diagnostics import SpecError
from nldsl.graph import open_program, open_sized
from nldsl.source import SourceFile
from nldsl.spec.program import Program

LARGEST = 16
"""What sizes are halved down to."""
NARROWEST = 4
"""Key channels a memory must keep: with fewer, a transposed weight could look like the right one."""


@dataclass(frozen=True)
class Shrunk:
    """A small program, the arguments that made it, and what was done, line by line."""

    program: Program
    arguments: tuple[tuple[str, Any], ...]
    notes: tuple[str, ...]


def shrink(source: str | Path | SourceFile, block: str | None, arguments: dict[str, Any]) -> Shrunk:
    """The small twin of a specification; clocks are untouched.

    Errors: `SpecError` of the specification itself.

    Example:
        >>> shrink("gated_deltanet", None, {}).notes
        ('dim 256 -> 16', 'heads 4 -> 2', 'vocab 256 -> 16', 'depth 4 -> 2', 'expand 3 -> 2')
    """
    full, given = open_sized(source, LARGEST, block=block, **arguments)
    notes = [f"dim = {LARGEST}, since no width was given"] if given != arguments else []
    sizes = _sizes(full, given)
    wanted = {name: _smaller(n, name in given) for name, n in sizes.items()}
    wanted = {name: small for name, small in wanted.items() if small != sizes[name]}
    clocks = token_clocks(full)
    for name in tuple(wanted):
        alone = _attempt(source, block, given | {name: wanted[name]})
        if alone is not None and token_clocks(alone) != clocks:
            del wanted[name]
            notes.append(f"{name} = {sizes[name]} stays: it sets a clock")
    program, kept = full, {}
    for chosen in _choices(tuple(wanted)):
        small = _attempt(source, block, given | {n: wanted[n] for n in chosen})
        if small is not None and token_clocks(small) == clocks and _wide_enough(small, full):
            program, kept = small, {n: wanted[n] for n in chosen}
            break
    notes += [f"{n} {sizes[n]} -> {small}" for n, small in kept.items()]
    notes += [f"{n} = {sizes[n]} stays: the program needs it" for n in wanted if n not in kept]
    return Shrunk(program, tuple(sorted((given | kept).items())), tuple(notes))


def _attempt(source: str | Path | SourceFile, block: str | None, arguments: dict[str, Any]) -> Program | None:
    try:
        return open_program(source, block=block, **arguments)
    except SpecError:
        return None


def _sizes(program: Program, given: dict[str, Any]) -> dict[str, int]:
    """Integer arguments, the largest first: widths have to be divided before what divides them."""
    found = {name: value for name, value in (*program.root.static, *given.items()) if type(value) is int}
    order = ("dim", "heads")
    return dict(sorted(found.items(), key=lambda item: (item[0] not in order, -item[1], item[0])))


def _smaller(n: int, given: bool) -> int:
    if 3 <= n <= LARGEST:
        return n if given else 2
    while n > LARGEST:
        n //= 2
    return n


def _choices(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """All names, all but one, all but the first two, ..., none."""
    yield names
    yield from (tuple(n for n in names if n != back) for back in names)
    yield from (names[i:] for i in range(2, len(names) + 1))


def _wide_enough(small: Program, full: Program) -> bool:
    """Whether memories that had room keep some."""
    return _narrowest(m.key_size for m in memories_below(small.root)) >= min(
        NARROWEST, _narrowest(m.key_size for m in memories_below(full.root))
    )


def _narrowest(sizes: Iterable[int]) -> int:
    return min(sizes, default=NARROWEST)
