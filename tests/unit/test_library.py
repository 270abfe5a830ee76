"""Every primitive: found, documented, of the shape it claims, with the gradient it claims."""

from __future__ import annotations

import pkgutil
from typing import Any

import numpy as np
import pytest

import nldsl.library
from nldsl.calculus.differentiate import cotangents
from nldsl.calculus.evaluate import evaluate
from nldsl.calculus.expression import Expr, symbol
from nldsl.calculus.simplify import apply
from nldsl.catalog import ContractError, Operand, Static, bind, broadcast
from nldsl.catalog.values import Kind
from nldsl.library import PRIMITIVES, is_identity, torch_function
from nldsl.spec import check

V: Operand = Operand((6,), "vector")
H: Operand = Operand((2, 3), "headed")
G: Operand = Operand((2,), "heads")
M: Operand = Operand((6, 4), "matrix")
Q: Operand = Operand((4, 4), "matrix")
S: Operand = Operand((), "scalar")
TOKEN: Operand = Operand((), "token")

# The operands each primitive is tried on; elementwise ones are tried on all of PAIRS.
CASES: dict[str, list[tuple[list[Operand], dict[str, Static]]]] = {
    "constant": [([], {"value": 2.5})],
    "l2norm": [([V], {}), ([H], {}), ([G], {})],
    "norm": [([V], {}), ([H], {})],
    "layernorm": [([V], {}), ([H], {})],
    "softmax": [([V], {}), ([H], {}), ([G], {}), ([M], {})],
    "mean": [([V], {}), ([H], {}), ([G], {}), ([M], {})],
    "sum": [([V], {}), ([H], {}), ([G], {}), ([M], {})],
    "largest": [([V], {}), ([H], {}), ([G], {}), ([M], {})],
    "expand_last": [([S, V], {}), ([G, H], {}), ([V, M], {})],
    "dot": [([V, V], {}), ([H, H], {})],
    "linear": [([V], {"out": 3}), ([V], {"out": 3, "bias": True}), ([V], {})],
    "embed": [([TOKEN], {"vocab": 5, "dim": 3})],
    "head": [([V], {"vocab": 5})],
    "lookup": [([TOKEN, M], {})],
    "multiple_of": [([S], {"of": 2})],
    "weight": [([], {"sizes": (3,)}), ([], {"sizes": (3, 2)})],
    "readout": [([H], {"start": 1.0})],
    "split": [([V], {"n": 2}), ([H], {"n": 2})],
    "merge": [([V], {}), ([H], {})],
    "parts": [([V], {"sizes": (2, 4), "index": 1}), ([H], {"sizes": (1, 2), "index": 0})],
    "concat": [([V, V], {}), ([H, H], {}), ([M, M], {})],
    "share": [([V], {"n": 2})],
    "headwise": [([Operand((4, 3), "matrix"), H], {}), ([Operand((4, 6), "matrix"), V], {})],
    "kron": [([V, Operand((4,), "vector")], {}), ([H, H], {})],
    "index": [([], {"size": 3})],
    "values": [([H], {})],
    "dim": [([V], {})],
    "width": [([V], {}), ([H], {})],
    "matmul": [([M, Operand((4,), "vector")], {}), ([V, M], {}), ([M, Operand((4, 5), "matrix")], {})],
    "transpose": [([M], {})],
    "outer": [([V, Operand((4,), "vector")], {})],
    "like": [([M], {})],
    "identity": [([], {"size": 3})],
    "orthogonalize": [([M], {}), ([Operand((3, 5), "matrix")], {"iterations": 2})],
    "rownorm": [([M], {})],
    "inverse_root": [([Q], {"root": 4}), ([Q], {"root": 2, "eps": 1e-3})],
    "eigenbasis": [([Q], {})],
    "orthonormal": [([Q], {}), ([Operand((4, 3), "matrix")], {})],
    "rank": [([M], {}), ([V], {})],
    "unbias": [([M, S, S], {}), ([V, S, S], {})],
}
PAIRS = [[V, V], [H, H], [S, V], [V, S], [S, S], [G, H], [H, S], [M, M], [S, M]]
STATEFUL = {"conv", "shift", "position", "add_position", "rope", "stretched_rope"}
POSITIVE = {"log", "sqrt", "pow", "div", "unbias"}


def cases(name: str) -> list[tuple[list[Operand], dict[str, Static]]]:
    """What one primitive is tried on."""
    if not PRIMITIVES[name].elementwise:
        return CASES[name]
    count = len(PRIMITIVES[name].values)
    return [((pair * 2)[:count], {}) for pair in PAIRS]


