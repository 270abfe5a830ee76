"""Emitted straight-line code in its simplest form: one operation per statement, functions inlined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from nldsl.emit.nodes import (
    Assign,
    Attribute,
    Expression,
    FunctionDef,
    Invoke,
    Item,
    ListOf,
    Literal,
    Negate,
    Operation,
    Return,
    Starred,
    Statement,
    TupleOf,
    Var,
)
from nldsl.lowerings.scope import Names

MODULES = frozenset({"torch", "functional", "Tensor"})


class NotFlatError(Exception):
    """A construction that has no simplest form: nothing of a step whose writes are plain is one."""


@dataclass(frozen=True)
class Binding:
    """`targets = value`, whose operands are names, literals and tuples of them."""

    targets: tuple[str, ...]
    value: Expression

    @property
    def out(self) -> str:
        """The only target."""
        return self.targets[0]


@dataclass
class Flat:
    """Bindings in order; `parameters` are what the code reads of `self`, by name."""

    names: Names
    functions: Mapping[str, FunctionDef]
    bindings: list[Binding] = field(default_factory=list)
    parameters: dict[str, Expression] = field(default_factory=dict)
    results: tuple[Expression, ...] = ()

    def function(self, definition: FunctionDef) -> Flat:
        """Flatten the body of a function whose parameters keep their names."""
        env: dict[str, Expression] = {p.name: Var(p.name) for p in definition.parameters}
        self.names.taken |= set(env)
        self.results = self._body(definition.body, env)
        return self

    def _body(self, body: tuple[Statement, ...], env: dict[str, Expression]) -> tuple[Expression, ...]:
        for statement in body:
            if isinstance(statement, Assign):
                self._assign(statement, env)
            elif isinstance(statement, Return) and statement.value is not None:
                found = self._atom(statement.value, env)
                return found.items if isinstance(found, TupleOf) else (found,)
            else:
                raise NotFlatError(f"a statement {type(statement).__name__}")
        raise NotFlatError("a body without a result")

    def _assign(self, statement: Assign, env: dict[str, Expression]) -> None:
        target = statement.targets[0]
        items = target.items if isinstance(target, TupleOf) else (target,)
        wanted = [i.name for i in items if isinstance(i, Var)]
        if len(wanted) < len(items):
            raise NotFlatError("a target that is no name")
        value = self._value(statement.value, env)
        if isinstance(value, TupleOf) and isinstance(target, TupleOf):
            env.update(zip(wanted, value.items, strict=True))
        elif _is_atom(value):
            env[wanted[0]] = value
        else:
            fresh = [self.names.fresh(w) for w in wanted]
            self.bindings.append(Binding(tuple(fresh), value))
            env.update({w: Var(f) for w, f in zip(wanted, fresh, strict=True)})

    def _atom(self, expression: Expression, env: Mapping[str, Expression]) -> Expression:
        value = self._value(expression, env)
        if _is_atom(value):
            return value
        fresh = self.names.fresh(_wanted(value))
        self.bindings.append(Binding((fresh,), value))
        return Var(fresh)

    def _value(self, expression: Expression, env: Mapping[str, Expression]) -> Expression:
        """One operation on atoms, or an atom."""
        if _is_path(expression):
            return self._parameter(expression)
        if isinstance(expression, Var | Literal | Starred) or shape_only(expression):
            same: Expression = _renamed(expression, env)
            return same
        if isinstance(expression, Invoke):
            return self._invoke(expression, env)
        if isinstance(expression, Attribute | Item):
            index = {"index": _renamed(expression.index, env)} if isinstance(expression, Item) else {}
            return replace(expression, obj=self._atom(expression.obj, env), **index)
        if isinstance(expression, Operation):
            left, right = self._atom(expression.left, env), self._atom(expression.right, env)
            return Operation(expression.op, left, right)
        if isinstance(expression, Negate):
            return Negate(self._atom(expression.value, env))
        if isinstance(expression, TupleOf | ListOf):
            return TupleOf(tuple(self._atom(i, env) for i in expression.items))
        raise NotFlatError(f"an expression {type(expression).__name__}")

    def _parameter(self, expression: Expression) -> Expression:
        found = next((n for n, e in self.parameters.items() if e == expression), None)
        if found is None:
            found = self.names.fresh("_".join(_parts(expression)))
            self.parameters[found] = expression
            self.bindings.append(Binding((found,), expression))
        return Var(found)

    def _invoke(self, node: Invoke, env: Mapping[str, Expression]) -> Expression:
        function = node.function
        args = tuple(self._atom(a, env) for a in node.args)
        kwargs = tuple((k, self._atom(a, env)) for k, a in node.kwargs)
        if isinstance(function, Var) and function.name in self.functions:
            definition = self.functions[function.name]
            names = [p.name for p in definition.parameters]
            inner = dict(zip(names, args, strict=False)) | dict(kwargs)
            results = self._body(definition.body, inner)
            return results[0] if len(results) == 1 else TupleOf(results)
        if isinstance(function, Attribute) and _root(function) not in MODULES:
            if _root(function) == "self":
                raise NotFlatError(f"a call of `{function.name}`")
            function = Attribute(self._atom(function.obj, env), function.name)
        return Invoke(function, args, kwargs)


def operands(node: Any) -> Iterator[str]:
    """Names that a value is computed from; those of which only the shape counts are left out."""
    if isinstance(node, Starred) or (isinstance(node, Expression) and shape_only(node)):
        return
    if isinstance(node, Var):
        yield node.name
    elif isinstance(node, tuple):
        for part in node:
            yield from operands(part)
    elif is_dataclass(node) and not isinstance(node, type):
        for part in fields(node):
            yield from operands(getattr(node, part.name))


def shape_only(expression: Expression) -> bool:
    """Whether an expression is (a part of) the shape of something."""
    while isinstance(expression, Attribute | Item):
        if isinstance(expression, Attribute) and expression.name == "shape":
            return True
        expression = expression.obj
    return False


def _is_atom(value: Expression) -> bool:
    if isinstance(value, Negate):
        return isinstance(value.value, Literal)
    return isinstance(value, Var | Literal | TupleOf | Starred) or shape_only(value)


def _root(expression: Expression) -> str:
    while isinstance(expression, Attribute | Item):
        expression = expression.obj
    return expression.name if isinstance(expression, Var) else ""


def _parts(expression: Expression) -> list[str]:
    """The words of a path behind `self`."""
    if isinstance(expression, Attribute):
        return [*_parts(expression.obj), expression.name]
    if isinstance(expression, Item) and isinstance(expression.index, Literal):
        return [*_parts(expression.obj), str(expression.index.value)]
    return []


def _is_path(expression: Expression) -> bool:
    """Whether an expression is a parameter of the module: `self.q.linear.weight`."""
    indexed = isinstance(expression, Item) and isinstance(expression.index, Literal)
    if not isinstance(expression, Attribute) and not indexed:
        return False
    obj = expression.obj  # type: ignore[attr-defined]
    return obj == Var("self") or _is_path(obj)


def _wanted(value: Expression) -> str:
    """What a value without a name is called."""
    if isinstance(value, Invoke):
        function = value.function
        return function.name if isinstance(function, Attribute | Var) else "value"
    if isinstance(value, Attribute):
        return value.name
    return {"*": "times", "/": "over", "+": "plus", "-": "minus", "@": "matmul"}.get(
        value.op if isinstance(value, Operation) else "", "value"
    )


def _renamed(node: Any, env: Mapping[str, Expression]) -> Any:
    """`node` with the names of an environment."""
    if isinstance(node, Var):
        return env.get(node.name, node)
    if isinstance(node, tuple):
        return tuple(_renamed(p, env) for p in node)
    if is_dataclass(node) and not isinstance(node, type):
        changed = {f.name: _renamed(getattr(node, f.name), env) for f in fields(node)}
        return replace(node, **changed)
    return node
