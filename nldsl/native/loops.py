"""One loop of C over the places of several element-wise operations and sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

from nldsl.native.formulas import number
from nldsl.native.graph import Operand, Operation, Point, Reduce, UnsupportedError, View
from nldsl.native.schedule import Loop
from nldsl.native.team import LONG, PART, TEAM

Named = Callable[[View], str]
LIBM = {
    "nl_exp": "exp",
    "nl_expm1": "expm1",
    "nl_log": "log",
    "nl_log1p": "log1p",
    "nl_tanh": "tanh",
    "nl_erf": "erf",
    "nl_sqrt": "sqrt",
    "nl_abs": "fabs",
    "nl_sin": "sin",
    "nl_cos": "cos",
    "nl_pow": "pow",
}
"""What stands for a function of the kernels where numbers are double and the rest is float."""


STARTS = {"sum": "0", "amax": "-INFINITY", "amin": "INFINITY"}
CLAUSES = {"sum": "+", "amax": "max", "amin": "min"}
"""Where a sum begins, and how OpenMP calls what collects it."""


def strides_in(view: View, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a view broadcast to `shape` along the axes of `shape` that are not of size 1."""
    return tuple(s for n, s in zip(shape, view.strides, strict=True) if n != 1)


def shape_of(operation: Operation) -> tuple[int, ...]:
    """What an operation of a loop walks over, axes of size 1 too."""
    return operation.given.shape if isinstance(operation, Reduce) else operation.out.shape


def out_strides(operation: Operation) -> tuple[int, ...]:
    """Where an operation writes; 0 along what it sums."""
    shape = shape_of(operation)
    if not isinstance(operation, Reduce):
        return strides_in(operation.out, shape)
    strides = (0 if i in operation.axes else s for i, s in enumerate(operation.out.strides))
    return tuple(s for n, s in zip(shape, strides, strict=True) if n != 1)


def summed_axes(operation: Operation) -> tuple[bool, ...]:
    """Which axes of the loop an operation sums."""
    axes = operation.axes if isinstance(operation, Reduce) else ()
    return tuple(i in axes for i, n in enumerate(shape_of(operation)) if n != 1)


