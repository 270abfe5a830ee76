"""Products of linear layers in C: against torch in double precision, and in whole models."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from types import FunctionType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import nldsl
from nldsl.certify.graphs import in_lanes
from nldsl.native import linears, projections, turn_on
from nldsl.native.kernels import linears_text
from nldsl.runtime.native import REAL, Step, built, compiler
from nldsl.runtime.values import linear
from tests.conformance.test_ahead import built as built_ahead
from tests.conformance.test_ahead import piece_by_piece, run

pytestmark = pytest.mark.skipif(not compiler(), reason="there is no C compiler")
SHAPES = [
    *((1, 1, 1), (7, 3, 2), (5, 4, 8), (6, 64, 64), (7, 65, 63), (13, 97, 131), (49, 130, 70), (300, 5, 9)),
    *((9, 70, 1100), (50, 1100, 33), (260, 500, 67), (131, 6, 200)),
]
"""Rows, outputs, inputs: odd ones, long sums, more panels than are packed at once, thin ones."""
SPEC = """
model m(tokens, vocab = 37, dim = 24) {
  x = embed(tokens, vocab, dim)
  z = norm(x)
  q = linear(z)
  k = linear(z, 2, bias = true)
  x = x + linear(q * sigmoid(linear(z)), dim)
  return head(norm(x) * sum(k), vocab)
}
"""


def step(dtype: torch.dtype) -> Step:
    found = built(linears_text(), REAL[dtype])
    assert not isinstance(found, str), found
    return found


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever the machine, and however small the products."""
    monkeypatch.setattr(linears, "faster", lambda _: True)
    linears.products.cache_clear()
    with linears.every_product():
        yield
    linears.products.cache_clear()


def drawn(*sizes: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    made = torch.Generator().manual_seed(seed)
    return torch.randn(sizes, generator=made, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_every_product(shape: tuple[int, int, int], dtype: torch.dtype, threads: int) -> None:
    """No worse than torch is, and the same bits with any number of threads."""
    m, n, k = shape
    x, w, b, dy = (drawn(*s, seed=i, dtype=dtype) for i, s in enumerate(((m, k), (n, k), (n,), (m, n))))
    right = [
        F.linear(x.double(), w.double(), b.double()),
        dy.double() @ w.double(),
        dy.double().mT @ x.double(),
    ]
    made, before = step(dtype), torch.get_num_threads()
    one = [linears.rows(made, x, w, b), linears.inputs(made, dy, w), linears.weights(made, dy, x)]
    try:
        torch.set_num_threads(threads)
        found = [linears.rows(made, x, w, b), linears.inputs(made, dy, w), linears.weights(made, dy, x)]
    finally:
        torch.set_num_threads(before)
    for y, alone, want, terms in zip(found, one, right, (k + 1, n, m), strict=True):
        bound = 4 * torch.finfo(dtype).eps * terms**0.5 * max(1.0, float(want.abs().max()))
        assert float((y.double() - want).abs().max()) <= bound
        assert torch.equal(y, alone)


def gradients(f: Any, *given: Tensor) -> list[Tensor]:
    y = f(*given)
    return [y, *torch.autograd.grad(y, [t for t in given if t.requires_grad], drawn(*y.shape, seed=9))]


@pytest.mark.parametrize("asked", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)])
def test_as_an_operation(asked: tuple[int, int, int], everywhere: None) -> None:
    """Any subset of gradients, rows that lie apart, turned weights, gradients that are one number."""
    x = drawn(2, 9, 40)[..., ::2].requires_grad_(bool(asked[0]))
    w = drawn(20, 30, seed=1).mT.requires_grad_(bool(asked[1]))
    b = drawn(30, seed=2).requires_grad_(bool(asked[2]))
    own = linears.Linears(linear)
    for found, want in zip(gradients(own, x, w, b), gradients(F.linear, x, w, b), strict=True):
        torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)
    assert own.shapes == {(30, 20)}
    given = [t for t in (x, w, b) if t.requires_grad]
    even = torch.autograd.grad(own(x, w, b).sum(), given), torch.autograd.grad(F.linear(x, w, b).sum(), given)
    for found, want in zip(*even, strict=True):
        torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("several", [False, True])
