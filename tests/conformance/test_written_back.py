"""The backward pass that is written out for self-referential memories against the recorded one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import nldsl
from nldsl.driver import plan_of
from nldsl.runtime import chunk_back
from nldsl.runtime.model import Layer
from tests.conformance.agreement import compiled
from tests.conformance.test_lowerings import PROGRAMS

torch.set_num_threads(1)
CHUNK = 4

OWN = """
block own(x, w, heads = 2, chunk = 4) {
  level context every chunk tokens {
    memory K, V = residual_mlp(1) per head
    memory G = matrix() per head init learned
  }
  z = split(x, heads)
  k = l2norm(tanh(K[z]) * (1 + z ** 2) - 0.5 * z)
  v = l2norm(V[z] / (1 + sum(V[z] ** 2)))
  a = sigmoid(mean(G[z]) + sum(split(w, heads) * z))
  r = 0.05 * sigmoid(softplus(mean(V[k])))
  y = G[k] + K[v]
  write each of K, V { [k] <- self[v] - z  minimize l2  by dgd(lr = r)  retain a }
  G[k] <- exp(-v ** 2)  minimize dot  by gd(lr = r)  retain a
  return merge(y)
}
"""
"""Operations with formulas and without, two maps, a memory that only decays, and parameters as values."""

MATRICES = """
block matrices(x, w, chunk = 4) {
  level slow every chunk tokens { memory A, B = matrix() init learned }
  k = l2norm(A[x] + w)
  b1, b2 = parts(sigmoid(B[w]), 4, 4)
  v = relu(B[k]) - minimum(A[w], 0.5) * where(sum(k) > 0, 1.0, 0.5) + concat(b2, b1 ** sum(k * k))
  A[k] <- v  minimize l2  by gd(lr = 0.1)
  B[v] <- A[v] * mean(v)  minimize l2  by dgd(lr = 0.1 * sigmoid(dot(k, w)))
  return k + v
}
"""
"""Memories without heads, a read that no write sees, and slopes that are zero."""

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "own": (OWN, {"block": "own", "x": 8, "w": 8}),
    "self_modifying_titans": (
        "hope",
        {"block": "self_modifying_titans", "x": 8, "heads": 2, "chunk": CHUNK, "memory_chunk": CHUNK},
    ),
    "clocks apart": (
        "hope",
        {"block": "self_modifying_titans", "x": 8, "heads": 2, "chunk": 2, "memory_chunk": 6},
    ),
    "constant writes": (
        "self_modifying_titans_first",
        {"x": 8, "heads": 2, "chunk": CHUNK, "memory_chunk": CHUNK},
    ),
    "constant writes, clocks apart": (
        "self_modifying_titans_first",
        {"x": 8, "heads": 2, "chunk": 2, "memory_chunk": 6},
    ),
    "matrices": (MATRICES, {"block": "matrices", "x": 8, "w": 8}),
    "l2": ("self_modifying_titans_l2", {"x": 8, "heads": 2, "chunk": CHUNK}),
    "no decay": (
        "hope_without_decay",
        {
            "block": "self_modifying_titans_without_decay",
            "x": 8,
            "heads": 2,
            "chunk": CHUNK,
            "memory_chunk": CHUNK,
        },
    ),
    "literal": ("self_modifying_titans_literal", {"x": 8, "heads": 2, "chunk": CHUNK}),
}


def built(name: str, dtype: torch.dtype = torch.float64) -> Layer:
    text, arguments = CASES[name]
    return nldsl.compile(text, checkpoint=True, **arguments).to(dtype)


def emitted(layer: Layer) -> dict[str, Any]:
    """The names of the file a layer was emitted into."""
    return type(layer.root).forward.__globals__


def recorded(layer: Layer) -> Layer:
    """The same layer, its steps recorded by automatic differentiation."""
    emitted(layer)["chunk_step"] = lambda step, back, given, *_, **__: step(*given)
    return layer


def flows(
    layer: Layer, tokens: int, mask: Tensor | None = None, pieces: tuple[int, ...] = ()
) -> list[Tensor]:
    """Outputs, final states and the gradients of every input and parameter."""
    draw = torch.Generator().manual_seed(tokens)
    dtype = next(layer.parameters()).dtype
    widths = [8] * len(layer.program.root.inputs)
    inputs = [torch.randn(3, tokens, w, generator=draw).to(dtype).requires_grad_() for w in widths]
    state, parts, at = None, [], 0
    for width in pieces or (tokens,):
        here = [x[:, at : at + width] for x in inputs]
        seen = None if mask is None else mask[:, at : at + width]
        y, state = layer(*here, state=state, mask=seen)
        parts.append(y)
        at += width
    assert state is not None
    ends = [w for m in state.tree["root"].values() if "running" in m for w in m["running"].values()]
    outs = [torch.cat(parts, 1), *ends]
    total = sum((o * torch.randn(o.shape, generator=draw).to(dtype)).sum() for o in outs)
    given = [*inputs, *(p for _, p in sorted(layer.named_parameters()))]
    found = torch.autograd.grad(total, given, allow_unused=True)
    return outs + [torch.zeros(()) if g is None else g for g in found]


def apart(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest difference, relative to the size of each tensor."""
    assert [x.shape for x in one] == [x.shape for x in other]
    return max(
        float((a - b).detach().abs().amax() / (1e-6 + b.detach().abs().amax()))
        for a, b in zip(one, other, strict=True)
        if a.numel()
    )


