"""Operations of torch that move no number."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from nldsl.native import views
from nldsl.native.graph import View

if TYPE_CHECKING:
    from nldsl.native.reading import Reader

aten = torch.ops.aten
Form = Callable[["Reader", fx.Node], Any]


def _by(view: Callable[..., View], *names: str) -> Form:
    """A view told by the arguments of these names, behind the tensor."""

    def form(r: Reader, node: fx.Node) -> View:
        given = r.given(node)
        return view(r.view(node.args[0]), *(given[n] for n in names))

    return form


def _reshaped(r: Reader, node: fx.Node) -> View:
    return r.reshaped(r.view(node.args[0]), r.like(node)[0])


def _slice(r: Reader, node: fx.Node) -> View:
    given = r.given(node)
    places = (given[n] for n in ("dim", "start", "end", "step"))
    return views.sliced(r.view(node.args[0]), *places)


def _split(r: Reader, node: fx.Node) -> list[View]:
    given, view = r.given(node), r.view(node.args[0])
    axis: int = given["dim"]
    sizes: Any = given.get("split_sizes", given.get("split_size"))
    whole = view.shape[views.axis_of(view, axis)]
    if isinstance(sizes, int):
        sizes = [min(sizes, whole - at) for at in range(0, whole, sizes)]
    found, at = [], 0
    for size in sizes:
        found.append(views.sliced(view, axis, at, at + size))
        at += size
    return found


def _unbind(r: Reader, node: fx.Node) -> list[View]:
    view, axis = r.view(node.args[0]), r.given(node)["dim"]
    return [views.selected(view, axis, i) for i in range(view.shape[views.axis_of(view, axis)])]


def _squeezed(r: Reader, node: fx.Node) -> View:
    axes = r.given(node).get("dim")
    return views.squeezed(r.view(node.args[0]), [axes] if isinstance(axes, int) else axes)


def _same(r: Reader, node: fx.Node) -> View:
    return r.view(node.args[0])


FORMS: dict[Any, Form] = {
    aten.view: _reshaped,
    aten._unsafe_view: _reshaped,
    aten.reshape: _reshaped,
    aten.expand: lambda r, n: views.expanded(r.view(n.args[0]), r.like(n)[0]),
    aten.transpose: _by(views.transposed, "dim0", "dim1"),
    aten.t: lambda r, n: views.transposed(r.view(n.args[0]), 0, -1),
    aten.permute: _by(views.permuted, "dims"),
    aten.unsqueeze: _by(views.unsqueezed, "dim"),
    aten.squeeze: _squeezed,
    aten.select: _by(views.selected, "dim", "index"),
    aten.slice: _slice,
    aten.split: _split,
    aten.split_with_sizes: _split,
    aten.unbind: _unbind,
    aten.flip: _by(views.flipped, "dims"),
    aten.diagonal: _by(views.diagonal, "offset", "dim1", "dim2"),
    aten.alias: _same,
    aten.detach: _same,
    aten.clone: _same,
    aten.lift_fresh_copy: _same,
}
"""What a program computes by looking elsewhere; a copy of what nobody writes to is one of them."""
