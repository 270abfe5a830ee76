"""A traced graph of torch as a `Program` of views and operations."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from nldsl.native import forms, view_forms, views
from nldsl.native.formulas import BINARY, DEAR, UNARY
from nldsl.native.graph import (
    Buffer,
    Operand,
    Operation,
    Point,
    Program,
    UnsupportedError,
    View,
    fresh,
)

aten = torch.ops.aten
KINDS = {
    torch.float32: "float",
    torch.float64: "double",
    torch.bool: "bool",
    torch.int64: "long",
}
"""Types of torch and of C."""


def kind_of(dtype: torch.dtype) -> str:
    """The type of C.  Raises `UnsupportedError` for others."""
    if dtype not in KINDS:
        raise UnsupportedError(f"numbers of type {dtype}")
    return KINDS[dtype]


class Reader:
    """Reads node after node; `known` holds what each has given."""

    def __init__(self, graph: fx.GraphModule, real: str) -> None:
        self.graph, self.real = graph, real
        self.known: dict[fx.Node, Any] = {}
        self.same: dict[object, Any] = {}
        self.inputs: list[View] = []
        self.operations: list[Operation] = []

    def program(self) -> Program:
        """The whole graph."""
        outputs: list[View | None] = []
        for node in self.graph.graph.nodes:
            if node.op == "output":
                outputs = [self.view(x) for x in node.args[0]]
            else:
                self.known[node] = self._read(node)
        return Program(self.real, list(self.inputs), self.operations, outputs)

    def _read(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self._input(node)
        if node.op == "get_attr":
            return self._constant(getattr(self.graph, str(node.target)))
        if node.target is operator.getitem:
            group, place = node.args
            return self.value(group)[place]
        key = self._key(node)
        if key not in self.same:
            self.same[key] = self._made(node)
        return self.same[key]

    def _made(self, node: fx.Node) -> Any:
        target: Any = node.target
        packet = getattr(target, "overloadpacket", None)
        if target is aten.copy_.default:
            return self.value(node.args[1])
        form = view_forms.FORMS.get(packet) or forms.FORMS.get(packet)
        if form is not None:
            return form(self, node)
        if packet in UNARY or packet in BINARY:
            return self._elementwise(node, packet)
        raise UnsupportedError(f"the operation {target}")

    def _elementwise(self, node: fx.Node, packet: Any) -> View:
        if node.kwargs.get("rounding_mode"):
            raise UnsupportedError("division with rounding")
        arity = 1 if packet in UNARY else 2
        text = UNARY[packet] if arity == 1 else BINARY[packet]
        operands = [self.operand(x) for x in node.args[:arity]]
        return self.point(node, text, *operands, dear=packet in DEAR)

    def _key(self, node: fx.Node) -> object:
        def told(x: Any) -> object:
            if isinstance(x, fx.Node):
                known = self.known[x]
                return ("node", known.at(), known.shape) if isinstance(known, View) else ("node", x)
            return tuple(told(y) for y in x) if isinstance(x, (list, tuple)) else (type(x), x)

        options = tuple((k, told(v)) for k, v in sorted(node.kwargs.items()))
        return node.target, tuple(told(x) for x in node.args), options

    def _input(self, node: fx.Node) -> View:
        like = node.meta["val"]
        size = 1 + sum(s * (n - 1) for n, s in zip(like.shape, like.stride(), strict=True))
        buffer = Buffer(size, kind_of(like.dtype), "input", len(self.inputs))
        self.inputs.append(View(buffer, 0, tuple(like.shape), tuple(like.stride())))
        return self.inputs[-1]

    def _constant(self, tensor: Tensor) -> View:
        if tensor.numel() != 1:
            raise UnsupportedError("a tensor that is neither argument nor parameter")
        return self.put(Point(fresh(tuple(tensor.shape), kind_of(tensor.dtype)), "{0}", [tensor.item()]))

    def put(self, operation: Operation) -> View:
        """One more operation; what it makes, or what the same has made before."""
        key = operation.key()
        if key is not None and key in self.same:
            found: View = self.same[key]
            return found
        if key is not None:
            self.same[key] = operation.out
        self.operations.append(operation)
        return operation.out

    def value(self, x: Any) -> Any:
        """What an argument is."""
        return self.known[x] if isinstance(x, fx.Node) else x

    def given(self, node: fx.Node) -> dict[str, Any]:
        """All arguments of an operation of torch by their names, with those that were left out."""
        target: Any = node.target
        schema = target._schema.arguments
        found = {a.name: a.default_value for a in schema if a.has_default_value()}
        found |= dict(zip((a.name for a in schema), node.args, strict=False))
        return found | node.kwargs

    def view(self, x: Any) -> View:
        """An argument that is a tensor."""
        found = self.value(x)
        if not isinstance(found, View):
            raise UnsupportedError("a number where a tensor is expected")
        return found

    def operand(self, x: Any) -> Operand:
        """An argument that is a tensor or a number."""
        found = self.value(x)
        return found if isinstance(found, View) else float(found)

    def like(self, node: fx.Node) -> tuple[tuple[int, ...], str]:
        """Shape and type of what a node makes."""
        made = node.meta["val"]
        return tuple(made.shape), kind_of(made.dtype)

    def point(self, node: fx.Node, text: str, *operands: Operand, dear: bool = False) -> View:
        """An element-wise operation; its operands are broadcast."""
        shape, kind = self.like(node)
        wide = [views.expanded(x, shape) if isinstance(x, View) else x for x in operands]
        return self.put(Point(fresh(shape, kind), text, wide, dear))

    def whole(self, view: View) -> View:
        """The same numbers, one behind the other."""
        if view.at()[2] == fresh(view.shape, "float").at()[2]:
            return view
        return self.put(Point(fresh(view.shape, view.buffer.kind), "{0}", [view]))

    def reshaped(self, view: View, shape: tuple[int, ...]) -> View:
        """The same numbers in another shape, copied where need be."""
        found = views.viewed(view, shape)
        if found is None:
            found = views.viewed(self.whole(view), shape)
        assert found is not None
        return found


def read(graph: fx.GraphModule, real: str) -> Program:
    """The program of a traced graph.  Raises `UnsupportedError`."""
    return Reader(graph, real).program()
