"""Module-level functions of the emitted file: maps, gradients of objectives, rules.

Each is emitted once, however many memories share it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from nldsl.catalog import Operand
from nldsl.emit.nodes import Expression, FunctionDef, Parameter, Statement, assign, call, name, returns
from nldsl.lowerings.apply import parameter
from nldsl.lowerings.columns import column
from nldsl.lowerings.layout import operand
from nldsl.lowerings.prune import prune
from nldsl.lowerings.scope import Imports, Names
from nldsl.spec.program import Apply, Function, Memory, Rule, Value, option

PLACEHOLDER = "function"
"""What a function is called until it is known to be new."""


@dataclass
class Functions:
    """The functions emitted so far, by what they compute."""

    imports: Imports
    names: Names
    locals: frozenset[str]
    """Names no local variable may take: everything that the file imports or defines."""

    known: dict[object, str] = field(default_factory=dict)
    """What was asked for, and what it came out as, by name."""

    definitions: list[FunctionDef] = field(default_factory=list)

    def map(self, memory: Memory) -> Expression:
        """`f(z, weights..., slow parameters...) -> y` of a memory's map."""
        function = memory.function
        assert function is not None
        inputs = (*function.inputs, *function.weights)
        doc = f"The map `{function.name}`, row by row: `[..., C, {function.inputs[0].name}] -> [..., C, y]`."
        return self.emit(function.name, ("map", function), lambda: self._define(function, inputs, doc))

    def live_map(self, memory: Memory) -> Expression:
        """The same map where every weight is a function `z -> W_t z` of the token t; biases are rows."""
        function = memory.function
        assert function is not None
        inputs = (*function.inputs, *function.weights)
        doc = f"The map `{function.name}`, row by row, at the weights of every token: `W(z)` for `W @ z`."
        live = frozenset(w.name for w in function.weights if w.kind == "matrix")
        return self.emit(
            f"{function.name}_live",
            ("live map", function),
            lambda: self._define(function, inputs, doc, live),
        )

    def rule(self, rule: Rule) -> Expression:
        """`rule(W, g, x, dy, gates..., slots...) -> W` (and the new slots, if it has any)."""
        doc = f"One step of the rule `{rule.name}` for one token; gates are `[..., 1, 1]`."
        return self.emit(
            rule.name,
            ("rule", rule.function),
            lambda: self._define(rule.function, rule.function.inputs, doc),
        )

    def emit(self, wanted: str, asked: object, define: Callable[[], FunctionDef]) -> Expression:
        """The name of a function; emitted once for all that come out as the same text."""
        if asked not in self.known:
            made = define()
            if (wanted, made) not in self.known:
                chosen = self.names.fresh(wanted)
                self.known[(wanted, made)] = chosen
                self.definitions.append(replace(made, name=chosen))
            self.known[asked] = self.known[(wanted, made)]
        return name(self.known[asked])

    def _define(
        self, function: Function, inputs: Sequence[Value], doc: str, live: frozenset[str] = frozenset()
    ) -> FunctionDef:
        names = Names(self.locals)
        parameters = [names.of(v) for v in inputs]
        rows = Rows(self.imports, names, name(parameters[0]), live=live)
        slow = [rows.names.fresh(p) for p in slow_parameter_names(function)]
        rows.slow = dict(zip((p.path for a in function.body for p in a.parameters), slow, strict=True))
        steps = rows.statements(function.body)
        results = [rows.ref(v) for v in function.outputs]
        body = prune((*steps, returns(*results)))
        return FunctionDef(
            PLACEHOLDER,
            tuple(
                Parameter(p, name("Any" if v is not None and v.name in live else "Tensor"))
                for p, v in zip((*parameters, *slow), (*inputs, *(None for _ in slow)), strict=True)
            ),
            body,
            doc,
            tensors(len(results)),
        )


def tensors(count: int) -> Expression:
    """The return annotation for `count` tensors."""
    return name("Tensor") if count == 1 else name("tuple")[tuple(name("Tensor") for _ in range(count))]


def slow_parameter_names(function: Function) -> list[str]:
    """Names for the slow parameters (norms, convolutions) inside a map, in order of use."""
    return [p.path.replace(".", "_") for a in function.body for p in a.parameters]


def slow_parameters(function: Function, prefix: str) -> list[Expression]:
    """The arguments a call of the map passes for its slow parameters."""
    return [parameter(f"{prefix}{p.path}") for a in function.body for p in a.parameters]


@dataclass
class Rows:
    """The body of one function on rows."""

    imports: Imports
    names: Names
    like: Expression
    """Any tensor of the right type and device."""

    slow: dict[str, str] = field(default_factory=dict)
    inline: dict[str, Expression] = field(default_factory=dict)
    live: frozenset[str] = frozenset()
    """Weights that are functions: `W(z)` stands for `W @ z`."""

    def ref(self, value: Value) -> Expression:
        """A value computed before, or a literal."""
        return self.inline[value.name] if value.name in self.inline else name(self.names.of(value))

    def statements(self, body: tuple[Apply, ...]) -> list[Statement]:
        """One assignment per operation; literals stay inline."""
        out: list[Statement] = []
        for apply in body:
            expression = self.expression(apply)
            if apply.op == "constant":
                self.inline[apply.out.name] = expression
            else:
                out.append(assign(self.names.of(apply.out), expression))
        return out

    def expression(self, apply: Apply) -> Expression:
        """The right-hand side of one operation."""
        if apply.op == "identity":
            size = option(apply.options, "size")
            assert isinstance(size, int)
            return self.imports.use("nldsl.runtime.ops:identity")(size=size, like=self.like)
        args = [self.ref(a) for a in apply.args]
        if apply.op == "matmul" and apply.args[0].name in self.live:
            return call(*args)
        args += [name(self.slow[p.path]) for p in apply.parameters]
        operands: list[Operand] = [operand(a) for a in apply.args]
        return column(self.imports, apply.op, apply.options, args, operands)
