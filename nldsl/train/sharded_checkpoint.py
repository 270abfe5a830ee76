"""Checkpoints of several processes: each writes what it holds, in the format of torch (DCP).

The folder is there whole or not at all, as one of a single process: written under another name, checked
in by `state.json` with the sha256 of every file, renamed by the first process.  Shares are parts of whole
tensors, so any number of processes can read it, one too; and several can read what one has written.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import async_save, save
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from nldsl.train import checkpoint as saved
from nldsl.train.errors import fault
from nldsl.train.sharded_reading import Reader
from nldsl.train.sharded_writing import Writer

if TYPE_CHECKING:
    from nldsl.train.parallel import Processes

LEARNT = ("weights/", "optimiser/")
Shapes = dict[str, tuple[int, ...]]


@dataclass
class Pending:
    """A checkpoint that is being written: its future gives the sha256 of this process's files."""

    final: Path
    temporary: Path
    step: int
    rest: dict[str, Any]
    keep: int
    digests: Future[dict[str, str]]


class Saver:
    """Writes checkpoints of all processes; with `later` while training goes on."""

    def __init__(self, device: torch.device, *, later: bool) -> None:
        self.later = later
        # Threads that write have a group of their own: its messages mix neither with those of training
        # nor with what is agreed upon meanwhile, which a process may come to before or behind its thread.
        self.writing, self.agreeing = (dist.new_group(backend="gloo") for _ in range(2))
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.mesh = init_device_mesh(device.type, (self.world,))
        self.pending: Pending | None = None

    def save(self, folder: Path, found: saved.Checkpoint, *, keep: int, wait: bool) -> Path:
        """Write `found`, whose tensors are what this process holds.  Raises NL0973."""
        self.settle(wait=True)
        final, temporary = (folder / f"{name}-{found.step:08d}" for name in ("step", ".partial"))
        if self._first(lambda: _make_place(folder, final, temporary), final):
            return final
        tensors = self._named(found.tensors, found.rest["config"]["batch"])
        digests: Future[dict[str, str]] = Future()
        try:
            if self.later and not wait:
                self._write_later(tensors, temporary, digests)
            else:
                save(tensors, storage_writer=Writer(temporary), process_group=self.writing)
                digests.set_result(self._digests(temporary))
        except BaseException as error:  # DCP raises what is no `Exception`
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            digests.set_exception(error)
        rest = found.rest | {"processes": self.world}
        self.pending = Pending(final, temporary, found.step, rest, keep, digests)
        if wait or not self.later:
            self.settle(wait=True)
        return final

    def settle(self, *, wait: bool = False) -> None:
        """Once every process has written its part (or waiting for it), the whole gets its name.

        Raises NL0973 in every process if one could not write.
        """
        pending = self.pending
        if pending is None or not (wait or self._all(pending.digests.done())):
            return
        self.pending = None
        error = pending.digests.exception()
        mine = {} if error else pending.digests.result()
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, (mine, "" if error is None else _reason(error)), group=self.agreeing)
        wrong = next((said for _, said in found if said), "")
        if wrong:
            shutil.rmtree(pending.temporary, ignore_errors=True)
            raise saved.unwritten(pending.final, OSError(wrong), self._newest(pending.final))
        files = {name: digest for digests, _ in found for name, digest in digests.items()}
        self._first(lambda: _name(pending, files), pending.final)

    def _write_later(self, tensors: dict[str, Tensor], folder: Path, digests: Future[dict[str, str]]) -> None:
        """Copy the tensors now, write them in a thread."""

        def written(future: Future[Any]) -> None:
            error = future.exception()
            if error is not None:
                digests.set_exception(error)
                return
            try:
                digests.set_result(self._digests(folder))
            except OSError as unreadable:
                digests.set_exception(unreadable)

        writing = async_save(tensors, storage_writer=Writer(folder), process_group=self.writing)
        cast("Future[Any]", writing).add_done_callback(written)

    def _named(self, tensors: Mapping[str, Tensor], batch: int) -> dict[str, Tensor]:
        """What stands in the checkpoint: states carried from step to step are shares by row."""
        found: dict[str, Tensor] = {}
        for name, t in tensors.items():
            rows = name.startswith("carried/") and t.dim() > 0 and len(t) * self.world == batch
            found[name] = (
                DTensor.from_local(t, self.mesh, [Shard(0)], run_check=False) if rows else t.detach()
            )
        return found

    def _digests(self, folder: Path) -> dict[str, str]:
        """The sha256 of the files this process wrote."""
        own = sorted(folder.glob(f"__{self.rank}_*"))
        own += [folder / ".metadata"] if self.rank == 0 else []
        return {path.name: saved.digest_of(path) for path in own}

    def _first(self, work: Any, final: Path) -> bool:
        """What the first process finds when it does `work`.  Raises NL0973 in every process."""
        told: list[Any] = [False, ""]
        if self.rank == 0:
            try:
                told[0] = bool(work())
            except OSError as error:
                told[1] = _reason(error)
        dist.broadcast_object_list(told, src=0, group=self.agreeing)
        if told[1]:
            raise saved.unwritten(final, OSError(told[1]), self._newest(final))
        return bool(told[0])

    def _all(self, done: bool) -> bool:
        flag = torch.tensor(float(done))
        dist.all_reduce(flag, dist.ReduceOp.MIN, group=self.agreeing)
        return bool(flag)

    def _newest(self, final: Path) -> Path | None:
        return saved.newest_whole(saved.checkpoints(final.parent))


def by_row(rows: Tensor, mesh: DeviceMesh) -> Tensor:
    """The rows of this process as a share of those of all, which have equally many."""
    found: Tensor = DTensor.from_local(rows.detach(), mesh, [Shard(0)], run_check=False)
    return found


