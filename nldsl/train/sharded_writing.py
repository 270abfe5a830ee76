"""Checkpoints in torch's format, written so that the system's own reason for a failure is what is told.

On a full disk torch's archive notices a wrong position when it is closed, and says that in place of what the
system said; processes tell each other their errors as pickles, which carry no history.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.distributed.checkpoint.filesystem import _FileSystemWriter


class Writer(_FileSystemWriter):
    """Writes one file per process; what the system refuses is an `OSError`."""

    def write_data(self, *given: Any, **named: Any) -> Any:
        """The tensors of this process."""
        with plainly():
            return super().write_data(*given, **named)

    def finish(self, *given: Any, **named: Any) -> None:
        """The table of contents."""
        with plainly():
            super().finish(*given, **named)


@contextmanager
def plainly() -> Iterator[None]:
    """Raise the `OSError` that an error came from, if it came from one.

    Example:
        >>> with plainly():
        ...     try:
        ...         raise OSError(28, "No space left on device")
        ...     finally:
        ...         raise RuntimeError("unexpected pos 704 vs 598")
        Traceback (most recent call last):
        OSError: [Errno 28] No space left on device
    """
    try:
        yield
    except Exception as error:
        found: BaseException | None = error
        while found is not None and not isinstance(found, OSError):
            found = found.__cause__ or found.__context__
        if found is None or found is error:
            raise
        raise OSError(found.errno, found.strerror) from error
