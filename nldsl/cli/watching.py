"""`nldsl check --watch`: call something again whenever a specification changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nldsl.diagnostics import DiagnosticBag
from nldsl.spec import load
from nldsl.syntax import tree

_INTERVAL = 0.2
"""Seconds between two looks at the files."""
Signature = dict[Path, tuple[int, int, int] | None]


def watch(specs: Sequence[str], once: Callable[[], None], wait: Callable[[], None] | None = None) -> None:
    """Call `once` now and after every change of what `specs` consist of; ends when interrupted.

    `wait` pauses between two looks; it may raise `KeyboardInterrupt`.
    """
    pause = wait or (lambda: time.sleep(_INTERVAL))
    while True:
        # The files are looked at before they are read, so a change during the check is one more.
        seen = signature(files_of(specs))
        once()
        while signature(seen) == seen:
            pause()


def files_of(specs: Sequence[str]) -> list[Path]:
    """Every file that specifications consist of: their own, and what they `use`, library files included.

    Example:
        >>> [path.name for path in files_of(["cms"])]
        ['cms.nl']
    """
    files: dict[Path, None] = {}
    for spec in specs:
        if Path(spec).suffix:
            files[Path(spec).absolute()] = None
        for unit in load(spec, DiagnosticBag()).main.visible():
            if unit.path is not None:
                files[unit.path] = None
                uses = [item for item in unit.tree.items if isinstance(item, tree.Use)]
                # A file that is missing now may come into being.
                files |= dict.fromkeys(unit.path.parent / item.path.value for item in uses)
    return list(files)


def signature(files: Sequence[Path] | Signature) -> Signature:
    """By file, when it was changed, its size and its number on disk; `None` where there is none."""
    return {path: _stamp(path) for path in files}


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def standing(errors: int) -> str:
    """The line below a check, with the time.

    Example:
        >>> standing(0)[8:]
        ' no errors; waiting for changes'
    """
    count = "no errors" if not errors else f"{errors} {'error' if errors == 1 else 'errors'}"
    return f"{time.strftime('%H:%M:%S')} {count}; waiting for changes"
