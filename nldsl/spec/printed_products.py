"""Products and sums of matrices in the text of a printed step (see `printed_steps`): trees, no values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from nldsl.source import Span
from nldsl.spec.printed_errors import BRACKETS
from nldsl.syntax import tree


class NotPrintedError(ValueError):
    """The sum is not of this kind."""


@dataclass(frozen=True)
class Product:
    """`sign * factors * chain[0] @ chain[1] ... / divisors`."""

    factors: tuple[tree.Expr, ...] = ()
    divisors: tuple[tree.Expr, ...] = ()
    chain: tuple[tree.Expr, ...] = ()
    negative: bool = False
    places: tuple[tuple[tree.Expr, int], ...] = ()
    """What scales, with the length of the chain it scales the channels of: `w * S @ A` is `(w * S) @ A`."""

    @property
    def numbers(self) -> tuple[tree.Expr, ...]:
        """All that scales it."""
        return (*self.factors, *self.divisors)

    def turned(self) -> Product:
        """Minus that."""
        return replace(self, negative=not self.negative)


@dataclass(frozen=True)
class Added:
    """`sign * factors * outer(left, right) / divisors`; `S k` stands there as `S[k]`."""

    product: Product
    left: tree.Expr
    right: tree.Expr


@dataclass(frozen=True)
class Factor:
    """`M <- M diag(gate) + added`, all of it looking at the memory in front of it."""

    gate: tree.Expr | None
    added: tuple[Added, ...]

    @property
    def texts(self) -> tuple[tree.Expr, ...]:
        """All that it is made of but the memory itself."""
        outers = [c for a in self.added for c in a.product.chain if isinstance(c, tree.Call)]
        numbers = [e for a in self.added for e in a.product.numbers]
        return (*outers, *numbers, *(() if self.gate is None else (self.gate,)))


def joined(left: Product, right: Product) -> Product:
    """One behind the other, or one times the numbers of the other."""
    width = len(left.chain)
    places = (*left.places, *((e, n + width) for e, n in right.places))
    for one, other in ((left, right), (right, left)):
        if not one.chain:
            places = (*places, *((e, len(other.chain)) for e in one.numbers))
    return Product(
        (*left.factors, *right.factors),
        (*left.divisors, *right.divisors),
        (*left.chain, *right.chain),
        left.negative != right.negative,
        places,
    )


def multiplied_out(product: Product, read: Callable[[tuple[tree.Expr, bool]], Product]) -> Iterator[Product]:
    """`m * (A + B)` as `m * A` and `m * B`; `read` makes products of summands.

    Errors: `NotPrintedError` for numbers that would be made twice.
    """
    (*more, last) = product.chain
    if more or not isinstance(last, tree.Binary) or last.op not in "+-":
        yield product
        return
    if any(isinstance(n, tree.Call) for e in product.numbers for n in nodes(e)):
        raise NotPrintedError(BRACKETS)
    for part in summands(last, False):
        yield from multiplied_out(joined(replace(product, chain=(), places=()), read(part)), read)


def without(product: Product, gate: Product) -> Product | None:
    """The product without the numbers of a gate, if all of them are among its own."""
    left = []
    for own, taken in ((product.factors, gate.factors), (product.divisors, gate.divisors)):
        rest = list(own)
        for number in taken:
            if not any(number == n and same(n, n) for n in rest):
                return None
            rest.remove(number)
        left.append(tuple(rest))
    return replace(product, factors=left[0], divisors=left[1], negative=product.negative != gate.negative)


def partner(wanted: Product, key: tree.Expr, rest: Sequence[Added]) -> Added | None:
    """`b outer(v, k)` beside `-b outer(S k, k)`."""
    return next((a for a in rest if same(a.right, key) and alike(a.product, wanted)), None)


def summands(node: tree.Expr, negative: bool) -> Iterator[tuple[tree.Expr, bool]]:
    """The summands, and whether they are taken away."""
    if isinstance(node, tree.Binary) and node.op in ("+", "-"):
        yield from summands(node.left, negative)
        yield from summands(node.right, negative != (node.op == "-"))
    else:
        yield node, negative


def summed(parts: Sequence[tuple[tree.Expr, bool]]) -> tree.Expr:
    """Summands as one expression again; `True` stands for those that are taken away."""
    (found, negative), *rest = parts
    found = tree.Unary("-", found, span=found.span) if negative else found
    for node, taken in rest:
        found = tree.Binary("-" if taken else "+", found, node, span=node.span)
    return found


def is_outer(node: tree.Expr) -> bool:
    """`outer(left, right)`."""
    plain = isinstance(node, tree.Call) and node.function.id == "outer" and len(node.args) == 2
    return plain and isinstance(node, tree.Call) and all(a.name is None for a in node.args)


def diagonal(node: tree.Expr) -> tree.Expr | None:
    """`w` of `diag(w)`."""
    plain = isinstance(node, tree.Call) and node.function.id == "diag" and len(node.args) == 1
    return node.args[0].value if plain and isinstance(node, tree.Call) else None


def sides(node: tree.Expr) -> tuple[tree.Expr, tree.Expr]:
    assert isinstance(node, tree.Call)
    left, right = (a.value for a in node.args)
    return left, right


def transposed(memory: tree.Name, value: tree.Expr) -> tree.Expr:
    """`transpose(S) @ v`."""
    span = value.span
    name = tree.Name("transpose", span=span)
    call = tree.Call(name, (tree.Arg(None, memory, span=span),), span=span)
    return tree.Binary("@", call, value, span=span)


def values(gate: tree.Expr | None) -> tree.Expr:
    assert gate is not None
    name = tree.Name("values", span=gate.span)
    return tree.Call(name, (tree.Arg(None, gate, span=gate.span),), span=gate.span)


def differences(node: tree.Expr) -> Iterator[tuple[tree.Expr | None, tree.Expr, bool]]:
    """`sign * (target - answer)`: target, answer, and whether the sign is plus for the answer."""
    if isinstance(node, tree.Binary) and node.op == "-":
        yield node.left, node.right, True
        yield node.right, node.left, False
    else:
        yield None, node, False


def alike(found: Product, wanted: Product) -> bool:
    """Whether the numbers in front are the same, in any order."""
    return found.negative == wanted.negative and all(
        len(a) == len(b) and all(a.count(x) == b.count(x) and same(x, x) for x in a)
        for a, b in ((found.factors, wanted.factors), (found.divisors, wanted.divisors))
    )


def same(one: tree.Expr, other: tree.Expr) -> bool:
    """Whether two texts are one value; two calls never are, for each has slow parameters of its own."""
    return one == other and not any(isinstance(n, tree.Call) for n in nodes(one))


def nodes(node: tree.Expr) -> Iterator[tree.Expr]:
    yield node
    if isinstance(node, tree.Binary):
        yield from (*nodes(node.left), *nodes(node.right))
    elif isinstance(node, tree.Unary):
        yield from nodes(node.operand)
    elif isinstance(node, tree.Index):
        yield from nodes(node.key)


def bare(step: tree.Assign, memory: Callable[[tree.Expr], bool]) -> bool:
    """Whether `M = ...` names `M` itself: no `M[k]`, and no `solve(M, q)`."""
    left = [step.value] if step.op == "=" else []
    while left:
        node = left.pop()
        if memory(node):
            return True
        if isinstance(node, tree.Call) and node.function.id != "solve":
            left += [a.value for a in node.args]
        left += [n for n in nodes(node) if n is not node and isinstance(n, tree.Name | tree.Call)]
    return False


def number(product: Product, more: tuple[tree.Expr, ...], span: Span) -> tree.Expr:
    """All numbers in front as one expression."""
    factors = (*product.factors, *more)
    found: tree.Expr = factors[0] if factors else tree.Number(1, span=span)
    for factor in factors[1:]:
        found = tree.Binary("*", found, factor, span=span)
    for divisor in product.divisors:
        found = tree.Binary("/", found, divisor, span=span)
    return tree.Unary("-", found, span=span) if product.negative else found


def zeros(like: tree.Expr) -> tree.Expr:
    """Zeros of the length of `like`: the key of an erase along values that teaches nothing."""
    return tree.Binary("*", tree.Number(0, span=like.span), like, span=like.span)


def between(root: tree.Expr, memory: str) -> bool:
    """Whether factors stand on both sides of a memory: `A @ S @ B`."""
    for node in nodes(root):
        if not isinstance(node, tree.Binary) or node.op != "@":
            continue
        left, right = node.left, node.right
        if isinstance(left, tree.Binary) and left.op == "@" and _named(left.right, memory):
            return True
        if isinstance(right, tree.Binary) and right.op == "@" and _named(right.left, memory):
            return True
    return False


def _named(node: tree.Expr, name: str) -> bool:
    return isinstance(node, tree.Name) and node.id == name
