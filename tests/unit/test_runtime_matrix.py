"""Matrix memories of the run-time library against a loop over tokens written from the definition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.runtime.chunks import mask_out
from nldsl.runtime.matrix_memory import MatrixMemory
from nldsl.runtime.matrix_tokens import Gate, Momentum, Piece, Side, Step, Write

B, H, V, K = 2, 2, 3, 4
CHUNK = 8


@dataclass
class Case:
    """What a memory is given; `queries` one per place of a token, two per copy."""

    state: Tensor
    steps: list[Step]
    queries: list[Tensor]
    side: Side = "key"
    start: Tensor | None = None
    momentum: Momentum | None = None
    held: tuple[Tensor, ...] = ()


class Draw:
    """Random leaves for one length and side."""

    def __init__(self, tokens: int, side: Side) -> None:
        self.rows, self.side = (B, tokens, H), side
        self.along, self.other = (K, V) if side == "key" else (V, K)
        self.random = torch.Generator().manual_seed(tokens)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self.random).requires_grad_()

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float64, generator=self.random).requires_grad_()

    def unit(self, *more: int) -> Tensor:
        drawn = torch.randn(*self.rows, *more, self.along, dtype=torch.float64, generator=self.random)
        return F.normalize(drawn, dim=-1).requires_grad_()

    def scalar(self) -> Gate:
        return Gate(log=(-self.uniform(*self.rows)).detach().requires_grad_())

    def signed(self) -> Gate:
        return Gate((3 * self.normal(*self.rows)).sin().detach().requires_grad_())

    def channel(self, steepness: float = 1.0) -> Gate:
        return Gate(log=(-steepness * self.uniform(*self.rows, self.along)).detach().requires_grad_())

    def holes(self) -> Gate:
        """Gates of any sign, some of them zero."""
        values = self.normal(*self.rows, self.along) * (self.uniform(*self.rows, self.along) > 0.2)
        return Gate(values.detach().requires_grad_())

    def erase(self, *more: int, **extra: Tensor) -> Piece:
        add = self.normal(*self.rows, *more, self.other)
        return Piece(self.unit(*more), add, self.unit(*more), self.uniform(*self.rows, *more), **extra)

    def only(self) -> Piece:
        return Piece(self.unit(), self.normal(*self.rows, self.other))

    def momentum(self, beta: Gate) -> Momentum:
        return Momentum(beta, self.normal(*self.rows), self.normal(B, H, V, K))


def at_its_key(piece: Piece) -> Piece:
    """What is erased stands at the direction that is written."""
    return piece._replace(seen=piece.along)


Made = list[Step] | tuple[list[Step], Momentum] | tuple[list[Step], tuple[Tensor, ...]]
STEPS: dict[str, Callable[[Draw], Made]] = {
    "only": lambda d: [Write((d.only(),))],
    "delta": lambda d: [d.scalar(), Write((d.erase(),)), d.signed()],
    "several": lambda d: [
        Write((d.erase(), d.only()), d.scalar()),
        d.scalar(),
        Write((d.erase(), d.erase())),
        Write((d.only(),), d.signed()),
    ],
    "channel": lambda d: [d.channel(), Write((d.only(),))],
    "channels": lambda d: [
        Write((d.erase(), d.only()), d.channel()),
        d.scalar(),
        Write((d.erase(), d.erase())),
        d.channel(),
        Write((d.only(),)),
    ],
    # Eight tokens of up to 120 leave the range of one anchor in float64, 900 that of any block.
    "steep": lambda d: [Write((d.erase(), d.only()), d.channel(120.0)), Write((d.erase(),), d.channel(9.0))],
    "steepest": lambda d: [
        Write((d.erase(), d.only()), d.channel(900.0)),
        Write((d.erase(),), d.channel(3.0)),
    ],
    "holes": lambda d: [Write((d.erase(), d.only()), d.holes()), d.scalar(), Write((d.erase(),)), d.holes()],
    "alike": lambda d: [d.scalar(), Write((d.erase(3), d.erase()))],
    "momentum": lambda d: (
        [d.scalar(), Write((d.erase(3), d.only()), d.scalar()), d.scalar()],
        d.momentum(d.scalar()),
    ),
    "signed momentum": lambda d: ([d.signed(), Write((d.erase(),)), d.scalar()], d.momentum(d.signed())),
    "momentum, one key": lambda d: (
        [Write((at_its_key(d.erase()),), d.scalar()), d.scalar()],
        d.momentum(d.scalar()),
    ),
    "momentum alone": lambda d: ([Write((d.erase(),))], d.momentum(d.scalar())),
}


def case(kind: str, tokens: int, side: Side = "key", start: bool = False, queries: int = 2) -> Case:
    """`queries` of each copy."""
    draw = Draw(tokens, side)
    return drawn(draw, STEPS[kind](draw), start, queries)


def drawn(draw: Draw, made: Made, start: bool = False, queries: int = 2) -> Case:
    """Some steps with a state and queries."""
    tokens, side = draw.rows[1], draw.side
    steps, more = made if isinstance(made, tuple) else (made, None)
    momentum = more if isinstance(more, Momentum) else None
    held = () if more is None or momentum is not None else more
    if start:
        steps = [Write((draw.erase(from_state=draw.uniform(*draw.rows)), draw.only()), draw.channel())]
    asked = [draw.normal(B, tokens, queries * H, K) for _ in range(len(steps) + 1)]
    begun = draw.normal(H, V, K) if start else None
    return Case(draw.normal(B, H, V, K), steps, asked, side, begun, momentum, held)  # type: ignore[arg-type]


def faded(M: Tensor, gate: Gate, side: Side, t: int) -> Tensor:
    value = gate.log.exp() if gate.log is not None else gate.value
    assert value is not None
    if value.dim() == 3:
        return M * value[:, t, :, None, None]
    return M * (value[:, t, :, None, :] if side == "key" else value[:, t, :, :, None])


def added(M: Tensor, distance: Tensor, write: Write, side: Side, t: int) -> Tensor:
    """`sum (w - e (M s)) c^T`, entry by entry of the definition."""
    total = torch.zeros_like(M)
    ask = "bhvk,bhpk->bhpv" if side == "key" else "bhvk,bhpv->bhpk"
    put = "bhpv,bhpk->bhvk" if side == "key" else "bhpk,bhpv->bhvk"
    for piece in write.pieces:
        along, add, seen, erase, own = (None if x is None else x[:, t] for x in piece)
        assert along is not None and add is not None
        if along.dim() == 3:
            along, add = along[:, :, None], add[:, :, None]
            seen, erase, own = (None if x is None else x[:, :, None] for x in (seen, erase, own))
        if seen is not None and erase is not None:
            own = torch.zeros_like(erase) if own is None else own
            looked = (erase - own)[..., None] * torch.einsum(ask, distance, seen)
            add = add - looked - own[..., None] * torch.einsum(ask, M, seen)
        total = total + torch.einsum(put, add, along)
    return total


def literally(c: Case, mask: Tensor | None, places: tuple[int, ...] = ()) -> list[Tensor]:
    """Reads, state and momentum, one token after the other."""
    M, P = c.state, None if c.momentum is None else c.momentum.state
    r = torch.zeros(H, V, K, dtype=torch.float64) if c.start is None else c.start
    reads: list[list[Tensor]] = [[] for _ in c.queries]
    for t in range(c.queries[0].shape[1]):
        live = torch.ones(B, dtype=torch.bool) if mask is None else mask[:, t]
        states, held = [M], P
        for step in c.steps:
            M = states[-1]
            if isinstance(step, Gate):
                states.append(faded(M, step, c.side, t))
                continue
            change = added(M, M - r, step, c.side, t)
            if c.momentum is not None and held is not None:
                held = change + faded(held, c.momentum.beta, c.side, t)
                change = held if c.momentum.read is None else c.momentum.read[:, t, :, None, None] * held
            kept = M - r if step.gate is None else faded(M - r, step.gate, c.side, t)
            states.append(r + kept + change)
        shown = [states[p] for p in places] if places else states
        for rows, state, q in zip(reads, shown, c.queries, strict=True):
            y = torch.einsum("bhvk,bhmk->bhmv", state, q[:, t].unflatten(1, (H, -1))).flatten(1, 2)
            rows.append(y * live[:, None, None])
        chosen = live[:, None, None, None]
        M = torch.where(chosen, states[-1], states[0])
        P = None if held is None or P is None else torch.where(chosen, held, P)
    joined = [torch.stack(rows, 1) for rows in reads]
    return [*joined, M, *([] if P is None else [P])]


def by_chunks(c: Case, mask: Tensor | None, chunk: int = CHUNK, places: tuple[int, ...] = ()) -> list[Tensor]:
    memory = MatrixMemory(
        c.state,
        c.steps,
        mask=mask,
        side=c.side,
        start=c.start,
        momentum=c.momentum,
        held=c.held,
        chunk=chunk,
    )
    reads = [
        mask_out(memory.read(q, at=i), mask)
        for i, q in zip(places or range(len(c.queries)), c.queries, strict=True)
    ]
    return [*reads, memory.state, *memory.held]


Loop = Callable[[Case, Tensor | None, tuple[int, ...]], list[Tensor]]


def leaves(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, tuple | list):
        for part in x:
            yield from leaves(part)


def distances(
    c: Case, mask: Tensor | None = None, places: tuple[int, ...] = (), loop: Loop | None = None
) -> tuple[float, float]:
    """Largest relative difference of values, and of gradients of a random sum of them."""
    mine, theirs = by_chunks(c, mask, places=places), (loop or literally)(c, mask, places)
    values = max((relative(a, b) for a, b in zip(mine, theirs, strict=True)), default=0.0)
    wanted = list(leaves([c.state, c.steps, c.queries, c.momentum, c.start, c.held]))
    random = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, dtype=torch.float64, generator=random) for x in theirs]
    found = [
        torch.autograd.grad(
            sum((x * w).sum() for x, w in zip(run, weights, strict=True)),  # type: ignore[arg-type]
            wanted,
            allow_unused=True,
        )
        for run in (mine, theirs)
    ]
    zeros = [torch.zeros_like(x) for x in wanted]
    pairs = [[z if g is None else g for g, z in zip(gs, zeros, strict=True)] for gs in found]
    return values, max(relative(a, b) for a, b in zip(*pairs, strict=True))


def relative(a: Tensor, b: Tensor) -> float:
    if not b.numel():
        return 0.0
    assert bool(torch.isfinite(a).all())
    return float((a - b).detach().abs().max() / b.detach().abs().max().clamp_min(1.0))


SIDED = [(k, s) for k in STEPS for s in ("key", "value")]


@pytest.mark.parametrize(("kind", "side"), SIDED)
def test_chunks_equal_the_loop(kind: str, side: Side) -> None:
    """Lengths around the chunk, with and without a mask; values, states, gradients."""
    for tokens in (1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 2):
        mask = torch.rand(B, tokens, generator=torch.Generator().manual_seed(tokens)) > 0.3
        for given in (None, mask):
            values, gradients = distances(case(kind, tokens, side), given)
            assert values < 1e-11 and gradients < 1e-10, (tokens, given is not None)


PASSES: dict[str, Callable[[Draw], Made]] = {
    "write": lambda d: [Write((d.only(),))],
    "scalar": lambda d: [d.scalar(), Write((d.only(),))],
    "scalar delta": lambda d: [Write((at_its_key(d.erase()),), d.scalar())],
    "channel delta": lambda d: [d.channel(), Write((at_its_key(d.erase()),))],
    "two keys": lambda d: [Write((d.erase(), d.only()), d.channel())],
    "two keys decayed": lambda d: [d.channel(), Write((d.only(), d.erase()))],
    "too steep": lambda d: [Write((d.erase(), d.only()), d.channel(300.0))],
    "momentum": STEPS["momentum, one key"],
    "all of the momentum": lambda d: (
        [Write((at_its_key(d.erase()),), d.scalar())],
        d.momentum(d.scalar())._replace(read=None),
    ),
    "signed momentum": lambda d: ([d.signed(), Write((at_its_key(d.erase()),))], d.momentum(d.signed())),
}


@pytest.mark.parametrize("kind", PASSES)
@pytest.mark.parametrize("first", [0, 1, -1])
def test_one_pass_equals_the_loop(kind: str, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The read that the pass takes stands above, between and below the steps; all others follow."""
    monkeypatch.setitem(STEPS, kind, PASSES[kind])
    for tokens in (CHUNK - 1, 2 * CHUNK + 3):
        mask = torch.rand(B, tokens, generator=torch.Generator().manual_seed(tokens)) > 0.3
        c = case(kind, tokens, queries=1)
        only = replace(c, queries=[c.queries[first]])
        for some, places in ((only, (first % len(c.queries),)), (c, ())):
            for given in (None, mask):
                values, gradients = distances(some, given, places)
                assert values < 1e-11 and gradients < 1e-10, (tokens, given is not None, places)


