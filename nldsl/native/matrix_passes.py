"""Matrix memories that are one pass (see `runtime.chunk_pass`) with every chunk in C, one head at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import unwrap
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from nldsl.native.filtered import MEMORY, memories_of
from nldsl.native.forwards import put, shared
from nldsl.native.lanes import AFTER
from nldsl.native.matrix_chunk import ROWS, MatrixChunk, Tensors
from nldsl.native.pass_forms import PassForm, PassForms, as_laid, tokens_of
from nldsl.native.walks import Turns, Wanted, walked
from nldsl.runtime.chunk_buffers import Given, How
from nldsl.runtime.chunk_widths import Width
from nldsl.runtime.first_order import first_order
from nldsl.runtime.module import Module

RECURRENCES = ("linear_recurrence", "delta_recurrence")
"""The names under which the files of emitted modules have what they call."""


def matrices_of(block: type[Module]) -> bool:
    """Whether memories of a class of blocks are matrices in one pass."""
    return bool({MEMORY, *RECURRENCES} & set(unwrap(block.forward).__code__.co_names))


def quicken_matrices(block: Module, after: int | None = None) -> NativeMatrices:
    """Let such memories of a block run in lanes, with what its class has compiled; `after` for `AFTER`."""
    kind, plain = type(block), unwrap(type(block).forward)
    found = shared(kind, "matrices", NativeMatrices)
    for name in {*RECURRENCES} & set(plain.__code__.co_names):
        put(block, name, shared(kind, name, partial(_Recurrence, plain.__globals__[name], found)))
    if MEMORY in plain.__code__.co_names:
        memories = memories_of(kind)
        memories.passes = found
        put(block, MEMORY, memories)
    found.after = after
    return found


class _Recurrence:
    """A recurrence whose passes are in lanes."""

    def __init__(self, function: Callable[..., tuple[Tensor, Tensor]], passes: NativeMatrices) -> None:
        self.function, self.passes = function, passes

    def __call__(self, *given: Any, **options: Any) -> tuple[Tensor, Tensor]:
        return self.function(*given, **options, instead=self.passes)


class NativeMatrices(PassForms[MatrixChunk, "MatrixForm"]):
    """Passes over chunks in lanes; `forms`: by where rows stand."""

    def passed(self, given: Given, state: Tensor, how: How) -> tuple[Tensor, Tensor] | None:
        """See `runtime.chunk_pass.Instead`; chunks of one width behind one another are a pass."""
        chunk = MatrixChunk(how.reads.early, how.early_erase, how.reads.strict)
        form = self.forms.setdefault(chunk, MatrixForm(chunk))
        runs = _runs(how.width, given.q.shape[1])
        if not form.takes(given, state, runs, AFTER if self.after is None else self.after):
            return None
        sizes, answers = [tokens for _, tokens in runs], list[Tensor]()
        columns = [[None] * len(runs) if x is None else x.split(sizes, 1) for x in given]
        for (width, _), *part in zip(runs, *columns, strict=True):
            y, state = _Pass.apply(form, width, *part, state)  # type: ignore[no-untyped-call]
            answers.append(y)
        return answers[0] if len(answers) == 1 else torch.cat(answers, 1), state


def _runs(width: Width, tokens: int) -> list[tuple[int, int]]:
    """Widths of chunks, and how many tokens chunks of that width behind one another have.

    >>> _runs(4, 10), _runs((4, 4, 2, 2, 4), 16)
    ([(4, 10)], [(4, 8), (2, 4), (4, 4)])
    """
    if isinstance(width, int):
        return [(min(width, tokens), tokens)]
    return [(size, sum(group)) for size, group in groupby(width)]


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, form: MatrixForm, width: int, *tensors: Any) -> tuple[Tensor, Tensor]:
        *given, state = tensors
        y, last, kept = form.run(given, state, width, any(ctx.needs_input_grad))
        ctx.form, ctx.width = form, width
        ctx.save_for_backward(*given, *kept)
        return y, last

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        given, kept = ctx.saved_tensors[:ROWS], ctx.saved_tensors[ROWS:]
        return (None, None, *ctx.form.back(given, kept, ctx.width, *grads))


class MatrixForm(PassForm):
    """Passes of one form."""

    def __init__(self, chunk: MatrixChunk) -> None:
        super().__init__(chunk.ahead, chunk.behind)

    def takes(self, given: Given, state: Tensor, runs: list[tuple[int, int]], after: int) -> bool:
        """Whether it computes such a pass: widths have come up often enough and change seldom."""
        if not self.can((*given, state)):
            return False
        counts = [(width, -(-tokens // width)) for width, tokens in runs]
        if len(runs) > max(1, sum(n for _, n in counts) // 4):
            return False
        rare = [(width, n) for width, n in counts if self.seen[width] < after]
        self.seen.update({width: n for width, n in rare})
        return not rare

    def run(
        self, given: Tensors, state: Tensor, width: int, tracked: bool
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Answers, the state behind the last chunk, and what the way back needs.

        These are the states in front of every chunk and behind the last, what chunks add, their inverses.
        """
        chunks, count = _chunks(given, width)
        kept = [1, 2, 3] if tracked else []
        found, last = walked(self.ahead, Turns(chunks, count), state.contiguous(), Wanted(1, [0], kept))
        y = found[0]
        assert y is not None
        whole = [found[n] for n in kept]
        if whole and whole[0] is not None and whole[0].shape[0] == count:
            whole[0] = torch.cat([whole[0], last[None]])
        return tokens_of(y)[:, : _length(given)], last, whole

    def back(
        self, given: Tensors, kept: Tensors, width: int, dy: Tensor, d_last: Tensor
    ) -> list[Tensor | None]:
        """Gradients of what was given, and of the state in front of the first chunk."""
        (chunks, count), (answers, _) = _chunks(given, width), _chunks([dy], width)
        states, *others = kept
        assert states is not None

        held = [states[:count], states[1 : count + 1], *others]
        rows = [*chunks, *(None if x is None else as_laid(x[:count]) for x in held), *answers]
        asked = range(1, 1 + ROWS)
        turns = Turns(rows, count, backward=True)
        found, d_first = walked(self.behind, turns, d_last.contiguous(), Wanted(0, asked))
        length = _length(given)
        *flows, d_sums = (None if (x := found[n]) is None else tokens_of(x) for n in asked)
        if d_sums is not None and d_sums.shape[1] > length:
            # What stands behind the last token has its sums.
            d_sums[:, length - 1] += d_sums[:, length:].sum(1)
        return [*(None if x is None else x[:, :length] for x in (*flows, d_sums)), d_first]


def _length(given: Tensors) -> int:
    assert given[0] is not None
    return given[0].shape[1]


def _chunks(given: Tensors, width: int) -> tuple[list[Tensor | None], int]:
    """The tensors of all chunks, `[N, B, H, C, ..]`, and how many there are.

    Behind the last token nothing is written and nothing fades: zeros, and the last of the running sums.
    """
    count = -(-_length(given) // width)
    missing = count * width - _length(given)
    whole = list[Tensor | None]()
    for n, x in enumerate(given):
        if x is not None and missing:
            last = x[:, -1:] if n == ROWS - 1 else x.new_zeros(()).expand(x[:, -1:].shape)
            x = torch.cat([x, last.expand(-1, missing, -1, -1)], 1)
        whole.append(None if x is None else x.unflatten(1, (count, -1)).transpose(2, 3).movedim(1, 0))
    return whole, count
