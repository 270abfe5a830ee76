"""Checkpoints in torch's format, read without running what they hold.

DCP keeps its table of contents as a pickle, and a pickle can name any function to call.  Here it may name
nothing but the classes of that table; no entry may be an object (torch would unpickle it), and no tensor may
lie in a file that `state.json` does not list.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

TABLE = ".metadata"
_CHECKPOINT = "torch.distributed.checkpoint"
ALLOWED = frozenset(
    {
        *((f"{_CHECKPOINT}.metadata", name) for name in ("Metadata", "MetadataIndex", "StorageMeta")),
        *((f"{_CHECKPOINT}.metadata", f"{kind}StorageMetadata") for kind in ("Tensor", "Chunk", "Bytes")),
        *((f"{_CHECKPOINT}.metadata", name) for name in ("TensorProperties", "_MEM_FORMAT_ENCODING")),
        (f"{_CHECKPOINT}.filesystem", "_StorageInfo"),
        ("torch", "Size"),
        ("torch.serialization", "_get_layout"),
        *(("pathlib", name) for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")),
    }
)
"""What a table of contents consists of, besides the types of tensors."""


class _Table(pickle.Unpickler):
    """Names nothing but what is `ALLOWED`."""

    def find_class(self, module: str, name: str) -> Any:
        """One of the allowed classes, or a type of torch.  Raises `ValueError` for anything else."""
        if (module, name) in ALLOWED or (
            module == "torch" and isinstance(getattr(torch, name, 0), torch.dtype)
        ):
            return super().find_class(module, name)
        if (module, name) == ("builtins", "getattr"):
            return _member
        raise ValueError(f"its table of contents names `{module}.{name}`, which is none of a checkpoint's")


def _member(kind: object, name: str) -> Enum:
    """A member of an enumeration: Python up to 3.11.3 writes it as `getattr(kind, name)`."""
    if isinstance(kind, type) and issubclass(kind, Enum) and name in kind.__members__:
        return kind[name]
    raise ValueError("its table of contents asks for an attribute, which is none of a checkpoint's")


class Reader(FileSystemReader):
    """Reads tensors of a checkpoint folder, and nothing else.

    `files`: those whose checksums are known.  Errors: `ValueError` for a table that names other things.
    """

    def __init__(self, path: Path, files: Collection[str]) -> None:
        super().__init__(path)
        self.folder, self.files = path, frozenset(files)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The table of contents."""
        try:
            with (self.folder / TABLE).open("rb") as file:
                found = _Table(file).load()
        except (pickle.UnpicklingError, EOFError, IndexError, ImportError, MemoryError) as error:
            raise ValueError(f"its table of contents cannot be read: {error}") from error
        self._require_tensors(found)
        meta = found.storage_meta or StorageMeta()
        meta.load_id = self.load_id
        found.storage_meta = meta
        metadata: Metadata = found
        return metadata

    def _require_tensors(self, found: Any) -> None:
        if not isinstance(found, Metadata) or not isinstance(found.storage_data, dict):
            raise ValueError("its table of contents is none")
        for name, entry in found.state_dict_metadata.items():
            if not isinstance(entry, TensorStorageMetadata):
                raise ValueError(f"`{name}` is no tensor")
        for info in found.storage_data.values():
            if info.relative_path not in self.files or getattr(info, "transform_descriptors", None):
                raise ValueError(f"it has a tensor in `{info.relative_path}`, which is none of its files")