class LoopPrinter:
    """Lines of C for a loop; `named`: a pointer to a buffer, `inside`: buffers that are only values.

    `shared`: threads of one lane share it if it is long.
    """

    def __init__(self, loop: Loop, named: Named, inside: set[int], real: str, shared: bool = False) -> None:
        self.loop, self.named, self.inside, self.real = loop, named, inside, real
        self.values: dict[tuple[object, ...], str] = {}
        self.written = {id(m.out.buffer) for m in loop.members}
        self.still: dict[tuple[str, str], str] = {}
        """Numbers that the innermost loop does not move along, by type and place: read in front of it."""
        counts = any("{i}" in m.text or "{j}" in m.text for m in loop.members if isinstance(m, Point))
        order = tuple(range(len(loop.domain)))
        self.columns = [out_strides(m) for m in loop.members]
        self.columns += [strides_in(v, shape_of(m)) for m in loop.members for v in m.reads()]
        self.sums = [summed_axes(m) for m in loop.members if isinstance(m, Reduce)]
        self.groups: list[tuple[int, ...]] = [(i,) for i in order]
        if not counts:
            self.groups = self._ordered(self._groups())
        self.sizes = [self._size(g) for g in self.groups]
        along = not self.groups or any(sums[self.groups[0][-1]] for sums in self.sums)
        self.shared = shared and prod(self.sizes) >= LONG and not along
        """Whether threads share the outermost loop: nothing is summed along it."""
        self.parts = shared and prod(self.sizes) >= LONG and along and len(self.groups) == 1
        """Whether they share the parts of a sum over all places."""

    def _size(self, group: tuple[int, ...]) -> int:
        size = 1
        for i in group:
            size *= self.loop.domain[i]
        return size

    def _groups(self) -> list[tuple[int, ...]]:
        """Axes next to each other that every operand walks as one."""
        groups: list[tuple[int, ...]] = []
        for i, n in enumerate(self.loop.domain):
            together = bool(groups) and all(c[i - 1] == c[i] * n for c in self.columns)
            if together and all(s[i - 1] == s[i] for s in self.sums):
                groups[-1] = (*groups[-1], i)
            else:
                groups.append((i,))
        return groups

    def _ordered(self, groups: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """The axis along which most operands lie one behind the other runs fastest."""
        if len(groups) < 2:
            return groups

        def straight(group: tuple[int, ...]) -> tuple[int, int]:
            return sum(c[group[-1]] in (0, 1) for c in self.columns), groups.index(group)

        best = max((g for g in groups if self._size(g) >= 4), key=straight, default=groups[-1])
        return [g for g in groups if g != best] + [best]

    def lines(self) -> Iterator[str]:
        """The whole loop."""
        yield from self._starts()
        depth = len(self.groups)
        if self.shared and depth > 1:
            yield f"#pragma omp parallel for {TEAM}"
        for level in range(depth - 1):
            yield f"for (long x{level} = 0; x{level} < {self.sizes[level]}; x{level}++) {{"
        yield from self._innermost()
        yield "}" * max(depth - 1, 0)

    def _starts(self) -> Iterator[str]:
        """Sums that are collected in memory begin with nothing."""
        for m in self.loop.members:
            if isinstance(m, Reduce) and self._collects(m):
                place = f"{self.named(m.out)}[{m.out.offset} + n]"
                yield f"for (long n = 0; n < {m.out.elements}; n++) {place} = {STARTS[m.kind]};"

    def _summed(self, operation: Reduce) -> tuple[bool, ...]:
        sums = summed_axes(operation)
        return tuple(sums[g[-1]] for g in self.groups)

    def _collects(self, operation: Reduce) -> bool:
        """Whether a sum is collected in memory: some axis of it is not the innermost."""
        sums = self._summed(operation)
        return any(sums[:-1]) or not (sums and sums[-1])

    def _innermost(self) -> Iterator[str]:
        if not self.groups:
            yield from self._body()
            return
        last = len(self.groups) - 1
        registers = self._registers()
        if self.parts:
            yield from self._in_parts(registers)
            return
        for n, m in enumerate(registers):
            yield f"{m.out.buffer.kind} s{n} = {STARTS[m.kind]};"
        body = list(self._body())
        yield from (f"const {kind} {name} = {place};" for (kind, place), name in self.still.items())
        yield from self._simd(registers, f"parallel for simd {TEAM}" if self.shared and not last else "simd")
        yield f"for (long x{last} = 0; x{last} < {self.sizes[last]}; x{last}++) {{"
        yield from body
        yield "}"
        for n, m in enumerate(registers):
            yield self._store(m, f"s{n}", self._collects(m), level=last)

    def _in_parts(self, registers: list[Reduce]) -> Iterator[str]:
        """Sums over all places, made part by part and put together in one order."""
        size, count, kinds = self.sizes[0], -(-self.sizes[0] // PART), [m.out.buffer.kind for m in registers]
        begins = [
            f"{kind} s{n} = {STARTS[m.kind]};"
            for n, (kind, m) in enumerate(zip(kinds, registers, strict=True))
        ]
        body = list(self._body())
        yield from (f"const {kind} {name} = {place};" for (kind, place), name in self.still.items())
        yield from (f"{kind} p{n}[{count}];" for n, kind in enumerate(kinds))
        yield f"#pragma omp parallel for {TEAM}"
        yield f"for (long part = 0; part < {count}; part++) {{"
        yield from begins
        yield f"  const long end = part * {PART} + {PART} < {size} ? part * {PART} + {PART} : {size};"
        yield from self._simd(registers)
        yield f"  for (long x0 = part * {PART}; x0 < end; x0++) {{"
        yield from body
        yield "  }"
        yield from (f"p{n}[part] = s{n};" for n in range(len(registers)))
        yield "}"
        yield from begins
        yield f"for (long part = 0; part < {count}; part++) {{"
        yield from (_collected(f"s{n}", f"p{n}[part]", m.kind) for n, m in enumerate(registers))
        yield "}"
        for n, m in enumerate(registers):
            yield self._store(m, f"s{n}", False, level=0)

    def _simd(self, registers: list[Reduce], before: str = "simd") -> Iterator[str]:
        """What stands at the innermost loop."""
        clauses = "".join(f" reduction({CLAUSES[m.kind]}: s{n})" for n, m in enumerate(registers))
        # clang begins a largest one at the least finite number, not below it.
        finite = "max" in clauses or "min" in clauses
        yield from (["#ifndef __clang__"] if finite else [])
        yield f"#pragma omp {before}{clauses}"
        yield from (["#endif"] if finite else [])

    def _registers(self) -> list[Reduce]:
        """Sums along the innermost axis: they are collected in a register."""
        if not self.groups:
            return []
        return [m for m in self.loop.members if isinstance(m, Reduce) and self._summed(m)[-1]]

    def _body(self) -> Iterator[str]:
        registers = self._registers()
        for n, m in enumerate(self.loop.members):
            if isinstance(m, Reduce):
                value = self._value(m.given, shape_of(m))
                if m in registers:
                    at = registers.index(m)
                    yield _collected(f"s{at}", value, m.kind)
                else:
                    yield self._store(m, value, True)
                continue
            assert isinstance(m, Point)
            kind = m.out.buffer.kind
            yield f"const {kind} v{n} = {self._text(m)};"
            self.values[m.out.at()] = f"v{n}"
            if id(m.out.buffer) not in self.inside:
                yield f"{self._place(m.out, out_strides(m))} = v{n};"

    def _text(self, point: Point) -> str:
        kind = point.out.buffer.kind
        shape = shape_of(point)
        kinds = [x.buffer.kind for x in point.operands if isinstance(x, View)]
        literal = "double" if "double" in kinds or kind == "double" else self.real
        given = [self._operand(x, shape, literal) for x in point.operands]
        text = point.text
        if literal != self.real:
            text = _in_double(text)
        axes = {n: self._counter(a, point.out) for n, a in (("i", -2), ("j", -1)) if f"{{{n}}}" in text}
        return text.format(*given, **axes)

    def _counter(self, axis: int, out: View) -> str:
        """The place along one of the last two axes of a result, of which one may have size 1."""
        if len(out.shape) < -axis or out.shape[axis] == 1:
            return "0"
        place = sum(n != 1 for n in out.shape[: len(out.shape) + axis])
        return f"x{next(k for k, g in enumerate(self.groups) if g == (place,))}"

    def _operand(self, operand: Operand, shape: tuple[int, ...], kind: str) -> str:
        return self._value(operand, shape) if isinstance(operand, View) else number(operand, kind)

    def _value(self, view: View, shape: tuple[int, ...]) -> str:
        known, strides = self.values.get(view.at()), strides_in(view, shape)
        if known is not None:
            return known
        place = self._place(view, strides)
        # The C compiler does not know that nothing of the loop is written there: it would gather copies.
        if self.groups and not strides[self.groups[-1][-1]] and id(view.buffer) not in self.written:
            return self.still.setdefault((view.buffer.kind, place), f"h{len(self.still)}")
        return place

    def _place(self, view: View, strides: tuple[int, ...], level: int = 10**6) -> str:
        terms = [str(view.offset)] if view.offset else []
        for k, group in enumerate(self.groups[:level]):
            step = strides[group[-1]]
            if step:
                terms.append(f"x{k}" if step == 1 else f"x{k} * {step}")
        return f"{self.named(view)}[{' + '.join(terms) or '0'}]"

    def _store(self, operation: Reduce, value: str, collected: bool, level: int = 10**6) -> str:
        place = self._place(operation.out, out_strides(operation), level)
        return _collected(place, value, operation.kind) if collected else f"{place} = {value};"


def _collected(place: str, value: str, how: str) -> str:
    if how == "sum":
        return f"{place} += {value};"
    return f"{place} = {place} {'>' if how == 'amax' else '<'} {value} ? {place} : {value};"


def _in_double(text: str) -> str:
    for name, own in LIBM.items():
        text = text.replace(f"{name}(", f"{own}(")
    if "nl_" in text:
        raise UnsupportedError(f"`{text}` of double numbers among float")
    return text
