"""The reference of the command line, from the application itself, with examples that the tests run."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from typing import Any

import typer

from docs.generate.examples import EXAMPLES
from docs.generate.markdown import code, fence, page, table
from nldsl.cli.app import COMMANDS, build_app

_WIDEST = 84


def commands_index() -> str:
    """What there is."""
    rows = [(f"[`nldsl {name}`]({name}.md)", line) for name, line in COMMANDS.items()]
    return page(
        "Command line",
        "A specification (SPEC) is a file, a name of the library, or `-` for standard input. Results go to "
        "standard output, findings and progress to standard error; `--json` prints data. Nothing a user "
        "writes ends in a traceback.",
        table(("command", "what it does"), rows),
        table(
            ("exit code", "meaning"),
            [
                ("0", "everything is fine"),
                ("1", "there are findings, or two things differ"),
                ("2", "wrong usage, a file that is missing, or a fault of nldsl itself"),
                ("130", "interrupted"),
            ],
        ),
    )


def command_page(name: str) -> str:
    """One command: examples, arguments, options."""
    command = _command(name)
    examples = EXAMPLES.get(name, ())
    parts = [
        " ".join((command.help or COMMANDS[name]).split()),
        fence("\n".join(map(_folded, examples)), "sh") if examples else "",
        "## Usage",
        fence(usage(name, command), "text"),
    ]
    arguments = [p for p in command.params if not _dashed(p)]
    options = [p for p in command.params if _dashed(p) and not p.hidden]
    if arguments:
        rows = [(code(_upper(p)), _said(p), "" if p.required else "may be left out") for p in arguments]
        parts += ["## Arguments", table(("argument", "what it is", " "), rows)]
    if options:
        lines = [(_spelt(p), _said(p), _takes(p), _default(p)) for p in options]
        parts += ["## Options", table(("option", "what it does", "takes", "default"), lines)]
    return page(f"nldsl {name}", *parts)


def _folded(line: str) -> str:
    """A command as one types it, long ones over several lines."""
    # An option stays with its value: the space between them is none while lines are broken.
    whole = re.sub(r"(?<= )(--?[a-z][\w-]*) (?!-)", "\\1\0", f"nldsl {line}")
    words = textwrap.wrap(whole, _WIDEST, break_long_words=False, break_on_hyphens=False)
    return " \\\n    ".join(words).replace("\0", " ")


def _command(name: str) -> Any:
    group: Any = typer.main.get_command(build_app(name))
    return group.commands[name]


def usage(name: str, command: Any) -> str:
    """`nldsl check [OPTIONS] SPECS...`"""
    words = ["nldsl", name, "[OPTIONS]"]
    for p in command.params:
        if not _dashed(p):
            word = _upper(p) + ("..." if p.nargs == -1 else "")
            words.append(word if p.required else f"[{word}]")
    return " ".join(words)


def _dashed(parameter: Any) -> bool:
    return any(o.startswith("-") for o in parameter.opts)


def _upper(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name).upper()


def _said(parameter: Any) -> str:
    return " ".join((parameter.help or "").split())


def _spelt(parameter: Any) -> str:
    names = sorted(parameter.opts, key=lambda o: (not o.startswith("--"), o))
    if parameter.secondary_opts:
        names += parameter.secondary_opts
    return ", ".join(code(n) for n in names)


def _takes(parameter: Any) -> str:
    if parameter.is_flag:
        return ""
    annotation = parameter.type_descriptor.annotation
    choices = getattr(annotation, "__members__", None) or getattr(annotation, "__args__", None)
    if choices and all(isinstance(c, str) for c in choices):
        return ", ".join(code(str(c)) for c in choices)
    word = str(parameter.metavar or getattr(annotation, "__name__", "text"))
    word = {"int": "a whole number", "float": "a number", "str": "text", "Path": "a path"}.get(
        word, code(word)
    )
    bounds = [f"at least {parameter.min:g}"] if parameter.min is not None else []
    bounds += [f"at most {parameter.max:g}"] if parameter.max is not None else []
    return ", ".join([word, *bounds]) + ("; may be given again" if parameter.multiple else "")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if parameter.is_flag or parameter.default in (None, "", ()):
        return ""
    return code(str(getattr(parameter.default, "value", parameter.default)))


def example_lines() -> Iterator[tuple[str, list[str]]]:
    """(command, its words) of every example."""
    for name, lines in EXAMPLES.items():
        for line in lines:
            yield name, shlex.split(line)
