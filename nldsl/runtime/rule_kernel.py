"""What an emitted optimizer says about itself: one kernel per kind of weight."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from nldsl.catalog.bounds import Bounds
from nldsl.diagnostics import Diagnostic, SpecError
from nldsl.runtime.module import Fill


@dataclass(frozen=True)
class Memory:
    """A memory of a rule: of the weight's shape (`None`) or its own; zero, or drawn by `init`."""

    name: str
    shape: tuple[int, ...] | None = None
    init: Fill | None = None

    def start(self, like: Tensor, copies: int, seed: int, path: str) -> Tensor:
        """The first value for a weight `like`; with `copies` above 0 one per matrix of a stack."""
        if self.shape is None:
            return torch.zeros_like(like, memory_format=torch.preserve_format)
        front = (copies,) if copies else ()
        if self.init is None:
            return like.new_zeros((*front, *self.shape))
        digest = hashlib.sha256(f"{seed}:{path}.{self.name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        return self.init((*front, *self.shape), generator).to(like.dtype).to(like.device)


@dataclass(frozen=True)
class Kernel:
    """One application of a rule to one weight.

    `update(W, g, *memories, *numbers)` changes `W` and the memories in place; `numbers(step, *arguments)`
    gives what depends on the step and the arguments alone.  `rows(x, y, dy, *arguments)` is there if the
    rule looks at the inputs of a linear layer: it gives what takes the place of `dy` in `dy^T x`, what is to
    be divided by the number of rows (or `None`) and the rest.
    """

    update: Callable[..., None]
    numbers: Callable[..., tuple[Tensor, ...]]
    memories: tuple[Memory, ...] = ()
    form: Literal["elementwise", "matrix"] = "elementwise"
    reason: str = ""
    rows: Callable[..., tuple[Tensor | None, Tensor]] | None = None
    by_rows: bool = False
    """The rule needs every row of a layer: `update(W, x, dy, *memories, *numbers)`."""
    native: str = ""
    """The same as one loop in C (see `native`), for an element-wise rule."""
    native_reason: str = ""
    """Why there is none."""

    @property
    def looks_at_rows(self) -> bool:
        """Whether layers have to tell what they see."""
        return self.by_rows or self.rows is not None


@dataclass(frozen=True)
class Told:
    """What an emitted optimizer is told about itself: a pickle carries it beside the text.

    `loops` has for every shape the loop in C and, if there is none, the reason.
    """

    source: str
    bounds: dict[str, Bounds]
    loops: dict[tuple[int, ...], tuple[str, str]]

    def with_loops(self, kernels: dict[tuple[int, ...], Kernel]) -> dict[tuple[int, ...], Kernel]:
        """The kernels with their loops; shapes that share a kernel still do."""
        made: dict[int, Kernel] = {}
        for shape, kernel in kernels.items():
            text, reason = self.loops[shape]
            made[id(kernel)] = replace(kernel, native=text, native_reason=reason)
        return {shape: made[id(kernel)] for shape, kernel in kernels.items()}


def refusal(code: str, message: str, help: str = "") -> SpecError:  # noqa: A002
    """The finding of an optimizer, to be raised.

    Example:
        >>> print(refusal("NL0966", "`w` is sparse"))
        error[NL0966]: `w` is sparse
    """
    return SpecError([Diagnostic(code, message, help=help)])
