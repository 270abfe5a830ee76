"""Torch functions of the primitives: the library's numpy references, windows under masks and splits."""

import itertools
import math

import numpy as np
import pytest
import torch

from nldsl.library import PRIMITIVES
from nldsl.runtime import ops
from nldsl.runtime.chunks import mask_out

torch.set_num_threads(1)
D, H = 6, 2


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# name, values (one token), parameters, options given to the function
TOKENWISE = [
    ("maximum", (draw(D), draw(D, seed=1)), (), {}),
    ("minimum", (draw(D), 0.5), (), {}),
    *(
        (name, (draw(D).round(), draw(D, seed=1).round()), (), {})
        for name in ("lt", "le", "gt", "ge", "eq", "ne")
    ),
    ("where", (draw(D).gt(0).double(), draw(D, seed=1), 2.0), (), {}),
    ("softplus", (draw(D) * 30,), (), {}),
    ("l2norm", (draw(H, D),), (), {"eps": 1e-6}),
    ("norm", (draw(H, D),), (draw(D, seed=1),), {"eps": 1e-6}),
    ("layernorm", (draw(H, D),), (draw(D, seed=1), draw(D, seed=2)), {"eps": 1e-5}),
    ("softmax", (draw(H, D),), (), {}),
    ("mean", (draw(H, D),), (), {}),
    ("sum", (draw(H, D),), (), {}),
    ("dot", (draw(H, D), draw(H, D, seed=1)), (), {}),
    ("linear", (draw(D),), (draw(3, D, seed=1),), {}),
    ("linear", (draw(D),), (draw(3, D, seed=1), draw(3, seed=2)), {}),
    ("head", (draw(D),), (draw(3, D, seed=1),), {}),
    ("readout", (draw(H, D),), (draw(H, D, seed=1), draw(H, seed=2)), {}),
    ("split", (draw(D),), (), {"n": 2}),
    ("merge", (draw(H, D),), (), {}),
    ("parts", (draw(H, D),), (), {"sizes": (1, 3, 2), "index": 1}),
    ("concat", (draw(D), draw(3, seed=1)), (), {}),
    ("transpose", (draw(4, D),), (), {}),
    ("outer", (draw(D), draw(3, seed=1)), (), {}),
    ("orthogonalize", (draw(4, D),), (), {"iterations": 5}),
    ("orthogonalize", (draw(D, 4),), (), {"iterations": 3}),
    ("rownorm", (draw(4, D),), (), {"eps": 1e-6}),
    ("unbias", (draw(D), 0.9, 3.0), (), {}),
]


def as_numpy(x):
    return x.numpy() if isinstance(x, torch.Tensor) else x


@pytest.mark.parametrize(("name", "values", "parameters", "options"), TOKENWISE)
def test_equals_the_reference_at_a_token_and_carries_axes_in_front(name, values, parameters, options):
    function = getattr(ops, name)
    got = function(*values, *parameters, **options)
    reference = PRIMITIVES[name].reference
    want = reference(*map(as_numpy, values), *map(as_numpy, parameters), **options)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-10, atol=1e-12)
    many = [v.expand(2, 5, *v.shape) if isinstance(v, torch.Tensor) else v for v in values]
    torch.testing.assert_close(function(*many, *parameters, **options), got.expand(2, 5, *got.shape))


def test_products_of_matrices_and_vectors():
    a, b, v, w = draw(4, D), draw(D, 3), draw(D), draw(4)
    torch.testing.assert_close(ops.matvec(a, v), a @ v)
    torch.testing.assert_close(ops.vecmat(w, a), w @ a)
    torch.testing.assert_close(ops.matmul(a, b), a @ b)
    assert ops.identity(size=3, like=a).equal(torch.eye(3, dtype=torch.float64))
    assert ops.expand_last(draw(2), draw(2, D)).shape == (2, D)
    assert ops.embed(torch.tensor([1, 0]), a).equal(a[[1, 0]])
    assert ops.weight(a) is a and ops.constant(value=2.0) == 2.0


def test_l2norm_gradient():
    assert torch.autograd.gradcheck(lambda x: ops.l2norm(x, eps=1e-6), draw(3, D).requires_grad_())


# --- functions with a window on the past -------------------------------------------------------

B, T, WINDOW = 3, 11, 4


def conv(x, state, mask):
    weight, bias = draw(D, WINDOW, seed=5), draw(D, seed=6)
    return ops.conv(x, weight, bias, state=state, mask=mask)


# Waves of 6, 29 and 135 tokens: one is kept, one lies between, one is stretched.
STRETCH = {"base": 100.0, "factor": 8.0, "low": 1.0, "high": 4.0, "original": 48.0}
STATEFUL = {
    "conv": (conv, {"tail": torch.zeros(B, WINDOW - 1, D, dtype=torch.float64)}),
    "shift": (
        lambda x, s, m: ops.shift(x, by=2, state=s, mask=m),
        {"tail": torch.zeros(B, 2, D, dtype=torch.float64)},
    ),
    "position": (
        lambda x, s, m: ops.position(x, state=s, mask=m),
        {"count": torch.zeros(B, dtype=torch.long)},
    ),
    "add_position": (
        lambda x, s, m: ops.add_position(x, draw(4, D, seed=7), state=s, mask=m),
        {"count": torch.zeros(B, dtype=torch.long)},
    ),
    "stretched_rope": (
        lambda x, s, m: ops.stretched_rope(x, **STRETCH, state=s, mask=m),
        {"count": torch.zeros(B, dtype=torch.long)},
    ),
    "rope": (
        lambda x, s, m: ops.rope(x, base=100.0, state=s, mask=m),
        {"count": torch.zeros(B, dtype=torch.long)},
    ),
}


