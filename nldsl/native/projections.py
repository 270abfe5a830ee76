"""Linear layers of one value as one operation: what they give back is summed where it is made.

The text of a forward pass calls them one by one; here its code does so at once, in front of the first.
"""

from __future__ import annotations

import ast
import dis
from collections import Counter
from collections.abc import Iterator
from functools import partial
from inspect import getsource, unwrap
from textwrap import dedent
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor

from nldsl.native.forwards import put, shared
from nldsl.native.linears import (
    Linears,
    Product,
    fits,
    inputs_of,
    linears_of,
    rows_of,
    several,
    taken,
    weights_of,
    worth,
)
from nldsl.runtime.each_gradient import each_gradient
from nldsl.runtime.module import Module
from nldsl.runtime.native import Step
from nldsl.runtime.precision import as_given

LINEAR = "linear"
TOGETHER = "linears_of_one"
"""The name under which the code has what computes them."""
SIMPLE = ast.Assign | ast.AnnAssign | ast.Expr | ast.Return
"""Statements that run whatever the values are."""
METHODS = {"LOAD_METHOD": "LOAD_ATTR"}
THIN = 32
"""Layers of so few outputs are one product."""
Layer = tuple[Tensor, Tensor | None]


def quicken_linears(block: Module) -> list[Linears]:
    """Let the linear layers of a block be products in C, those of one value together."""
    kind = type(block)
    plain = unwrap(kind.forward)
    found = []
    for name in linears_of(kind):
        found.append(shared(kind, name, partial(Linears, plain.__globals__[name])))
        put(block, name, found[-1])
        code = shared(kind, "together", partial(together, plain)) if name == LINEAR else None
        if code is not None:
            put(block, TOGETHER, shared(kind, TOGETHER, partial(Projections, found[-1])), code)
    return found


def together(forward: FunctionType) -> CodeType | None:
    """The code of a forward pass with linear layers of one value called at once; `None` if it has none.

    What is called is `linears_of_one(x, (weight, bias), ...)`, whose answers are taken in turn; lines stay.
    A file may have been written anew since it was imported: its text is not that of the code then.
    """
    plain = forward.__code__
    try:
        tree = ast.parse(dedent(getsource(forward)))
    except (OSError, SyntaxError):
        return None
    function = tree.body[0]
    if not isinstance(function, ast.FunctionDef) or plain.co_freevars or function.name != plain.co_name:
        return None
    if _says(_code(tree, plain)) != _says(plain) or not _rewritten(function):
        return None
    ast.fix_missing_locations(tree)
    ast.increment_lineno(tree, plain.co_firstlineno - 1)
    return _code(tree, plain)


def _code(tree: ast.Module, plain: CodeType) -> CodeType:
    whole = compile(tree, plain.co_filename, "exec", dont_inherit=True)
    return next(c for c in whole.co_consts if isinstance(c, CodeType) and c.co_name == plain.co_name)


def _says(code: CodeType) -> list[object]:
    """What code does; how methods are called depends on imports around it, and where it jumps on that."""
    jumps, found = {*dis.hasjrel, *dis.hasjabs}, list[object]()
    for step in dis.get_instructions(code):
        value = _says(step.argval) if isinstance(step.argval, CodeType) else step.argval
        found.append((METHODS.get(step.opname, step.opname), None if step.opcode in jumps else value))
    return found


def _rewritten(function: ast.FunctionDef) -> bool:
    """Whether there are such layers; if so, they are called together."""
    stored = [n.id for n in ast.walk(function) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)]
    given = Counter([*stored, *(a.arg for a in function.args.args)])
    calls: dict[str, list[ast.Call]] = {}
    first: dict[str, int] = {}
    written = set(_written_over(function))
    for place, statement in enumerate(function.body):
        for call in _calls(statement) if isinstance(statement, SIMPLE) else ():
            assert isinstance(call.args[0], ast.Name)
            name = call.args[0].id
            if given[name] == 1 and name not in written:
                calls.setdefault(name, []).append(call)
                first.setdefault(name, place)
    several = [name for name, found in calls.items() if len(found) > 1]
    for name in sorted(several, key=lambda n: first[n], reverse=True):
        layers = ", ".join(f"({', '.join(map(ast.unparse, call.args[1:]))},)" for call in calls[name])
        ahead = ast.parse(f"{name}__linears = {TOGETHER}({name}, {layers})").body[0]
        for node in ast.walk(ahead):
            ast.copy_location(node, function.body[first[name]])
        for index, call in enumerate(calls[name]):
            taken = ast.parse(f"{name}__linears.take({index})", mode="eval").body
            assert isinstance(taken, ast.Call)
            call.func, call.args = taken.func, taken.args
        function.body.insert(first[name], ahead)
    return bool(several)


def _written_over(function: ast.FunctionDef) -> Iterator[str]:
    """Names whose values may change in place, or inside a statement."""
    for node in ast.walk(function):
        if isinstance(node, ast.NamedExpr):
            yield node.target.id
        elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.value, ast.Name):
            in_place = isinstance(node, ast.Attribute) and node.attr.endswith("_")
            if in_place or not isinstance(node.ctx, ast.Load):
                yield node.value.id


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    """Calls `linear(name, self.w)` that a statement makes whatever the values are."""
    if isinstance(node, ast.IfExp | ast.BoolOp | ast.Compare | ast.Lambda):
        return
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == LINEAR:
        plain = not node.keywords and len(node.args) in (2, 3) and isinstance(node.args[0], ast.Name)
        if plain and all(map(_parameter, node.args[1:])):
            yield node
            return
    for child in ast.iter_child_nodes(node):
        yield from _calls(child)


