"""The C compiler of this machine: which it is, what it makes code for, and one run of it."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

SWITCH = "NLDSL_NATIVE"
OFF = ("0", "off", "no", "false")
"""What a variable of the environment says to switch something off."""
NAMES = ("cc", "gcc", "clang")
UNSAFE = ("-ffast-math", "-Ofast", "-funsafe-math-optimizations", "-mdaz-ftz")
"""What links code that makes denormal numbers zero in the whole process, torch included (gcc before 13)."""
LIMIT = 300.0
"""Seconds that one run may take: what we compile takes 1 to 4, so this is no slow machine any more."""
TOLD = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    *("Features", "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "isa"),
)
"""Lines of `/proc/cpuinfo` by which `-march=native` makes its choice."""


@cache
def compiler() -> str:
    """The command of the C compiler, `CC` first (it may have options); empty if there is none to be used."""
    if kept_out():
        return ""
    for wanted in (os.environ.get("CC", ""), *NAMES):
        found = _command(wanted)
        if found:
            return found
    return ""


def kept_out() -> bool:
    """Whether the environment asks for no C at all."""
    return os.environ.get(SWITCH, "").strip().lower() in OFF


def no_compiler() -> str:
    """Why there is no compiler to be used.

    >>> no_compiler()
    'there is no C compiler (`CC`, cc, gcc, clang)'
    """
    if kept_out():
        return f"`{SWITCH}={os.environ[SWITCH]}` keeps C out"
    return f"there is no C compiler (`CC`, {', '.join(NAMES)})"


def harmless(options: Sequence[str], source: str) -> list[str]:
    """Options without those that would change numbers outside of what is compiled; a warning names them.

    >>> harmless(["-O1", "-march=x86-64-v3"], "CC")
    ['-O1', '-march=x86-64-v3']
    """
    for option in options:
        if option in UNSAFE:
            warnings.warn(
                f"`{option}` of `{source}` is left out: what it links makes denormal numbers zero in the "
                "whole process; `-fno-signed-zeros -fassociative-math` and their like act on the code alone",
                RuntimeWarning,
                stacklevel=2,
            )
    return [option for option in options if option not in UNSAFE]


def _command(wanted: str) -> str:
    whole = shutil.which(wanted) if wanted else None
    if whole:
        return shlex.quote(whole)
    try:
        words = shlex.split(wanted)
    except ValueError:
        return ""
    found = shutil.which(words[0]) if words else None
    return shlex.join([found, *harmless(words[1:], "CC")]) if found else ""


@cache
def identity(command: str) -> str:
    """What tells one compiler from another, also from a later one in the same place."""
    try:
        program = Path(shlex.split(command)[0]).resolve(strict=True)
        facts = program.stat()
        said = _run(command, "--version")
    except (OSError, subprocess.TimeoutExpired):
        return command
    return f"{command}\n{program}\n{facts.st_size} {facts.st_mtime_ns}\n{said.stdout}"


@cache
def machine() -> str:
    """The processor that `-march=native` makes code for, which another one may not know."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        first = ""
    lines = [line for line in first.splitlines() if line.partition(":")[0].strip() in TOLD]
    return "\n".join([sys.platform, platform.machine(), *(lines or [platform.processor()])])


_STOPPED: set[str] = set()
"""Compilers that did not come to an end: they are not waited for again."""


def ran(command: str, *arguments: str) -> str:
    """Run a compiler, for `LIMIT` seconds at most; why it made nothing, or nothing if it did.

    >>> ran("nowhere")
    '`nowhere` cannot be run (No such file or directory)'
    """
    if command in _STOPPED:
        return _late(command)
    try:
        done = _run(command, *arguments)
    except OSError as error:
        return f"`{command}` cannot be run ({error.strerror})"
    except subprocess.TimeoutExpired:
        return _late(command)
    return "" if done.returncode == 0 else f"`{command}` refuses it{_reason(done.stderr.splitlines())}"


def _late(command: str) -> str:
    return f"`{command}` did not come to an end within {LIMIT:g} seconds, and is not asked again"


def _run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a compiler says.  It and all that it has started end here, whatever happens."""
    words = [*shlex.split(command), *arguments]
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
        errors="replace",
    ) as child:
        try:
            out, err = child.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            _STOPPED.add(command)
            _end(child)
            raise
        except BaseException:
            _end(child)
            raise
    return subprocess.CompletedProcess(words, child.returncode, out, err)


def _end(child: subprocess.Popen[str]) -> None:
    if hasattr(os, "killpg"):
        os.killpg(child.pid, signal.SIGKILL)
    else:
        child.kill()


def _reason(lines: Sequence[str]) -> str:
    told = next((line for line in lines if "error" in line), lines[0] if lines else "")
    return f": {told.strip()}" if told else ""
