"""The Python interface, from signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import nldsl
from docs.generate.markdown import code, fence, page

_WIDEST = 88
_SECTION = re.compile(r"^(Example|Examples|Raises|Errors|Returns|Shapes|Attributes|Equation)s?:\s*$")


def api_page() -> str:
    """Every public name of the package."""
    parts = [
        "`import nldsl` costs nothing: a name is loaded when it is first used, and checking a "
        "specification never imports torch. Every example here is run by the tests."
    ]
    public = [name for name in nldsl.__all__ if not name.startswith("__")]
    functions = [n for n in public if not inspect.isclass(getattr(nldsl, n))]
    classes = [n for n in public if n not in functions]
    parts += ["## Functions", *(part for name in functions for part in _function(name))]
    parts += ["## Classes", *(part for name in classes for part in _class(name))]
    return page("Python", *parts)


def _function(name: str) -> Iterator[str]:
    found = getattr(nldsl, name)
    called = found if not inspect.ismodule(found) else type(found).__call__
    yield f"### nldsl.{name} {{#{name}}}"
    if inspect.ismodule(found):
        called = _called(found)
    yield fence(_signature(f"nldsl.{name}", called), "python")
    yield from docstring(inspect.getdoc(called) or "")


def _called(module: Any) -> Any:
    """What calling a callable module calls."""
    return next(
        value for value in (getattr(module, "graph_of", None), type(module).__call__) if value is not None
    )


def _class(name: str) -> Iterator[str]:
    found = getattr(nldsl, name)
    yield f"### nldsl.{name} {{#{name}}}"
    yield from docstring(inspect.getdoc(found) or "")
    for attribute, member in _members(found):
        if isinstance(member, property):
            yield f"**{code(f'.{attribute}')}**"
            yield from docstring(inspect.getdoc(member) or "")
        else:
            called = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            yield fence(
                _signature(f".{attribute}", called, bound=not isinstance(member, staticmethod)), "python"
            )
            yield from docstring(inspect.getdoc(called) or "")


def _members(found: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties with a docstring, those of bases from the package as well."""
    seen: set[str] = set()
    for base in found.__mro__:
        if not base.__module__.startswith("nldsl"):
            continue
        for attribute, member in vars(base).items():
            shown = inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod)
            if shown and not attribute.startswith("_") and attribute not in seen and inspect.getdoc(member):
                seen.add(attribute)
                yield attribute, member


def _signature(name: str, called: Any, bound: bool = False) -> str:
    """The call as one writes it, a line per parameter where it is long."""
    signature = inspect.signature(called)
    parameters = list(signature.parameters.values())[1 if bound else 0 :]
    shown: list[str] = []
    for before, parameter in zip([None, *parameters], parameters, strict=False):
        keyword = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        if keyword and (before is None or before.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD):
            shown.append("*")
        shown.append(_parameter(parameter))
    back = signature.return_annotation
    tail = "" if back is inspect.Signature.empty else f" -> {_annotation(back)}"
    line = f"{name}({', '.join(shown)}){tail}"
    if len(line) <= _WIDEST:
        return line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in shown) + f"){tail}"


def _parameter(parameter: inspect.Parameter) -> str:
    kind = parameter.kind
    stars = "*" * (kind is inspect.Parameter.VAR_POSITIONAL) + "**" * (kind is inspect.Parameter.VAR_KEYWORD)
    name = stars + parameter.name
    annotated = parameter.annotation is not inspect.Parameter.empty
    name += f": {_annotation(parameter.annotation)}" if annotated else ""
    if parameter.default is inspect.Parameter.empty:
        return name
    return f"{name} = {_default(parameter.default)}" if annotated else f"{name}={_default(parameter.default)}"


def _default(value: Any) -> str:
    return str(value.__name__) if callable(value) else repr(value)


def _annotation(found: Any) -> str:
    return found if isinstance(found, str) else str(getattr(found, "__name__", found))


def docstring(text: str) -> Iterator[str]:
    """A docstring of the house as Markdown: paragraphs, and sections with a heading and an indent.

    Example:
        >>> list(docstring("Adds.\\n\\nRaises:\\n    ValueError: never."))
        ['Adds.', '**Raises**', '- `ValueError`: never.']
    """
    paragraph: list[str] = []
    lines = text.splitlines()
    while lines:
        line = lines.pop(0)
        found = _SECTION.match(line)
        if not found:
            paragraph.append(line)
            continue
        inside: list[str] = []
        while lines and (not lines[0].strip() or lines[0].startswith(" ")):
            inside.append(lines.pop(0))
        yield from _paragraphs(paragraph)
        paragraph = []
        yield from _section(found[1], textwrap.dedent("\n".join(inside)).strip())
    yield from _paragraphs(paragraph)


def _paragraphs(lines: list[str]) -> Iterator[str]:
    text = "\n".join(lines).strip()
    if text:
        yield text


def _section(title: str, inside: str) -> Iterator[str]:
    if title.startswith("Example"):
        yield fence(inside, "pycon")
        return
    yield f"**{title}**"
    items = [re.sub(r"^([\w.]+):", r"`\1`:", " ".join(item.split())) for item in re.split(r"\n(?! )", inside)]
    yield "\n".join(f"- {item}" for item in items)