def _parameter(node: ast.AST) -> bool:
    """Whether an expression is a part of the module."""
    while isinstance(node, ast.Attribute) or (
        isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)
    ):
        node = node.value
    return isinstance(node, ast.Name) and node.id == "self"


class Answers:
    """What layers give, each for the one who asks for it: nothing is kept longer than by calls one by one."""

    def __init__(self, found: list[Tensor | None]) -> None:
        self.found = found

    def take(self, index: int) -> Tensor:
        """One answer, once."""
        y, self.found[index] = self.found[index], None
        assert y is not None
        return y


class Projections:
    """Linear layers of one value, in C together where all of them may be."""

    def __init__(self, single: Linears) -> None:
        self.single = single

    def __call__(self, x: Tensor, *layers: tuple[Tensor] | Layer) -> Answers:
        """The answers of `layers`, a weight `[N, K]` and perhaps a bias `[N]` each."""
        pairs = [(layer[0], layer[1] if len(layer) > 1 else None) for layer in layers]
        step = worth(x, sum(w.shape[0] for w, _ in pairs))
        if step is None or not all(fits(x, *p) for p in pairs):
            return Answers([self.single(x, w, *(() if b is None else (b,))) for w, b in pairs])
        self.single.shapes.update((w.shape[0], w.shape[1]) for w, _ in pairs)
        given = [t for pair in pairs for t in pair]
        return Answers(list(_Projections.apply(step, x, *given)))  # type: ignore[no-untyped-call]


def _parted(sizes: list[int]) -> tuple[list[int], list[int]]:
    """Which layers are products of their own, and which are one."""
    thin = [n for n, size in enumerate(sizes) if size <= THIN]
    thin = thin if len(thin) > 1 else []
    return [n for n in range(len(sizes)) if n not in thin], thin


class _Projections(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, step: Step, x: Tensor, *given: Any) -> tuple[Tensor, ...]:
        layers, biases = given[::2], given[1::2]
        # Frozen weights ask for no rows, rows that ask for nothing need no weights.
        _, to_x, *asked = ctx.needs_input_grad
        ctx.save_for_backward(x if any(asked[::2]) else None, *(layers if to_x else ()))
        ctx.set_materialize_grads(False)
        ctx.step = step
        sizes = [w.shape[0] for w in layers]
        wide, thin = _parted(sizes)
        found = [rows_of(x, layers[n], biases[n]) for n in wide]
        if thin:
            added = [biases[n] for n in thin]
            if any(b is not None for b in added):
                added = [x.new_zeros(sizes[n]) if biases[n] is None else biases[n] for n in thin]
            bias = None if added[0] is None else torch.cat(added)
            found.append(rows_of(x, torch.cat([layers[n] for n in thin]), bias))
        several(step, [product for _, product in found])
        made = {n: y for n, (y, _) in zip(wide, found, strict=False)}
        if thin:
            whole = found[-1][0]
            parts = whole.split([sizes[n] for n in thin], -1)
            made.update(
                (n, part.clone(memory_format=torch.contiguous_format))
                for n, part in zip(thin, parts, strict=True)
            )
        return tuple(made[n] for n in range(len(layers)))

    @staticmethod
    @each_gradient
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, *layers = ctx.saved_tensors
        given = {n: dy for n, dy in enumerate(grads) if dy is not None}
        asked = ctx.needs_input_grad
        found: list[Tensor | None] = [None] * (2 * len(grads))
        if not given:
            return None, None, *found
        with as_given(next(iter(given.values())).device):
            for n, dy in given.items():
                if asked[2 * n + 3]:
                    found[2 * n + 1] = dy.flatten(0, -2).sum(0)
            if torch.is_grad_enabled() or not taken(*given.values(), x, *layers):
                dx = None
                for n, dy in given.items():
                    if asked[1]:
                        dx = dy @ layers[n] if dx is None else dx + dy @ layers[n]
                    if asked[2 * n + 2]:
                        found[2 * n] = dy.flatten(0, -2).mT @ x.flatten(0, -2)
                return None, dx, *found
            dx = _back(ctx.step, x, layers, given, asked, found)
        return None, dx, *found


def _back(
    step: Step,
    x: Tensor | None,
    layers: list[Tensor],
    given: dict[int, Tensor],
    asked: tuple[bool, ...],
    found: list[Tensor | None],
) -> Tensor | None:
    """The gradient of the value; those of weights come into `found`."""
    order = list(given)
    wide, thin = _parted([given[n].shape[-1] for n in order])
    groups = [[order[n]] for n in wide] + ([[order[n] for n in thin]] if thin else [])
    dx, products, joined = None, list[Product](), None
    for group in groups:
        one = len(group) == 1
        dy = given[group[0]] if one else torch.cat([given[n] for n in group], -1)
        if asked[1]:
            weight = layers[group[0]] if one else torch.cat([layers[n] for n in group])
            dx, product = inputs_of(dy, weight, into=dx)
            products.append(product)
        if x is not None and any(asked[2 * n + 2] for n in group):
            made, product = weights_of(dy, x)
            products.append(product)
            if one:
                found[2 * group[0]] = made
            else:
                joined = made
    several(step, products)
    if joined is not None:
        parts = joined.split([given[n].shape[-1] for n in groups[-1]])
        for n, part in zip(groups[-1], parts, strict=True):
            found[2 * n] = part.clone()
    return dx
