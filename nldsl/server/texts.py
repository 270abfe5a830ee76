"""The words of the language, the primitives and the definitions, each as a short text in markdown."""

from __future__ import annotations

from nldsl.catalog.primitive import Option, Primitive
from nldsl.server.occurrences import Symbol
from nldsl.server.words import ALIASES, WORDS
from nldsl.spec.loader import Named, Unit
from nldsl.syntax import show, tree


def word_text(word: str) -> str:
    """A word of the language.

    Example:
        >>> word_text("by").splitlines()[0]
        '**by**: The rule of a step.'
    """
    entry = WORDS[ALIASES.get(word, word)]
    example = f"\n\n{code(entry.example)}" if entry.example else ""
    return f"**{word}**: {entry.text}{example}"


def primitive_text(primitive: Primitive) -> str:
    """Signature, doc, equation, options and example of a primitive."""
    parts = [code(signature(primitive)), primitive.doc]
    if primitive.equation:
        parts.append(f"`{primitive.equation}`")
    parts += [_option_line(option) for option in primitive.options if option.help]
    if primitive.example:
        parts.append(code(primitive.example))
    return "\n\n".join(parts)


def signature(primitive: Primitive) -> str:
    """How a primitive is called: `norm(x, eps = 1e-6)`."""
    values = list(primitive.values)
    if primitive.variadic and values:
        values.append("...")
    return f"{primitive.name}({', '.join([*values, *filter(None, [options_text(primitive.options)])])})"


def options_text(options: tuple[Option, ...]) -> str:
    """All options with their defaults."""
    return ", ".join(option_text(o) for o in options)


def option_text(option: Option) -> str:
    """An option with its default: `eps = 1e-6`."""
    if option.default == "REQUIRED" or option.default is None:
        return option.name
    return f"{option.name} = {literal(option.default)}"


def literal(value: object) -> str:
    """A static value as the language writes it.

    Example:
        >>> literal(True), literal("raw"), literal((16, 64)), literal(1e-06)
        ('true', '"raw"', '[16, 64]', '1e-6')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(literal, value))}]"
    return _number(value)


def _option_line(option: Option) -> str:
    limits = [f"at least {_number(option.minimum)}" if option.minimum is not None else ""]
    limits += [f"at most {_number(option.maximum)}" if option.maximum is not None else ""]
    limits += [f"one of {', '.join(option.choices)}" if option.choices else "", option.unit]
    said = ", ".join(part for part in limits if part)
    return f"* `{option_text(option)}`: {option.help}{f' ({said})' if said else ''}"


def definition_text(unit: Unit, symbol: Symbol) -> str:
    """Signature and comment of a definition, wherever it is; empty if it is nowhere."""
    found = unit.find(symbol.kind, symbol.name)
    if found is None:
        return ""
    item, home = found
    parts = [code(header(item)), comment_above(item)]
    if home is not unit and home.file.name:
        parts.append(f"*{home.file.name}*")
    return "\n\n".join(part for part in parts if part)


def header(item: Named) -> str:
    """The first line of a definition."""
    if isinstance(item, tree.Variant):
        return f"variant {item.name.id} of {item.base.id}({show.arguments(item.args)})"
    return f"{item.kind} {item.name.id}({', '.join(show.param(p) for p in item.params)})"


def comment_above(item: Named) -> str:
    """The comment that stands right above a definition, without its signs."""
    text = item.span.file.text
    lines: list[str] = []
    end = text.rfind("\n", 0, item.span.start) + 1
    while end > 0:
        start = text.rfind("\n", 0, end - 1) + 1
        line = text[start:end].strip()
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
        end = start
    return "  \n".join(reversed(lines))


def code(text: str) -> str:
    """A text as code of the language."""
    return f"```nldsl\n{text}\n```"


def _number(value: object) -> str:
    """A number as one writes it by hand; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
