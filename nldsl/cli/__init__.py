"""The command line: `nldsl COMMAND ...`, one file per command."""

from nldsl.cli.app import main

__all__ = ["main"]