def _make_place(folder: Path, final: Path, temporary: Path) -> bool:
    """A place to write to; whether the checkpoint is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    saved.sweep(folder)
    if saved.is_whole(final):
        return True
    temporary.mkdir()
    return False


def _name(pending: Pending, files: dict[str, str]) -> None:
    """Write `state.json`, rename, and delete all but the newest."""
    saved.write_state(pending.temporary, pending.step, pending.rest, files, saved.SHARED)
    saved.discard(pending.final)
    pending.temporary.replace(pending.final)
    saved.sync_folder(pending.final.parent)
    for old in saved.checkpoints(pending.final.parent)[: -pending.keep]:
        saved.discard(old)


def _reason(error: BaseException) -> str:
    """Why something could not be written, in a few words."""
    inner = next(iter(getattr(error, "failures", {}).values()), error)
    found = inner[0] if isinstance(inner, tuple) else inner
    said = found.strerror if isinstance(found, OSError) else None
    return (said or str(found) or type(found).__name__).splitlines()[0]


def reader_of(path: Path) -> Reader:
    """What reads the tensors of a checkpoint, from files that its `state.json` lists."""
    return Reader(path, saved.described(path)["files"])


def table_of(path: Path) -> dict[str, TensorStorageMetadata]:
    """What torch has written about every tensor of a checkpoint."""
    return cast("dict[str, TensorStorageMetadata]", reader_of(path).read_metadata().state_dict_metadata)


def shapes_of(path: Path) -> Shapes:
    """The whole shapes of what a checkpoint holds, of either format."""
    if (path / saved.TENSORS).is_file():
        with safe_open(str(path / saved.TENSORS), framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    known = table_of(path)
    return {name: tuple(entry.size) for name, entry in known.items()}


def read_shares(path: Path, into: Mapping[str, Tensor]) -> None:
    """Fill tensors, whole ones or shares, from a checkpoint of either format."""
    if (path / saved.TENSORS).is_file():
        with safe_open(str(path / saved.TENSORS), framework="pt") as file:
            for name, t in into.items():
                _fill(t, file.get_tensor(name))
        return
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        # Every process reads what it needs by itself: those of a matrix need not know of each other.
        try:
            dcp_load(dict(into), storage_reader=reader_of(path), no_dist=True)
        except CheckpointException as error:  # which is no `Exception`
            raise ValueError(_reason(error)) from error


def _fill(target: Tensor, whole: Tensor) -> None:
    with torch.no_grad():
        if isinstance(target, DTensor):
            mesh = target.device_mesh
            each = -(-len(whole) // mesh.size())
            held = target.to_local()
            held.copy_(whole[mesh.get_local_rank() * each :][: len(held)])
        else:
            target.copy_(whole)


def read_whole(path: Path) -> dict[str, Tensor]:
    """Everything in a checkpoint of several processes, for one."""
    known = table_of(path)
    found = {name: torch.empty(m.size, dtype=m.properties.dtype) for name, m in known.items()}
    read_shares(path, found)
    return found


def load_shares(
    folder: Path, into: Mapping[str, Tensor], rows: int, processes: Processes
) -> saved.Checkpoint:
    """The newest checkpoint: `into` filled, carried states of this process, and plain data.

    Errors: NL0970, NL0971 as in one process; NL0986 if it is of another model or rule.
    """
    found = processes.led(lambda: saved.newest(folder))
    try:
        body, shapes = saved.described(found), shapes_of(found)
    except saved.DAMAGE as error:
        raise processes.stop(
            fault("NL0971", f"the checkpoint `{found}` is damaged: {error}", help="train again")
        ) from error
    _require_same(shapes, into, processes)
    carried: dict[str, Tensor] = {}
    mesh = processes.saver.mesh
    kinds = _types(found, [n for n in shapes if not n.startswith(LEARNT)])
    for name, dtype in kinds.items():
        shape = shapes[name]
        shared = name.startswith("carried/") and shape[:1] == (rows,)
        size = (rows // processes.world, *shape[1:]) if shared else shape
        t = torch.zeros(size, dtype=dtype, device=processes.device if shared else "cpu")
        carried[name] = by_row(t, mesh) if shared else t
    read_shares(found, {**into, **carried})
    local = {n: t.to_local() if isinstance(t, DTensor) else t for n, t in carried.items()}
    return saved.Checkpoint(int(body["step"]), {**into, **local}, body["rest"])


def _types(path: Path, names: Sequence[str]) -> dict[str, torch.dtype]:
    """The types of some tensors of a checkpoint."""
    if (path / saved.TENSORS).is_file():
        with safe_open(str(path / saved.TENSORS), framework="pt") as file:
            return {name: file.get_tensor(name).dtype for name in names}
    known = table_of(path)
    return {name: known[name].properties.dtype for name in names}


def _require_same(shapes: Shapes, into: Mapping[str, Tensor], processes: Processes) -> None:
    """Raise NL0986 unless names, of all processes together, and shapes are those of this run."""
    everyone: list[Any] = [None] * processes.world
    dist.all_gather_object(everyone, {name: tuple(t.shape) for name, t in into.items()})
    wanted: Shapes = {name: shape for named in everyone for name, shape in named.items()}
    there = {name: shape for name, shape in shapes.items() if name.startswith(LEARNT)}
    for name in sorted(wanted.keys() | there.keys()):
        have, want = there.get(name, "nothing"), wanted.get(name, "nothing")
        if have != want:
            raise processes.stop(
                fault("NL0986", f"the checkpoint has {have} for `{name}`, and the run wants {want}")
            )
