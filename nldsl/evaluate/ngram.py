"""Byte-count models: what a table of counts achieves on the same bytes, to hold neural models against.

Order n predicts a byte from the n before it, interpolated with the lower orders (Jelinek and Mercer
1980; the weights depend on how often the context was seen, as Chen and Goodman 1999 recommend):

    p_0(c)     = (count(c) + 1) / (N + 256)
    p_n(c | h) = w_b f_n(c | h) + (1 - w_b) p_(n-1)(c | h'),     f_n = count(h c) / count(h)

`h'` is `h` without its oldest byte, `b` the number of binary digits of count(h), and `w_b = 0` for a context
never seen.  The weights are fitted by expectation maximisation on the last twentieth of the training
bytes, with counts of the rest; then everything is counted.  Held-out bytes play no part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Reals = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BUCKETS = 64
SLICE = 1 << 22
ROUNDS = 30
HIGHEST = 0.999
"""A weight of one would call a byte impossible because it never followed this context so far."""


@dataclass(frozen=True)
class Counts:
    """How often every context of `order` bytes was followed by every byte: `pairs[context * 256 + byte]`."""

    order: int
    pairs: npt.NDArray[np.uint32]
    contexts: npt.NDArray[np.uint32]


@dataclass(frozen=True)
class NgramModel:
    """Counts of orders 0 to n, and one weight per order (from 1) and bucket of the context's count."""

    counts: tuple[Counts, ...]
    weights: tuple[Reals, ...]

    @property
    def order(self) -> int:
        """How many bytes the model looks back."""
        return len(self.counts) - 1

    def probabilities(self, data: Bytes, targets: Integers, depth: int) -> Reals:
        """p(data[t] | the `depth` bytes before) for every index t in `targets`."""
        p = lowest(self.counts[0], data, targets)
        for order in range(1, depth + 1):
            f, bucket = relative(self.counts[order], data, targets)
            w = self.weights[order - 1][bucket]
            p = w * f + (1 - w) * p
        return p

    def bits_per_byte(self, windows: Bytes) -> float:
        """Mean of -log2 p over the predictions of `windows` `[n, length + 1]`; the first byte is given.

        A window is on its own, as for a model whose state starts afresh: the first predictions see
        only what the window holds.

        Example:
            >>> text = np.frombuffer(b"abab" * 500, dtype=np.uint8)
            >>> count_model(text, 1).bits_per_byte(text[None, :100]) < 0.1
            True
        """
        flat = np.ascontiguousarray(windows).reshape(-1)
        length = windows.shape[1]
        starts = np.arange(len(windows), dtype=np.int64)[:, None] * length
        total = 0.0
        for depth in range(1, self.order + 1):
            last = depth + 1 if depth < self.order else length
            targets = (starts + np.arange(depth, last, dtype=np.int64)).reshape(-1)
            total -= float(np.log2(self.probabilities(flat, targets, depth)).sum())
        return float(total / (len(windows) * (length - 1)))


def count_model(data: Bytes, order: int) -> NgramModel:
    """Fit the weights on the last twentieth of `data`, then count all of it.  `order` is 1 or 2.

    Errors: `ValueError` for another order, or fewer than 40 bytes.
    """
    if order not in (1, 2):
        raise ValueError(f"orders 1 and 2 are counted in full, found {order}")
    if len(data) < 40:
        raise ValueError(f"at least 40 bytes are needed to count and fit, found {len(data)}")
    cut = len(data) - len(data) // 20
    part = tuple(count(data[:cut], n) for n in range(order + 1))
    fitted = NgramModel(part, fit(part, data, np.arange(cut, len(data), dtype=np.int64)))
    return NgramModel(tuple(count(data, n) for n in range(order + 1)), fitted.weights)


def count(data: Bytes, order: int) -> Counts:
    """Count every context of `order` bytes with the byte behind it."""
    pairs = np.zeros(256 ** (order + 1), dtype=np.uint32)
    for start in range(order, len(data), SLICE):
        targets = np.arange(start, min(start + SLICE, len(data)), dtype=np.int64)
        found, often = np.unique(index(data, targets, order), return_counts=True)
        pairs[found] += often.astype(np.uint32)
    return Counts(order, pairs, pairs.reshape(-1, 256).sum(axis=1, dtype=np.uint32))


def index(data: Bytes, targets: Integers, order: int) -> Integers:
    """Row-major index of (context, byte) for every target."""
    code = np.zeros(len(targets), dtype=np.int64)
    for back in range(order, -1, -1):
        code = code * 256 + data[targets - back]
    return code


def lowest(counts: Counts, data: Bytes, targets: Integers) -> Reals:
    """p_0: counts plus one, so that no byte is impossible."""
    total = float(counts.contexts[0]) + 256
    return (counts.pairs[data[targets]].astype(np.float64) + 1) / total


def relative(counts: Counts, data: Bytes, targets: Integers) -> tuple[Reals, Integers]:
    """f_n for every target, and the bucket of its context: the number of binary digits of its count."""
    code = index(data, targets, counts.order)
    seen = counts.contexts[code // 256].astype(np.float64)
    f: Reals = counts.pairs[code] / np.maximum(seen, 1.0)
    return f, np.frexp(seen)[1].astype(np.int64)


def fit(counts: tuple[Counts, ...], data: Bytes, targets: Integers) -> tuple[Reals, ...]:
    """Weights by expectation maximisation, order by order, each maximising the likelihood of `targets`."""
    p = lowest(counts[0], data, targets)
    weights: list[Reals] = []
    for order in range(1, len(counts)):
        f, bucket = relative(counts[order], data, targets)
        often = np.bincount(bucket, minlength=BUCKETS)
        w = np.full(BUCKETS, 0.5)
        w[0] = 0.0
        for _ in range(ROUNDS):
            ours = w[bucket] * f
            share = np.bincount(bucket, ours / (ours + (1 - w[bucket]) * p), minlength=BUCKETS)
            w = np.where(often > 0, np.minimum(share / np.maximum(often, 1), HIGHEST), w)
        weights.append(w)
        p = w[bucket] * f + (1 - w[bucket]) * p
    return tuple(weights)
