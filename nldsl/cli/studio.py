"""`nldsl studio`: an editor with the graph beside it, in the browser."""

from __future__ import annotations

import errno
import sys
import webbrowser
from typing import Annotated

import typer

from nldsl.cli.guard import CommandError
from nldsl.cli.new import Kind, starter
from nldsl.studio import open_studio


def command(
    spec: Annotated[
        str | None, typer.Argument(help="A file, which may be new, or a library name; a starter if left out.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; a free one if left out.")] = 0,
    open_browser: Annotated[
        bool | None,
        typer.Option("--open/--no-open", help="Open the browser; left out: from a terminal only."),
    ] = None,
) -> None:
    """Edit a specification with its graph, tables and source beside it.  Ctrl-C ends it.

    Everything stays on this machine: the page is served to 127.0.0.1 under a secret address, and loads
    nothing from elsewhere.
    """
    if spec == "-":
        raise CommandError("NL1016", "the studio edits files, not stdin", "give a file or a library name")
    try:
        studio = open_studio(spec, starter("my_model", Kind.model), port)
    except OSError as wrong:
        if wrong.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        reason = "is in use" if wrong.errno == errno.EADDRINUSE else "may not be used"
        raise CommandError(
            "NL1026", f"port {port} {reason}", "leave out `--port`, and a free one is taken"
        ) from None
    studio.warm()
    print(f"nldsl studio: {studio.address}", flush=True)
    if sys.stdout.isatty() if open_browser is None else open_browser:
        webbrowser.open(studio.address)
    try:
        studio.serve_forever()
    except KeyboardInterrupt:
        print("closed", file=sys.stderr)
    finally:
        studio.server_close()