def test_gradients_that_are_only_marked_as_negative(several: bool, everywhere: None) -> None:
    """As behind `conj().imag`: their numbers in memory have the other sign."""
    x, w, b = (drawn(*s, seed=i).requires_grad_() for i, s in enumerate(((6, 5), (7, 5), (7,))))
    own = linears.Linears(linear)

    def direct(one: Any) -> tuple[Tensor, ...]:
        y, dy = one(x, w, b), torch._neg_view(drawn(6, 7, seed=4))
        return torch.autograd.grad(y, (x, w, b), dy)

    def both(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        answers = projections.Projections(own)(x, (w, b), (w,))
        answers.take(1)
        return answers.take(0)

    one = both if several else own
    for mine, right in zip(direct(one), direct(F.linear), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-12, atol=1e-12)
    assert own.shapes


def test_derivatives_of_gradients(everywhere: None) -> None:
    x, w = drawn(9, 5).requires_grad_(), drawn(7, 5, seed=1).requires_grad_()
    own = linears.Linears(linear)
    assert torch.autograd.gradcheck(own, (x, w)) and torch.autograd.gradgradcheck(own, (x, w))
    assert own.shapes


def forward(self: Any, x: Tensor, z: Tensor) -> Any:
    a = linear(x, self.a) + linear(x, self.p["b"].weight, self.bias)
    if a.dim() > 5:
        a = linear(x, self.c)
    z = z + 1
    b = linear(z, self.a) * linear(z, self.c)
    return a, b, [linear(x, self.c) for _ in range(1)], linear(x, self.c), linear(a, self.d, bias=None)


def test_what_is_called_together() -> None:
    """Layers of a value that is given once, where they are called whatever the values are."""
    code = projections.together(forward)  # type: ignore[arg-type]
    assert code is not None and code.co_firstlineno == forward.__code__.co_firstlineno
    asked: list[list[Any]] = []

    def of_one(x: Any, *layers: Any) -> projections.Answers:
        asked.append([x, *layers])
        return projections.Answers([torch.zeros(2)] * len(layers))

    names = {"torch": torch, projections.TOGETHER: of_one, "linear": lambda x, w, *b, **_: torch.ones(2)}
    whole: Any = SimpleNamespace(a="a", c="c", d="d", bias="bias", p={"b": SimpleNamespace(weight="b")})
    x = torch.ones(2)
    a, b, c, d, e = FunctionType(code, names)(whole, x, x)
    assert asked == [[x, ("a",), ("b", "bias"), ("c",)]]
    assert a.sum() == d.sum() == 0 and b.sum() == c[0].sum() == e.sum() == 2
    assert projections.together(gradients) is None  # type: ignore[arg-type]


TEXT = """
from nldsl.runtime.values import linear
class B:
    def forward(self, x, z):
        a = linear(x, self.a)
        {between}
        return a, linear(x, self.b)
"""


@pytest.mark.parametrize("between", ["pass", "z = z", "x.add_(1)", "x[0] = 1", "z = (x := z)", "del x[0]"])
def test_a_value_that_changes_in_between(between: str, tmp_path: Path) -> None:
    """Files may be edited by hand; and written anew after they were imported, which is not what runs."""
    file = tmp_path / "edited.py"
    file.write_text(TEXT.format(between=between))
    forward = run_path(str(file))["B"].forward
    may = between in ("pass", "z = z")
    assert (projections.together(forward) is not None) is may
    file.write_text(TEXT.format(between=between).replace("self.b", "self.other"))
    assert projections.together(forward) is None


def test_names_of_parts_are_not_functions() -> None:
    """A part may be called as what computes it is."""
    names: dict[str, Any] = {}
    exec("class B:\n    def forward(self, x): return self.linear(x) + head(x)\nhead = abs", names)
    assert linears.linears_of(names["B"]) == ["head"]


@pytest.mark.parametrize("asked", [(0, 1, 2, 3), (2,), (1, 3), (0, 3)])
@pytest.mark.parametrize("frozen", [(), (0,), (1, 4)])
def test_layers_of_one_value(asked: tuple[int, ...], frozen: tuple[int, ...], everywhere: None) -> None:
    """Wide and thin ones, with biases and without, whichever answers and gradients are asked for."""
    x = drawn(2, 9, 20)
    given = [
        x,
        drawn(40, 20),
        drawn(3, 20, seed=1),
        drawn(3, seed=2),
        drawn(5, 20, seed=3),
        drawn(40, 20, seed=4),
    ]
    for n, t in enumerate(given):
        t.requires_grad_(n not in frozen)

    def outcome(one: Any) -> list[Tensor]:
        x, a, b, offset, c, d = given
        made = one(x, (a,), (b, offset), (c,), (d,))
        answers = [made.take(n) for n in range(4)]
        total = sum((drawn(*answers[n].shape, seed=n) * answers[n] ** 2).sum() for n in asked)
        leaves = [t for t in given if t.requires_grad]
        grads = torch.autograd.grad(total, leaves, allow_unused=True)  # type: ignore[arg-type]
        return [
            *answers,
            *(torch.zeros_like(t) if g is None else g for g, t in zip(grads, leaves, strict=True)),
        ]

    single = linears.Linears(linear)
    own = projections.Projections(single)
    plain = lambda x, *layers: projections.Answers([F.linear(x, *layer) for layer in layers])  # noqa: E731
    for found, want in zip(outcome(own), outcome(plain), strict=True):
        torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)
    assert single.shapes == {(40, 20), (3, 20), (5, 20)}


