"""Gradients that are not finite: found before anything is changed, named, and dealt with as asked."""

from __future__ import annotations

import ctypes
import math
import warnings
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from nldsl.runtime.c_calls import threads
from nldsl.runtime.native import REAL, Step, compiled, compiler
from nldsl.runtime.rule_kernel import Kernel, refusal
from nldsl.runtime.rule_shards import anywhere, as_weight, local, sharded
from nldsl.runtime.rule_where import plain

if TYPE_CHECKING:
    from nldsl.runtime.rule_lineup import Lineup
    from nldsl.runtime.rule_optimizer import RuleOptimizer

Policy = Literal["raise", "skip", "zero", "ignore"]
Arrival = tuple[Tensor, Tensor]
"""A parameter and its gradient."""
POLICIES = ("raise", "skip", "zero", "ignore")
LEAST = 1 << 16
"""Elements from which on a loop in C is worth it."""
EXPONENT = {
    torch.float32: ("unsigned int", "0x7f800000u"),
    torch.float64: ("unsigned long long", "0x7ff0000000000000ull"),
    torch.bfloat16: ("unsigned short", "0x7f80"),
    torch.float16: ("unsigned short", "0x7c00"),
}
"""Of every type of numbers: an integer as wide, and the bits of the exponent, all set in NaN and infinity."""
FINITE = """
#define STREAMS 8
#define LANES 64
static int bad(const real *restrict g, long from, long to) {
  const long each = (to - from) / (STREAMS * LANES) * LANES;
  real top[LANES] = {0}, most = 0;
  for (long b = from; b < from + each; b += LANES)
    for (int s = 0; s < STREAMS; s++) {
      const real *restrict h = g + each * s + b;
#pragma omp simd
      for (int i = 0; i < LANES; i++) { real x = h[i] & MASK; top[i] = x > top[i] ? x : top[i]; }
    }
  for (int i = 0; i < LANES; i++) most = top[i] > most ? top[i] : most;
#pragma omp simd reduction(max : most)
  for (long i = from + each * STREAMS; i < to; i++) { real x = g[i] & MASK; most = x > most ? x : most; }
  return most == MASK;
}
int step(long tensors, const long *sizes, void **arrays, const double *numbers, int threads) {
  for (long t = 0; t < tensors; t++) {
    long n = sizes[t];
    int parts = n < 16384 ? 1 : threads, found = 0;
#pragma omp parallel for num_threads(parts) reduction(| : found) if (parts > 1)
    for (int p = 0; p < parts; p++)
      found |= bad(arrays[t], n / parts * p, p + 1 < parts ? n / parts * (p + 1) : n);
    if (found) return 1;
  }
  return 0;
}
"""
"""Whether an element is not finite.

Eight streams at once, for one alone waits for memory; the largest of every lane, for a largest of each
block costs more than the block.
"""
TAKEN = """typedef UNSIGNED bits;
static inline real taken(real x, bits *found) {
  bits all;
  __builtin_memcpy(&all, &x, sizeof all);
  const bits not_finite = (all & MASK) == MASK;
  *found |= not_finite;
  return not_finite ? 0 : x;
}
#define TAKEN(x) taken(x, &found)
"""
"""What stands before the loop of an element-wise rule that takes what is not finite as zero, and says so.

By the bits, for options as `-ffast-math` let a compiler think that there is no NaN.
"""

Due = Sequence[tuple[Any, list[Arrival], "Lineup | None", bool]]
"""Groups with what arrived for them, or the lineup that knows where it is; whether loops may zero it."""


def arrived(optimizer: RuleOptimizer, params: Sequence[Tensor]) -> list[Arrival]:
    """Every parameter that has a gradient, with it; raises NL0966 for one that no rule takes."""
    found = [(p, as_weight(p, g)) for p in params if (g := p.grad) is not None]
    for p, g in found:
        if g.layout != torch.strided:
            raise refusal(
                "NL0966",
                f"the gradient of {optimizer.name_of(p)} is sparse",
                "use `sparse = False` in the embedding",
            )
        if g.shape != p.shape:
            told = f"the gradient of {optimizer.name_of(p)} is {list(g.shape)}, the weight {list(p.shape)}"
            raise refusal("NL0966", told, "give a weight another shape behind `zero_grad()`")
    return found


def checked(optimizer: RuleOptimizer, due: Due) -> bool:
    """Whether the step may be taken; raises NL0967, warns, or repairs, as the policy says.

    What loops take as zero themselves is not looked at: see `repaired`.
    """
    policy = optimizer.nonfinite
    if policy not in POLICIES:
        raise refusal("NL0968", f"`nonfinite` is one of {', '.join(POLICIES)}; found `{policy}`")
    if policy == "ignore":
        return True
    bad = [] if _good(optimizer, due) else _bad(due)
    if not anywhere(bool(bad), [p for _, found, *_ in due for p, _ in found if sharded(p)]):
        return True
    message = _message(
        optimizer, bad or [a for _, found, *_ in due for a in found], applied=0, here=bool(bad)
    )
    if policy == "raise":
        raise refusal(
            "NL0967", message, 'no weight was changed; `nonfinite = "skip"` or `"zero"` would go on'
        )
    warnings.warn(f"{message}: {'step skipped' if policy == 'skip' else 'taken as zero'}", stacklevel=3)
    if policy == "zero":
        _zero(bad, due)
    return policy == "zero"


def repaired(optimizer: RuleOptimizer, due: Due) -> None:
    """Warn of what loops have taken as zero, and make it zero, as it would have been before the step."""
    if bad := _bad(due):  # nothing is left of a gradient that lies where its weight does
        message = _message(optimizer, bad, applied=1)
        _zero(bad, due)
        warnings.warn(f"{message}: taken as zero", stacklevel=3)


