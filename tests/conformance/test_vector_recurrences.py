"""Recurrences of vectors, from papers: memories whose keys are the number 1, against hand-written loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nldsl.certify import verify
from nldsl.diagnostics import SpecError
from nldsl.graph import open_program
from nldsl.lowerings.forms import plan_program
from nldsl.review import check
from nldsl.view import explain
from tests.conformance.agreement import compiled, disagreements, inputs_of, run_compiled

MINGRU = """
block b(x) {
  level c every 1 token { memory h = matrix(in = 1) }
  z = sigmoid(linear(x))
  h *= 1 - z
  h += z * linear(x)
  return linear(h[1])
}
"""
RWKV4 = """
block b(x) {
  level c every 1 token { memory A, B = matrix(in = 1) }
  k = linear(x)
  v = linear(x)
  w = exp(-exp(weight(dim(x))))
  u = weight(dim(x))
  y = (A[1] + exp(u + k) * v) / (B[1] + exp(u + k))
  A[1] <- exp(k) * v  minimize dot  by gd(lr = 1)  retain w
  B[1] <- exp(k)      minimize dot  by gd(lr = 1)  retain values(w)
  return linear(y)
}
"""
RGLRU = """
block b(x) {
  level c every 1 token { memory h = matrix(in = 1) }
  r = sigmoid(linear(x))
  i = sigmoid(linear(x))
  a = exp(-8 * softplus(weight(dim(x))) * r)
  h *= a
  h += sqrt(1 - a ** 2) * (i * x)
  return linear(h[1])
}
"""
GRU = """
block b(x) {
  level c every 1 token { memory h = matrix(out = dim(x), in = 1) }
  h0 = h[1]
  z = sigmoid(linear(x) + linear(h0))
  r = sigmoid(linear(x) + linear(h0))
  n = tanh(linear(x) + r * linear(h0))
  h = (1 - z) * n + z * h0
  return linear(h[1])
}
"""
MLSTM = """
block b(x, heads = 2) {
  level c every 1 token {
    memory C = matrix() per head
    memory N = matrix(out = 1) per head
    memory M = matrix(out = heads, in = 1)
  }
  q = split(linear(x), heads)
  k = split(linear(x), heads) / 2
  v = split(linear(x), heads)
  i = linear(x, heads)
  f = logsigmoid(linear(x, heads))
  m0 = M[1]
  m = maximum(f + m0, i)
  M = m
  C *= exp(f + m0 - m)
  N *= exp(f + m0 - m)
  C += exp(i - m) * outer(v, k)
  N[k] <- exp(i - m)  minimize dot  by gd(lr = 1)
  return linear(merge(C[q] / maximum(abs(sum(N[q])), exp(-m))))
}
"""


def sigma(z: Tensor) -> Tensor:
    return torch.sigmoid(z)


def mingru(p: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Feng et al. (2024), Sec. 3.1."""
    h, out = torch.zeros(8, dtype=x.dtype), []
    for x_t in x:
        z = sigma(p["z.linear"] @ x_t)
        h = (1 - z) * h + z * (p["h.linear"] @ x_t)
        out.append(h)
    return out