def test_layers_of_one_value_twice_and_their_derivatives(everywhere: None) -> None:
    """One weight in two places; passes back that are repeated; derivatives of gradients."""
    own = projections.Projections(linears.Linears(linear))
    x, w, thin = drawn(4, 5).requires_grad_(), drawn(33, 5, seed=1).requires_grad_(), drawn(2, 5, seed=2)

    def sums(x: Tensor, w: Tensor, thin: Tensor) -> Tensor:
        made = own(x, (w,), (thin,), (w,), (thin,))
        return (made.take(0) * made.take(2)).sum() + (made.take(1) * made.take(3).sin()).sum()

    given = (x, w, thin.requires_grad_())
    assert torch.autograd.gradcheck(sums, given) and torch.autograd.gradgradcheck(sums, given)
    total = sums(*given)
    once = torch.autograd.grad(total, given, retain_graph=True)
    assert all(map(torch.equal, torch.autograd.grad(total, given), once))
    assert own.single.shapes


def test_a_weight_with_a_rule_of_its_own_is_called_alone(everywhere: None) -> None:
    own, x, w = projections.Projections(linears.Linears(linear)), drawn(4, 5), drawn(3, 5).requires_grad_()
    setattr(w, linears.ATTRIBUTE, SimpleNamespace(linear=lambda x, w, b: "its own"))
    made = own(x, (w,), (drawn(3, 5, seed=1),))
    assert made.take(0) == "its own"  # type: ignore[comparison-overlap]
    torch.testing.assert_close(made.take(1), x @ drawn(3, 5, seed=1).mT)
    assert own.single.shapes == {(3, 5)}


def test_what_torch_does(everywhere: None) -> None:
    """Half precision, autocast, transforms, weights with rules of their own, no rows."""
    own, x, w = linears.Linears(linear), drawn(9, 5), drawn(7, 5, seed=1)
    assert own(x.bfloat16(), w.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert own(x.float(), w.float()).dtype == torch.bfloat16
    assert own(x[:0], w).shape == (0, 7) and own(x[0], w).shape == (7,)
    torch.testing.assert_close(torch.func.vmap(lambda r: own(r, w))(x[:, None])[:, 0], x @ w.mT)
    torch.testing.assert_close(torch.func.grad(lambda v: own(x, v).sum())(w), x.sum(0).expand_as(w))
    assert torch.compile(own, backend="eager", fullgraph=True)(x, w).shape == (9, 7)
    assert not own.shapes


def test_with_no_gradients(everywhere: None) -> None:
    own, x, w = linears.Linears(linear), drawn(9, 5), drawn(7, 5, seed=1).requires_grad_()
    with torch.no_grad():
        assert not own(x, w).requires_grad
    torch.testing.assert_close(own(x, w.detach()), F.linear(x, w.detach()))
    assert own.shapes == {(7, 5)}


def answers(model: Any, tokens: Tensor) -> list[Tensor]:
    y, _ = model(tokens)
    grads = torch.autograd.grad(y, list(model.parameters()), drawn(*y.shape, dtype=y.dtype, seed=3))
    return [y, *grads]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 3])
