"""What the next turn of a lane needs, fetched while the products of this one run.

Arguments that were written long before lie outside of the cache of a core, and a loop over them waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nldsl.native.graph import View
from nldsl.native.rooms import BYTES, LINE

FEWEST = 4
"""Lines of an argument that are worth it."""
MOST = 2**12
"""Lines of one that would push out of the second cache of a core what this turn works on."""


@dataclass(frozen=True)
class Fetch:
    """`count` rows of an argument, `step` bytes from one to the next, of `lines` lines of the cache each."""

    index: int
    count: int
    step: int
    lines: int

    def share(self, n: int, of: int) -> str:
        """C that fetches the part `n` of so many equal ones."""
        first, last = (self.count * k // of for k in (n, n + 1))
        if first == last:
            return ""
        row = f"next[{self.index}] + x * {self.step}"
        return (
            f"if (next[{self.index}]) for (long x = {first}; x < {last}; x++) nl_fetch({row}, {self.lines});"
        )


def fetches(inputs: list[View | None]) -> Iterator[Fetch]:
    """What is to be fetched of all arguments."""
    for view in inputs:
        if view is None:
            continue
        size, index = BYTES[view.buffer.kind], view.buffer.index
        axes = [(n, s * size) for n, s in zip(view.shape, view.strides, strict=True) if n != 1 and s]
        length = size
        while axes and axes[-1][1] == length:
            length *= axes.pop()[0]
        if not axes:
            found = Fetch(index, -(-length // LINE), LINE, 1)
        else:
            count = 1
            for n, step in reversed(axes):
                if step != axes[-1][1] * count:
                    break
                count *= n
            # Other axes are left to the loops: what moves most is rows.
            found = Fetch(index, count, axes[-1][1], -(-length // LINE))
        if FEWEST <= found.count * found.lines <= MOST:
            yield found
