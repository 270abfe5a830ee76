"""Versions of the language: which one a file is written in, and what to do about another."""

from __future__ import annotations

CURRENT = 1
"""The version this installation reads."""
OLDEST = 0
"""The oldest version that `nldsl migrate` starts from."""


def about_version(found: str, line: str) -> tuple[str, str] | None:
    """What is wrong with a version number, and what helps; `None` for the current version.

    `line` is how the current version is written in this form of the language.

    Example:
        >>> about_version("2", "nldsl 1")[0]
        'version 2 of the language is newer than version 1, which this installation reads'
        >>> about_version("0", "nldsl 1")[1]
        'run `nldsl migrate` on the file'
    """
    if found == str(CURRENT):
        return None
    if not found.isdigit():
        return f"`{found}` is not a version of the language", f"write `{line}`"
    if int(found) > CURRENT:
        message = (
            f"version {found} of the language is newer than version {CURRENT}, which this installation reads"
        )
        return message, "install a newer nldsl, or ask for the file in an older version"
    return (
        f"version {found} of the language is older than version {CURRENT}",
        "run `nldsl migrate` on the file",
    )
