"""`nldsl server`: the language server for editors."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

import nldsl
from nldsl.cli.guard import CommandError


def command(
    tcp: Annotated[
        int | None,
        typer.Option(
            "--tcp", metavar="PORT", min=1, max=65535, help="Listen on this port of the own machine."
        ),
    ] = None,
    stdio: Annotated[bool, typer.Option("--stdio", help="Speak on stdin and stdout (the default).")] = False,
) -> None:
    """Run the language server: diagnostics, hover, completion, rename for any editor that speaks LSP."""
    if tcp is not None and stdio:
        raise typer.BadParameter("`--tcp` and `--stdio` exclude one another")
    if find_spec("pygls") is None:
        raise CommandError("NL1007", "the language server needs pygls", "pip install 'nldsl[server]'")
    from nldsl.server.protocol import make_server

    server = make_server(nldsl.__version__)
    if tcp is not None:
        server.start_tcp("127.0.0.1", tcp)
    else:
        server.start_io()
