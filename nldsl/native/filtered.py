"""Matrix memories whose rules remember gradients (see `runtime.filtered`) with every chunk in C.

A chunk is two functions, the way forward and the way back, that C computes one head of one sample at a time.

Shapes: as in `runtime.filtered`, tensors of a chunk with `[B, H]` in front: `q [B, H, C, K]`, pieces
`[B, H, C, p, ..]`, kernels `[B, H, rows, ..]`, states `[B, H, n, V, K]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor

from nldsl.native.filtered_chunk import ROWS, FilteredChunk, Tensors
from nldsl.native.forwards import put, shared
from nldsl.native.lanes import AFTER
from nldsl.native.pass_forms import PassForm, PassForms, as_laid, tokens_of
from nldsl.native.walks import Turns, Wanted, walked
from nldsl.runtime.across import Walk
from nldsl.runtime.chunk_pass import Instead
from nldsl.runtime.filter_kernels import KernelForm
from nldsl.runtime.filtered import Rows
from nldsl.runtime.filtered_chunks import FilteredChunks
from nldsl.runtime.first_order import first_order
from nldsl.runtime.matrix_chunks import Chunks, gates_of
from nldsl.runtime.matrix_memory import MatrixMemory
from nldsl.runtime.matrix_tokens import Side, Step, Write
from nldsl.runtime.module import Module
from nldsl.runtime.quick_chunks import QuickChunks

MEMORY = "MatrixMemory"
"""The name under which the files of emitted modules have what they call."""


def filters_of(block: type[Module]) -> bool:
    """Whether memories of a class of blocks are matrices whose rules remember something."""
    code = unwrap(block.forward).__code__
    words = {word for x in code.co_consts if isinstance(x, tuple) for word in x}
    return MEMORY in code.co_names and bool(words & {"momentum", "held"})


def quicken_filters(block: Module, after: int | None = None) -> NativeFilters:
    """Let such memories of a block run in lanes, with what its class has compiled; `after` for `AFTER`."""
    memories = memories_of(type(block))
    memories.filters.after = after
    put(block, MEMORY, memories)
    return memories.filters


def memories_of(kind: type[Module]) -> Memories:
    """What makes matrix memories of a class of blocks."""
    return shared(kind, MEMORY, lambda: Memories(NativeFilters()))


class Memories:
    """Makes matrix memories whose passes are in lanes; `passes`: those of rules that remember nothing."""

    def __init__(self, filters: NativeFilters) -> None:
        self.filters = filters
        self.passes: Instead | None = None
        self.others = filters.others
        """Where it is said what neither has a form for."""

    def __call__(self, *given: Any, **options: Any) -> MatrixMemory:
        """See `MatrixMemory`."""
        memory = MatrixMemory(*given, **options)
        form = memory.form
        if isinstance(form, FilteredChunks):
            form.instead = self.filters
        elif isinstance(form, QuickChunks):
            form.instead = self.passes
        elif isinstance(form, Chunks | Walk) and not torch.compiler.is_compiling():
            self.others[_other(memory.side, given[1])] = None
        return memory


def _other(side: Side, steps: Sequence[Step]) -> str:
    """What such steps have that no pass computes."""
    pieces = [p for s in steps if isinstance(s, Write) for p in s.pieces]
    if side == "value":
        return "a memory is written along its values"
    if any(p.along.shape[3] > 1 for p in pieces):
        return "several lessons step together"
    if any(g.across for g in gates_of(steps)):
        return "gates are per channel of both sides"
    return "a token has more writes or gates than a pass takes"


def in_lanes(filters: NativeFilters) -> Callable[..., MatrixMemory]:
    """`MatrixMemory` with such passes."""
    return Memories(filters)


class NativeFilters(PassForms[KernelForm | None, "FilteredForm"]):
    """Passes over chunks in lanes (see `runtime.filtered.Instead`); `forms`: by where kernels come from."""

    def passed(
        self, rows: Rows, more: Sequence[Tensor | None], form: KernelForm | None, state: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """See `Instead`: ordinary numbers, in chunks of a width that has come up often enough."""
        found = self.forms.get(form) or self.forms.setdefault(form, FilteredForm(form))
        if not found.takes(rows, more, state, AFTER if self.after is None else self.after):
            return None
        y, last = _Pass.apply(found, *rows, *more, state)  # type: ignore[no-untyped-call]
        return y, last


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, form: FilteredForm, *tensors: Any) -> tuple[Tensor, Tensor]:
        *given, state = tensors
        ctx.form, ctx.count = form, len(given)
        y, last, kept = form.run(given, state, any(ctx.needs_input_grad))
        ctx.save_for_backward(*given, *kept)
        # Views cannot be changed in place outside of the function.
        return y.detach(), last

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        given, kept = saved[: ctx.count], saved[ctx.count :]
        return (None, *ctx.form.back(given, kept, *grads))


class FilteredForm(PassForm):
    """Passes of one form."""

    def __init__(self, form: KernelForm | None) -> None:
        chunk = FilteredChunk(form)
        super().__init__(chunk.ahead, chunk.behind)

    def takes(self, rows: Rows, more: Sequence[Tensor | None], state: Tensor, after: int) -> bool:
        """Whether it computes such a pass."""
        if not self.can((*rows, *more, state)):
            return False
        count = _count(more)
        width = rows.q.shape[1] // count
        if self.seen[width] < after:
            self.seen[width] += count
            return False
        return True

    def run(self, given: Tensors, state: Tensor, tracked: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Answers, the states behind the last chunk, and what the way back needs.

        These are the states in front of every chunk, what it adds, and its inverse.
        """
        count, now = _count(given[ROWS:]), state.movedim(0, 2).contiguous()
        turns, kept = Turns(_chunks(given, count), count), [1, 2, 3] if tracked else []
        found, last = walked(self.ahead, turns, now, Wanted(1, [0], kept))
        rows = [x for x in (found[n] for n in (0, *kept)) if x is not None]
        return tokens_of(rows[0]), last.movedim(2, 0), rows[1:]

    def back(
        self, given: Tensors, kept: Sequence[Tensor], dy: Tensor, d_state: Tensor
    ) -> list[Tensor | None]:
        """Gradients of what was given, and of the states in front of the first chunk."""
        count, asked = _count(given[ROWS:]), range(1, 1 + len(given))
        rows = [
            *_chunks(given, count),
            *(as_laid(x[:count]) for x in kept),
            *_chunks([dy.contiguous()], count),
        ]
        flow = d_state.movedim(0, 2).contiguous()
        found, last = walked(self.behind, Turns(rows, count, backward=True), flow, Wanted(0, asked))
        made = (found[n] for n in asked)
        lanes = [tokens_of if n < ROWS else _joined for n in range(len(given))]
        flows = [None if x is None else place(x) for place, x in zip(lanes, made, strict=True)]
        return [*flows, last.movedim(2, 0)]


def _count(more: Tensors) -> int:
    """How many chunks there are: all tensors of a chunk say so."""
    return next(x.shape[0] for x in more if x is not None)


def _joined(x: Tensor) -> Tensor:
    """`[N, X, ..]` of the chunks `[N, B, H, ..]`."""
    return x.flatten(1, 2)


def _chunks(given: Tensors, count: int) -> list[Tensor | None]:
    """All tensors `[N, B, H, ..]`."""
    first = given[0]
    assert first is not None
    lanes = first.shape[0], first.shape[2]
    rows = [
        None if x is None else x.unflatten(1, (count, -1)).permute(1, 0, 3, 2, *range(4, x.dim() + 1))
        for x in given[:ROWS]
    ]
    return [*rows, *(None if x is None else x.unflatten(1, lanes) for x in given[ROWS:])]
