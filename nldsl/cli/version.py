"""`nldsl version`."""

from __future__ import annotations

import platform
from typing import Annotated

import typer

import nldsl
from nldsl.cli.common import print_json


def command(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Show the version of nldsl and of Python."""
    if as_json:
        print_json({"nldsl": nldsl.__version__, "python": platform.python_version()})
    else:
        print(f"nldsl {nldsl.__version__} (python {platform.python_version()})")
