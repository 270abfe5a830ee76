"""Floating-point operations of primitives and memories, per token.

Only products are counted, as `torch.utils.flop_counter` does, in the chunks that a CPU takes.  With `m x n`
weights, `C` tokens in a chunk, keys of size `k` and values of size `v`, one head:

* one write, token by token: the products of the map, of the way back, `2 m n` for the gradient's
  `d z^T`, `2 m n` more where the rule erases along `z`;
* linear recurrence in chunks: `4 v k + 2 C (k + v)`;
* delta recurrence in chunks: `6 v k + 2 C (3 k + 2 v) + C^2 / 3`, the last for a triangular inverse;
* rank-one pieces in chunks, r that erase and p that do not: as in `matrix_form.member_flops`;
* a memory with held gradients: the write's products, and per weight that erases `2 m n + 2 C (m + n) +
  C^2 / 3` instead of `2 m n`.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

from nldsl.calculus import Expr, NotDifferentiableError, gradient, rule_form, walk
from nldsl.calculus.affine import scalar_value
from nldsl.calculus.differentiate import MapGradient
from nldsl.plan.details import ChunkDetail, RecurrenceDetail
from nldsl.plan.matrix_form import MatrixDetail, chunk_width
from nldsl.plan.plan import Plan, Unit
from nldsl.spec.program import Apply, Block, Memory, Read, TaskWrite, Term, Value, Write, option
from nldsl.view.matrix_form import member_flops, members_of


class MemoryFlops(NamedTuple):
    """Of one token: by the recurrence, in the chosen form, and there in pieces of a segment.

    `context` is added for every token of the context.
    """

    decode: int
    forward: int
    pieces: int
    context: int
    task: bool


def statement_flops(step: Apply) -> int:
    """The products of one primitive at one token."""
    shapes = [a.shape for a in step.args]
    owned = [p.shape for p in step.parameters]
    match step.op:
        case "linear" | "head":
            return 2 * prod(owned[0])
        case "conv" | "readout":
            return 2 * prod(owned[0])
        case "matmul":
            return _matmul(shapes[0], shapes[1])
        case "headwise":
            return 2 * prod(step.out.shape) * shapes[0][1]
        case "outer":
            return 2 * prod(step.out.shape)
        case "dot":
            return 2 * prod(shapes[0])
    return 0


def memory_flops(block: Block, memory: Memory, plan: Plan | None, segment: int) -> MemoryFlops:
    """Reads and writes of one memory of `block`; `learn` cuts sequences in segments (0: it does not)."""
    reads = [s for s in block.body if isinstance(s, Read) and s.memory == memory.name]
    writes = [s for s in block.body if isinstance(s, Write) and s.memory == memory.name]
    if memory.function is None:
        grown = sum(_query_heads(memory, s.key) for s in reads) * 2 * (memory.key_size + memory.value_size)
        window = option(memory.options, "window", 0)
        assert isinstance(window, int)
        # A cache that forgets by its own clock is half full on average.
        pairs = len(writes) * memory.reset_every // 2 if memory.reset == "tokens" else 0
        seen = grown * (min(window, pairs) if window and pairs else window or pairs)
        return MemoryFlops(seen, seen, seen, 0 if seen else grown * len(writes), False)
    read = sum(_read(memory, s) for s in reads)
    write = sum(_write(memory, t, w.at_commit) for w in writes for t in w.terms)
    task = any(isinstance(s, TaskWrite) and s.memory == memory.name for s in block.body)
    unit = _unit(block, memory, plan)
    forms = [_chunked(memory, unit, reads, read, writes, cut) for cut in (0, segment)]
    whole, pieces = (read + write if form is None else form for form in forms)
    return MemoryFlops(read + write, whole, pieces, 0, task)


def _unit(block: Block, memory: Memory, plan: Plan | None) -> Unit | None:
    if plan is None:
        return None
    return next((u for u in plan.of(block).units if memory.name in u.memories), None)


def _query_heads(memory: Memory, key: Value) -> int:
    if not memory.per_head:
        return 1
    return key.shape[0] if key.kind == "headed" else memory.heads


def _read(memory: Memory, read: Read) -> int:
    """The map at the query; through a solve, so many steps of conjugate gradients before."""
    heads = _query_heads(memory, read.key)
    before = 0
    if read.solve is not None:
        before = heads * read.solve[2] * 2 * memory.key_size**2
    return before + (0 if read.lone else heads * _map(memory))


def _map(memory: Memory) -> int:
    assert memory.function is not None
    return sum(statement_flops(step) for step in memory.function.body)


def _write(memory: Memory, term: Term, at_commit: bool) -> int:
    """One term, token by token; `at commit` the rule runs once per chunk."""
    found = _gradient(memory, term)
    if found is None:
        return memory.heads * term.window * 3 * _map(memory)
    steps = 0
    for grad in found.gradients:
        gathered, ruled = _step(term, grad.weight.shape, grad.x is not None)
        steps += gathered + (ruled // memory.clock.every if at_commit else ruled)
    return memory.heads * term.window * (_way_back(found) + steps)


def _gradient(memory: Memory, term: Term) -> MapGradient | None:
    assert memory.function is not None
    try:
        return gradient(memory.function, term.objective)
    except NotDifferentiableError:
        return None


def _way_back(found: MapGradient) -> int:
    """The products up to `z` and `d` of every weight, each once."""
    roots: list[Expr] = []
    for grad in found.gradients:
        roots += [grad.x, grad.dy] if grad.x is not None and grad.dy is not None else [grad.expression]
    return products(roots)


def _step(term: Term, shape: tuple[int, ...], rank_one: bool) -> tuple[int, int]:
    """`d z^T` into the weight, and what the rule does beyond: the erase along `z`."""
    size = 2 * prod(shape)
    form = rule_form(term.rule, shape).form
    if form is None:
        return size if rank_one else 0, _rule(term, shape)
    erases = scalar_value(form.taken) != 0.0
    return size if rank_one else 0, size if erases else 0


def _rule(term: Term, shape: tuple[int, ...]) -> int:
    """The products of a rule without closed form."""
    total = 0
    for step in term.rule.function.body:
        if step.op == "orthogonalize":
            small, large = min(shape), max(shape)
            steps = option(step.options, "iterations", 5)
            assert isinstance(steps, int)
            total += steps * (4 * small * small * large + 2 * small**3)
        else:
            total += statement_flops(step)
    return total


def products(roots: Iterable[Expr]) -> int:
    """The products in some expressions, common ones once.

    Example:
        >>> from nldsl.calculus import build, symbol
        >>> W, k = symbol("W", (4, 3), "matrix"), symbol("k", (3,), "vector")
        >>> products([build("silu", build("matmul", W, k)), build("matmul", W, k)])
        24
    """
    total = 0
    for expr in walk(roots):
        match expr.op:
            case "matmul":
                total += _matmul(expr.args[0].shape, expr.args[1].shape)
            case "outer":
                total += 2 * prod(expr.shape)
            case "dot":
                total += 2 * prod(expr.args[0].shape)
    return total


def _matmul(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """`[m, n] @ [n, p]`; a vector counts as one row or column."""
    if len(left) == 1:
        return 2 * prod(right)
    return 2 * prod(left) * (right[1] if len(right) == 2 else 1)


def _chunked(
    memory: Memory, unit: Unit | None, reads: list[Read], read: int, writes: list[Write], cut: int
) -> int | None:
    """The form the plan has chosen, in pieces of at most `cut` tokens; `None` if that is token by token."""
    if unit is None or unit.detail is None:
        return None
    if isinstance(unit.detail, RecurrenceDetail):
        width = unit.detail.width("cpu")
        return _recurrence(memory, unit.detail, reads, min(width, cut or width))
    if isinstance(unit.detail, MatrixDetail):
        queries = sum(_query_heads(memory, s.key) for s in reads)
        return _matrices(unit.detail, memory, queries, cut)
    if isinstance(unit.detail, ChunkDetail):
        chunk = min(unit.detail.grid, cut or unit.detail.grid)
        steps = (_held(memory, term, chunk) for w in writes for term in w.terms)
        return read + sum(steps)
    return None


def _matrices(detail: MatrixDetail, memory: Memory, queries: int, cut: int) -> int | None:
    """All matrices of a memory; `None` where one of them is a scan."""
    total = 0
    for member in members_of(detail, memory.name):
        width = chunk_width(member, detail, "cpu")
        flops = member_flops(member, queries, min(width, cut or width))
        if flops is None:
            return None
        total += flops
    return total


def _recurrence(memory: Memory, detail: RecurrenceDetail, reads: list[Read], c: int) -> int:
    k, v = memory.key_size, memory.value_size
    queries = sum(_query_heads(memory, s.key) for s in reads)
    read = queries * (2 * v * k + 2 * c * (k + v))
    if detail.erase is None:
        return read + memory.heads * 2 * v * k
    return read + memory.heads * (4 * v * k + 2 * c * (2 * k + v) + c * c // 3)


def _held(memory: Memory, term: Term, chunk: int) -> int:
    """A write with the gradient at an older state."""
    found = _gradient(memory, term)
    if found is None:
        return _write(memory, term, False)
    total = _way_back(found)
    for grad in found.gradients:
        total += sum(_step(term, grad.weight.shape, grad.x is not None))
        form = rule_form(term.rule, grad.weight.shape).form
        if form is not None and scalar_value(form.taken) != 0.0 and len(grad.weight.shape) == 2:
            total += 2 * chunk * sum(grad.weight.shape) + chunk * chunk // 3
    return memory.heads * total