def operands_and_values(name: str, operands: list[Operand], options: dict[str, Static]) -> tuple[Any, ...]:
    """Random arguments and parameters: symbols, arrays, bound options, number of parameters."""
    rng = np.random.default_rng(7)
    primitive = PRIMITIVES[name]
    bound = bind(primitive, [], options)
    outcome = primitive.shape(tuple(operands), bound)
    kinds: dict[int, Kind] = {1: "vector", 2: "matrix"}
    shapes = [*operands, *(Operand(p.shape, kinds[len(p.shape)]) for p in outcome.parameters)]
    args = tuple(symbol(f"a{i}", o.shape, o.kind) for i, o in enumerate(shapes))
    arrays = [rng.normal(size=o.shape) for o in shapes]
    if name in POSITIVE:
        arrays = [np.abs(a) + 0.3 for a in arrays]
    if name == "unbias":
        arrays[1:] = [np.asarray(0.9), np.asarray(3.0)]
    if name == "embed":
        arrays[0] = np.asarray(2)
    return args, arrays, bound, len(outcome.parameters), outcome


def test_one_file_is_one_primitive() -> None:
    files = {i.name for i in pkgutil.iter_modules(nldsl.library.__path__) if not i.name.startswith("_")}
    assert files == set(PRIMITIVES)
    assert files == set(CASES) | STATEFUL | {n for n, p in PRIMITIVES.items() if p.elementwise}


@pytest.mark.parametrize("name", sorted(PRIMITIVES))
def test_documented(name: str) -> None:
    primitive = PRIMITIVES[name]
    assert primitive.doc.endswith(".") and not primitive.doc[0].islower()
    assert primitive.equation and primitive.example and primitive.reference is not None
    assert (
        name in primitive.example
        or primitive.torch.startswith("operator:")
        or not primitive.places
        or name in (*("lt", "le", "gt", "ge", "eq", "ne", "constant", "matmul", "identity"),)
    )
    module, _, function = primitive.torch.partition(":")
    own = f"nldsl.library.{name}"  # a torch function may stand in the file of its primitive
    assert module in ("nldsl.runtime.ops", "torch", "torch.nn.functional", "operator", own) and function
    assert all(o.help for o in primitive.options)


@pytest.mark.parametrize("name", sorted(set(PRIMITIVES) - STATEFUL))
def test_shape_rule_agrees_with_the_reference(name: str) -> None:
    for operands, options in cases(name):
        args, arrays, bound, owned, outcome = operands_and_values(name, operands, options)
        passed = {o.name: bound[o.name] for o in PRIMITIVES[name].options if o.runtime}
        if primitive_is_aligned(name):
            views = broadcast(operands, name).views
            arrays = [np.reshape(a, v) for a, v in zip(arrays, views, strict=True)]
        value = PRIMITIVES[name].reference(*arrays, **passed)  # type: ignore[misc]
        assert np.shape(value) == outcome.shape, (name, operands)


def primitive_is_aligned(name: str) -> bool:
    """Elementwise references take operands that are aligned already."""
    return PRIMITIVES[name].elementwise


def headed(operands: list[Operand]) -> bool:
    """Whether heads take part; the calculus works on one head."""
    return any(o.kind in ("headed", "heads") for o in operands)


@pytest.mark.parametrize(
    "name", sorted(n for n, p in PRIMITIVES.items() if p.vjp and n not in STATEFUL | {"detach"})
)
def test_gradient_equals_finite_differences(name: str) -> None:
    for operands, options in cases(name):
        args, arrays, bound, owned, outcome = operands_and_values(name, operands, options)
        if headed(operands) or not args:
            continue
        out = apply(name, args, bound, owned)
        seed = symbol("seed", outcome.shape, outcome.kind)
        weights = np.random.default_rng(3).normal(size=outcome.shape)
        values = dict(zip(args, arrays, strict=True)) | {seed: weights}
        found = cotangents(out, args, seed)
        for i, arg in enumerate(args):
            if name == "unbias" and i == 2:
                continue
            expected = slope(out, values, arg, weights)
            claimed = sum(np.broadcast_to(evaluate(t, values), arg.shape) for t in found[arg])
            np.testing.assert_allclose(
                claimed + np.zeros(arg.shape), expected, rtol=2e-6, atol=1e-7, err_msg=name
            )


def slope(out: Expr, values: dict[Expr, Any], arg: Expr, weights: Any) -> Any:
    """Central differences of `sum(weights * out)` with respect to one argument."""
    base = np.asarray(values[arg], dtype=float)
    grad = np.zeros(base.shape)
    for index in np.ndindex(base.shape):
        ends = []
        for sign in (1.0, -1.0):
            moved = base.copy()
            moved[index] += sign * 1e-5
            ends.append(np.sum(weights * evaluate(out, {**values, arg: moved})))
        grad[index] = (ends[0] - ends[1]) / 2e-5
    return grad


def test_stateful_references() -> None:
    x = np.arange(12.0).reshape(4, 3)
    weight = np.ones((3, 2))
    conv = PRIMITIVES["conv"].reference
    assert conv is not None
    np.testing.assert_allclose(conv(x, weight, np.ones(3)), x[2] + x[3] + 1)
    np.testing.assert_allclose(conv(x[:1], weight), x[0])
    shift = PRIMITIVES["shift"].reference
    assert shift is not None
    np.testing.assert_allclose(shift(x, by=2), x[1])
    np.testing.assert_allclose(shift(x[:1], by=2), np.zeros(3))
    rope = PRIMITIVES["rope"].reference
    assert rope is not None
    turned = rope(np.array([1.0, 0.0]), base=10.0, position=np.pi / 2)
    np.testing.assert_allclose(turned, [0.0, 1.0], atol=1e-12)
    position = PRIMITIVES["position"].reference
    assert position is not None and position(1) == 0.0


