"""Checkpoints: a folder with tensors (safetensors) and the rest (JSON), written atomically, never pickled.

A checkpoint is written into a temporary folder, synced to the disk, and renamed: it is there whole
or not at all.  `state.json` holds the sha256 of the tensors and of its own content.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nldsl.train.errors import fault

FORMAT = 1
TENSORS, STATE = "tensors.safetensors", "state.json"


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
    """Save below `folder` as `step-<number>`, and delete all but the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{checkpoint.step:08d}"
    temporary = folder / f".partial-{checkpoint.step:08d}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    tensors = {name: t.detach().contiguous().cpu() for name, t in checkpoint.tensors.items()}
    save_file(tensors, temporary / TENSORS)
    body = {
        "format": FORMAT,
        "step": checkpoint.step,
        "tensors_sha256": digest_of(temporary / TENSORS),
        "rest": checkpoint.rest,
    }
    sync_file(temporary / TENSORS)
    write_text(temporary / STATE, json.dumps(body | {"sha256": digest_of_json(body)}, indent=1) + "\n")
    if final.exists():
        shutil.rmtree(final)
    temporary.replace(final)
    sync_folder(folder)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints below `folder`, oldest first."""
    return sorted(p for p in folder.glob("step-*") if p.is_dir())


def load(path: Path, instead: str = "") -> Checkpoint:
    """Read one checkpoint.  Raises NL0971 if it is damaged or of another format; `instead` is the help."""
    try:
        body = json.loads((path / STATE).read_text(encoding="utf-8"))
        whole = body.pop("sha256") == digest_of_json(body) and body["format"] == FORMAT
        if not whole or digest_of(path / TENSORS) != body["tensors_sha256"]:
            raise ValueError("checksums differ")
        return Checkpoint(int(body["step"]), load_file(path / TENSORS), body["rest"])
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise fault("NL0971", f"the checkpoint `{path}` is damaged: {error}", help=instead) from error


def load_newest(folder: Path) -> Checkpoint:
    """The newest checkpoint.  Raises NL0970 if there is none, NL0971 if it is damaged.

    A damaged one is not skipped in silence: the finding names the one before it.
    """
    found = checkpoints(folder)
    if not found:
        raise fault(
            "NL0970", f"no checkpoint in `{folder}`", help="train first: `nldsl train SPEC --out RUN`"
        )
    before = f"delete it to go on from `{found[-2].name}`" if len(found) > 1 else "train again"
    return load(found[-1], before)


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