def zeroes(optimizer: RuleOptimizer) -> bool:
    """Whether loops may take what is not finite as zero; layers that tell rows look at gradients before."""
    return optimizer.nonfinite == "zero" and not optimizer.rows


def zeroing(kernel: Kernel, kind: torch.dtype) -> Step | None:
    """The loop of a rule that takes what is not finite as zero, and says whether there was any.

    There is none where sums come before the loop that writes: what they add up depends on its text.
    """
    return _zeroing(kernel.native, kind) if kernel.native and kernel.form == "elementwise" else None


@cache
def _zeroing(text: str, kind: torch.dtype) -> Step | None:
    unsigned, mask = EXPONENT[kind]
    return compiled(TAKEN.replace("UNSIGNED", unsigned).replace("MASK", mask) + text, REAL[kind])


def _bad(due: Due) -> list[Arrival]:
    """What has arrived in this process and is not finite."""
    arrived: list[Arrival] = []
    for _, found, lineup, _ in due:
        arrived += found if lineup is None else lineup.found()
    return [(p, share) for p, g in arrived if not finite(share := local(g))]


def _message(optimizer: RuleOptimizer, bad: Sequence[Arrival], applied: int, here: bool = True) -> str:
    """What is said of bad gradients, before they are applied or when they have been.

    Nothing is known of shares of other processes but that there are some.
    """
    step = int(max(optimizer.state[p].get("step", 0) for p, _ in bad)) + 1 - applied
    if not here:
        return f"at step {step} a gradient is not finite in another process"
    shown = ", ".join(_described(optimizer.name_of(p), g) for p, g in bad[:3])
    shown += f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return f"at step {step} the gradient of {shown} is not finite"


def _zero(bad: Sequence[Arrival], due: Due) -> None:
    """Make it zero where it lies; what may not be written there (expanded, of inference mode) is replaced."""
    others = dict[Tensor, Tensor]()
    for p, g in bad:
        try:
            torch.nan_to_num_(g, nan=0.0, posinf=0.0, neginf=0.0)
        except RuntimeError:
            if sharded(p):
                raise
            others[p] = p.grad = torch.nan_to_num(g, nan=0.0, posinf=0.0, neginf=0.0)
    for _, found, *_ in due if others else ():
        found[:] = [(p, others.get(p, g)) for p, g in found]


def _good(optimizer: RuleOptimizer, due: Due) -> bool:
    """Whether all that arrived is finite, or taken by loops that look for themselves."""
    loose: list[Tensor] = []
    for _, found, lineup, zero in due:
        if lineup is None:
            loose += [
                share
                for p, share in ((p, local(g)) for p, g in found)
                if not (zero and optimizer.places[id(p)].zeroes(share))
            ]
        elif zero and lineup.zeroing:
            continue
        elif not _looped_finite(lineup.kind, lineup.sizes, lineup.gradients):
            return False
    return all_finite(loose, native=optimizer.form != "eager")


def all_finite(gradients: Sequence[Tensor], native: bool = True) -> bool:
    """Whether every element of every gradient is finite; many are looked at by one loop in C.

    The first one is looked at first: the backward pass ends with it.  The rule begins with the last one,
    which then still lies in the cache.

    Example:
        >>> good, bad = torch.ones(1 << 16), torch.ones(1 << 16)
        >>> bad[-1] = float("-inf")
        >>> all_finite([good, good]), all_finite([good, bad])
        (True, False)
    """
    if not native or sum(g.numel() for g in gradients) < LEAST or not compiler():
        return _few_finite(gradients) or all(map(finite, gradients))
    looped: dict[torch.dtype, list[Tensor]] = {}
    for g in gradients:
        if g.dtype in EXPONENT and g.is_cpu and g.is_contiguous() and plain(g):
            looped.setdefault(g.dtype, []).append(g)
        elif not finite(g):
            return False
    for kind, group in looped.items():
        sizes = (ctypes.c_long * len(group))(*(g.numel() for g in group))
        arrays = (ctypes.c_void_p * len(group))(*(g.data_ptr() for g in group))
        if not _looped_finite(kind, sizes, arrays) and not all(map(finite, group)):
            return False
    return True


def _few_finite(gradients: Sequence[Tensor]) -> bool:
    """Whether the norms say so, which takes one answer of a device; those that overflow say nothing."""
    found: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for g in gradients:
        found.setdefault((g.device, g.dtype), []).append(g)
    norms = [torch.stack(torch._foreach_norm(group)).sum() for group in found.values()]
    return all(math.isfinite(float(norm)) for norm in norms)


def _looped_finite(kind: torch.dtype, sizes: Any, arrays: Any) -> bool:
    """Whether the loop says so; it never does where there is none."""
    loop = compiled(_look(kind), EXPONENT[kind][0])
    return loop is not None and loop(len(sizes), sizes, arrays, None, threads()) == 0


@cache
def _look(kind: torch.dtype) -> str:
    return FINITE.replace("MASK", EXPONENT[kind][1])


def finite(g: Tensor) -> bool:
    """Whether every element is finite.

    Example:
        >>> finite(torch.tensor([1.0, float("nan")])), finite(torch.full((4,), 3e38))
        (False, True)
    """
    # A product with itself is the cheapest look at all elements; one that overflows is looked at again.
    if g.is_contiguous() and g.dtype in (torch.float32, torch.float64):
        flat = g.view(-1)
        if math.isfinite(float(torch.dot(flat, flat))):
            return True
    return bool(torch.isfinite(g).all())


def _described(name: str, g: Tensor) -> str:
    count = int((~torch.isfinite(g)).sum())
    return f"{name} ({count} of {g.numel()} elements)"
