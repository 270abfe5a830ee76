"""How the benchmarks measure: CPU time of this process, the best of interleaved rounds.

CPU time on one thread is not lengthened by what others run on the machine (though a shared cache still
shows); interleaving lets slow phases of the machine hit every case alike.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor


def heading(text: str | None, threads: int = 1) -> None:
    """Print `about`."""
    print(about(text, threads), flush=True)


def about(text: str | None, threads: int = 1) -> str:
    """What a benchmark measures, from its docstring without the lines of commands, and on what.

    >>> print(about("Products.\\n\\n    python -m benchmarks.products\\n\\nGFLOP/s.").partition("[")[0])
    Products.
    <BLANKLINE>
    GFLOP/s.
    <BLANKLINE>
    <BLANKLINE>
    """
    lines = [line for line in (text or "").strip().splitlines() if "python -m" not in line]
    paragraphs = "\n".join(line.rstrip() for line in lines).split("\n\n")
    told = "\n\n".join(p.strip("\n") for p in paragraphs if p.strip()).replace("`", "")
    return f"{told}\n\n[{machine(threads)}]\n"


def needs_linux() -> None:
    """End with a message where peaks of memory cannot be read."""
    if not Path("/proc/self/clear_refs").exists():
        raise SystemExit("this needs Linux: peaks of memory come from /proc")


def aligned(cells: Sequence[str], widths: Sequence[int], named: int = 1) -> str:
    """A row of a table that is markdown and reads well as it is; numbers stand behind `named` names.

    >>> aligned(["a", "1.5"], [4, 6])
    '| a    |    1.5 |'
    """
    pairs = enumerate(zip(cells, widths, strict=True))
    return "| " + " | ".join(f"{c:<{w}}" if i < named else f"{c:>{w}}" for i, (c, w) in pairs) + " |"


def rule(widths: Sequence[int], named: int = 1) -> str:
    """The line below the names of the columns."""
    return (
        "|"
        + "|".join("-" * (w + 2) if i < named else "-" * (w + 1) + ":" for i, w in enumerate(widths))
        + "|"
    )


def machine(threads: int = 1) -> str:
    """The processor, how busy it has been in the last minute, the versions, and the threads measured with.

    >>> "torch" in machine()
    True
    """
    cpus, several = os.cpu_count() or 1, "s" if threads > 1 else ""
    return (
        f"{processor()}, {cpus} cores, load {os.getloadavg()[0]:.1f}; torch {torch.__version__}, "
        f"Python {platform.python_version()}, {threads} thread{several}"
    )


def processor() -> str:
    """Its name as the system knows it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


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
