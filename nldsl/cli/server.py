"""`nldsl server`: the language server for editors."""

from __future__ import annotations

import gc
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

import nldsl
from nldsl.cli.guard import CommandError

if TYPE_CHECKING:
    from nldsl.server.protocol import Server


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
    server = _start()
    if tcp is not None:
        server.start_tcp("127.0.0.1", tcp)
    else:
        server.start_io()


def _start() -> Server:
    """The server, its imports done without collecting garbage: a tenth of the time to the first findings."""
    gc.disable()
    protocol = import_module("nldsl.server.protocol")
    server: Server = protocol.make_server(nldsl.__version__)
    gc.freeze()
    gc.enable()
    return server
