"""A program to look at: a block alone is drawn and explained at a width of its own if none is given."""

from __future__ import annotations

import sys
from typing import Any

from nldsl.cli.common import spec_source
from nldsl.graph import open_sized
from nldsl.spec.program import Program

WIDTH = 64
"""Channels of the inputs of a block that nobody sized."""


def open_shown(name: str, block: str | None, arguments: dict[str, Any]) -> Program:
    """The program `name`; a word on stderr where a width was chosen for it."""
    program, given = open_sized(spec_source(name), WIDTH, block=block, **arguments)
    if given != arguments:
        print(
            f"`{program.name}` is a block: shown with dim = {WIDTH}; `--set dim=N` chooses another",
            file=sys.stderr,
        )
    return program
