"""Running sums inside of chunks, and which chunks no one anchor serves, in C: see `chunk_widths`.

torch takes ten operations for the sums and twenty for the chunks, as long as some hundred tokens of a layer.
Sums are collected in double precision.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.c_calls import call
from nldsl.runtime.each_gradient import each_gradient
from nldsl.runtime.gram import limit_of
from nldsl.runtime.native import Step
from nldsl.runtime.row_loops import loop_for

LEAST = 1 << 7
"""Numbers from which on a call of C is worth it."""
Width = int | tuple[int, ...]
"""Tokens of every chunk but a shorter last one, or of each."""
FORTH = 0
BACK = 1
FAR = 2
TEXT = r"""
#include <math.h>
#define EACH(c, n) _Pragma("omp simd") for (long c = 0; c < (n); c++)
enum { WIDE = 64 };

/* Sums from the first token of a chunk on, or from the last one back; x, y [B, T, F]; behind the first four
   `sizes` stand where chunks begin, and the end of the last one. */
static void sums(const long *sizes, const real *x, real *y, int back, int threads) {
  const long B = sizes[0], T = sizes[1], F = sizes[2], chunks = sizes[3], *begins = sizes + 4;
  _Pragma("omp parallel for num_threads(threads) if (threads > 1)")
  for (long i = 0; i < B * chunks; i++) {
    const long first = begins[i % chunks], size = begins[i % chunks + 1] - first;
    const long at = (i / chunks * T + first) * F;
    for (long from = 0; from < F; from += WIDE) {
      const long n = F - from < WIDE ? F - from : WIDE;
      double sum[WIDE] = {0};
      for (long t = 0; t < size; t++) {
        const long row = at + (back ? size - 1 - t : t) * F + from;
        EACH(c, n) {
          sum[c] += x[row + c];
          y[row + c] = (real)sum[c];
        }
      }
    }
  }
}

/* Whether a sum of a chunk is too far from that in its middle, or that from 0, or is no number. */
static int far(const real *x, long size, long F, real limit) {
  for (long from = 0; from < F; from += WIDE) {
    const long n = F - from < WIDE ? F - from : WIDE;
    const real *middle = x + size / 2 * F + from;
    real most[WIDE], odd[WIDE] = {0};
    EACH(c, n) most[c] = middle[c] < 0 ? -middle[c] : middle[c];
    for (long t = 0; t < size; t++) {
      const real *row = x + t * F + from;
      EACH(c, n) {
        const real off = row[c] < middle[c] ? middle[c] - row[c] : row[c] - middle[c];
        most[c] = off > most[c] ? off : most[c];
        odd[c] += off - off;
      }
    }
    for (long c = 0; c < n; c++)
      if (!(most[c] <= limit) || odd[c] != 0) return 1;
  }
  return 0;
}

int step(long what, const long *sizes, void **arrays, const double *numbers, int threads) {
  if (what < 2) {
    sums(sizes, arrays[0], arrays[1], (int)what, threads);
    return 0;
  }
  const long B = sizes[0], T = sizes[1], F = sizes[2], chunks = sizes[3], *begins = sizes + 4;
  const real *x = arrays[0];
  long *found = arrays[1], any = 0;
  _Pragma("omp parallel for num_threads(threads) if (threads > 1) reduction(| : any)")
  for (long i = 0; i < chunks; i++) {
    const long first = begins[i], size = begins[i + 1] - first;
    found[i] = 0;
    for (long b = 0; b < B && !found[i]; b++)
      found[i] = far(x + (b * T + first) * F, size, F, (real)numbers[0]);
    any |= found[i];
  }
  return (int)any;
}
"""


def step_for(x: Tensor) -> Step | None:
    """The functions in C, if they take sums `[B, T, ...]` like these.

    >>> step_for(torch.ones(2, 3)) is None
    True
    """
    return loop_for(TEXT, x, least=LEAST)


def summed(step: Step, log: Tensor, width: Width) -> Tensor:
    """Running sums of `log [B, T, ...]` inside of each chunk."""
    made: Tensor = _Sums.apply(log, width, step)  # type: ignore[no-untyped-call]
    return made


def far_chunks(step: Step, sums: Tensor, width: Width) -> list[int]:
    """The chunks of `sums [B, T, ...]` in which one is further than `limit_of` from that in the middle."""
    sizes, sums = _sizes(sums, width), sums.detach().contiguous()
    found = sums.new_empty(sizes[3], dtype=torch.long)
    some = call(step, FAR, sizes, (sums, found), limit_of(sums.dtype))
    return [n for n, far in enumerate(found.tolist()) if far] if some else []


def _sizes(x: Tensor, width: Width) -> tuple[int, ...]:
    """Samples, tokens, numbers of a token, chunks; where chunks begin, and the end of the last one."""
    batch, tokens = x.shape[:2]
    if isinstance(width, int):
        begins = (*range(0, tokens, width), tokens)
    else:
        begins = (0, *accumulate(width))
    return batch, tokens, x.numel() // (batch * tokens), len(begins) - 1, *begins


def _called(step: Step, what: int, x: Tensor, width: Width) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    call(step, what, _sizes(x, width), (x, y))
    return y


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log: Tensor, width: Width, step: Step) -> Tensor:
        ctx.width = width
        return _called(step, FORTH, log, width)

    @staticmethod
    @each_gradient
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (flow,) = grads
        step = None if torch.is_grad_enabled() else loop_for(TEXT, flow, least=1)
        if step is not None:
            return _called(step, BACK, flow, ctx.width), None, None
        chunks = (x.flip(1).double().cumsum(1).flip(1).to(x.dtype) for x in flow.split(ctx.width, 1))
        return torch.cat(list(chunks), 1), None, None