MASK = torch.rand(3, 3 * CHUNK + 2, generator=torch.Generator().manual_seed(1)) > 0.3


@pytest.mark.parametrize("name", CASES)
def test_equals_the_recorded_one(name: str) -> None:
    """Lengths around the ends of chunks, masks, samples at different counts, pieces."""
    written, plain = built(name), recorded(built(name))
    for tokens in (1, CHUNK - 1, CHUNK, 2 * CHUNK + 1):
        assert apart(flows(written, tokens), flows(plain, tokens)) < 1e-9, tokens
    pieces = (2, CHUNK + 1, 1, 2 * CHUNK - 2)
    masked = [flows(m, MASK.shape[1], MASK, pieces) for m in (written, plain)]
    assert apart(*masked) < 1e-9


@pytest.mark.parametrize("name", CASES)
def test_in_single_precision(name: str) -> None:
    written, plain = built(name, torch.float32), recorded(built(name, torch.float32))
    assert apart(flows(written, 2 * CHUNK + 1), flows(plain, 2 * CHUNK + 1)) < 2e-4


def test_parts_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample by sample, two at a time, all at once: the same."""
    found = []
    for cache in (1, 3000, 2**30):
        monkeypatch.setattr(chunk_back, "CACHE", cache)
        found.append(flows(built("self_modifying_titans"), MASK.shape[1], MASK))
    assert apart(found[0], found[2]) < 1e-12
    assert apart(found[1], found[2]) < 1e-12


def test_steps_are_recorded_unless_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or asked not to be, by `checkpoint`; which way it goes changes nothing but time and memory."""
    text, arguments = CASES["self_modifying_titans"]
    layer = nldsl.compile(text, **arguments).double()
    calls: list[int] = []
    monkeypatch.setattr(chunk_back._ChunkStep, "apply", lambda *given: calls.append(1) or 1 / 0)
    small = flows(layer, 2 * CHUNK + 1)
    assert not calls
    monkeypatch.undo()
    monkeypatch.setattr(chunk_back, "is_compiled", lambda step: True)
    assert apart(small, flows(layer, 2 * CHUNK + 1)) < 1e-9
    # What torch would not compile is left to recording.
    assert "compiled=False" in built("own").source
    assert "compiled=False" not in built("self_modifying_titans").source


def test_the_plan_says_how() -> None:
    text, arguments = CASES["self_modifying_titans"]
    assert "its backward pass is written out" in str(plan_of(nldsl.compile(text, **arguments).program).rows())
    momentum = nldsl.compile("hope_with_momentum", block="self_modifying_titans_with_momentum", x=8, heads=2)
    assert "its backward pass is always recorded: " in str(plan_of(momentum.program).rows())


HELD = (
    "family_mixed_reads",
    "detach_cycle",
    "heads_ops3",
    "heads_mean_cycle",
    "matrix_cycle_chunk",
    "write_each_self",
    "clocks_cycle_4_8",
)


