"""A map of several weights, or of one at several places, as matrices that are each asked what the key tells.

Weights that meet in one error stand side by side as the columns of one matrix, a bias as a column that is
asked one: `A z + B phi(z) + b` is `[A B b]` at `[z, phi(z), 1]`, and its erase along that vector is of rank
one.  Weights that do not meet, as the blocks of a block-diagonal map, are recurrences of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from nldsl.calculus.differentiate import MapGradient, NotDifferentiableError, OuterTerm, Problem, problem_of
from nldsl.calculus.expression import Expr, depends, symbol, walk
from nldsl.calculus.simplify import build, substitute
from nldsl.calculus.sorting import NotRankOneError
from nldsl.spec.program import Function

PAD = "pad"
"""Role of the symbols `one` (a vector of one channel, a one) and `zeros_n` (n zeros)."""


@dataclass(frozen=True)
class Stack:
    """Weights of one height side by side: places in the map's list, and how many columns each takes."""

    matrix: Expr
    weights: tuple[int, ...]
    names: tuple[str, ...]
    columns: tuple[int, ...]
    vectors: tuple[bool, ...]
    """Which of them are biases."""

    @property
    def whole(self) -> bool:
        """Whether it is one matrix of the map as it stands."""
        return len(self.weights) == 1 and not self.vectors[0]


@dataclass(frozen=True)
class Question:
    """What a stack is asked at a key: `answer` stands for `matrix @ asked`."""

    stack: int
    asked: Expr
    answer: Expr


@dataclass(frozen=True)
class StackedMap:
    """A map as questions to its stacks, and `result`, what it makes of the answers."""

    key: Expr
    stacks: tuple[Stack, ...]
    questions: tuple[Question, ...]
    result: Expr

    @property
    def plain(self) -> bool:
        """Whether it is one matrix, asked once."""
        return len(self.stacks) == 1 and self.alone(0)

    def alone(self, stack: int) -> bool:
        """Whether a stack is one matrix of the map and asked once."""
        return self.stacks[stack].whole and sum(q.stack == stack for q in self.questions) == 1

    @cached_property
    def matrices(self) -> tuple[Expr, ...]:
        return tuple(s.matrix for s in self.stacks)


def stacked(function: Function, objectives: Sequence[Function]) -> tuple[StackedMap, tuple[MapGradient, ...]]:
    """The stacks of a map under some objectives, and the gradients of each with respect to all stacks.

    Errors: `NotRankOneError` where the map is not linear in all its weights together, where weights of
    different heights meet in one error, or where there is no gradient.
    """
    problems = [problem_of(function, o) for o in objectives]
    weights, forward = problems[0].weights, problems[0].forward
    columns = {
        w: symbol(w.name, (w.shape[0], 1), "matrix", role="weight") for w in weights if len(w.shape) == 1
    }
    written = _with_columns(forward, columns)
    matrices = tuple(columns.get(w, w) for w in weights)
    _check(function, written, matrices)
    found = [_gradient(p, written, matrices) for p in problems]
    for objective, one in zip(objectives, found, strict=True):
        if one.sees_memory and len(matrices) > 1:
            raise NotRankOneError(f"objective `{objective.name}` looks at a memory of several weights")
    stacks = tuple(_stack(group, weights, matrices) for group in _groups(found, matrices))
    made = _Asking(stacks, matrices).of(written)
    questions, result = _questions(stacks, made)
    told = StackedMap(problems[0].key, stacks, questions, result)
    if made is not written:
        found = [_gradient(p, made, told.matrices) for p in problems]
    return told, tuple(found)


def _with_columns(forward: Expr, columns: dict[Expr, Expr]) -> Expr:
    """Biases as matrices of one column, asked one."""
    one = symbol("one", (1,), "vector", role=PAD)
    return substitute(forward, {b: build("matmul", c, one) for b, c in columns.items()})


