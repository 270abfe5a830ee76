"""The derived update of a memory as an equation, in plain text and in LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nldsl.calculus.classify import DeltaForm, UpdateClass
from nldsl.calculus.differentiate import WeightGradient
from nldsl.calculus.expression import Expr, symbol
from nldsl.calculus.notation import LATEX, TEXT, Style, written
from nldsl.calculus.rules import RuleForm
from nldsl.calculus.simplify import build
from nldsl.spec.program import Memory, Write


@dataclass(frozen=True)
class Description:
    """One equation per weight (and one more for a momentum), and the reasons behind the class."""

    text: tuple[str, ...]
    latex: tuple[str, ...]
    reasons: tuple[str, ...]


def describe(
    memory: Memory,
    write: Write,
    update: UpdateClass,
    names: Mapping[str, str] | None = None,
    scaled_by: str = "",
) -> Description:
    """The update equation of `memory` that the analysis derived from its objective and rule.

    `names` says how to call the symbols (`key`, `target`, the rule's arguments by name); by default
    the values of the block they are bound to.  A memory without closed form gets the general
    equation `W_t = rule(W_{t-1}, gradient)` per weight.  `scaled_by` names the gate of an `S *= gate`
    above the write, which scales the state the write starts from.
    """
    called = _names(write) | dict(names or {}) | {_SCALE: scaled_by}
    reasons = update.reasons
    if write.toward == "init":
        reasons = (*reasons, "decay and erase act on the distance from the initial state")
    pair = [_equations(memory, write, update, called, style) for style in (TEXT, LATEX)]
    return Description(tuple(pair[0]), tuple(pair[1]), reasons)


def _names(write: Write) -> dict[str, str]:
    """`key`, `target` and the arguments of the first term as the block calls them."""
    if not write.terms:
        return {}
    term = write.terms[0]
    bound = {name: value.name for name, value in term.rule.arguments}
    return {"key": term.key.name, "target": term.target.name, **bound}


def _equations(
    memory: Memory, write: Write, update: UpdateClass, names: Mapping[str, str], style: Style
) -> list[str]:
    """One line per state."""
    retain = style.symbol(write.retain.name, "t") if write.retain is not None else ""
    forms = [t.online for t in update.terms]
    if update.letter in ("D", "R") and len(forms) == 1 and forms[0] is not None:
        return _closed(memory.name, forms[0], names, retain, style)
    lines: list[str] = []
    for term in update.terms:
        for grad, analysis in zip(term.gradient.gradients if term.gradient else (), term.rules, strict=True):
            lines.append(_general(grad, analysis.form, names, retain, style))
    return list(dict.fromkeys(lines))


def _general(
    grad: WeightGradient, form: RuleForm | None, names: Mapping[str, str], retain: str, style: Style
) -> str:
    """One weight of a map that is not linear: its own input `z` and slope `d`, at the base state."""
    name = style.symbol(grad.name, "")
    old, space = f"{name}_{{t-1}}", style.dot
    beside = form is not None and form.momentum is not None and form.rate.value != 0.0
    if form is None or grad.x is None or grad.dy is None or beside:
        gate = f"{retain}{space}" if retain else ""
        return f"{name}_t = {gate}{style.call('rule', f'{old}, {style.gradient(name)}')}"
    inner = {**names, form.x.name: "z"}
    bare = replace(style, symbol=lambda n, index: n if n in ("z", "d") else style.symbol(n, index))
    rate = form.momentum.rate if form.momentum is not None else form.rate
    linear = DeltaForm(form.keep, form.taken, _slope_times(rate, grad.dy), form.x, _filter(form))
    body = "; ".join(_closed(grad.name, linear, {**inner, _SLOPE: "d"}, retain, bare))
    where = f"z = {written(grad.x, names, style, 0)}, d = {written(grad.dy, names, style, 0)}"
    return f"{body}{style.where}{where}"


_SLOPE = "slope of the output"
_SCALE = "scale of the state"


def _slope_times(rate: Expr, dy: Expr) -> Expr:
    """`-rate * d`, with `d` for the gradient at the weight's output."""
    return build("neg", build("mul", rate, symbol(_SLOPE, dy.shape, dy.kind)))


def _filter(form: RuleForm) -> tuple[Expr, Expr] | None:
    return (form.momentum.beta, form.momentum.read) if form.momentum is not None else None


def _closed(memory: str, form: DeltaForm, names: Mapping[str, str], retain: str, style: Style) -> list[str]:
    """`S_t = S_{t-1} (a I - b k k^T) + v k^T`, with a filter in between if there is momentum."""
    key = written(form.x, names, style, 2)
    name = style.symbol(memory, "")
    scale = names.get(_SCALE, "")
    old = f"{style.symbol(scale, 't')}{style.dot}{name}_{{t-1}}" if scale else f"{name}_{{t-1}}"
    square = f"{key}{style.dot}{key}{style.transpose}"
    erase, value = written(form.erase, names, style, 2), written(form.value, names, style, 1)
    zero = form.erase.value == 0.0
    push = _signed(value, key + style.transpose, style)
    if form.momentum is not None:
        beta, read = (written(e, names, style, 2) for e in form.momentum)
        pull = "" if zero else f" - {erase}{style.dot}{old}{style.dot}{square}"
        more = "m_t" if form.momentum[1].value == 1.0 else f"{read}{style.dot}m_t"
        keep = f"{_keep(form, names, retain, style)}{old}"
        return [f"m_t = {beta}{style.dot}m_{{t-1}}{pull}{push}", f"{name}_t = {keep} + {more}"]
    gate = _keep(form, names, retain, style)
    if zero:
        return [f"{name}_t = {gate}{old}{push}"]
    return [f"{name}_t = {old}{style.dot}({gate}I - {_one(erase)}{square}){push}"]


def _keep(form: DeltaForm, names: Mapping[str, str], retain: str, style: Style) -> str:
    """The factor in front of the old state, empty for one."""
    extra = "" if form.keep.value == 1.0 else written(form.keep, names, style, 0)
    if retain and extra:
        return f"({retain} + {extra} - 1){style.dot}"
    factor = retain or (f"({extra})" if extra else "")
    return f"{factor}{style.dot}" if factor else ""


def _one(factor: str) -> str:
    return "" if factor == "1" else f"{factor} "


def _signed(value: str, key: str, style: Style) -> str:
    """` + v k^T`, or with a minus if the value begins with one."""
    if value == "0":
        return ""
    sign, body = ("-", value[1:]) if value.startswith("-") else ("+", value)
    return f" {sign} {body}{style.dot}{key}"
