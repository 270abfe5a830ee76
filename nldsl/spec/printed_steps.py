"""`S = a * S @ (I - b * outer(k, k)) + b * outer(v, k)`: the step of a matrix as papers print it.

A sum that is linear in the memory is what it says: `S *= a` and writes, term by term.  `S @ k` is `S[k]`,
`S - b outer(S k, k)` is `[k] <- 0  minimize l2  by gd(lr = b)`, and beside `b outer(v, k)` the target is `v`;
`outer(v, k - S^T v)` is the step of `oja`.  Whatever is not of this kind is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nldsl.spec.answered import gains
from nldsl.spec.expressions import lookup
from nldsl.spec.frame import Frame
from nldsl.spec.items import MemoryBox, Ref
from nldsl.spec.outer_sums import library_name
from nldsl.spec.printed_errors import ALONE, CHANNELS, EXAMPLE, NAMED, SCALED, SIDES, named_number, peeled
from nldsl.spec.printed_products import (
    Added,
    Factor,
    NotPrintedError,
    Product,
    alike,
    bare,
    between,
    diagonal,
    differences,
    is_outer,
    joined,
    multiplied_out,
    nodes,
    number,
    partner,
    same,
    sides,
    summands,
    summed,
    transposed,
    values,
    without,
    zeros,
)
from nldsl.spec.streams import walk
from nldsl.syntax import tree


def printed_steps(
    frame: Frame, node: tree.Assign, box: MemoryBox
) -> tuple[tree.Assign | tree.Write, ...] | None:
    """The statements that `M = ...`, `M += ...` or `M -= ...` stands for; none if it is something else.

    Errors: NL0404, and `None`, for no such step where `M` itself, `I` or `diag(w)` stands.
    """
    if box.source.kind != "matrix" or (box.clock.every, box.clock.unit) != (1, "tokens"):
        return ()
    reader = _Reader(frame, box, node)
    try:
        return reader.statements()
    except NotPrintedError as error:
        return reader.refused(str(error))


class _Reader:
    """One statement."""

    def __init__(self, frame: Frame, box: MemoryBox, node: tree.Assign) -> None:
        self.frame, self.box, self.node = frame, box, node
        self.name = node.targets[0]

    def statements(self) -> tuple[tree.Assign | tree.Write, ...]:
        """`S *= a` in front of the writes, or one write that decays."""
        given = summands(self.node.value, self.node.op == "-=")
        products = [product for p in given for product in multiplied_out(self._product(p), self._product)]
        kept = [p for p in products if self._memory(p.chain[0]) and not self._single(p)]
        left = [
            p for p in products if len(p.chain) > 1 and self._memory(p.chain[-1]) and not is_outer(p.chain[0])
        ]
        rest = [p for p in products if p not in kept and p not in left]
        added = [self._added(p) for p in rest]
        if self.node.op == "=" or any(map(self._asked_as_product, walk(self.node.value))):
            added = [part for one in added for part in self._split(one)]
        if self.node.op == "+=" and all(map(self._plain, added)):
            raise NotPrintedError
        if (self.node.op == "=") != (len(kept) + len(left) == 1) or len(kept) + len(left) > 1:
            raise NotPrintedError
        gates: tuple[tree.Expr, ...] = ()
        factors: list[Factor] = []
        behind = None
        if kept:
            (one,) = kept
            self._need_numbers(one, behind=1)
            gates, factors = self._gates(one), [self._factor(f, left=False) for f in one.chain[1:]]
            behind = None if factors else self._behind(one, added)
        if left:
            (one,) = left
            if len(one.chain) != 2:
                raise NotPrintedError
            self._need_numbers(one, behind=2)
            gates, factors = self._gates(one), [self._factor(one.chain[0], left=True)]
        return self._written(gates, factors, added if behind is None else behind, kept=behind is None)

    def refused(self, why: str) -> tuple[()] | None:
        """NL0404 where a matrix stands that only a printed step knows."""
        known = [n for n in nodes(self.node.value) if self._unit(n) or diagonal(n) is not None] or why
        if not (known and self._asks(self.node.value) or bare(self.node, self._memory)):
            return ()
        name = self.box.name
        self.frame.session.report(
            "NL0404",
            f"this is no step of `{name}` that can be read off",
            self.node.value.span,
            f"each factor beside `{name}` is `I` or `diag(w)`, and products `b * outer(s, c)`",
            help=(why or (SIDES if between(self.node.value, name) else EXAMPLE)).format(name=name),
        )
        return None

    def _behind(self, kept: Product, added: list[Added]) -> list[Added] | None:
        """`a S - a b outer(S k, k)`: an erase by `b` of what `a` leaves."""
        found = []
        for one in added:
            others = [a for a in added if a is not one]
            if self._answer(one.left) and partner(one.product.turned(), one.right, others):
                return None
            if any(map(self._asks, (one.right, *one.product.numbers))) or not all(
                map(self._number, kept.numbers)
            ):
                return None
            less = without(one.product, kept) if self._answer(one.left) else one.product
            if less is None or (less == one.product and self._asks(one.left)):
                return None
            found.append(replace(one, product=less))
        return found

    def _written(
        self, gates: tuple[tree.Expr, ...], factors: list[Factor], added: list[Added], kept: bool
    ) -> tuple[tree.Assign | tree.Write, ...]:
        """`S *= gate` in front, or a write that decays if `kept` asks what was there before."""
        looks = any(self._asks(e) for a in added for e in (a.left, a.right, *a.product.numbers))
        later = factors if gates else factors[1:]
        if any(self._asks(e) for f in later for e in f.texts):
            raise NotPrintedError(NAMED)
        if looks and len(factors) > 1 or looks and factors and gates:
            raise NotPrintedError(NAMED)
        found: list[tree.Assign | tree.Write] = []
        if kept and looks and gates and not factors:
            factors, gates = [Factor(gates[0], ())], ()
        span = self.node.span
        found += [tree.Assign((self.name,), "*=", gate, span=span) for gate in gates]
        factors = factors or [Factor(None, ())]
        for n, factor in enumerate(factors):
            every = [*factor.added, *(added if n == len(factors) - 1 else [])]
            if every:
                found.append(self._write(every, factor.gate))
            elif factor.gate is not None:
                found.append(tree.Assign((self.name,), "*=", factor.gate, span=span))
        return tuple(found)

    def _plain(self, one: Added) -> bool:
        """Whether sums of outer products know it: nothing asked, or `v - S[k]`."""
        chain, left = one.product.chain, one.left
        if len(chain) > 1 or self._asks(one.right) or self._read(sides(chain[0])[0]) != sides(chain[0])[0]:
            return False
        return not self._asks(left) or (isinstance(left, tree.Binary) and left.op == "-")

    # --- reading ----------------------------------------------------------------------------------

    def _memory(self, node: tree.Expr) -> bool:
        return isinstance(node, tree.Name) and lookup(self.frame, node.id) is self.box

    def _single(self, product: Product) -> bool:
        """`S @ outer(s, c)`: it adds, and nothing is kept."""
        return len(product.chain) == 2 and is_outer(product.chain[1])

    def _unit(self, node: tree.Expr) -> bool:
        """`identity`, `identity(n)`, or `I` where nothing else is called so."""
        if isinstance(node, tree.Call):
            return node.function.id == "identity"
        if not isinstance(node, tree.Name):
            return False
        return node.id == "identity" or (node.id == "I" and lookup(self.frame, "I") is None)

    def _matrix(self, node: tree.Expr) -> bool:
        """Whether it stands for a matrix."""
        if isinstance(node, tree.Binary):
            return node.op in "+-*/@" and (self._matrix(node.left) or self._matrix(node.right))
        if isinstance(node, tree.Unary):
            return self._matrix(node.operand)
        return self._memory(node) or is_outer(node) or self._unit(node) or diagonal(node) is not None

    def _need_numbers(self, product: Product, behind: int) -> None:
        """What scales channels may stand behind so many matrices; elsewhere only numbers may be moved.

        Errors: `NotPrintedError`.
        """
        if not all(place == behind or self._number(e) for e, place in product.places):
            raise NotPrintedError(CHANNELS)

    def _number(self, node: tree.Expr) -> bool:
        """Whether it is made of numbers that have names."""
        if isinstance(node, tree.Binary):
            return node.op in "+-*/" and self._number(node.left) and self._number(node.right)
        if isinstance(node, tree.Unary):
            return self._number(node.operand)
        if isinstance(node, tree.Call) and node.function.id in ("sum", "mean"):
            return len(node.args) == 1
        return named_number(self.frame, node, self.box)

    def _product(self, found: tuple[tree.Expr, bool]) -> Product:
        made = self._parsed(found[0])
        if not made.chain:
            raise NotPrintedError
        return made.turned() if found[1] else made

    def _parsed(self, node: tree.Expr) -> Product:
        if isinstance(node, tree.Unary) and node.op == "-":
            return self._parsed(node.operand).turned()
        if not self._matrix(node):
            return Product(factors=(node,))
        if not isinstance(node, tree.Binary) or node.op in "+-":
            return Product(chain=(node,))
        left, right = self._parsed(node.left), self._parsed(node.right)
        if node.op == "/":
            if right.chain or right.divisors:
                raise NotPrintedError
            right = replace(right, factors=(), divisors=right.factors)
        if bool(left.chain and right.chain) != (node.op == "@"):
            raise NotPrintedError
        return joined(left, right)

    def _added(self, product: Product) -> Added:
        """An outer product with what the memory answers at one side of it."""
        chain, read = product.chain, self.name
        self._need_numbers(product, behind=len(chain))
        if len(chain) == 1 and is_outer(chain[0]):
            left, right = sides(chain[0])
            numbers, left = peeled(self.frame, self._read(left), self.box)
            return Added(replace(product, factors=(*product.factors, *numbers)), left, right)
        if len(chain) == 2 and self._memory(chain[0]) and is_outer(chain[1]):
            seen, along = sides(chain[1])
            return Added(product, tree.Index(read, seen, span=chain[1].span), along)
        if len(chain) == 2 and is_outer(chain[0]) and self._memory(chain[1]):
            along, seen = sides(chain[0])
            return Added(product, along, transposed(read, seen))
        raise NotPrintedError

    def _split(self, one: Added) -> list[Added]:
        """`outer(v - b S[p], k)`, summand by summand: what is taught, and every answer with its number.

        Errors: `NotPrintedError` where an answer is scaled by anything but numbers.
        """
        asking = any(self._answer(n) for n in nodes(one.left))
        if not asking or any(self._answer(answer) for _, answer, _ in differences(one.left)):
            return [one]
        found, taught = list[Added](), list[tuple[tree.Expr, bool]]()
        for node, negative in summands(one.left, False):
            if not any(self._answer(n) for n in nodes(node)):
                taught.append((node, negative))
                continue
            numbers, left = self._scaled(node)
            product = replace(one.product, factors=(*one.product.factors, *numbers))
            found.append(Added(product.turned() if negative else product, left, one.right))
        return [*([replace(one, left=summed(taught))] if taught else []), *found]

    def _asked_as_product(self, node: object) -> bool:
        """`S @ p`: `S += ..` with `S[p]` is known without this (`answered`, `printed_errors`)."""
        return isinstance(node, tree.Binary) and node.op == "@" and self._memory(node.left)

    def _answer(self, node: tree.Expr) -> bool:
        """`S[k]`."""
        return isinstance(node, tree.Index) and self._memory(node.target) and not self._asks(node.key)

    def _scaled(self, node: tree.Expr) -> tuple[tuple[tree.Expr, ...], tree.Expr]:
        """Numbers, and the answer they scale."""
        if self._answer(node):
            return (), node
        if isinstance(node, tree.Binary) and node.op == "*":
            for one, other in ((node.left, node.right), (node.right, node.left)):
                if self._number(one):
                    numbers, answer = self._scaled(other)
                    return (one, *numbers), answer
        raise NotPrintedError(SCALED)

    def _read(self, node: tree.Expr) -> tree.Expr:
        """`S @ k` as `S[k]`, wherever it stands in a vector."""
        if isinstance(node, tree.Binary):
            if node.op == "@" and self._memory(node.left):
                return tree.Index(self.name, node.right, span=node.span)
            return replace(node, left=self._read(node.left), right=self._read(node.right))
        return replace(node, operand=self._read(node.operand)) if isinstance(node, tree.Unary) else node

    def _factor(self, node: tree.Expr, left: bool) -> Factor:
        """`I - b outer(s, c)`, with `diag(w)` in the place of `I`; `left` of the memory or right of it."""
        gate: tree.Expr | None = None
        kept, added = 0, []
        for product in (self._product(p) for p in summands(node, False)):
            (*more, first) = product.chain
            if more:
                raise NotPrintedError
            scaled = diagonal(first)
            if self._unit(first) or scaled is not None:
                if product != Product(chain=(first,)):
                    raise NotPrintedError
                kept, gate = kept + 1, values(scaled) if scaled is not None and left else scaled
            elif is_outer(first):
                whole = (product, Product(chain=(self.name,)))
                added.append(self._added(joined(*(whole if left else whole[::-1]))))
            else:
                raise NotPrintedError
        if kept != 1:
            raise NotPrintedError
        return Factor(gate, tuple(added))

    def _asks(self, node: tree.Expr) -> bool:
        """Whether the memory stands somewhere in it."""
        return any(isinstance(n, tree.Name) and self._memory(n) for n in walk(node))

    # --- writing ----------------------------------------------------------------------------------

    def _gates(self, product: Product) -> tuple[tree.Expr, ...]:
        plain = not (product.factors or product.divisors or product.negative)
        return () if plain else (number(product, (), self.node.span),)

    def _write(self, added: Sequence[Added], gate: tree.Expr | None) -> tree.Write:
        """One write: an erase and what is added at its key are one term."""
        span, terms, rest = self.node.span, [], list(added)
        while rest:
            one = next((a for a in rest if self._asks(a.left) or self._asks(a.right)), rest[0])
            rest.remove(one)
            terms.append(self._term(one, rest))
        clauses = tree.Clauses(retain=gate, span=span)
        return tree.Write((self.name,), tuple(terms), clauses, braces=True, span=span)

    def _term(self, one: Added, rest: list[Added]) -> tree.Term:
        product, left, span = one.product, one.left, one.left.span
        if self._asks(one.right):
            return self._along_values(one, product, rest)
        if not self._asks(left):
            plain = product == Product(chain=product.chain)
            value = left if plain else tree.Binary("*", number(product, (), span), left, span=span)
            return self._clauses(one.right, value, "dot", tree.Number(1, span=span))
        for target, answer, negative in differences(left):
            if isinstance(answer, tree.Index) and self._memory(answer.target) and not self._asks(answer.key):
                signed = product if negative else product.turned()
                pair = None if target is not None else partner(signed, one.right, rest)
                if pair is not None:
                    rest.remove(pair)
                    target = pair.left
                return self._erase(answer.key, target or tree.Number(0, span=span), signed, one.right)
        raise NotPrintedError

    def _erase(self, key: tree.Expr, value: tree.Expr, rate: Product, along: tree.Expr) -> tree.Term:
        """`M - rate outer(M key - value, along)`."""
        span = self.node.span
        if same(key, along):
            return self._clauses(key, value, "l2", number(rate, (), span))
        if isinstance(along, tree.Binary) and along.op == "*" and isinstance(value, tree.Number):
            for one, other in ((along.left, along.right), (along.right, along.left)):
                if same(key, one):
                    return self._clauses(key, value, "l2", number(rate, (other,), span))
        hidden = "gain of an answer"
        self.frame.names[hidden] = Ref("gain", gains(self.frame))
        return self._clauses(
            key, value, "l2", number(rate, (along,), span), ("along", tree.Name(hidden, span=span))
        )

    def _along_values(self, one: Added, product: Product, rest: list[Added]) -> tree.Term:
        """`outer(v, k - S^T v)`."""
        for key, answer, negative in differences(one.right):
            if answer != transposed(self.name, one.left) or not same(one.left, one.left):
                continue
            signed = product.turned() if negative else product
            if key is None:
                wanted = signed.turned()
                pair = next((a for a in rest if same(a.left, one.left) and alike(a.product, wanted)), None)
                if pair is not None:
                    rest.remove(pair)
                    key = pair.right
                elif rest:
                    key = zeros(rest[0].right)
                else:
                    raise NotPrintedError(ALONE)
            return self._clauses(key, one.left, "oja", number(signed.turned(), (), self.node.span))
        raise NotPrintedError

    def _clauses(
        self,
        key: tree.Expr,
        value: tree.Expr,
        objective: str,
        rate: tree.Expr,
        rule: tuple[str, tree.Name] | None = None,
    ) -> tree.Term:
        """`[key] <- value  minimize objective  by gd(lr = rate)`, or by another rule."""
        span = value.span
        argument, by = rule or ("lr", library_name(self.frame, "rule", "gd", span))
        step = tree.Call(by, (tree.Arg(argument, rate, span=span),), span=span)
        wanted = library_name(self.frame, "objective", objective, span)
        return tree.Term(key, value, tree.Clauses(minimize=wanted, by=step, span=span), span=span)
