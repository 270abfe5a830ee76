"""Operations of torch that are more than an expression: sums, products, what is put together."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from nldsl.native import opaque, views
from nldsl.native.formulas import power
from nldsl.native.graph import (
    Point,
    Product,
    Reduce,
    Routine,
    UnsupportedError,
    View,
    fresh,
)

if TYPE_CHECKING:
    from nldsl.native.reading import Reader

aten = torch.ops.aten
Form = Callable[["Reader", fx.Node], Any]


def _added(sign: str) -> Form:
    def form(r: Reader, node: fx.Node) -> View:
        a, b = (r.operand(x) for x in node.args[:2])
        alpha = r.given(node)["alpha"]
        text = f"{{0}} {sign} {{1}}" if alpha == 1 else f"{{0}} {sign} {{1}} * {{2}}"
        return r.point(node, text, a, b, *(() if alpha == 1 else (float(alpha),)))

    return form


def _reversed_difference(r: Reader, node: fx.Node) -> View:
    a, b = (r.operand(x) for x in node.args[:2])
    return r.point(node, "{1} - {0}", a, b)


def _formula(text: str, *, dear: bool = False) -> Form:
    """An expression of all positional arguments."""

    def form(r: Reader, node: fx.Node) -> View:
        return r.point(node, text, *(r.operand(x) for x in node.args), dear=dear)

    return form


def _scaled(operation: str) -> Form:
    """`a + value * (b op c)`."""

    def form(r: Reader, node: fx.Node) -> View:
        value = r.given(node)["value"]
        operands = [r.operand(x) for x in node.args[:3]]
        if value != 1:
            text = f"{{0}} + {{3}} * ({{1}} {operation} {{2}})"
            return r.point(node, text, *operands, float(value))
        return r.point(node, f"{{0}} + {{1}} {operation} {{2}}", *operands)

    return form


def _power(r: Reader, node: fx.Node) -> View:
    base, exponent = (r.operand(x) for x in node.args[:2])
    if isinstance(exponent, View):
        return r.point(node, "nl_pow({0}, {1})", base, exponent, dear=True)
    return r.point(node, power(exponent), base, exponent, dear="pow" in power(exponent))


def _clamped(r: Reader, node: fx.Node) -> View:
    given = r.given(node)
    text, operands = "{0}", [r.operand(given["self"])]
    for bound, sign in ((given["min"], "<"), (given["max"], ">")):
        if bound is not None:
            text = f"(({text}) {sign} {{{len(operands)}}} ? {{{len(operands)}}} : ({text}))"
            operands.append(r.operand(bound))
    return r.point(node, text, *operands)


def _silu(r: Reader, node: fx.Node) -> View:
    """`x sigmoid(x)`: its derivative, which is seldom far away, asks for the same exponential."""
    x, (shape, kind) = views.expanded(r.view(node.args[0]), r.like(node)[0]), r.like(node)
    sigmoid = r.put(Point(fresh(shape, kind), "nl_sigmoid({0})", [x], dear=True))
    return r.put(Point(fresh(shape, kind), "{0} * {1}", [x, sigmoid]))


def _gelu(r: Reader, node: fx.Node) -> View:
    form = "tanh" if r.given(node)["approximate"] == "tanh" else "erf"
    return r.point(node, f"nl_gelu_{form}({{0}})", r.operand(node.args[0]), dear=True)


def _filled(r: Reader, node: fx.Node) -> View:
    """`full`, `full_like`, `scalar_tensor`: the number is the last argument that is no shape."""
    return r.point(node, "{0}", r.operand(node.args[-1]))


def _constant(value: float) -> Form:
    return lambda r, node: r.point(node, "{0}", value)


def _converted(r: Reader, node: fx.Node) -> View:
    view, (_, kind) = r.view(node.args[0]), r.like(node)
    if view.buffer.kind == kind:
        return view
    return r.point(node, "{0} != 0" if kind == "bool" else "{0}", view)


def _copied(r: Reader, node: fx.Node) -> View:
    """`copy(into, what)` as a value: what, in the shape of the other."""
    view, (shape, kind) = r.view(node.args[1]), r.like(node)
    if view.buffer.kind != kind:
        return r.point(node, "{0}", view)
    return views.expanded(view, shape)


def _counted(r: Reader, node: fx.Node) -> View:
    given = r.given(node)
    start, step = (float(r.value(given.get(n, d))) for n, d in (("start", 0), ("step", 1)))
    return r.point(node, "{0} + {j} * {1}", start, step)


def _eye(r: Reader, node: fx.Node) -> View:
    return r.point(node, "{i} == {j}")


def _triangle(sign: str) -> Form:
    def form(r: Reader, node: fx.Node) -> View:
        offset = r.given(node)["diagonal"]
        return r.point(node, f"({{j}} - {{i}} {sign} {offset} ? {{0}} : 0)", r.operand(node.args[0]))

    return form


def _put_together(r: Reader, node: fx.Node, parts: list[View], axis: int) -> View:
    """Parts one behind the other along an axis."""
    shape, kind = r.like(node)
    whole, at = fresh(shape, kind), 0
    whole.buffer.parts = True
    for part in parts:
        place = views.sliced(whole, axis, at, at + part.shape[axis])
        r.put(Point(place, "{0}", [part]))
        at += part.shape[axis]
    return whole


def _cat(r: Reader, node: fx.Node) -> View:
    given = r.given(node)
    parts = [v for v in (r.view(x) for x in given["tensors"]) if v.shape != (0,)]
    return _put_together(r, node, parts, views.axis_of(parts[0], given["dim"]))


def _stack(r: Reader, node: fx.Node) -> View:
    given = r.given(node)
    axis = given["dim"] % len(r.like(node)[0])
    return _put_together(r, node, [views.unsqueezed(r.view(x), axis) for x in given["tensors"]], axis)


def _over(r: Reader, base: View, part: View, place: Callable[[View], View]) -> View:
    """A copy of `base` with `part` at a place of it."""
    whole = fresh(base.shape, base.buffer.kind)
    whole.buffer.parts = True
    r.put(Point(whole, "{0}", [base]))
    into = place(whole)
    r.put(Point(into, "{0}", [views.expanded(part, into.shape)]))
    return whole


def _slice_scatter(r: Reader, node: fx.Node) -> View:
    given = r.given(node)
    places = [given[n] for n in ("dim", "start", "end", "step")]
    return _over(r, r.view(given["self"]), r.view(given["src"]), lambda v: views.sliced(v, *places))


def _select_scatter(r: Reader, node: fx.Node) -> View:
    given = r.given(node)
    base, part = r.view(given["self"]), r.view(given["src"])
    return _over(r, base, part, lambda v: views.selected(v, given["dim"], given["index"]))


def _diagonal_scatter(r: Reader, node: fx.Node) -> View:
    given = r.given(node)
    places = [given[n] for n in ("offset", "dim1", "dim2")]
    return _over(r, r.view(given["self"]), r.view(given["src"]), lambda v: views.diagonal(v, *places))


def _padded(r: Reader, node: fx.Node) -> View:
    given = r.given(node)
    inner, amounts = r.view(given["self"]), list(given["pad"])
    whole = place = fresh(*r.like(node))
    whole.buffer.parts = True
    r.put(Point(whole, "{0}", [float(given["value"] or 0)]))
    for n in range(len(amounts) // 2):
        axis, (front, back) = len(inner.shape) - 1 - n, amounts[2 * n : 2 * n + 2]
        size = inner.shape[axis]
        inner = views.sliced(inner, axis, max(-front, 0), size - max(-back, 0))
        place = views.sliced(place, axis, max(front, 0), place.shape[axis] - max(back, 0))
    r.put(Point(place, "{0}", [inner]))
    return whole


def _reduced(how: str) -> Form:
    def form(r: Reader, node: fx.Node) -> View:
        given, view = r.given(node), r.view(node.args[0])
        axes = given.get("dim")
        axes = [axes] if isinstance(axes, int) else axes or range(len(view.shape))
        places = tuple(sorted({views.axis_of(view, a) for a in axes}))
        shape = tuple(1 if i in places else n for i, n in enumerate(view.shape))
        made = r.put(Reduce(fresh(shape, r.like(node)[1]), view, places, how))
        return made if given.get("keepdim") else views.squeezed(made, places)

    return form


def _variance_and_mean(r: Reader, node: fx.Node) -> tuple[View, View]:
    given, view = r.given(node), r.view(node.args[0])
    places = tuple(sorted(views.axis_of(view, a) for a in given["dim"] or range(len(view.shape))))
    kind, shape = view.buffer.kind, tuple(1 if i in places else n for i, n in enumerate(view.shape))
    count = view.elements / max(prod(shape), 1)
    correction = 1.0 if given["correction"] is None else float(given["correction"])

    def mean(of: View, divisor: float) -> View:
        summed = r.put(Reduce(fresh(shape, kind), of, places, "sum"))
        return r.put(Point(fresh(shape, kind), "{0} / {1}", [summed, divisor]))

    middle = mean(view, count)
    off = [view, views.expanded(middle, view.shape)]
    square = r.put(Point(fresh(view.shape, kind), "({0} - {1}) * ({0} - {1})", list(off)))
    found = mean(square, count - correction), middle
    variance, middle = (x if given["keepdim"] else views.squeezed(x, places) for x in found)
    return variance, middle


def _running(how: str) -> Form:
    def form(r: Reader, node: fx.Node) -> View:
        axis, (shape, kind) = r.given(node)["dim"], r.like(node)
        out = views.transposed(fresh(shape, kind), axis, -1)
        r.put(Routine(out, how, views.transposed(r.view(node.args[0]), axis, -1)))
        return views.transposed(out, axis, -1)

    return form


def _inverse(r: Reader, node: fx.Node) -> View:
    view = r.view(node.args[0])
    given = view if view.strides[-1] == 1 or view.shape[-1] == 1 else r.whole(view)
    return r.put(Routine(fresh(view.shape, view.buffer.kind), "nl_unit_lower_inverse", given))


def _product(r: Reader, node: fx.Node, a: View, b: View, start: View | None = None, **scale: float) -> View:
    shape, kind = r.like(node)
    if kind != r.real:
        raise UnsupportedError(f"products of {kind}")
    return r.put(Product(fresh(shape, kind), a, b, scale.get("alpha", 1.0), scale.get("beta", 0.0), start))


def _plain_product(r: Reader, node: fx.Node) -> View:
    a, b = (r.view(x) for x in node.args[:2])
    return _product(r, node, a, b)


def _added_product(r: Reader, node: fx.Node) -> View:
    given = r.given(node)
    start, a, b = (r.view(x) for x in node.args[:3])
    alpha, beta = float(given["alpha"]), float(given["beta"])
    return _product(r, node, a, b, views.expanded(start, r.like(node)[0]), alpha=alpha, beta=beta)


def _dot(r: Reader, node: fx.Node) -> View:
    a, b = (r.view(x) for x in node.args[:2])
    times = r.put(Point(fresh(a.shape, a.buffer.kind), "{0} * {1}", [a, b]))
    return views.squeezed(r.put(Reduce(fresh((1,), a.buffer.kind), times, (0,), "sum")), None)


def _matrix_vector(r: Reader, node: fx.Node) -> View:
    a, b = (r.view(x) for x in node.args[:2])
    column = Product(fresh((a.shape[0], 1), a.buffer.kind), a, views.unsqueezed(b, 1))
    return views.squeezed(r.put(column), [1])


def _mean(r: Reader, node: fx.Node) -> View:
    summed = _reduced("sum")(r, node)
    count = r.view(node.args[0]).elements / max(summed.elements, 1)
    return r.put(Point(fresh(summed.shape, summed.buffer.kind), "{0} / {1}", [summed, count]))


FORMS: dict[Any, Form] = {
    aten.add: _added("+"),
    aten.sub: _added("-"),
    aten.rsub: _reversed_difference,
    aten.addcmul: _scaled("*"),
    aten.addcdiv: _scaled("/"),
    aten.where: _formula("{0} ? {1} : {2}"),
    aten.masked_fill: _formula("{1} ? {2} : {0}"),
    aten.lerp: _formula("{0} + {2} * ({1} - {0})"),
    aten.pow: _power,
    aten.clamp: _clamped,
    aten.clamp_min: _formula("({0} < {1} ? {1} : {0})"),
    aten.clamp_max: _formula("({0} > {1} ? {1} : {0})"),
    aten.silu: _silu,
    aten.gelu: _gelu,
    aten.full: _filled,
    aten.full_like: _filled,
    aten.new_full: _filled,
    aten.fill: _filled,
    aten.scalar_tensor: _filled,
    aten.zeros: _constant(0.0),
    aten.zeros_like: _constant(0.0),
    aten.new_zeros: _constant(0.0),
    aten.empty: _constant(0.0),
    aten.empty_like: _constant(0.0),
    aten.new_empty: _constant(0.0),
    aten.empty_strided: _constant(0.0),
    aten.new_empty_strided: _constant(0.0),
    aten.ones: _constant(1.0),
    aten.ones_like: _constant(1.0),
    aten.new_ones: _constant(1.0),
    aten.copy: _copied,
    aten._to_copy: _converted,
    torch.ops.prims.convert_element_type: _converted,
    aten.arange: _counted,
    aten.eye: _eye,
    aten.tril: _triangle("<="),
    aten.triu: _triangle(">="),
    aten.cat: _cat,
    aten.stack: _stack,
    aten.slice_scatter: _slice_scatter,
    aten.select_scatter: _select_scatter,
    aten.diagonal_scatter: _diagonal_scatter,
    aten.constant_pad_nd: _padded,
    aten.sum: _reduced("sum"),
    aten.mean: _mean,
    aten.var_mean: _variance_and_mean,
    aten.amax: _reduced("amax"),
    aten.amin: _reduced("amin"),
    aten.cumsum: _running("cumsum"),
    aten.cumprod: _running("cumprod"),
    opaque.unit_lower_inverse._opoverload.overloadpacket: _inverse,
    aten.mm: _plain_product,
    aten.bmm: _plain_product,
    aten.addmm: _added_product,
    aten.baddbmm: _added_product,
    aten.dot: _dot,
    aten.mv: _matrix_vector,
}
"""Operations that have a form of their own."""
