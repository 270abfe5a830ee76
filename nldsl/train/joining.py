"""One process or one of many: what `torchrun` put into the environment, and what the command asks."""

from __future__ import annotations

import os
from pathlib import Path

from nldsl.train.engine import Engine
from nldsl.train.errors import fault, option

KINDS = ("auto", "ddp", "fsdp")
BACKENDS = ("auto", "gloo", "nccl")
STARTED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What `torchrun` tells each process."""


def join(
    parallel: str = "auto", *, backend: str = "auto", device: str = "cpu", async_save: bool = False
) -> Engine:
    """The engine of this process.

    parallel: `ddp` (every process holds the model) or `fsdp` (each holds its share); `auto` is `ddp` where
    there are other processes.  backend: `gloo`, `nccl`, or `auto`: by the device.  async_save: checkpoints
    are written while training goes on.

    Errors: NL0981 for an unknown word, NL0992 for processes, backends or devices that are not there.

    Example:
        >>> join().world
        1
    """
    for name, value, known in (("parallel", parallel, KINDS), ("backend", backend, BACKENDS)):
        if value not in known:
            raise fault("NL0981", f"`{option(name)}` is one of {', '.join(known)}, found `{value}`")
    others = int(os.environ.get("WORLD_SIZE", "1")) > 1
    kind = "ddp" if parallel == "auto" and others else parallel
    if kind == "auto":
        if async_save or backend != "auto":
            name = "async-save" if async_save else "backend"
            raise fault("NL0992", f"`--{name}` is for runs of several processes", help=advice())
        return Engine(device)
    missing = [name for name in STARTED if name not in os.environ]
    if missing:
        raise fault("NL0992", f"`--parallel {kind}`: there is no `{missing[0]}`", help=advice())
    # One process needs none of torch.distributed, whose import takes as long as all the rest.
    from nldsl.train.parallel import engine_of

    return engine_of(kind, backend=backend, device=device, async_save=async_save)


def advice() -> str:
    """How processes are started."""
    return "start them with `torchrun --nproc-per-node N -m nldsl train SPEC --out RUN ...`"


def restarted(run: Path) -> bool:
    """Whether `torchrun` has started these processes anew after a failure, in a run that had begun."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0 and run.is_file()
