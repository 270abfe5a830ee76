"""Windows that respect documents: where they begin, and what they hold.  Padding is -1.

A corpus of documents is its tokens one after the other, and the offsets `[documents + 1]` where they
begin.  A window holds at most `length` predictions of one document; a state never crosses into another.
With labels every token is a prediction of its own: a window is `[length, 2]`, tokens and their labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.unsignedinteger[Any]]
Offsets = npt.NDArray[np.int64]
Windows = npt.NDArray[np.signedinteger[Any]]
PADDING = -1


@dataclass(frozen=True)
class Documents:
    """Tokens and the offsets of the documents in them.

    Example:
        >>> documents = Documents(np.frombuffer(b"abcdexyz", np.uint8), np.array([0, 5, 8]))
        >>> documents.predictions
        6
        >>> [bytes(w[w >= 0].astype(np.uint8)) for w in documents.spread(length=3, limit=9)]
        [b'abcd', b'de', b'xyz']
    """

    data: Tokens
    offsets: Offsets
    labels: npt.NDArray[np.int32] | None = None
    courses: dict[tuple[int, int], tuple[Offsets, Offsets]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @cached_property
    def ends(self) -> Offsets:
        """Behind how many predictions every document ends."""
        return np.cumsum(self.own, dtype=np.int64)

    @cached_property
    def own(self) -> Offsets:
        """How many predictions every document has; without labels nothing predicts its first token."""
        counts: Offsets = np.diff(self.offsets) - (self.labels is None)
        return np.maximum(counts, 0)

    @property
    def predictions(self) -> int:
        """Tokens that have one before them in their document, or a label."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def drawn(self, raw: npt.NDArray[np.uint64], length: int) -> Windows:
        """A window `[n, length + 1]` for every random number: each prediction is equally likely to be hit.

        A window that would reach beyond its document is moved forward, or is as long as the document.
        """
        hit = (raw % np.uint64(self.predictions)).astype(np.int64)
        document = np.searchsorted(self.ends, hit, side="right")
        own = self.own[document]
        within = hit - (self.ends[document] - own)
        starts = np.minimum(within, np.maximum(own - length, 0))
        counts = np.minimum(length, own)
        return self.cut(self.offsets[document] + starts, counts, length)

    def read_on(
        self, *, step: int, rows: int, length: int, seed: int
    ) -> tuple[Windows, npt.NDArray[np.bool_]]:
        """The windows of a step whose rows read on where they stopped, and which rows begin a document.

        Documents follow each other in an order that depends on `seed`, each cut in windows from its start.
        Row r of R begins at window r W / R of all W and takes the next one at every step, so W / R steps
        read everything once.  A pure function of its arguments.
        """
        order, upto = self.course(length, seed)
        total = int(upto[-1])
        chosen = (np.arange(rows, dtype=np.int64) * total // rows + step) % total
        place = np.searchsorted(upto, chosen, side="right")
        document = order[place]
        own = self.own[document]
        first = (chosen - (upto[place] - -(-own // length))) * length
        windows = self.cut(self.offsets[document] + first, np.minimum(length, own - first), length)
        return windows, (first == 0) | (step == 0)

    def course(self, length: int, seed: int) -> tuple[Offsets, Offsets]:
        """Documents in the order in which they are read, and how many windows there are up to each."""
        known = self.courses.get((length, seed))
        if known is None:
            raw = np.random.Philox(key=[seed & (2**64 - 1), 2**63]).random_raw(len(self.offsets) - 1)
            order = np.argsort(raw, kind="stable").astype(np.int64)
            own = self.own[order]
            known = self.courses[length, seed] = order, np.cumsum(-(-own // length), dtype=np.int64)
        return known

    def spread(self, *, length: int, limit: int) -> Windows:
        """At most `limit` windows, evenly spread, of those that documents fall into from their starts."""
        own = self.own
        upto = np.cumsum(-(-own // length), dtype=np.int64)
        total = int(upto[-1])
        count = min(limit, total)
        chosen = np.arange(count, dtype=np.int64) * total // count
        document = np.searchsorted(upto, chosen, side="right")
        first = (chosen - (upto[document] - -(-own[document] // length))) * length
        return self.cut(self.offsets[document] + first, np.minimum(length, own[document] - first), length)

    def cut(self, starts: Offsets, counts: Offsets, length: int) -> Windows:
        """The windows of these first tokens and numbers of predictions, padded behind."""
        if self.labels is not None:
            pairs: Windows = np.full((len(starts), length, 2), PADDING, dtype=np.int64)
            for row, start, count in zip(pairs, starts, counts, strict=True):
                row[:count, 0] = self.data[start : start + count]
                row[:count, 1] = self.labels[start : start + count]
            return pairs
        dtype = np.int16 if self.data.dtype.itemsize == 1 else np.int64
        windows: Windows = np.full((len(starts), length + 1), PADDING, dtype=dtype)
        for row, start, count in zip(windows, starts, counts, strict=True):
            row[: count + 1] = self.data[start : start + count + 1]
        return windows
