"""How expressions are written for people: as plain text and as LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nldsl.calculus.expression import SYMBOL, Expr

_GREEK = frozenset(
    [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "eps",
        "eta",
        "theta",
        "kappa",
        "lambda",
        "mu",
        "rho",
        "sigma",
        "tau",
        "phi",
    ]
)
_FUNCTIONS = frozenset({"exp", "log", "tanh", "sin", "cos"})


@dataclass(frozen=True)
class Style:
    """How to write: names with their time index, products, transposes, fractions."""

    symbol: Callable[[str, str], str]
    fraction: Callable[[str, str], str]
    dot: str
    transpose: str
    call: Callable[[str, str], str]
    gradient: Callable[[str], str]
    where: str
    norm: Callable[[str], str]
    power: Callable[[str, str], str]
    slope: Callable[[str, str], str]
    times: str
    """Between the factors of an elementwise product, where a blank would read as an application."""


def written(expr: Expr, names: Mapping[str, str], style: Style, tight: int) -> str:
    """An expression; `tight` 0 takes any, 1 wants a product, 2 a factor (else parentheses)."""
    if expr.op == SYMBOL:
        return style.symbol(
            names.get(expr.name, expr.name), "" if expr.role in ("parameter", "weight") else "t"
        )
    if expr.value is not None:
        return f"{expr.value:.6g}"
    inner = [written(a, names, style, level) for a, level in zip(expr.args, _levels(expr), strict=True)]
    text, level = _compose(expr, inner, style)
    return f"({text})" if level < tight else text


def _levels(expr: Expr) -> tuple[int, ...]:
    """How tightly each operand must hold together."""
    fixed = {
        "add": (0, 0),
        "sub": (0, 1),
        "mul": (1, 1),
        "neg": (1,),
        "div": (0, 0),
        "matmul": (2, 2),
        "outer": (1, 2),
        "silu_pullback": (2, 0),
        "gelu_pullback": (2, 0),
    }
    if expr.op in ("pow", "dot", "parts") or _elementwise(expr):
        return (2,) * len(expr.args)
    return fixed.get(expr.op, (0,) * len(expr.args))


def _elementwise(expr: Expr) -> bool:
    """Whether a product multiplies vectors or matrices element by element."""
    return expr.op == "mul" and all(a.shape for a in expr.args)


def _compose(expr: Expr, inner: list[str], style: Style) -> tuple[str, int]:
    """The text of a node and how tightly it holds together."""
    product = _product(expr, inner, style)
    if product is not None:
        return product
    match expr.op:
        case "add":
            first, second = reversed(inner) if inner[0].startswith("-") else inner
            return f"{first}{_signed('+', second)}", 0
        case "sub":
            return f"{inner[0]}{_signed('-', inner[1])}", 0
        case "neg":
            return f"-{inner[0]}", 1
        case "div":
            return style.fraction(inner[0], inner[1]), 1
        case "pow":
            return style.power(inner[0], inner[1]), 2
        case "parts":
            return f"{inner[0]}[{_channels(expr)}]", 2
    return style.call(expr.op, ", ".join(inner)), 2


def _channels(expr: Expr) -> str:
    """Which channels a piece of a vector is: `4:8`."""
    sizes, index = expr.option("sizes"), expr.option("index")
    given = [int(s) for s in (sizes if isinstance(sizes, tuple) else (sizes,)) if isinstance(s, int)]
    start = sum(given[: index if isinstance(index, int) else 0])
    return f"{start}:{start + expr.shape[-1]}"


def _signed(sign: str, summand: str) -> str:
    """A summand behind its sign; a minus in front of it joins the sign."""
    if summand.startswith("-"):
        sign, summand = "-" if sign == "+" else "+", summand[1:]
    return f" {sign} {summand}"


def _product(expr: Expr, inner: list[str], style: Style) -> tuple[str, int] | None:
    """Products of all kinds; `None` if the node is none."""
    match expr.op:
        case "mul":
            # Numbers and scalars stand before vectors.
            pairs = sorted(zip(expr.args, inner, strict=True), key=lambda p: len(p[0].shape))
            between = style.times if _elementwise(expr) else style.dot
            return between.join(text for _, text in pairs), 1
        case "matmul":
            if len(expr.args[0].shape) == 1:
                return f"{inner[1]}{style.transpose}{style.dot}{inner[0]}", 1
            return style.dot.join(inner), 1
        case "outer":
            return f"{inner[0]}{style.dot}{inner[1]}{style.transpose}", 1
        case "silu_pullback" | "gelu_pullback":
            return f"{style.slope(expr.op.split('_')[0], inner[1])}{style.times}{inner[0]}", 1
        case "dot":
            if expr.args[0] is expr.args[1]:
                return style.power(style.norm(inner[0]), "2"), 2
            return f"{inner[0]}{style.transpose}{style.dot}{inner[1]}", 1
    return None


def _latex_name(name: str) -> str:
    """Greek letters by name, long words upright."""
    head, _, tail = name.partition("_")
    if head == "vhat":
        return r"\hat{v}" + (f"^{{{tail}}}" if tail else "")
    if head in _GREEK:
        head = rf"\{'epsilon' if head == 'eps' else head}"
    elif len(head) > 1:
        head = rf"\mathrm{{{head}}}"
    # Braces around, so that an exponent may follow.
    return rf"{{{head}^{{{tail}}}}}".replace("_", r"\_") if tail else head


def _latex_symbol(name: str, index: str) -> str:
    return f"{_latex_name(name)}_{{{index}}}" if index else _latex_name(name)


def _latex_call(name: str, inner: str) -> str:
    upright = name.replace("_", r"\_")
    return rf"\{name}({inner})" if name in _FUNCTIONS else rf"\mathrm{{{upright}}}({inner})"


def _text_fraction(over: str, under: str) -> str:
    """Parentheses where the operand is a sum or a product."""
    wrapped = [f"({t})" if any(c in t for c in " /") else t for t in (over, under)]
    return f"{wrapped[0]} / {wrapped[1]}"


TEXT = Style(
    symbol=lambda name, index: f"{name}_{index}" if index else name,
    fraction=_text_fraction,
    dot=" ",
    transpose="^T",
    call=lambda name, inner: f"{name}({inner})",
    gradient=lambda name: f"gradient of {name}",
    where="  where ",
    norm=lambda inner: f"||{inner}||",
    power=lambda base, exponent: f"{base}^{exponent}",
    slope=lambda name, inner: f"{name}'({inner})",
    times=" * ",
)
LATEX = Style(
    symbol=_latex_symbol,
    fraction=lambda over, under: rf"\frac{{{over}}}{{{under}}}",
    dot=r" ",
    transpose=r"^{\top}",
    call=_latex_call,
    gradient=lambda name: rf"\nabla_{{{name}}} \mathcal{{L}}",
    where=r",\quad ",
    norm=lambda inner: rf"\lVert {inner} \rVert",
    power=lambda base, exponent: f"{base}^{{{exponent}}}",
    slope=lambda name, inner: rf"\mathrm{{{name}}}'({inner})",
    times=r" \odot ",
)