def _check(function: Function, forward: Expr, matrices: tuple[Expr, ...]) -> None:
    """Every use of a weight is `W @ z`, with `z` made of the key alone."""
    name = function.name
    if any(a.parameters for a in function.body):
        raise NotRankOneError(f"map `{name}` has slow parameters of its own")
    if any(len(w.shape) != 2 for w in matrices):
        raise NotRankOneError(f"a weight of map `{name}` is a number")
    for use in walk([forward]):
        own = [a for a in use.args if a in matrices]
        if not own:
            continue
        plain = use.op == "matmul" and use.args[0] is own[0] and use.kind == "vector" and len(own) == 1
        if not plain:
            raise NotRankOneError(f"map `{name}` uses weight `{own[0].name}` in another way than `W @ z`")
        inner = next((w for w in matrices if depends(use.args[1], [w])), None)
        if inner is not None:
            raise NotRankOneError(
                f"map `{name}` is not linear in its weights together: `{own[0].name}` is asked what "
                f"`{inner.name}` answers"
            )


def _gradient(problem: Problem, forward: Expr, matrices: Sequence[Expr]) -> MapGradient:
    """The gradient of the map written in other weights, with parts of what is put together taken apart."""
    try:
        found = replace(problem, forward=forward, weights=tuple(matrices)).solved()
    except NotDifferentiableError as reason:
        raise NotRankOneError(str(reason)) from None
    gradients = tuple(
        replace(
            g,
            outer_terms=tuple(OuterTerm(_taken_apart(t.dy), _taken_apart(t.x)) for t in g.outer_terms),
            general=None if g.general is None else _taken_apart(g.general),
            dy=None if g.dy is None else _taken_apart(g.dy),
        )
        for g in found.gradients
    )
    return replace(found, gradients=gradients)


def _taken_apart(expr: Expr) -> Expr:
    """`parts` of what is put together elsewhere: of sums of `concat`, the part itself."""
    done: dict[Expr, Expr] = {}
    for node in walk([expr]):
        if not node.args:
            done[node] = node
            continue
        args = tuple(done[a] for a in node.args)
        if node.op == "parts":
            done[node] = _part(args[0], node)
        else:
            same = all(a is b for a, b in zip(args, node.args, strict=True))
            done[node] = node if same or node.owned else build(node.op, *args, **dict(node.options))
    return done[expr]


_CHANNELWISE = frozenset({"add", "sub", "neg", "mul", "div"})


def _part(expr: Expr, cut: Expr) -> Expr:
    """The part of `expr` that `cut` takes."""
    sizes, index = cut.option("sizes"), cut.option("index")
    assert isinstance(sizes, tuple) and isinstance(index, int)
    if expr.kind != "vector":
        return expr
    if expr.op == "concat" and tuple(a.shape[-1] for a in expr.args) == sizes:
        return expr.args[index]
    if expr.op in _CHANNELWISE:
        return build(expr.op, *(_part(a, cut) for a in expr.args))
    if expr.op == "expand_last":
        return build("expand_last", expr.args[0], _part(expr.args[1], cut))
    return build("parts", expr, **dict(cut.options))


def _groups(found: Sequence[MapGradient], matrices: tuple[Expr, ...]) -> list[list[int]]:
    """Weights that meet in one error, by their places."""
    group = list(range(len(matrices)))
    meetings = (
        (i, j)
        for one in found
        for i, grad in enumerate(one.gradients)
        for j, other in enumerate(matrices)
        if i != j and depends(grad.expression, [other])
    )
    for i, j in meetings:
        old, new = group[j], group[i]
        group = [new if g == old else g for g in group]
    return [[i for i, g in enumerate(group) if g == kept] for kept in dict.fromkeys(group)]


