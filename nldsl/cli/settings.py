"""`--set k=v`: the one place where a setting of the command line becomes a value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated

import typer

from nldsl.catalog.values import Static
from nldsl.cli.guard import CommandError

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Bind a parameter of the spec, e.g. --set dim=64; repeatable."
    ),
]
"""The type of every command's `--set` option."""

_TAKEN = {
    "block": "--block",
    "checkpoint": "--checkpoint",
    "device": "--device",
    "dtype": "",
    "lowering": "--lowering",
    "seed": "--seed",
    "source": "",
    "standalone": "--standalone",
}
"""Names that the Python functions behind the commands keep for themselves, and the options that set them."""
VERIFYING = {
    "full": "--full",
    "long": "--long",
    "compiled": "--compile",
    "exported": "--export",
    "progress": "",
    "build": "",
}
"""The same of `verify`."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_INTEGER = re.compile(r"[+-]?\d+\Z")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z")
_STRING = re.compile(r"""(["'])(?P<inside>[^"'\\]*)\1\Z""")
_MAX_LENGTH = 10_000


def parse_settings(
    settings: Sequence[str] | None, taken: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Static]:
    """Read `name=value` pairs: numbers, `true`/`false`, lists, quoted strings and bare names.

    A bare name stays a string: where the parameter is a block, a map or a rule, it names one.  `taken`: more
    names that are no parameters, and the options they belong to.

    Raises:
        CommandError: no `=` (NL1010), a bad name (NL1011), a bad value (NL1012), given twice (NL1013).

    Example:
        >>> parse_settings(["dim=64", "chunks=[16, 64]", "mixer=attention", "lr=1e-3"])
        {'dim': 64, 'chunks': (16, 64), 'mixer': 'attention', 'lr': 0.001}
    """
    result: dict[str, Static] = {}
    for setting in settings or ():
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals:
            raise CommandError(
                "NL1010", f"`{_short(setting)}` has no `=`, expected NAME=VALUE", "e.g. --set dim=64"
            )
        if not _NAME.match(name):
            raise CommandError(
                "NL1011", f"`{_short(name)}` is not the name of a parameter", "e.g. --set dim=64"
            )
        _require_free(name, {**_TAKEN, **taken})
        if name in result:
            raise CommandError("NL1013", f"`{name}` is set twice", "give each parameter once")
        result[name] = parse_value(text)
    return result


def _require_free(name: str, taken: Mapping[str, str]) -> None:
    """Raise NL1011 for a name that no parameter of a spec can have here."""
    option = taken.get(name)
    if option is None:
        return
    if option:
        said, help = f"`{name}` is an option, not a parameter of the spec", f"use {option}, where it is known"
    else:
        said, help = f"`{name}` is a word of `nldsl` itself", "give the parameter of the spec another name"
    raise CommandError("NL1011", said, help)


def parse_value(text: str) -> Static:
    """One value of a setting.

    Raises:
        CommandError: NL1012, with what was found.

    Example:
        >>> parse_value("['a', 2]")
        ('a', 2)
    """
    text = text.strip()
    if len(text) > _MAX_LENGTH:
        raise CommandError("NL1012", f"a value of {len(text)} characters, expected at most {_MAX_LENGTH}")
    if text.startswith("["):
        return _parse_list(text)
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.match(text):
        return _bounded(int(text) if len(text) <= 19 else 10**19, text)
    if _NUMBER.match(text):
        return _bounded(float(text), text)
    if quoted := _STRING.match(text):
        return quoted["inside"]
    if _NAME.match(text):
        return text
    raise _bad_value(text)


def _parse_list(text: str) -> Static:
    if not text.endswith("]") or "[" in text[1:]:
        raise _bad_value(text)
    inside = text[1:-1].strip().removesuffix(",")
    return tuple(parse_value(item) for item in inside.split(",")) if inside else ()


def _bounded(value: int | float, text: str) -> int | float:
    if abs(value) > 2**53:
        raise CommandError("NL1012", f"`{_short(text)}` is out of range, expected at most 2^53")
    return value


def _bad_value(text: str) -> CommandError:
    return CommandError(
        "NL1012",
        f"`{_short(text)}` is not a value",
        'expected a number, `true`, `false`, a name, "text" or a list such as [16, 64]',
    )


def _short(text: str) -> str:
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= 40 else clean[:37] + "..."
