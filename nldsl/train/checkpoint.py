"""Checkpoints: a folder with tensors (safetensors) and the rest (JSON), written atomically, never pickled.

A checkpoint is written into a temporary folder, synced to the disk, and renamed: it is there whole
or not at all.  `state.json` holds the sha256 of the tensors and of its own content.  Several processes
write their tensors in the format of torch instead (`sharded_checkpoint`); both are read here.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nldsl.diagnostics import SpecError
from nldsl.train.errors import fault

FORMAT, SHARED = 1, 2
"""The formats of one process and of several."""
TENSORS, STATE = "tensors.safetensors", "state.json"
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError)
"""What reading a damaged checkpoint raises."""


@dataclass(frozen=True)
class Checkpoint:
    """What is saved at a step: `weights/...`, `optimiser/...` and `rng/...` tensors, and plain data."""

    step: int
    tensors: dict[str, Tensor]
    rest: dict[str, Any]

    def section(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under `prefix/`, without the prefix."""
        start = f"{prefix}/"
        return {name[len(start) :]: t for name, t in self.tensors.items() if name.startswith(start)}


def write_text(path: Path, text: str) -> None:
    """Replace a file by `text`: written beside it, synced, renamed."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def save(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Save below `folder` as `step-<number>`, and delete all but the newest `keep`.

    A whole checkpoint of the same step stays as it is.  Raises NL0973 if the system cannot write it
    (disk full, read-only): those that are there stay whole.
    """
    final = folder / f"step-{checkpoint.step:08d}"
    temporary = folder / f".partial-{checkpoint.step:08d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        if not is_whole(final):
            write_folder(temporary, checkpoint)
            discard(final)
            temporary.replace(final)
            sync_folder(folder)
        for old in checkpoints(folder)[:-keep]:
            discard(old)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise unwritten(final, error, newest_whole(checkpoints(folder))) from error
    return final


def write_folder(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint into a new folder and have the disk hold it."""
    folder.mkdir()
    tensors = {name: t.detach().contiguous().cpu() for name, t in checkpoint.tensors.items()}
    save_file(tensors, folder / TENSORS)
    sync_file(folder / TENSORS)
    write_state(folder, checkpoint.step, checkpoint.rest, {TENSORS: digest_of(folder / TENSORS)})


def write_state(
    folder: Path, step: int, rest: dict[str, Any], files: dict[str, str], format: int = FORMAT
) -> None:
    """Write `state.json`: the plain data, and the sha256 of every file by its name."""
    body: dict[str, Any] = {"format": format, "step": step, "rest": rest}
    body |= {"tensors_sha256": files[TENSORS]} if format == FORMAT else {"files": files}
    write_text(folder / STATE, json.dumps(body | {"sha256": digest_of_json(body)}, indent=1) + "\n")


def discard(path: Path) -> None:
    """Delete a checkpoint; half deleted it bears no checkpoint's name."""
    if path.exists():
        doomed = path.with_name(f".deleted-{path.name}")
        path.replace(doomed)
        shutil.rmtree(doomed)


def sweep(folder: Path) -> None:
    """Delete what a process that was killed has left half written or half deleted."""
    for pattern in (".partial-*", ".deleted-*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path)


def unwritten(path: Path, error: Exception, before: Path | None) -> SpecError:
    """NL0973: what could not be written, why, and what is left."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    left = f"the newest whole checkpoint is `{before}`" if before else "there is no whole checkpoint"
    return fault(
        "NL0973",
        f"the checkpoint `{path}` cannot be written: {reason.lower()}",
        notes=(left,),
        help="make room or give permission, then go on with `--resume`",
    )


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is there and its checksums are right."""
    try:
        verified(path)
    except DAMAGE:
        return False
    return True


def newest_whole(found: Sequence[Path]) -> Path | None:
    """The last of these checkpoints that is whole."""
    return next((path for path in reversed(found) if is_whole(path)), None)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints below `folder`, oldest first."""
    return sorted(p for p in folder.glob("step-*") if p.is_dir())


def verified(path: Path) -> dict[str, Any]:
    """The plain data of a checkpoint whose checksums are right; raises one of `DAMAGE` otherwise."""
    body = described(path)
    files = {TENSORS: body["tensors_sha256"]} if body["format"] == FORMAT else body["files"]
    if any(digest_of(path / name) != digest for name, digest in files.items()):
        raise ValueError("checksums differ")
    return body


def described(path: Path) -> dict[str, Any]:
    """The plain data of a checkpoint, whose tensors are not looked at; raises one of `DAMAGE`."""
    body: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
    if body.pop("sha256") != digest_of_json(body) or body["format"] not in (FORMAT, SHARED):
        raise ValueError("checksums differ")
    return body


def tensors_of(path: Path, body: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint."""
    if body["format"] == FORMAT:
        return load_file(path / TENSORS)
    # The import takes longer than most checkpoints of one process.
    from nldsl.train.sharded_checkpoint import read_whole

    return read_whole(path)


def load(path: Path, instead: str = "") -> Checkpoint:
    """Read one checkpoint.  Raises NL0971 if it is damaged or of another format; `instead` is the help."""
    try:
        body = verified(path)
        return Checkpoint(int(body["step"]), tensors_of(path, body), body["rest"])
    except DAMAGE as error:
        raise fault("NL0971", f"the checkpoint `{path}` is damaged: {error}", help=instead) from error


def load_newest(folder: Path) -> Checkpoint:
    """The newest checkpoint.  Raises NL0970 if there is none, NL0971 if it is damaged.

    A damaged one is not skipped in silence: the finding names the newest whole one before it.
    """
    return load(newest(folder))


def newest(folder: Path) -> Path:
    """Where the newest checkpoint is, which is whole.  Raises as `load_newest`."""
    found = checkpoints(folder)
    if not found:
        raise fault(
            "NL0970", f"no checkpoint in `{folder}`", help="train first: `nldsl train SPEC --out RUN`"
        )
    if is_whole(found[-1]):
        return found[-1]
    before = newest_whole(found[:-1])
    help = f"delete what is newer to go on from `{before.name}`" if before else "train again"
    load(found[-1], help)
    return found[-1]


def digest_of(path: Path) -> str:
    """The sha256 of a file."""
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def digest_of_json(body: Mapping[str, Any]) -> str:
    """The sha256 of plain data, however its keys are ordered."""
    return sha256(json.dumps(body, sort_keys=True).encode("utf-8")).hexdigest()


def sync_file(path: Path) -> None:
    """Have the disk hold what was written to a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Have the disk hold the names in a folder, where the system can say so."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