def _stack(places: list[int], weights: tuple[Expr, ...], matrices: tuple[Expr, ...]) -> Stack:
    own = [matrices[i] for i in places]
    heights = {m.shape[0] for m in own}
    names = tuple(m.name for m in own)
    if len(heights) > 1:
        both = "` and `".join(names)
        raise NotRankOneError(f"weights `{both}` meet in one error and have different numbers of rows")
    columns = tuple(m.shape[1] for m in own)
    matrix = (
        own[0]
        if len(own) == 1
        else symbol("_".join(names), (*heights, sum(columns)), "matrix", role="weight")
    )
    vectors = tuple(len(weights[i].shape) == 1 for i in places)
    return Stack(matrix, tuple(places), names, columns, vectors)


@dataclass
class _Asking:
    """Rewrites a map in its stacks: sums of answers of one stack are one answer."""

    stacks: tuple[Stack, ...]
    matrices: tuple[Expr, ...]
    asks: dict[Expr, tuple[int, dict[int, Expr]]] = field(default_factory=dict)

    def of(self, forward: Expr) -> Expr:
        done: dict[Expr, Expr] = {}
        for node in walk([forward]):
            done[node] = self._one(node, tuple(done[a] for a in node.args))
        return done[forward]

    def _one(self, node: Expr, args: tuple[Expr, ...]) -> Expr:
        if node.op == "matmul" and node.args[0] in self.matrices:
            place = self.matrices.index(node.args[0])
            stack = next(i for i, s in enumerate(self.stacks) if place in s.weights)
            return self._asked(stack, {place: args[1]})
        if node.op in ("add", "sub") and all(a in self.asks for a in args):
            (stack, left), (other, right) = (self.asks[a] for a in args)
            if stack == other:
                return self._asked(stack, _summed(node.op, left, right))
        scaled = self._scaled(args) if node.op == "mul" else None
        if scaled is not None:
            return scaled
        if not node.args or node.owned or all(a is b for a, b in zip(args, node.args, strict=True)):
            return node
        return build(node.op, *args, **dict(node.options))

    def _scaled(self, args: tuple[Expr, ...]) -> Expr | None:
        """A number times an answer is the answer to a number times the question."""
        for factor, answer in (args, args[::-1]):
            free = not factor.shape and not depends(factor, [s.matrix for s in self.stacks])
            if answer in self.asks and free:
                stack, asked = self.asks[answer]
                return self._asked(stack, {p: build("mul", factor, x) for p, x in asked.items()})
        return None

    def _asked(self, stack: int, asked: dict[int, Expr]) -> Expr:
        """`matrix @ [x, 0, z]`, known from here on as what it is."""
        own = self.stacks[stack]
        rows = [
            asked.get(p, symbol(f"zeros_{n}", (n,), "vector", role=PAD))
            for p, n in zip(own.weights, own.columns, strict=True)
        ]
        made = build("matmul", own.matrix, rows[0] if len(rows) == 1 else build("concat", *rows))
        self.asks[made] = (stack, asked)
        return made


def _summed(op: str, left: dict[int, Expr], right: dict[int, Expr]) -> dict[int, Expr]:
    """The sum, or difference, of two questions to one stack."""
    out = dict(left)
    for place, x in right.items():
        if place in out:
            out[place] = build(op, out[place], x)
        else:
            out[place] = x if op == "add" else build("neg", x)
    return out


def _questions(stacks: tuple[Stack, ...], forward: Expr) -> tuple[tuple[Question, ...], Expr]:
    """Every answer that the map is made of, and the map over them."""
    matrices = [s.matrix for s in stacks]
    uses = [e for e in walk([forward]) if e.op == "matmul" and e.args[0] in matrices]
    found = tuple(
        Question(
            matrices.index(e.args[0]),
            e.args[1],
            symbol(f"answer_{n}" if n else "answer", e.shape, "vector", role="answer"),
        )
        for n, e in enumerate(uses)
    )
    return found, substitute(forward, {e: q.answer for e, q in zip(uses, found, strict=True)})
