"""How the benchmarks measure: CPU time of this process, the best of interleaved rounds.

CPU time on one thread is not lengthened by what others run on the machine (though a shared cache still
shows); interleaving lets slow phases of the machine hit every case alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def best_seconds(
    cases: Mapping[str, Callable[[], object]],
    rounds: int,
    before: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, float]:
    """The shortest CPU time of every case over `rounds`, after one call to warm up.

    before: what is done before each call of a case and not counted.
    """
    for case in cases.values():
        case()
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for name, case in cases.items():
            if before is not None:
                before[name]()
            started = time.process_time()
            case()
            best[name] = min(best[name], time.process_time() - started)
    return best


def saved_megabytes(forward: Callable[[], object]) -> float:
    """MiB of distinct storages that `forward` keeps for its backward pass."""
    seen: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        kept = forward()
    del kept
    return sum(seen.values()) / 2**20