@pytest.mark.parametrize("name", HELD)
def test_every_operation_has_a_formula(name: str) -> None:
    text, arguments = PROGRAMS[name]
    source = compiled(text, **arguments).source
    assert "_back(" in source


def test_what_is_kept() -> None:
    """Far less than what recording keeps."""

    def saved(layer: Layer) -> int:
        seen: dict[int, int] = {}

        def pack(x: Tensor) -> Tensor:
            seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            kept = layer(torch.randn(2, 64, 8, dtype=torch.float64, requires_grad=True))
        del kept
        return sum(seen.values())

    assert saved(built("self_modifying_titans")) < saved(recorded(built("self_modifying_titans"))) / 2


@pytest.mark.parametrize("options", [{}, {"checkpoint": True}, {"lowering": "sequential"}])
@pytest.mark.parametrize("power", [1, 2])
def test_second_derivatives_are_refused(options: dict[str, Any], power: int) -> None:
    """Also where the gradients that come in are constants."""
    text, arguments = CASES["self_modifying_titans"]
    layer = nldsl.compile(text, **arguments, **options).double()
    x = torch.randn(1, 5, 8, dtype=torch.float64, requires_grad=True)
    total = (layer(x)[0] ** power).sum()
    (slope,) = torch.autograd.grad(total, x, create_graph=True)
    assert apart([slope], list(torch.autograd.grad(total, x, retain_graph=True))) < 1e-12
    with pytest.raises(RuntimeError, match="NL0977"):
        torch.autograd.grad(slope.sum(), x)


def _without(field: str) -> Callable[[Any], Any]:
    """A pullback of several results that forgets one of them."""

    def fault(original: Any) -> Any:
        def wrong(*args: Any, **options: Any) -> Any:
            found = original(*args, **options)
            return found._replace(**{field: torch.zeros_like(getattr(found, field))})

        return wrong

    return fault


def _scaled(original: Any) -> Any:
    return lambda *args, **options: 1.001 * original(*args, **options)


def _swapped(original: Any) -> Any:
    return lambda *args, **options: original(*args, **options)[::-1]


FAULTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    **{
        f"write: {f}": ("delta_write_pullback", _without(f))
        for f in ("weight", "x", "dy", "erase", "rate", "toward")
    },
    "write: kept inverse": (
        "delta_write_pullback",
        lambda original: (
            lambda *a, **o: original(
                *a, **{**o, "inverse": None if o["inverse"] is None else o["inverse"].flip(1)}
            )
        ),
    ),
    "constant write: weight": (
        "delta_kept_pullback",
        lambda original: lambda *a, **o: (1.001 * original(*a, **o)[0], original(*a, **o)[1]),
    ),
    "constant write: start": (
        "delta_kept_pullback",
        lambda original: lambda *a, **o: (original(*a, **o)[0], None),
    ),
    "gate": ("retention_kernel_back", _scaled),
    "gates together": ("together", lambda original: lambda total, more: total),
    "curvature": ("silu_pullback_back", _swapped),
    "slope": ("silu_back", _scaled),
    "unit length": ("l2norm_back", lambda original: lambda d, unit, x, eps: d),
    "readout": ("readout_back", lambda original: lambda *a: (*original(*a)[:2], torch.zeros_like(a[3]))),
    "gate's logarithm": ("logsigmoid_back", _scaled),
    "gate itself": ("sigmoid_back", _scaled),
    "product": ("product", _scaled),
    "sum of products": ("add_product", lambda original: lambda total, left, right: None),
    "taken apart": (
        "stacked",
        lambda original: lambda parts, whole, axis: original((None, *parts[1:]), whole, axis),
    ),
    "broadcast": ("summed_to", _scaled),
}
"""Formulas of the backward pass, each made wrong."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_formula_is_seen(fault: str) -> None:
    function, broken = FAULTS[fault]
    name = "constant writes" if function == "delta_kept_pullback" else "self_modifying_titans"
    layer = built(name)
    names = emitted(layer)
    names[function] = broken(names[function])
    plain = recorded(built(name))
    assert apart(flows(layer, 2 * CHUNK + 1), flows(plain, 2 * CHUNK + 1)) > 1e-6
