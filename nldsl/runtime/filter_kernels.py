"""Kernels of a pass over chunks from the gates of its tokens, as a function of tensors and of what is none.

Shapes as in `filters`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.filtered import Kernels
from nldsl.runtime.filters import MomentumFilter, Place, Places
from nldsl.runtime.state_filter import StateFilter


class MomentumGates(NamedTuple):
    """The tensors that a `MomentumFilter` is made from."""

    gates: Tensor
    momentum: Tensor
    read: Tensor | None


class MomentumForm(NamedTuple):
    """The rest: whether they are logarithms, and where the memory takes up its momentum."""

    gates_log: bool
    momentum_log: bool
    write: Place

    def filter(self, given: MomentumGates) -> MomentumFilter:
        """The filter of some gates."""
        gates, momentum, read = given
        return MomentumFilter(gates, self.gates_log, momentum, self.momentum_log, read, self.write)


class KernelForm(NamedTuple):
    """Where pieces look (`above`) and write (`below`), and the place of the read.

    `late`: one piece that looks before its token does anything, and a read behind everything.
    """

    filter: MomentumForm
    above: Places
    below: Places
    place: Place
    late: bool

    def kernels(self, gates: Tensor, momentum: Tensor, read: Tensor | None) -> Kernels:
        """Kernels `[X, ..]`."""
        return self.of(self.filter.filter(MomentumGates(gates, momentum, read)))

    def of(self, found: MomentumFilter | StateFilter) -> Kernels:
        """Those of a filter that is there already."""
        return kernels_of(found, self.above, self.below, self.place, self.late)


def kernels_of(
    found: MomentumFilter | StateFilter, above: Places, below: Places, place: Place, late: bool
) -> Kernels:
    """What pieces and the read see through a filter, `[X, ..]` (see `KernelForm`)."""
    read, carried = found.weights((place,), below), found.front((place,))
    end, total = found.behind(below), found.total.squeeze(-1)
    # The usual case: writes look at the state behind the token before, reads at that behind their own.
    if late:
        first = torch.zeros_like(carried[:, :1])
        first[..., 0] = 1.0
        fading = torch.cat([first, carried[:, :-1]], 1)
        return Kernels(None, read, fading, carried, end, total)
    return Kernels(found.weights(above, below), read, found.front(above), carried, end, total)