def wanted(name, row):
    """The outputs of one sample without padding, from the definition."""
    if name == "conv":
        weight, bias = draw(D, WINDOW, seed=5), draw(D, seed=6)
        past = torch.cat([torch.zeros(WINDOW - 1, D, dtype=torch.float64), row])
        return torch.stack(
            [bias + sum(weight[:, j] * past[t + j] for j in range(WINDOW)) for t in range(len(row))]
        )
    if name == "shift":
        return torch.cat([torch.zeros(2, D, dtype=torch.float64), row])[: len(row)]
    if name == "position":
        return torch.arange(len(row), dtype=torch.float64)
    if name == "add_position":
        return torch.stack([x + draw(4, D, seed=7)[min(t, 3)] for t, x in enumerate(row)])
    out = torch.empty_like(row)
    for t, i in itertools.product(range(len(row)), range(D // 2)):
        turn = 100.0 ** (-2 * i / D)
        wave = 2 * math.pi / turn
        if name == "stretched_rope" and wave > 12:
            turn = turn / 8 if wave > 48 else turn * ((s := (48 / wave - 1) / 3) + (1 - s) / 8)
        angle = torch.tensor(t * turn, dtype=torch.float64)
        a, b = row[t, i], row[t, i + D // 2]
        out[t, i], out[t, i + D // 2] = a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()
    return out


@pytest.mark.parametrize(("name", "masked"), list(itertools.product(STATEFUL, (0, 1))))
def test_windows_are_their_definition_under_any_split(name, masked):
    function, start = STATEFUL[name]
    x = draw(B, T, D).requires_grad_()
    mask = torch.rand(B, T, generator=torch.Generator().manual_seed(3)) > 0.4 if masked else None
    if mask is not None:
        mask[0] = False
    live = torch.ones(B, T, dtype=torch.bool) if mask is None else mask
    for cuts in ([T], [1] * T, [0, 5, 2, 4]):
        state, pieces, at = start, [], 0
        for n in cuts:
            y, state = function(x[:, at : at + n], state, None if mask is None else mask[:, at : at + n])
            pieces.append(y)
            at += n
        got = torch.cat(pieces, 1)
        for b in range(masked, B):
            torch.testing.assert_close(got[b][live[b]], wanted(name, x[b][live[b]]), rtol=1e-12, atol=1e-12)
        if "count" in state:
            assert torch.equal(state["count"], live.sum(1))
    if name != "position":
        (g,) = torch.autograd.grad(mask_out(got, mask).square().sum(), x)
        (h,) = torch.autograd.grad(
            sum(wanted(name, x[b][live[b]]).square().sum() for b in range(B) if live[b].any()), x
        )
        torch.testing.assert_close(g, h)


def test_rope_turns_every_head_alike():
    x = draw(B, T, H, D)
    y, _ = ops.rope(x, base=100.0, state=STATEFUL["rope"][1], mask=None)
    one, _ = ops.rope(x[:, :, 1], base=100.0, state=STATEFUL["rope"][1], mask=None)
    torch.testing.assert_close(y[:, :, 1], one)


def test_every_primitive_with_a_torch_function_of_ours_has_it():
    named = {
        p.torch.split(":")[1]
        for p in PRIMITIVES.values()
        if p.torch.startswith("nldsl.runtime.ops:") and not p.folded
    }
    assert named <= set(ops.__all__)


@pytest.mark.parametrize("stretch", [1, 5 * D * 8])
def test_gradients_of_a_convolution_taken_in_stretches(monkeypatch, stretch):
    monkeypatch.setattr("nldsl.runtime.sequence.CACHE", stretch)
    x, weight = draw(B, 12, D).requires_grad_(), draw(D, 3).requires_grad_()
    tail = torch.zeros(B, 2, D, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, w: ops.conv(x, w, None, state={"tail": tail}, mask=None)[0], (x, weight)
    )


@pytest.mark.parametrize("shape", [(8, 8), (8, 24), (24, 8)])
def test_symmetric_products_in_strips_change_nothing(monkeypatch, shape):
    from nldsl.runtime import newton_schulz

    monkeypatch.setattr(newton_schulz, "fast_bfloat16", lambda device: True)
    x = draw(*shape).float()
    whole = newton_schulz.orthogonalize(x, iterations=5)
    monkeypatch.setattr(newton_schulz, "HALVED", 8)
    torch.testing.assert_close(newton_schulz.orthogonalize(x, iterations=5), whole, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_unbias_in_half_precision_is_that_of_float32_rounded(kind):
    mean, steps = draw(6, D).to(kind), torch.tensor([[1.0], [2.0], [3.0], [50.0], [200.0], [256.0]])
    for beta in (0.9, 0.999, torch.full((6, 1), 0.999)):
        wide = ops.unbias(mean.float(), beta, steps)
        got = ops.unbias(mean, beta, steps.to(kind))
        assert got.dtype == kind
        torch.testing.assert_close(got.float(), wide, rtol=0.01, atol=1e-3)