def rwkv4(p: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Peng et al. (2023), Eq. 16: the sums as they stand, all earlier tokens at every token."""
    out = []
    w, u = p["w.weight"].exp(), p["u.weight"]
    for t in range(len(x)):
        k, v = x[: t + 1] @ p["k.linear"].T, x[: t + 1] @ p["v.linear"].T
        age = torch.arange(t - 1, -2, -1, dtype=x.dtype)
        e = torch.cat([(-age[:t, None] * w + k[:t]).exp(), (u + k[t]).exp()[None]])
        out.append((e * v).sum(0) / e.sum(0))
    return out


def rglru(p: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """De et al. (2024), Eq. 1-4."""
    h, out = torch.zeros(8, dtype=x.dtype), []
    for x_t in x:
        r, i = sigma(p["r.linear"] @ x_t), sigma(p["i.linear"] @ x_t)
        a = (-8 * torch.nn.functional.softplus(p["a.weight"]) * r).exp()
        h = a * h + (1 - a**2).sqrt() * (i * x_t)
        out.append(h)
    return out


def gru(p: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Cho et al. (2014), with the reset behind the product, as torch has it."""
    h, out = torch.zeros(8, dtype=x.dtype), []
    for x_t in x:
        z, r = (sigma(p[f"{n}.linear"] @ x_t + p[f"{n}.linear_2"] @ h) for n in "zr")
        n = torch.tanh(p["n.linear"] @ x_t + r * (p["n.linear_2"] @ h))
        h = (1 - z) * n + z * h
        out.append(h)
    return out


def mlstm(p: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Beck et al. (2024), Eq. 19-27, without the stabiliser: it changes no value where nothing overflows."""
    out = []
    q, k, v = ((x @ p[f"{n}.linear"].T).unflatten(-1, (2, 4)) for n in "qkv")
    i, f = (x @ p["i.linear"].T).exp(), sigma(x @ p["f.linear"].T)
    C, n, m = (torch.zeros(*s, dtype=x.dtype) for s in ((2, 4, 4), (2, 4), (2,)))
    for t in range(len(x)):
        C = f[t, :, None, None] * C + i[t, :, None, None] * v[t, :, :, None] * k[t, :, None] / 2
        n = f[t, :, None] * n + i[t, :, None] * k[t] / 2
        m = torch.maximum(f[t].log() + m, i[t].log())
        below = torch.maximum((n * q[t]).sum(-1).abs(), torch.ones(2, dtype=x.dtype))
        out.append(((C @ q[t, :, :, None])[..., 0] / below[:, None]).flatten())
    return out


FOX = """
block b(x, heads = 2) {
  level c every 1 token { memory F = matrix(in = 1) per head }
  memory A = softmax(scale = 1) per head
  k = split(linear(x), heads)
  q = split(linear(x), heads) / width(k) ** 0.5
  v = linear(x)
  F += logsigmoid(linear(x, heads))
  A[concat(k, -F[1])] <- v
  return linear(merge(A[concat(q, 0 * F[1] + 1)]))
}
"""


def fox(p: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Lin et al. (2025), Eq. 5-7: every pair by the product of the gates since it was written."""
    q, k, v = ((x @ p[f"{n}.linear"].T).unflatten(-1, (2, 4)) for n in "qkv")
    f, out = sigma(x @ p["F.linear"].T), []
    for t in range(len(x)):
        weights = [(q[t] * k[j]).sum(-1).div(2).exp() * f[j + 1 : t + 1].prod(0) for j in range(t + 1)]
        total = torch.stack(weights).sum(0)
        out.append(sum((w / total)[:, None] * v[j] for j, w in enumerate(weights)).flatten())  # type: ignore
    return out


PAPERS: dict[str, tuple[str, Callable[..., list[Tensor]], set[str], str]] = {
    "minGRU": (MINGRU, mingru, {"linear_channel"}, "D"),
    "RWKV-4": (RWKV4, rwkv4, {"linear_channel"}, "D"),
    "RG-LRU": (RGLRU, rglru, {"linear_channel"}, "D"),
    "GRU": (GRU, gru, {"sequential"}, "X"),
    "mLSTM": (MLSTM, mlstm, {"linear", "sequential"}, "D"),
    "Forgetting Transformer": (FOX, fox, {"linear", "attention"}, "D"),
}


def named(layer: Any) -> dict[str, Tensor]:
    """Parameters of the block `b` by their paths, without `weight` at the end."""
    return {n.removeprefix("b.").removesuffix(".weight"): p for n, p in layer.parameter_paths().items()}


@pytest.mark.parametrize("paper", PAPERS)
def test_what_papers_say(paper: str) -> None:
    text, recurrence, forms, letter = PAPERS[paper]
    layer = compiled(text, dim=8)
    (x,) = inputs_of(layer, 3, 23)
    p = named(layer)
    mine = run_compiled(layer, [x], pieces=(9, 1, 13))[0][0]
    theirs = torch.stack([torch.stack(recurrence(p, row)) for row in x]) @ p["out.linear"].T
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (mine, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-8)
    units = [u for b in plan_program(open_program(text, dim=8)).blocks for u in b.units if u.memories]
    assert {u.lowering for u in units} == forms
    assert explain(text, dim=8).equations[0].letter == letter


@pytest.mark.parametrize("paper", PAPERS)
def test_padding_and_lengths(paper: str) -> None:
    layer = compiled(PAPERS[paper][0], dim=8)
    mask = torch.rand(3, 11, generator=torch.Generator().manual_seed(1)) > 0.3
    assert disagreements(layer, tokens=11, batch=3, mask=mask, pieces=(4, 0, 7)) == []
    assert disagreements(layer, tokens=1, batch=1) == []
    if paper != "mLSTM":  # Its second maximum has a corner.
        assert verify(PAPERS[paper][0]).passed


def test_a_stabilised_exponential_is_no_warning() -> None:
    """`exp(f + m0 - maximum(f + m0, i))` is at most one, whatever `f`, `m0` and `i` are."""
    assert check(MLSTM) == []
    loud = MLSTM.replace("m = maximum(f + m0, i)", "m = minimum(f + m0, i)")
    assert {d.code for d in check(loud)} == {"NL0430"}


def test_names_of_recurrences_of_vectors() -> None:
    def name(gates: str) -> str:
        text = f"block b(x) {{ level c every 1 token {{ memory h = matrix(in = 1) }} {gates} return h[1] }}"
        return explain(text, dim=4).equations[0].known_as

    assert name("h += linear(x);") == "a running sum"
    assert name("h *= sigmoid(mean(x)); h += linear(x);") == "a decayed sum"
    assert name("h *= sigmoid(linear(x)); h += linear(x);").startswith("an element-wise linear recurrence")
    assert name("h[1] <- linear(x) by gd(lr = 0.1);") == ""


def test_a_map_of_one_vector_is_not_deep() -> None:
    text = """
    map cell(z) { w = weight(dim(z)); return w * z }
    block b(x) {
      level c every 1 token { memory h = cell() init zero }
      h[0 * x + 1] <- linear(x)  minimize dot  by gd(lr = 1)  retain sigmoid(linear(x))
      return h[0 * x + 1]
    }
    """
    (found,) = explain(text, dim=4).equations
    ((_, along),) = found.transitions
    assert found.known_as == "" and along.range == "(0, 1)" and along.verdict == "contracts"


@pytest.mark.parametrize(
    ("body", "letter"),
    [
        ("s = sum((v - S[k]) ** 2); S[k] <- v by gd(lr = s / (1 + s))", "X"),
        ("S *= sigmoid(mean(S[k])); S[k] <- v by gd(lr = 0.5)", "X"),
        ("S[l2norm(S[k])] <- v by gd(lr = 0.5)", "X"),
        ("S[k] <- v by gd(lr = sigmoid(mean(v)))", "R"),
    ],
)
def test_rates_and_gates_of_the_memory_itself_are_not_linear(body: str, letter: str) -> None:
    text = (
        "block b(x) { level c every 1 token { memory S = matrix() }\n"
        f"k = l2norm(linear(x)); v = linear(x); {body}\nreturn S[k] }}"
    )
    (found,) = explain(text, dim=6).equations
    assert found.letter == letter
    assert (found.known_as == "") == (letter == "X") == ("made of `S[k]`" in found.spectrum)


def test_numbers_stand_for_channels() -> None:
    text = """
    block b(x, heads = 2) {
      level c every 1 token { memory N = matrix(out = 3) per head }
      i = sigmoid(sum(split(linear(x), heads)))
      N[l2norm(split(linear(x), heads))] <- i  by gd(lr = i)
      return linear(merge(N[i] + N[1]))
    }
    """
    spelt = text.replace("<- i", "<- i * share(0 * index(3) + 1, heads)").replace(
        "N[i] + N[1]", "N[i * share(0 * index(4) + 1, heads)] + N[share(0 * index(4) + 1, heads)]"
    )
    layers = [compiled(t, dim=8) for t in (text, spelt)]
    (x,) = inputs_of(layers[0], 2, 7)
    mine, theirs = (run_compiled(layer, [x])[0][0] for layer in layers)
    torch.testing.assert_close(mine, theirs)
    assert disagreements(layers[0], tokens=5) == []


def test_copies_are_not_set_to_a_vector() -> None:
    text = "block b(x) { level c every 1 token { memory h = matrix(in = 1) per head(2) } h = x; return h[1] }"
    with pytest.raises(SpecError) as refused:
        open_program(text, dim=8)
    (found,) = refused.value.diagnostics
    assert found.code == "NL0418" and found.help == "`h *= 0`, then `h += ...`"
    fine = text.replace("h = x;", "h *= 0; h += x;")
    assert disagreements(compiled(fine, dim=8)) == []


ALONE = {
    "a learned number times heads": "c = mean(weight(1)); return linear(merge(c * split(x, 2)))",
    "a number of two weights": "c = sum(weight(3) ** 2); return linear(merge(c * l2norm(split(x, 2))))",
    "numbers per head as channels": "q = split(x, 2); return linear(dot(q, q), dim(x)) + conv(x, 2)",
    "numbers per head as they are": "q = split(linear(x), 2); return dot(q, q)",
    "one channel more": "q = split(x, 2); return linear(merge(concat(q, split(dot(q, q), 2))), dim(x))",
}


@pytest.mark.parametrize("what", ALONE)
def test_numbers_beside_heads(what: str) -> None:
    layer = compiled(f"block b(x) {{ {ALONE[what]} }}", dim=8)
    assert disagreements(layer, tokens=5, batch=3) == []


@pytest.mark.parametrize("body", ["A *= g; A[x] <- x;", "A[x] <- x retain g;"])
def test_attention_that_forgets_is_told_how(body: str) -> None:
    with pytest.raises(SpecError) as refused:
        open_program(
            f"block b(x) {{ memory A = softmax(); g = sigmoid(mean(x)); {body} return A[x] }}", dim=4
        )
    (found,) = refused.value.diagnostics
    assert found.code == "NL0421" and found.help.startswith("pairs that fade have one more channel")


def test_a_learned_number_in_chunks() -> None:
    text = """
    block b(x, heads = 2) {
      level c every 3 tokens { memory S = matrix() per head init learned }
      g = sigmoid(sum(weight(2)))
      u = g * split(x, heads)
      S[l2norm(u * g)] <- g * l2norm(S[u]) + g  by gd(lr = g * sigmoid(linear(x, heads)))  retain g
      return linear(merge(S[l2norm(g * u)] * g))
    }
    """
    assert disagreements(compiled(text, dim=8), tokens=8, pieces=(4, 4)) == []


def test_a_key_with_a_channel_of_ones_has_a_length() -> None:
    text = """
    block b(x, heads = 2) {
      level c every 1 token { memory S = matrix() per head }
      k = l2norm(split(linear(x), heads))
      k1 = concat(k, split(0 * sum(k) + 1, heads))
      S[k1] <- linear(x)  by gd(lr = 0.9 * sigmoid(linear(x, heads)))
      return linear(merge(S[k1]))
    }
    """
    assert check(text) == []
    assert [d.code for d in check(text.replace("0.9 *", "1.1 *"))] == ["NL0430"]


@pytest.mark.parametrize(
    ("text", "help"),
    [
        (
            "block b(x) { level c every 1 token { memory S = matrix(in = 3) } S *= sigmoid(linear(x))\n"
            "S[linear(x, 3)] <- linear(x) by gd(lr = 0.1)\n return S[linear(x, 3)] }",
            "`values(...)` marks one number per value channel",
        ),
        (
            "objective o(pred, target, M) { return sum((pred - target) ** 2) + sum(M ** 2) }\n"
            "block b(x) { level c every 1 token { memory S = matrix() }\n"
            "S[x] <- x minimize o by gd(lr = 0.1)\n return S[x] }",
            "`sum(...)` adds up the last axis; all elements of a matrix are `sum(sum(...))`",
        ),
    ],
)
def test_errors_of_shapes_say_what_was_meant(text: str, help: str) -> None:
    with pytest.raises(SpecError) as refused:
        open_program(text, dim=8)
    assert help in [d.help for d in refused.value.diagnostics]
