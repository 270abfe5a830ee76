"""Finding the files of a data source."""

from __future__ import annotations

import os
import sysconfig
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from nldsl.train.errors import fault

STDLIB = "python-stdlib"
TEXT_SUFFIXES = frozenset(
    ".c .cfg .cpp .csv .css .h .hpp .html .ini .java .js .json .jsonl .lark .md .nl .py .rs .rst .sh .svg "
    ".tex .toml .ts .tsv .txt .xml .yaml .yml".split()
)
SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
LIBRARY_TESTS = frozenset({"test", "tests", "idle_test"})
"""Some systems ship Python without its own tests; without them the source is nearly the same everywhere."""
SNIFF = 8192


@dataclass(frozen=True)
class Found:
    """The files of a source as (name within it, path), in order of name, and how many were left out."""

    source: str
    files: tuple[tuple[str, Path], ...]
    left_out: int


def discover(source: str, also: frozenset[str] = frozenset()) -> Found:
    """Find what `source` (a file, a folder, or `python-stdlib`) has to offer.

    Of a folder text files are taken, and those whose suffix is in `also`.

    Raises `SpecError`: NL0951 if there is no such file or folder, NL0952 if one cannot be read.
    """
    if source == STDLIB:
        root = Path(sysconfig.get_paths()["stdlib"])
        names = walk(root, SKIPPED_FOLDERS | LIBRARY_TESTS)
        return keep(source, root, [name for name in names if name.endswith(".py")])
    path = Path(source)
    if path.is_dir():
        return keep(source, path, walk(path, SKIPPED_FOLDERS), also)
    if not path.is_file():
        raise fault(
            "NL0951",
            f"no such file or folder: `{source}`",
            help=f"give a file, a folder, or `{STDLIB}` (the text of Python's own library)",
        )
    return Found(source, ((path.name, path),) if size_of(path) else (), 0)


def walk(root: Path, skipped: frozenset[str]) -> list[str]:
    """Names, relative to `root` and with forward slashes, of the regular files below it, in order."""
    names = []
    for folder, below, files in os.walk(root, onerror=refuse):
        below[:] = [name for name in below if name not in skipped and not name.startswith(".")]
        prefix = Path(folder).relative_to(root)
        names += [(prefix / name).as_posix() for name in files if not name.startswith(".")]
    return sorted(names)


def keep(source: str, root: Path, names: list[str], also: frozenset[str] = frozenset()) -> Found:
    """Keep files of text (or with a suffix in `also`) that are not empty, and of equal files only the first.

    A second copy could otherwise be held out while the first is trained on.
    """
    files, seen = [], set()
    for name in names:
        path = root / name
        if not path.is_file() or not size_of(path):
            continue
        if path.suffix.lower() not in also and not is_text(path):
            continue
        digest = digest_of(path)
        if digest not in seen:
            seen.add(digest)
            files.append((name, path))
    return Found(source, tuple(files), len(names) - len(files))


def is_text(path: Path) -> bool:
    """Whether the suffix is one of text, or the first 8 KiB are UTF-8 without a zero byte."""
    if path.suffix.lower() in TEXT_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(SNIFF)
    except OSError as error:
        raise refusal(path, error) from error
    if b"\0" in head:
        return False
    for cut in range(4):  # the last character may be cut in two
        try:
            head[: len(head) - cut].decode("utf-8")
            return True
        except UnicodeDecodeError:
            continue
    return False


def digest_of(path: Path) -> bytes:
    """The sha256 of the bytes of a file."""
    try:
        digest = sha256()
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        return digest.digest()
    except OSError as error:
        raise refusal(path, error) from error


def size_of(path: Path) -> int:
    """The size of a file in bytes."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise refusal(path, error) from error


def refusal(path: Path, error: OSError) -> Exception:
    """The coded form of an operating system's refusal."""
    return fault(
        "NL0952",
        f"cannot read `{path}`: {error.strerror or error}",
        help="check its permissions, or leave it out of the data",
    )


def refuse(error: OSError) -> None:
    """Raise the coded form of a folder that cannot be listed."""
    raise refusal(Path(str(error.filename)), error)
