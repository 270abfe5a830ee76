"""The non-parametric memory: softmax attention as the solution of a weighted regression (Eq. 62-63)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nldsl.reference.functions import join
from nldsl.reference.heads import copies
from nldsl.reference.inner import Scope
from nldsl.reference.primitives import softmax
from nldsl.reference.states import CacheState
from nldsl.spec.program import Memory, option


class SoftmaxMemory:
    """`A[k] <- v` appends, `A[q]` reads `sum_i softmax_i(scale q . k_i) v_i` over the cached pairs.

    `window = w` keeps the last w pairs; `start = n` learned pairs are always seen; `scale` is
    1/sqrt(size of a key) unless given.  A read above the first append, without start pairs, is zero.

    Errors: `ValueError` for `causal = false`, which has no meaning token by token.
    """

    def __init__(self, memory: Memory, scope: Scope, dtype: torch.dtype) -> None:
        if option(memory.options, "causal", True) is False:
            raise ValueError(f"`{memory.name}` looks ahead (`causal = false`), but a token has no future")
        self.memory = memory
        self.dtype = dtype
        window = option(memory.options, "window", None)
        self.window = int(window) if isinstance(window, int) else 0
        scale = option(memory.options, "scale", None)
        self.scale = float(scale) if isinstance(scale, int | float) else 1 / math.sqrt(memory.key_size)
        owned = [p for p in (*memory.initial, *memory.parameters) if p is not None]
        self.start = [scope.parameters[join(scope.prefix, p.path)] for p in dict.fromkeys(owned)]
        if len(self.start) != (2 if option(memory.options, "start", 0) else 0):
            raise ValueError(f"`{memory.name}` needs learned keys and values for its start tokens")

    def initial(self) -> CacheState:
        """Nothing seen yet."""
        return CacheState()

    def append(self, state: CacheState, key: Tensor, value: Tensor) -> None:
        """The pair of this token, `[H, dk]` and `[H, dv]`; the oldest leaves the window."""
        heads = copies(self.memory)
        state.keys.append(key.reshape(heads, self.memory.key_size))
        state.values.append(value.reshape(heads, self.memory.value_size))
        if self.window:
            del state.keys[: -self.window], state.values[: -self.window]

    def read(self, state: CacheState, query: Tensor) -> Tensor:
        """Nadaraya-Watson per query head; m consecutive heads share the pairs of one copy."""
        heads = copies(self.memory)
        queries = query.reshape(-1, self.memory.key_size)
        group = queries.shape[0] // heads
        outs = [self.attend(state, q, i // group) for i, q in enumerate(queries.unbind(0))]
        return torch.stack(outs) if self.memory.per_head else outs[0]

    def attend(self, state: CacheState, q: Tensor, head: int) -> Tensor:
        """Eq. 62 for one query: explicit weights that sum to one."""
        keys = [k[head] for k in state.keys]
        values = [v[head] for v in state.values]
        if self.start:
            first_keys, first_values = (self._of_head(p, head) for p in self.start)
            keys, values = [*first_keys, *keys], [*first_values, *values]
        if not keys:
            return torch.zeros(self.memory.value_size, dtype=self.dtype)
        weights = softmax(torch.stack([self.scale * (q * k).sum() for k in keys]))
        return sum((w * v for w, v in zip(weights, values, strict=True)), torch.zeros_like(values[0]))

    def _of_head(self, parameter: Tensor, head: int) -> list[Tensor]:
        """The start pairs of one head: the parameter is `[H, n, size]` per head, else `[n, size]`."""
        return list((parameter[head] if self.memory.per_head else parameter).unbind(0))
