"""The last line: whatever a command raises becomes a message and an exit code, never a traceback."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable

OK, FINDINGS, USAGE, INTERRUPTED = 0, 1, 2, 130


class CommandError(Exception):
    """A command cannot do what was asked; `code` is stable, `help` says what to do."""

    def __init__(self, code: str, message: str, help: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.help = help


def guarded(run: Callable[[], object]) -> int:
    """Call `run` and return an exit code; print what went wrong on stderr.

    Set `NLDSL_DEBUG=1` to see the traceback of an internal error.
    """
    try:
        run()
        sys.stdout.flush()
    except SystemExit as leaving:
        return _exit_code(leaving)
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return FINDINGS
    except CommandError as wrong:
        _report(wrong.code, wrong.message, wrong.help)
        return USAGE
    except OSError as wrong:
        _report(*describe_os_error(wrong))
        return USAGE
    except Exception as wrong:
        return _finding_or_internal(wrong)
    return OK


def describe_os_error(wrong: OSError) -> tuple[str, str, str]:
    """(code, message, help) of an error of the operating system.

    Example:
        >>> describe_os_error(FileNotFoundError(2, "No such file or directory", "a.nl"))[:2]
        ('NL1001', '`a.nl` does not exist')
    """
    name = f"`{wrong.filename}`" if wrong.filename is not None else "the file"
    known: dict[int | None, tuple[str, str, str]] = {
        errno.ENOENT: (
            "NL1001",
            f"{name} does not exist",
            "look at the path; folders to write into must exist",
        ),
        errno.EEXIST: ("NL1004", f"{name} is a file, expected a directory there", "choose another name"),
        errno.EACCES: ("NL1002", f"{name} may not be read or written", "look at its permissions"),
        errno.EPERM: ("NL1002", f"{name} may not be read or written", "look at its permissions"),
        errno.EISDIR: ("NL1003", f"{name} is a directory, expected a file", ""),
        errno.ENOTDIR: ("NL1004", f"{name} lies below a file, expected a directory there", ""),
        errno.ENOSPC: ("NL1005", f"no space is left to write {name}", ""),
        errno.EROFS: ("NL1002", f"{name} lies on a read-only file system", ""),
    }
    reason = (wrong.strerror or str(wrong) or type(wrong).__name__).lower()
    return known.get(wrong.errno, ("NL1006", f"{name}: {reason}", ""))


def _finding_or_internal(wrong: Exception) -> int:
    from nldsl.cli.report import print_findings
    from nldsl.diagnostics import SpecError

    if isinstance(wrong, SpecError):
        print_findings(wrong.diagnostics)
        return FINDINGS
    if os.environ.get("NLDSL_DEBUG"):
        traceback.print_exception(wrong)
    message = f"{type(wrong).__name__}: {wrong}".splitlines()[0][:300]
    _report(
        "NL1000", f"internal error: {message}", "this is a fault of nldsl; NLDSL_DEBUG=1 shows where it is"
    )
    return USAGE


def _exit_code(leaving: SystemExit) -> int:
    _flush()
    if leaving.code is None:
        return OK
    return leaving.code if isinstance(leaving.code, int) else USAGE


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()


def _silence_stdout() -> None:
    """After a reader went away, nothing may be flushed at exit: point stdout at the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())


def _report(code: str, message: str, help: str) -> None:
    from nldsl.cli.report import print_findings
    from nldsl.diagnostics import Diagnostic

    print_findings([Diagnostic(code, message, help=help)])


def _say(text: str) -> None:
    print(text, file=sys.stderr)
