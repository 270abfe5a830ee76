"""`--stack "cms(chunks = [512, 4096])"`: which clock each feed-forward block gets (Sec. 7.3)."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass

from nldsl.exchange.errors import refused

EXAMPLE = "`--stack 'cms(chunks = [512, 4096])'`"
RATE = 1e-3


@dataclass(frozen=True)
class Stack:
    """Feed-forward blocks as levels: `chunks` in turn from the first layer on, and their learning `rate`."""

    chunks: tuple[int, ...]
    rate: float = RATE

    def clocks(self, depth: int) -> tuple[int, ...]:
        """The clock of each of `depth` layers.

        Example:
            >>> Stack((512, 4096)).clocks(3)
            (512, 4096, 512)
        """
        return tuple(self.chunks[i % len(self.chunks)] for i in range(depth))


def read_stack(text: str) -> Stack:
    """The stack that a call describes.

    Errors: NL1107 for anything but `cms` with `chunks` (each a multiple of the smallest) and `rate`.

    Example:
        >>> read_stack("cms(chunks = [512, 4096], rate = 0)")
        Stack(chunks=(512, 4096), rate=0.0)
    """
    given = _arguments(text)
    unknown = sorted(set(given) - {"chunks", "rate"})
    if unknown:
        raise refused("NL1107", f"`{unknown[0]}` is no argument of the stack", help="`chunks` and `rate` are")
    chunks, rate = given.get("chunks"), given.get("rate", RATE)
    whole = isinstance(chunks, list) and all(type(c) is int and c > 0 for c in chunks)
    if not isinstance(chunks, list) or not chunks or not whole:
        raise refused("NL1107", f"`chunks` is `{chunks}`, expected a list of whole numbers", help=EXAMPLE)
    odd = next((c for c in chunks if c % min(chunks)), None)
    if odd is not None:
        raise refused(
            "NL1107", f"the clock {odd} is no multiple of the smallest, {min(chunks)}", help=EXAMPLE
        )
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 <= rate < math.inf:
        raise refused("NL1107", f"`rate` is `{rate}`, expected a number of at least 0")
    return Stack(tuple(chunks), float(rate))


def _arguments(text: str) -> dict[str, object]:
    """The named arguments of `cms(...)`, all of them numbers or lists."""
    wrong = refused("NL1107", f"`{text}` is no stack", help=EXAMPLE)
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
            raise wrong
        if call.func.id != "cms":
            raise refused("NL1107", f"`{call.func.id}` cannot be stacked, `cms` can", help=EXAMPLE)
        return {str(part.arg): ast.literal_eval(part.value) for part in call.keywords}
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise wrong from error
