"""Where the data folders `grammars` and `specs` lie: in a wheel, an editable install or a checkout."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

PACKAGE = Path(__file__).resolve().parent


@cache
def folder(name: Literal["grammars", "specs"]) -> Path:
    """The data folder `name`: beside the package in a checkout, inside it in a wheel.

    Raises:
        FileNotFoundError: the installation lacks the folder.

    Example:
        >>> (folder("grammars") / "nldsl.lark").is_file()
        True
    """
    for candidate in (PACKAGE / "_data" / name, PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"this installation of nldsl lacks its data folder `{name}`; install it again")


def grammar_text() -> str:
    """The grammar of the language, as lark reads it."""
    return (folder("grammars") / "nldsl.lark").read_text(encoding="utf-8")


def specs_folder() -> Path:
    """The folder of the standard library."""
    return folder("specs")