@pytest.mark.parametrize("side", ["key", "value"])
def test_gates_pull_toward_the_start(side: Side) -> None:
    for tokens in (1, CHUNK + 1):
        values, gradients = distances(case("channels", tokens, side, start=True))
        assert values < 1e-11 and gradients < 1e-10


def test_no_tokens_leave_everything_as_it_was() -> None:
    c = case("momentum", 0)
    *reads, state, momentum = by_chunks(c, None)
    assert all(r.shape == (B, 0, 2 * H, V) for r in reads)
    assert torch.equal(state, c.state) and c.momentum is not None and torch.equal(momentum, c.momentum.state)


@pytest.mark.parametrize("steepness", [0.05, 3.0, 10.0, 16.0, 28.0, 60.0, 1e4])
def test_float32_is_close_at_every_decay(steepness: float) -> None:
    """The base of the recursion changes with the decay; the error stays at rounding."""
    c = case("channel", 70)
    log = -steepness * torch.rand(B, 70, H, K, generator=torch.Generator().manual_seed(0))
    write = c.steps[1]
    assert isinstance(write, Write)
    narrow = Write(tuple(Piece(*(None if x is None else x.float() for x in p)) for p in write.pieces))  # type: ignore[arg-type]
    exact = replace(c, steps=[Gate(log=log.double()), write])
    rough = replace(
        c, state=c.state.float(), steps=[Gate(log=log), narrow], queries=[q.float() for q in c.queries]
    )
    for a, b in zip(by_chunks(rough, None, 64), literally(exact, None), strict=True):
        assert relative(a.double(), b) < 2e-5


@pytest.mark.parametrize("kind", ["channels", "momentum, one key"])
def test_half_wide_numbers_are_computed_in_float32(kind: str) -> None:
    """Nothing is rounded but inputs and answers: the state is that of the rounded inputs in float32."""
    c = case(kind, 20)

    def rounded(x: Any, dtype: torch.dtype) -> Any:
        if isinstance(x, Tensor):
            return x.detach().to(torch.bfloat16).to(dtype)
        if isinstance(x, tuple):
            parts = [rounded(p, dtype) for p in x]
            return type(x)(*parts) if hasattr(x, "_fields") else tuple(parts)
        return x

    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        state, steps, momentum, q = (
            rounded(x, dtype) for x in (c.state, tuple(c.steps), c.momentum, c.queries[-1])
        )
        memory = MatrixMemory(state, steps, mask=None, momentum=momentum, chunk=CHUNK)
        found[dtype] = memory.read(q, at=len(steps)), memory.state
    (narrow, kept), (wide, exact) = found.values()
    assert narrow.dtype == torch.bfloat16 and kept.dtype == torch.float32
    assert torch.equal(kept, exact) and torch.equal(narrow, wide.to(torch.bfloat16))
