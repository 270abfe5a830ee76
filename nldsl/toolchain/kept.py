"""Shared objects that are kept from one process to the next, in a folder of the user.

The name of a file has what it was made of and what is in it: it appears as a whole or not at all, whoever
else writes the same, and one that is damaged is known before it is loaded.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from nldsl.toolchain.compiler import OFF

VARIABLE = "NLDSL_CACHE_DIR"
ROOM = 256 * 2**20
"""Bytes that are kept; files that have not been used for longest go first."""
UNFINISHED = ".new-"
"""How files begin that are being written."""
ABANDONED = 3600.0
"""Seconds after which nobody writes such a file any more."""


class Place(NamedTuple):
    """The folder, or none and the reason."""

    folder: Path | None
    reason: str = ""


def place(make: bool = True) -> Place:
    """Where libraries are kept: `NLDSL_CACHE_DIR`, or `nldsl` among the caches of the user.

    `make`: the folder is made if there is none.  Only one that is the user's own, and nobody else's to read
    or write, is used: what lies there will be run.
    """
    folder = _wanted()
    if folder is None:
        return Place(None, f"`{VARIABLE}` switches it off" if VARIABLE in os.environ else "no home folder")
    try:
        if make:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
        elif not folder.exists():
            return Place(folder)
        fault = _fault(folder.lstat())
    except OSError as error:
        return Place(None, f"`{error.filename or folder}`: {error.strerror}")
    return Place(None, f"`{folder}` {fault}") if fault else Place(folder)


def _wanted() -> Path | None:
    asked = os.environ.get(VARIABLE)
    if asked is not None:
        return None if asked.strip().lower() in ("", *OFF) else Path(asked).expanduser() / "native"
    caches = os.environ.get("XDG_CACHE_HOME", "")
    try:
        root = Path(caches) if os.path.isabs(caches) else Path.home() / ".cache"
    except RuntimeError:
        return None
    return root / "nldsl" / "native"


def _fault(facts: os.stat_result) -> str:
    if not stat.S_ISDIR(facts.st_mode):
        return "is no folder"
    if hasattr(os, "getuid") and facts.st_uid != os.getuid():
        return "belongs to another user"
    return "is open to others (`chmod 700` it)" if facts.st_mode & 0o077 and os.name == "posix" else ""


def key_of(parts: Iterable[str]) -> str:
    """A name for what is made of all these texts.

    >>> key_of(["a", "bc"]) == key_of(["ab", "c"])
    False
    """
    told = hashlib.sha256()
    for part in parts:
        text = part.encode()
        told.update(f"{len(text)}:".encode() + text)
    return told.hexdigest()[:40]


def found(folder: Path, key: str) -> Path | None:
    """The library of a key, if it is there and whole; one that is not goes."""
    for path in sorted(folder.glob(f"{key}-*.so")):
        try:
            if path.stem.rpartition("-")[2] == _digest(path.read_bytes()):
                with suppress(OSError):
                    os.utime(path)
                return path
            path.unlink()
        except OSError:
            continue
    return None


def drop(library: Path) -> None:
    """Keep a library no longer: it is whole, but cannot be loaded here."""
    with suppress(OSError):
        library.unlink()


def keep(folder: Path, key: str, library: Path) -> None:
    """Keep a library under its key; where that cannot be, nothing is kept."""
    with suppress(OSError):
        data = library.read_bytes()
        handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(name, folder / f"{key}-{_digest(data)}.so")
        except OSError:
            os.unlink(name)
            raise
        _bound(folder)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:40]


class Kept(NamedTuple):
    """A file, and what it is."""

    used: float
    size: int
    path: Path


def libraries(folder: Path) -> list[Kept]:
    """All that is kept, what has been used last at the end."""
    known = []
    with suppress(OSError):
        for path in folder.glob("*.so"):
            with suppress(OSError):
                facts = path.stat()
                known.append(Kept(facts.st_mtime, facts.st_size, path))
    return sorted(known)


def _bound(folder: Path) -> None:
    known = libraries(folder)
    over = sum(x.size for x in known) - ROOM
    for one in known:
        if over <= 0:
            break
        with suppress(OSError):
            one.path.unlink()
        over -= one.size
    for path in folder.glob(f"{UNFINISHED}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
