"""Checkpoints of several processes: whole or refused, and what is in them is data, never code."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    BytesStorageMetadata,
    Metadata,
)
from torch.distributed.checkpoint.state_dict_saver import save

from nldsl.diagnostics import SpecError
from nldsl.train import checkpoint as saved
from nldsl.train.sharded_reading import TABLE

TENSORS = {
    "weights/a": torch.arange(6.0).view(3, 2),
    "optimiser/0/a:step": torch.tensor(3.0, dtype=torch.float64),
    "weights/half": torch.ones(4, dtype=torch.bfloat16),
    "carried/0/count": torch.tensor([7, 8]),
    "carried/0/flag": torch.tensor([True, False]),
    "rng/torch": torch.get_rng_state(),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint as processes write it."""
    path = tmp_path / "checkpoints" / "step-00000003"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(dict(TENSORS), checkpoint_id=path, no_dist=True)
    checked_in(path)
    return path


def checked_in(path: Path) -> None:
    """Checksums of what lies there now: those of somebody who has made the folder himself are right."""
    files = {p.name: saved.digest_of(p) for p in path.iterdir() if p.name != saved.STATE}
    saved.write_state(path, 3, {"seconds": 0.0}, files, saved.SHARED)


def refused(path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        saved.load(path)
    assert caught.value.diagnostics[0].code == "NL0971"
    return caught.value.diagnostics[0].message


def test_everything_comes_back(folder: Path) -> None:
    found = saved.load(folder)
    assert found.step == 3 and found.tensors.keys() == TENSORS.keys()
    for name, t in TENSORS.items():
        assert found.tensors[name].dtype == t.dtype and torch.equal(found.tensors[name], t), name


class Code:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def changed(path: Path, change: Callable[[Metadata], object]) -> None:
    table = pickle.loads((path / TABLE).read_bytes())
    (path / TABLE).write_bytes(pickle.dumps(change(table) or table))
    checked_in(path)


def test_code_in_the_table_is_not_run(folder: Path, tmp_path: Path) -> None:
    changed(folder, lambda _: Code(tmp_path / "ran"))
    assert "`posix.mkdir`" in refused(folder) or os.name == "nt"
    changed_back = pickle.loads((folder / TABLE).read_bytes())  # the attack itself works
    assert changed_back is None and (tmp_path / "ran").is_dir()


class Attribute:
    """What Python up to 3.11.3 makes of a member of an enumeration, of anything."""

    def __init__(self, kind: object, name: str) -> None:
        self.asked = kind, name

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, self.asked


def test_members_of_enumerations_alone_are_attributes(folder: Path) -> None:
    def told(kind: object, name: str) -> Callable[[Metadata], object]:
        return lambda table: replace(table, planner_data=Attribute(kind, name))

    plain = (folder / TABLE).read_bytes()
    changed(folder, told(_MEM_FORMAT_ENCODING, "TORCH_CONTIGUOUS_FORMAT"))
    assert saved.load(folder).step == 3
    for kind, name in ((_MEM_FORMAT_ENCODING, "mro"), (Metadata, "__init__"), (Path, "unlink")):
        (folder / TABLE).write_bytes(plain)
        changed(folder, told(kind, name))
        assert "asks for an attribute" in refused(folder)


def test_code_in_an_entry_is_not_run(folder: Path, tmp_path: Path) -> None:
    """An entry of bytes is what torch would unpickle."""

    def entry(table: Metadata) -> None:
        table.state_dict_metadata["weights/a"] = BytesStorageMetadata()

    changed(folder, entry)
    assert "`weights/a` is no tensor" in refused(folder)


def test_files_beside_the_checkpoint_are_not_read(folder: Path) -> None:
    def elsewhere(table: Metadata) -> None:
        assert table.storage_data is not None
        for info in table.storage_data.values():
            info.relative_path = "../../secret"

    changed(folder, elsewhere)
    assert "`../../secret`" in refused(folder)


@pytest.mark.parametrize("name", [TABLE, "__0_0.distcp"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("sums", [False, True], ids=["as found", "checked in"])
def test_truncated_files_are_refused(folder: Path, name: str, keep: float, sums: bool) -> None:
    """By their checksums; and where these were made behind the cut, by what cannot be read."""
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(keep * len(content))])
    if sums:
        checked_in(folder)
    assert "damaged" in refused(folder)


def test_the_one_before_is_named(folder: Path) -> None:
    os.rename(folder, folder.with_name("step-00000001"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(dict(TENSORS), checkpoint_id=folder, no_dist=True)
    checked_in(folder)
    (folder / "__0_0.distcp").unlink()
    with pytest.raises(SpecError) as caught:
        saved.load_newest(folder.parent)
    assert "step-00000001" in (caught.value.diagnostics[0].help or "")
