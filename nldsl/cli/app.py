"""The frame of the command line: which commands there are, and the one that was asked for.

Only the module of the requested command is imported.  The others take part in `--help` with their
one-line help alone, so `nldsl --help` costs typer and rich and nothing else.
"""

from __future__ import annotations

import keyword
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import typer

from nldsl.cli.guard import guarded

COMMANDS: dict[str, str] = {
    "new": "Write a starter specification.",
    "check": "Check specifications: names, shapes, clocks, reachability.",
    "fmt": "Format specifications.",
    "migrate": "Bring specifications to the current version of the language.",
    "convert": "Convert between the text and the YAML form.",
    "explain": "Show levels, derived equations, cost and lowerings of a specification.",
    "diff": "Show what two specifications differ in, by meaning.",
    "ablate": "List, write or verify the ablations of a model (Table 6 of the paper).",
    "graph": "Draw the level graph: svg, html, dot, png, pdf or json.",
    "timeline": "Show when every level reads, is written and commits.",
    "studio": "Edit a specification with its graph beside it, in the browser.",
    "compile": "Write the PyTorch source of a specification.",
    "verify": "Compare the compiled form with the interpreter.",
    "test": "Test a specification at random sizes, lengths, splits and masks.",
    "bisect": "Find the first level and token where two forms or two specifications differ.",
    "plan": "Predict the memory of a training step.",
    "data": "Prepare documents for training.",
    "train": "Train a specification on bytes, tokens or labels.",
    "plot": "Draw the loss curves of runs in one picture.",
    "generate": "Generate from a trained run.",
    "chat": "Talk with a trained run; it may learn from what is said.",
    "run": "Read a stream with a trained run that learns from it as it comes.",
    "export": "Write a trained run for another library.",
    "import": "Bring in a model of transformers with its weights.",
    "list": "List what the library holds.",
    "server": "Run the language server for editors.",
    "doctor": "Show what this installation has and what it lacks.",
    "version": "Show the version.",
}
"""Every command with its line in `--help`, in the order in which one meets them."""

SAY_OUT = frozenset({"data", "import", "train"})
SAY_OUTPUT = frozenset({"compile", "convert", "export", "graph", "new", "plot", "test", "timeline", "verify"})

HELP = "A language and compiler for nested learning: architectures and optimisers as memories on clocks."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    Exit codes: 0 ok, 1 findings, 2 usage or internal, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(guarded(lambda: build_app(requested_command(given))(given, prog_name="nldsl")))


def requested_command(arguments: Sequence[str]) -> str | None:
    """The command among `arguments`, or the one whose options a shell wants completed.

    Example:
        >>> requested_command(["check", "hope"])
        'check'
    """
    completing = os.environ.get("COMP_WORDS", "").split()[1:] if "_NLDSL_COMPLETE" in os.environ else []
    first = next((word for word in [*arguments, *completing] if not word.startswith("-")), None)
    return first if first in COMMANDS else None


def build_app(requested: str | None) -> typer.Typer:
    """The application with `requested` loaded and every other command known by its help."""
    app = typer.Typer(
        name="nldsl",
        help=HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for name, line in COMMANDS.items():
        function = _load(name) if name == requested else _placeholder(line)
        said = _flowing(function.__doc__ or line)
        app.command(name, short_help=line, help=said, context_settings=_settings(name))(function)
    return app


def _flowing(text: str) -> str:
    """The text with a line for every paragraph: a terminal breaks them where it ends.

    Example:
        >>> _flowing("What it does,\\nand how.\\n\\n    More of\\n    it.\\n")
        'What it does, and how.\\n\\nMore of it.'
    """
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


def _settings(name: str) -> dict[str, Any]:
    """Where a command writes is said by `--out` or `--output`, whichever of them its help names."""
    spellings = {"out": "output"} if name in SAY_OUTPUT else {"output": "out"} if name in SAY_OUT else {}
    return {"token_normalize_func": lambda word: spellings.get(word, word)} if spellings else {}


def _root(
    version: bool = typer.Option(False, "--version", help="Show the version and leave.", is_eager=True),
) -> None:
    if version:
        print(import_module("nldsl").__version__)
        raise typer.Exit


_root.__doc__ = HELP


def _load(name: str) -> Callable[..., None]:
    # `import` is a word of Python's own: its module ends in an underscore.
    module = f"{name}_" if keyword.iskeyword(name) else name
    command: Callable[..., None] = import_module(f"nldsl.cli.{module}").command
    return command


def _placeholder(line: str) -> Callable[[], None]:
    """Stands for a command in the list of commands; never called, since its name is not on the line."""

    def shown() -> None:
        return None

    shown.__doc__ = line
    return shown