@pytest.mark.parametrize(
    ("name", "operands", "options", "words"),
    [
        ("split", [V], {"n": 4}, "multiple of 4"),
        ("split", [H], {"n": 3}, "`merge` it first"),
        ("matmul", [V, V], {}, "`dot` or `outer`"),
        ("matmul", [M, V], {}, "expected the last axis of the left one, 4"),
        ("matmul", [M, H], {}, "`merge` heads first"),
        ("add", [V, Operand((5,), "vector")], {}, "equal shapes, here [6]"),
        ("add", [H, Operand((4,), "vector")], {}, "expected [2] (one number per head)"),
        ("add", [H, V], {}, "`split` the vector into 2 heads"),
        ("add", [TOKEN, V], {}, "`embed` first"),
        ("add", [M, V], {}, "`outer` or `@`"),
        ("sum", [S], {}, "acts on the last axis, found a scalar"),
        ("readout", [V], {}, "`split` the value first"),
        ("embed", [V], {"vocab": 4, "dim": 2}, "expected a token, found a vector [6]"),
        ("parts", [V], {"sizes": (2, 2)}, "found pieces of 4 in all, expected 6"),
        ("concat", [V, H], {}, "alike but for the last axis"),
        ("rope", [Operand((5,), "vector")], {}, "even last axis"),
        ("dot", [V, S], {}, "two vectors of one size"),
        ("inverse_root", [M], {"root": 2}, "square matrix"),
        ("eigenbasis", [V], {}, "symmetric matrices"),
        ("orthonormal", [Operand((3, 4), "matrix")], {}, "at least as many rows as columns"),
        ("largest", [Operand((0,), "vector")], {}, "without numbers"),
        ("share", [H], {"n": 2}, "expected a vector"),
        ("headwise", [M, H], {}, "expected 4 channels per head"),
        ("headwise", [M, S], {}, "expected a headed or vector"),
        ("kron", [V, H], {}, "found vector [6] and headed [2, 3]"),
        ("weight", [], {"sizes": (2, 2, 2)}, "one size (a vector) or two"),
    ],
)
def test_refusals_teach(name: str, operands: list[Operand], options: dict[str, Static], words: str) -> None:
    with pytest.raises(ContractError) as caught:
        PRIMITIVES[name].shape(tuple(operands), bind(PRIMITIVES[name], [], options))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "positional", "named", "words"),
    [
        ("conv", [], {}, "needs `window`"),
        ("conv", [4, True, 3], {}, "at most 2 static arguments, found 3"),
        ("conv", [4], {"windw": 2}, "did you mean `window`?"),
        ("conv", [4], {"window": 2}, "twice"),
        ("conv", [0], {}, "at least 1 tokens"),
        ("conv", [4.0], {}, "a whole number"),
        ("conv", [True], {}, "a whole number"),
        ("linear", [4], {"bias": 1}, "`true` or `false`"),
    ],
)
def test_binding_refuses(name: str, positional: list[Static], named: dict[str, Static], words: str) -> None:
    with pytest.raises(ContractError) as caught:
        bind(PRIMITIVES[name], positional, named)
    assert words in str(caught.value)


def test_variadic_options_gather() -> None:
    assert bind(PRIMITIVES["parts"], [2, 4], {})["sizes"] == (2, 4)


def test_forms_of_a_product_and_identities() -> None:
    small = Operand((4,), "vector")
    assert torch_function("matmul", [M, small]).endswith(":matvec")
    assert torch_function("matmul", [V, M]).endswith(":vecmat")
    assert torch_function("matmul", [M, M]).endswith(":matmul")
    assert torch_function("exp", [V]) == "torch:exp"
    assert is_identity("split", [H], {"n": 2}) and not is_identity("split", [V], {"n": 2})
    assert not is_identity("merge", [H], {})


def test_square_heads_are_aligned_left() -> None:
    square = Operand((3, 3), "headed")
    assert broadcast([Operand((3,), "vector"), square]).views[0] == (3, 1)
    assert broadcast([Operand((3,), "vector"), Operand((2, 3), "headed")]).views[0] == (1, 3)
    assert broadcast([Operand((3,), "vector"), Operand((3,), "heads")]).kind == "heads"


@pytest.mark.parametrize("name", sorted(n for n, p in PRIMITIVES.items() if p.places))
def test_the_example_is_a_program(name: str) -> None:
    assert not [d for d in check(PRIMITIVES[name].example + "\n") if d.severity == "error"]


def test_an_example_that_is_wrong_would_be_noticed() -> None:
    assert [d for d in check("block example(x) { return expp(x) }\n") if d.severity == "error"]
