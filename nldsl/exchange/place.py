"""A folder that is there whole or not at all, and never in place of something else unless that was asked."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from nldsl.exchange.errors import refused


@contextlib.contextmanager
def new_folder(target: str | Path, *, mark: str, force: bool = False) -> Iterator[Path]:
    """A folder beside `target` to write into, which takes its place at the end; gone if anything fails.

    `mark` is the file that a folder of this kind has: `force` replaces only such a folder, or an empty one.
    Errors: NL1101 if something is there already, `OSError`.
    """
    final = Path(target)
    require_free(final, mark=mark, force=force)
    if not final.absolute().parent.is_dir():
        raise FileNotFoundError(2, "No such file or directory", str(final.absolute().parent))
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        yield partial
        if final.exists():
            old = final.with_name(f".{final.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            final.replace(old)
            partial.replace(final)
            shutil.rmtree(old)
        else:
            partial.replace(final)
    except SafetensorError as wrong:
        raise OSError(28 if "os error 28" in str(wrong) else 5, str(wrong), str(final)) from wrong
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def require_free(final: Path, *, mark: str, force: bool) -> None:
    """Raise NL1101 if something stands at `final` that may not be replaced."""
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return
    if not force:
        raise refused(
            "NL1101", f"`{final}` is there already", help="give another `-o`, or `--force` to replace it"
        )
    if not (final / mark).is_file():
        raise refused(
            "NL1101",
            f"`{final}` is there already, and was not written by this command: it has no `{mark}`",
            help="`--force` replaces only what the same command wrote; give another `-o`",
        )