def test_in_a_model(dtype: torch.dtype, batch: int, everywhere: None) -> None:
    model = nldsl.compile(SPEC, dtype=dtype)
    tokens = torch.arange(batch * 11).view(batch, 11) % 37
    want = answers(model, tokens)
    report = nldsl.native(model)
    assert report.products == 0 and str(report).endswith("large products in C, of which none has come")
    near = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-12}
    for other in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        for found, right in zip(answers(other, tokens), want, strict=True):
            torch.testing.assert_close(found, right, **near)
    assert str(report).endswith("linear layers with weights of 3 shapes: large products in C")
    nldsl.native(model, off=True)
    seen = set(report.linears[0].shapes)
    report.linears[0].shapes.clear()
    assert all(map(torch.equal, answers(model, tokens), want))
    assert seen and not report.linears[0].shapes


def test_blocks_that_are_computed_again(everywhere: None) -> None:
    text = "model m(tokens) { x = embed(tokens, 11, 8); repeat 2 { x = f(x) }; return head(x, 11) }\n"
    model = nldsl.compile(
        text + "block f(x) { return x + linear(silu(linear(x, 16)), 8) }", dtype=torch.float64
    )
    tokens = torch.arange(22).view(2, 11) % 11
    want = answers(model, tokens)
    report = nldsl.native(model)
    nldsl.runtime.block_recompute.recompute_blocks(model.root)
    for found, right in zip(answers(model, tokens), want, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-12)
    assert report.products == 3


def test_verify_compares_them(everywhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nldsl.compile("attention", block="attention", x=8, heads=2, dtype=torch.float64)
    given = (drawn(2, 9, 8),)
    assert all(found.good for found in in_lanes(layer, given, 0))
    right = linears.weights
    monkeypatch.setattr(linears, "weights", lambda *given: 1.01 * right(*given))
    assert not all(found.good for found in in_lanes(layer, given, 0))


@pytest.mark.parametrize("name", ["hope_attention", "labelled"])
def test_blocks_in_front_of_task_memories(
    name: str, everywhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run once for all segments, in C as by torch."""
    model = built_ahead(name)
    want = run(model, 2, (8, 19, 41))
    nldsl.native(model)
    calls: list[int] = []
    right = linears.rows
    monkeypatch.setattr(linears, "rows", lambda *given: (calls.append(1), right(*given))[1])
    found = run(model, 2, (8, 19, 41))
    for key, value in want.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-11, msg=key)
    once = len(calls)
    with piece_by_piece(monkeypatch):
        run(model, 2, (8, 19, 41))
    assert 0 < once < len(calls) - once


def test_left_to_torch_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_on, "products", lambda _: None)
    model = nldsl.compile(SPEC)
    assert not nldsl.native(model).linears
    assert "forward" not in vars(model.root)


def test_large_products_only() -> None:
    """Small ones are not worth a call; weights of another inner size are torch's to refuse."""
    for rows, outputs, inputs in ((64, 256, 256), (4096, 2, 256), (300, 16, 16)):
        assert linears.ready(drawn(rows, inputs), drawn(outputs, inputs)) is None
    with linears.every_product(), pytest.raises(RuntimeError, match="shapes"):
        linears.Linears(linear)(drawn(9, 4), drawn(7, 5))


def test_a_kernel_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linears, "faster", lambda _: True)
    whole = linears_text()
    wrong = whole.replace("m > 0, room", "0, room").replace("more || k0 || bias", "more || k0")
    assert wrong != whole
    monkeypatch.setattr(linears, "linears_text", lambda: wrong)
    linears.products.cache_clear()
    try:
        assert linears.products(torch.float32) is None
    finally:
        linears.products.cache_clear()


def test_traced_by_torch(everywhere: None) -> None:
    """As by torch: one graph, an exported program, and nothing in C."""
    layer = nldsl.compile("attention", block="attention", x=8, heads=2)
    x = drawn(2, 9, 8, dtype=torch.float32)
    want = layer(x)[0]
    report = nldsl.native(layer)
    found = torch.compile(lambda x: layer(x)[0], backend="eager", fullgraph=True)(x)
    torch.testing.assert_close(found, want)
    frozen = copy.deepcopy(layer).requires_grad_(False).eval()
    torch.testing.assert_close(torch.export.export(frozen, (x,), strict=False).module()(x)[0], want)
    assert report.products == 0
    assert layer(x)[0].shape == want.shape and report.products == 1
