"""What one application of a rule does, line by line in the order of its text, as plain text and as LaTeX."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeGuard

from nldsl.calculus import SYMBOL, Expr, apply, build, number, parameter_symbol, symbol
from nldsl.calculus.notation import LATEX, TEXT, Style, written
from nldsl.library import PRIMITIVES
from nldsl.spec.program import Apply, Rule, Value, option
from nldsl.view.pens import Formula

_COMPARED = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "=", "ne": "!="}
_PLAIN = 14
"""What is used more than once has a line of its own if it is longer."""


@dataclass
class _Writing:
    """The values of a rule as expressions, and how their symbols are spelt: a letter and its time."""

    rule: Rule
    named: dict[str, Expr] = field(default_factory=dict)
    spelt: dict[str, tuple[str, str]] = field(default_factory=dict)
    lines: list[Formula] = field(default_factory=list)

    def bear(self, value: Value, spelling: str, letter: str, index: str) -> None:
        """`value` is a symbol from here on, spelt `letter_index`."""
        self.spelt[spelling] = (letter, index)
        self.named[value.name] = symbol(spelling, value.shape, value.kind, role="parameter")

    def line(self, letter: str, index: str, made: Expr) -> None:
        """`letter_index = made`."""
        text, latex = (
            f"{_spelt(style, letter, index)} = {written(made, {}, _pen(style, self.spelt), 0)}"
            for style in (TEXT, LATEX)
        )
        self.lines.append(Formula(text, latex))


def rule_lines(rule: Rule) -> tuple[Formula, ...]:
    """The recurrence of a rule and of what it remembers; `t` counts its applications.

    Example:
        >>> from nldsl.spec.open_rule import open_rule
        >>> momentum = open_rule("momentum", lr=0.1).outer.at((3, 2), False)
        >>> [line.text for line in rule_lines(momentum)]
        ['m_t = beta m_{t-1} - lr g_t', 'W_t = W_{t-1} + m_t']
    """
    w = _Writing(rule)
    _inputs(w)
    outputs = {v.name: slot.name for slot, v in zip(rule.slots, rule.function.outputs[1:], strict=True)}
    used = [a.name for step in rule.function.body for a in step.args]
    for step in rule.function.body:
        made = w.named[step.out.name] = _made(w, step)
        known = outputs.get(step.out.name)
        if known is not None:
            w.line(known, "t", made)
            w.bear(step.out, f"{known}'", known, "t")
        elif used.count(step.out.name) > 1 and _long(w, made):
            w.line(step.out.name, "", made)
            w.bear(step.out, step.out.name, step.out.name, "")
    w.line("W", "t", w.named[rule.function.outputs[0].name])
    return tuple(w.lines)


def rule_settings(rule: Rule) -> tuple[str, ...]:
    """Options of what a rule calls, which no formula shows: `inverse_root: root = 4`."""
    told = dict.fromkeys((s.op, s.options) for s in rule.function.body)
    found = ((op, [f"{n} = {v:g}" for n, v in opts if _shown(op, n, v)]) for op, opts in told)
    return tuple(f"{op}: {', '.join(shown)}" for op, shown in found if shown)


def _shown(op: str, name: str, value: object) -> TypeGuard[float]:
    plain = op not in ("constant", "identity", "multiple_of") and isinstance(value, int | float)
    return plain and any(o.name == name and o.runtime for o in PRIMITIVES[op].options)


def _inputs(w: _Writing) -> None:
    """`W`, memories and what is visible of them as they were; `g`, `x`, `dy` of now; numbers by name."""
    slots = {slot.name for slot in w.rule.slots}
    seen = {slot.visible: slot for slot in w.rule.slots if slot.visible and slot.clock}
    spoken = {name: value.name for name, value in w.rule.arguments}
    for value in w.rule.function.inputs:
        name = value.name
        if name in seen:
            slot = seen[name]
            w.bear(value, name, slot.name, f"last multiple of {slot.clock.every}" if slot.clock else "")
        elif name in slots or name == "W":
            w.bear(value, name, name, "t-1")
        elif name == "step":
            w.bear(value, name, "t", "")
        else:
            w.bear(value, name, spoken.get(name, name), "t" if name in ("g", "x", "dy") else "")


def _made(w: _Writing, step: Apply) -> Expr:
    """One operation; what is known by another name in formulas is written that way."""
    args = tuple(w.named[a.name] for a in step.args)
    if step.op == "unbias":
        return build("div", args[0], build("sub", number(1.0), build("pow", args[1], args[2])))
    if step.op == "multiple_of":
        fires = f"t is a multiple of {option(step.options, 'of')}"
        return symbol(fires, step.out.shape, step.out.kind, role="parameter")
    if step.op == "identity":
        return symbol("I", step.out.shape, step.out.kind, role="parameter")
    owned = tuple(parameter_symbol(p) for p in step.parameters)
    return apply(step.op, args + owned, dict(step.options), len(owned))


def _long(w: _Writing, made: Expr) -> bool:
    return made.op != SYMBOL and len(written(made, {}, _pen(TEXT, w.spelt), 0)) > _PLAIN


def _pen(style: Style, spelt: dict[str, tuple[str, str]]) -> Style:
    """The style with the rule's own letters, and comparisons with their signs."""
    return replace(
        style,
        symbol=lambda name, _: _spelt(style, *spelt.get(name, (name, ""))),
        call=lambda name, inner: _called(style, name, inner),
    )


def _spelt(style: Style, letter: str, index: str) -> str:
    if " " in letter:
        return rf"\text{{{letter}}}" if style is LATEX else letter
    if style is LATEX or len(index) < 2:
        return style.symbol(letter, rf"\text{{{index}}}" if " " in index else index)
    return f"{letter}_{{{index}}}"


def _called(style: Style, name: str, inner: str) -> str:
    """`t = 1` for `eq(t, 1)`; a transpose as one; every other function by name."""
    if name in _COMPARED:
        left, _, right = inner.rpartition(", ")
        return f"{left} {_COMPARED[name]} {right}"
    if name == "transpose":
        return f"({inner}){style.transpose}" if " " in inner else f"{inner}{style.transpose}"
    return style.call(name, inner)
