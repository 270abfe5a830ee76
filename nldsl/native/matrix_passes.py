"""Matrix memories that are one pass (see `runtime.chunk_pass`) with every chunk in C, one head at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from nldsl.native.repeats import Repeats, lies
from nldsl.native.walks import Turns, Wanted, walk
from nldsl.runtime.chunk_buffers import Given, How
from nldsl.runtime.chunk_sums import Width
from nldsl.runtime.first_order import first_order
from nldsl.runtime.module import Module

KEPT = 3
"""Tensors that a run keeps for its way back."""
Runs = list[tuple[int, int]]
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
        memories.passes, memories.others = found, found.others
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
        same = given.f is not None and given.f is given.c
        chunk = MatrixChunk(how.reads.early, how.early_erase, how.reads.strict, same)
        # Its two gradients are summed where they are made, not in a pass over memory of their own.
        given = given._replace(c=None) if same else given
        form = self.forms.get(chunk) or self.forms.setdefault(chunk, MatrixForm(chunk))
        runs = _runs(how.width, given.q.shape[1])
        if not form.takes(given, state, runs, AFTER if self.after is None else self.after):
            return None
        y, last = _Pass.apply(form, runs, *given, state)  # type: ignore[no-untyped-call]
        return y, last


def _runs(width: Width, tokens: int) -> Runs:
    """Widths of chunks, and how many tokens chunks of that width behind one another have.

    >>> _runs(4, 10), _runs((4, 4, 2, 2, 4), 16)
    ([(4, 10)], [(4, 8), (2, 4), (4, 4)])
    """
    if isinstance(width, int):
        return [(min(width, tokens), tokens)]
    return [(size, sum(group)) for size, group in groupby(width)]


class _Pass(torch.autograd.Function):
    """All runs, one behind the other; `runs`: see `_runs`."""

    @staticmethod
    def forward(ctx: Any, form: MatrixForm, runs: Runs, *tensors: Any) -> tuple[Tensor, Tensor]:
        *given, state = tensors
        tracked, answers, kept = any(ctx.needs_input_grad), list[Tensor](), list[Tensor | None]()
        for (width, _), part in zip(runs, _parts(given, runs), strict=True):
            y, state, more = form.run(part, state, width, tracked)
            answers.append(y)
            kept += more
        ctx.form, ctx.runs = form, runs
        ctx.save_for_backward(*given, *kept)
        # Views cannot be changed in place outside of the function.
        return _whole(answers).detach(), state

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        saved, runs, (dy, flow) = ctx.saved_tensors, ctx.runs, grads
        kept = [saved[n : n + KEPT] for n in range(ROWS, len(saved), KEPT)]
        rows = zip(runs, _parts(saved[:ROWS], runs), kept, _parts([dy], runs), strict=True)
        found = list[Tensors]()
        for (width, _), part, own, (answer,) in reversed(list(rows)):
            assert answer is not None
            *made, flow = ctx.form.back(part, own, width, answer, flow)
            found.append(made)
        columns = zip(*reversed(found), strict=True)
        return (None, None, *(None if c[0] is None else _whole(c) for c in columns), flow)


def _parts(given: Tensors, runs: Runs) -> list[Tensors]:
    """What belongs to each run."""
    if len(runs) == 1:
        return [given]
    sizes = [tokens for _, tokens in runs]
    columns = ([None] * len(runs) if x is None else x.split(sizes, 1) for x in given)
    return list(zip(*columns, strict=True))


def _whole(parts: Sequence[Tensor]) -> Tensor:
    """All runs of one tensor."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


class MatrixForm(PassForm):
    """Passes of one form."""

    def __init__(self, chunk: MatrixChunk) -> None:
        super().__init__(chunk.ahead, chunk.behind)
        self.again = Repeats(), Repeats()

    def takes(self, given: Given, state: Tensor, runs: Runs, after: int) -> bool:
        """Whether it computes such a pass: widths have come up often enough and change seldom."""
        if not self.can((*given, state)):
            return False
        counts = [(width, -(-tokens // width)) for width, tokens in runs]
        if 1 < len(runs) > sum(n for _, n in counts) / 2:
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
        key = (state.dtype, width, tracked, *lies((*given, state)))
        known = self.again[0].known.get(key)
        if known is not None:
            (y, *kept), last = known(given, state)
            assert y is not None
            return y, last, kept
        chunks, count = _chunks(given, width)
        asked = [1, 2, 3] if tracked else []
        found, last, made = walk(self.ahead, Turns(chunks, count), state.contiguous(), Wanted(1, [0], asked))
        assert found[0] is not None
        y, whole = tokens_of(found[0])[:, : _length(given)], [found[n] for n in asked]
        if whole and whole[0] is not None and whole[0].shape[0] == count:
            whole[0] = torch.cat([whole[0], last[None]])
        if made is not None:
            self.again[0].note(key, made, given, range(ROWS), [y, *whole])
        return y, last, whole

    def back(
        self, given: Tensors, kept: Tensors, width: int, dy: Tensor, d_last: Tensor
    ) -> list[Tensor | None]:
        """Gradients of what was given, and of the state in front of the first chunk."""
        sources = [*given, *kept, dy]
        key = (dy.dtype, width, *lies((*sources, d_last)))
        known = self.again[1].known.get(key)
        if known is not None:
            made, d_first = known(sources, d_last)
            return [*made, d_first]
        (chunks, count), (answers, _) = _chunks(given, width), _chunks([dy], width)
        states, *others = kept
        assert states is not None

        held = [states[:count], states[1 : count + 1], *others]
        rows = [*chunks, *(None if x is None else as_laid(x[:count]) for x in held), *answers]
        asked, turns = range(1, 1 + ROWS), Turns(rows, count, backward=True)
        found, d_first, walked = walk(self.behind, turns, d_last.contiguous(), Wanted(0, asked))
        length = _length(given)
        flows = [None if (x := found[n]) is None else tokens_of(x) for n in asked]
        if (d_sums := flows[-1]) is not None and d_sums.shape[1] > length:
            # What stands behind the last token has its sums.
            d_sums[:, length - 1] += d_sums[:, length:].sum(1)
        flows = [None if x is None else x[:, :length] for x in flows]
        if walked is not None:
            owners = [*range(ROWS), ROWS, *range(ROWS, len(sources))]
            self.again[1].note(key, walked, sources, owners, flows)
        return [*flows, d_first]


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
