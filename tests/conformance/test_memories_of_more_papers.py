"""Memories that no file of the library has, each against a recurrence written from its paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from nldsl.certify import verify
from nldsl.diagnostics import SpecError
from nldsl.graph import open_program
from nldsl.view import explain
from tests.conformance.agreement import compiled, disagreements, inputs_of, run_compiled

Parameters = dict[str, Tensor]
HEADS = """
  q = split(linear(x), heads)
  k = l2norm(split(linear(x), heads), eps = 0)
  v = split(linear(x), heads)
"""


def block(declared: str, body: str, outside: str = "", before: str = "") -> str:
    """Two heads of three channels, keys of unit length."""
    level = f"level c every 1 token {{ {declared} }}" if declared else ""
    return f"{before}\nblock b(x, heads = 2) {{\n{level}\n{outside}\n{HEADS}\n{body}\n}}\n"


def each(p: Parameters, x: Tensor, name: str) -> Tensor:
    return (x @ p[f"{name}.linear.weight"].T).unflatten(-1, (2, -1))


def qkv(p: Parameters, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    k = each(p, x, "k")
    return each(p, x, "q"), k / k.norm(dim=-1, keepdim=True), each(p, x, "v")


def at(matrix: Tensor, key: Tensor) -> Tensor:
    return torch.einsum("hvk,hk->hv", matrix, key)


def outer(left: Tensor, right: Tensor) -> Tensor:
    return left[:, :, None] * right[:, None]


def nothing(x: Tensor, *shape: int) -> Tensor:
    return torch.zeros(2, *shape, dtype=x.dtype)


RWKV6 = block(
    "memory S = matrix() per head",
    """
  w = exp(-exp(split(linear(x), heads)))
  u = split(weight(dim(x)), heads)
  y = S[q] + dot(q, u * k) * v
  S[k] <- v  minimize dot  by gd(lr = 1)  retain w
  return linear(merge(y))""",
)
SLOTS = block(
    "memory K = matrix(out = 5) per head; memory V = matrix(in = 5) per head",
    """
  a = sigmoid(split(linear(x, heads * 5), heads))
  K *= values(a)
  K += outer(1 - a, k)
  V *= a
  V[1 - a] <- v  minimize dot  by gd(lr = 1)
  return linear(merge(V[softmax(K[q])]))""",
)
PATH = block(
    "memory D = matrix() per head",
    """
  w = l2norm(split(linear(x), heads), eps = 0)
  D[w] <- -w  minimize l2  by gd(lr = 2)
  A[k + D[k]] <- v
  return linear(merge(A[q + D[q]]))""",
    "memory A = softmax() per head",
)
INFINI = block(
    "memory S = matrix() per head; memory N = matrix(out = 1) per head",
    """
  fq = where(q > 0, q + 1, exp(q))
  fk = where(k > 0, k + 1, exp(k))
  N[fk] <- 1  minimize dot  by gd(lr = 1)
  S += outer(v - S[fk] / sum(N[fk]), fk)
  return linear(merge(S[fq] / sum(N[fq])))""",
)
DIAGONAL = """
block b(x) {
  level c every 1 token { memory S = matrix() }
  k = linear(x)
  v = linear(x)
  S *= outer(sigmoid(v), sigmoid(k))
  S[k] <- v  minimize dot  by gd(lr = 1)
  return linear(S[k])
}
"""
MIXED = """
map pieces(z) {
  A = weight(dim(z) // 3, dim(z) // 3)
  a, b, c = parts(z, dim(z) // 3, dim(z) // 3, dim(z) // 3)
  return concat(concat(A @ a, A @ b), A @ c)
}
block b(x) {
  level c every 1 token { memory M = pieces() }
  k = linear(x)
  v = linear(x)
  M[k] <- v  minimize l2  by gd(lr = 0.1)  retain 0.9
  return linear(M[k])
}
"""


def rwkv6(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """Peng et al. (2024), arXiv 2404.05892, Eq. 19: the token itself by `u`, all before it by the state."""
    (q, k, v), S = qkv(p, x), nothing(x, 3, 3)
    w, u = (-each(p, x, "w").exp()).exp(), p["u.weight.weight"].unflatten(0, (2, 3))
    for t in range(len(x)):
        new = outer(v[t], k[t])
        yield at(S + new * u[:, None], q[t])
        S = S * w[t][:, None] + new


def slots(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """Gated slot attention: Zhang et al. (2024), arXiv 2409.07146, Eq. 7-8."""
    (q, k, v), a = qkv(p, x), torch.sigmoid(each(p, x, "a"))
    K, V = nothing(x, 5, 3), nothing(x, 5, 3)
    for t in range(len(x)):
        gate = a[t][:, :, None]
        K, V = gate * K + outer(1 - a[t], k[t]), gate * V + outer(1 - a[t], v[t])
        yield torch.einsum("hmv,hm->hv", V, torch.softmax(at(K, q[t]), -1))


def path(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """PaTH attention with reflections: Yang et al. (2025), arXiv 2505.16381, q^T prod (I - 2 w w^T) k."""
    (q, k, v), w = qkv(p, x), each(p, x, "w")
    w = w / w.norm(dim=-1, keepdim=True)
    for t in range(len(x)):
        row, scores = q[t], []
        for j in range(t, -1, -1):
            scores.insert(0, (row * k[j]).sum(-1) / 3**0.5)
            row = row - 2 * (row * w[j]).sum(-1, keepdim=True) * w[j]
        yield (torch.softmax(torch.stack(scores), 0)[..., None] * v[: t + 1]).sum(0)


def infini(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """Infini-attention, the delta rule behind its normaliser: Munkhdalai et al. (2024), Eq. 3-5."""
    q, k, v = qkv(p, x)
    q, k = (torch.nn.functional.elu(z) + 1 for z in (q, k))
    S, n = nothing(x, 3, 3), nothing(x, 3)
    for t in range(len(x)):
        n = n + k[t]
        S = S + outer(v[t] - at(S, k[t]) / (n * k[t]).sum(-1, keepdim=True), k[t])
        yield at(S, q[t]) / (n * q[t]).sum(-1, keepdim=True)


def diagonal(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """Every entry by a gate of its own, the product of one per value and one per key channel."""
    k, v = (x @ p[f"{n}.linear.weight"].T for n in "kv")
    S = x.new_zeros(6, 6)
    for t in range(len(x)):
        S = torch.sigmoid(v[t])[:, None] * torch.sigmoid(k[t]) * S + torch.outer(v[t], k[t])
        yield S @ k[t]


def pieces(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """A block-diagonal matrix of three equal blocks: the gradient is a sum over them."""
    k, v = ((x @ p[f"{n}.linear.weight"].T).unflatten(-1, (3, 2)) for n in "kv")
    A = p["M.A"]
    for t in range(len(x)):
        A = 0.9 * A - 0.1 * (k[t] @ A.T - v[t]).T @ k[t]
        yield (k[t] @ A.T).flatten()


PAPERS: dict[str, tuple[str, Callable[..., Iterator[Tensor]], str, set[str]]] = {
    "RWKV-6": (RWKV6, rwkv6, "D", {"linear_channel"}),
    "gated slot attention": (SLOTS, slots, "DD", {"linear_channel"}),
    "PaTH attention": (PATH, path, "RS", {"delta", "attention"}),
    "Infini-attention": (INFINI, infini, "RD", {"delta_block", "linear"}),
    "a gate per entry": (DIAGONAL, diagonal, "D", {"scan"}),
    "blocks that share a weight": (MIXED, pieces, "R", {"delta_block"}),
}


@pytest.mark.parametrize("paper", PAPERS)
def test_what_papers_say(paper: str) -> None:
    """Values in one call and in pieces, and gradients."""
    text, recurrence, letters, forms = PAPERS[paper]
    layer = compiled(text, dim=6)
    (x,) = inputs_of(layer, 3, 23)
    p = layer.parameter_paths()
    theirs = torch.stack([torch.stack(list(recurrence(p, row))) for row in x]).flatten(2)
    theirs = theirs @ p["out.linear.weight"].T
    wanted = torch.autograd.grad(theirs.sin().sum(), [x, *p.values()])
    assert theirs.abs().max() > 0.1 and all(w.abs().max() > 1e-3 for w in wanted)
    for pieces in (None, (9, 1, 13)):
        mine = run_compiled(layer, [x], pieces=pieces)[0][0]
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
        got = torch.autograd.grad(mine.sin().sum(), [x, *p.values()])
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)
    assert {u.lowering for b in layer.plan.blocks for u in b.units if u.memories} == forms
    assert "".join(e.letter for e in explain(text, dim=6).equations) == letters


@pytest.mark.parametrize("paper", PAPERS)
def test_padding_and_states(paper: str) -> None:
    layer = compiled(PAPERS[paper][0], dim=6)
    mask = torch.rand(3, 11, generator=torch.Generator().manual_seed(1)) > 0.3
    assert disagreements(layer, tokens=11, batch=3, mask=mask, pieces=(4, 1, 6)) == []


def test_a_product_of_two_vectors_scales_and_does_not_add() -> None:
    """`S *= outer(a, b)` is no Hebbian write: copies per head have a gate per channel, on either side."""
    text = block(
        "memory S = matrix() per head", "S *= outer(v, k); S += outer(v, k); return linear(merge(S[q]))"
    )
    with pytest.raises(SpecError) as refused:
        open_program(text, dim=6)
    (found,) = refused.value.diagnostics
    assert found.code == "NL0401" and "then `S *= values(b)`, scale its channels" in (found.help or "")
    with pytest.raises(SpecError) as refused:
        open_program(DIAGONAL.replace("S *= outer", "S /= outer"), dim=6)
    assert [d.code for d in refused.value.diagnostics] == ["NL0421"]
    said = text.replace("S *= outer(v, k)", "S *= k; S *= values(v)")
    layer = compiled(said, dim=6)
    (x,) = inputs_of(layer, 1, 9)
    (q, k, v), S, wanted = qkv(layer.parameter_paths(), x[0]), nothing(x, 3, 3), []
    for t in range(9):
        S = (S + 1) * outer(v[t], k[t])
        wanted.append(at(S, q[t]).flatten() @ layer.parameter_paths()["out.linear.weight"].T)
    torch.testing.assert_close(layer(x)[0][0], torch.stack(wanted), rtol=1e-9, atol=1e-9)


def test_a_projected_memory_has_no_name_of_another() -> None:
    body = "S[k] <- v  minimize dot  by gd(lr = 1)  project rownorm; return linear(merge(S[q]))"
    text = block("memory S = matrix() per head init learned", body)
    assert explain(text, dim=6).equations[0].known_as == ""
    assert explain(text.replace("project rownorm", ""), dim=6).equations[0].known_as
    assert verify(text).passed


def test_clocks_without_a_common_chunk_are_named_once() -> None:
    text = """
block b(x) {
  level slow every 5 tokens { memory A = matrix() }
  level fast every 3 tokens { memory B = matrix() }
  k = l2norm(linear(x))
  a = A[k]
  b = B[k]
  A[k] <- x - b  minimize l2  by gd(lr = 0.2)
  B[k] <- x + a  minimize dot  by gd(lr = 0.3)
  return linear(a + b)
}
"""
    layer = compiled(text, dim=6)
    (unit,) = [u for b in layer.plan.blocks for u in b.units if u.memories]
    assert "clocks of 3 and 5 tokens have no common chunk" in unit.reason
    assert disagreements(layer, tokens=17, pieces=(4, 2, 11)) == []


@pytest.mark.parametrize(
    "step", ["tanh(S) + outer(v, k)", "S + outer(tanh(v - S @ k), k)", "S + transpose(S) + outer(v, k)"]
)
def test_a_step_that_is_none_of_a_paper_is_one_finding(step: str) -> None:
    text = block("memory S = matrix() per head", f"S = {step}; return linear(merge(S[q]))")
    with pytest.raises(SpecError) as refused:
        open_program(text, dim=6)
    (found,) = refused.value.diagnostics
    assert found.code == "NL0404" and "reads it above: `r = S[k]`" in (found.help or "")


VECTORS: dict[str, tuple[str, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "h = a * h[1] + u": ("linear_channel", lambda h, a, u: a * h + u),
    "h = u - h[1] * a": ("linear_channel", lambda h, a, u: u - h * a),
    "h = (1 - a) * u + a * h[1]": ("linear_channel", lambda h, a, u: (1 - a) * u + a * h),
    "h += a * (u - h[1])": ("linear_channel", lambda h, a, u: h + a * (u - h)),
    "h = -a * (h[1] / (1 + a) - u) / 2 + u": (
        "linear_channel",
        lambda h, a, u: u - a * (h / (1 + a) - u) / 2,
    ),
    "h = 0.5 * (0.5 * h[1] + u)": ("linear", lambda h, a, u: 0.25 * h + 0.5 * u),
    "h = h[1] + u": ("linear", lambda h, a, u: h + u),
    "h = tanh(a * h[1] + u)": ("sequential", lambda h, a, u: torch.tanh(a * h + u)),
    "h = a * h[2] + u": ("sequential", lambda h, a, u: 2 * a * h + u),
    "h = a * h[1] + u * h[1] + u": ("linear_channel", lambda h, a, u: a * h + u * h + u),
}
"""Recurrences of a vector as they are printed: the form they take, and what they say."""


@pytest.mark.parametrize("step", VECTORS)
def test_a_recurrence_of_a_vector_as_it_is_printed(step: str) -> None:
    form, literally = VECTORS[step]
    text = f"""
block b(x) {{
  level c every 1 token {{ memory h = matrix(out = dim(x), in = 1) init learned }}
  u = linear(x)
  a = sigmoid(linear(x))
  {step}
  return linear(h[1] + a)
}}
"""
    layer = compiled(text, dim=6)
    (unit,) = [w for b in layer.plan.blocks for w in b.units if w.memories]
    assert unit.lowering == form
    (x,) = inputs_of(layer, 2, 9)
    p = layer.parameter_paths()
    h, out = p["h.weight"][:, 0].expand(2, 6), []
    a, u = (x @ p[f"{n}.linear.weight"].T for n in "au")
    for t in range(9):
        h = literally(h, torch.sigmoid(a[:, t]), u[:, t])
        out.append((h + torch.sigmoid(a[:, t])) @ p["out.linear.weight"].T)
    theirs = torch.stack(out, 1)
    for pieces in (None, (2, 1, 6)):
        mine = run_compiled(layer, [x], pieces=pieces)[0][0]
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
        got, wanted = (torch.autograd.grad(y.sin().sum(), x, retain_graph=True)[0] for y in (mine, theirs))
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)
    assert disagreements(layer, tokens=7, pieces=(3, 4)) == []


def test_parameters_of_a_printed_recurrence_keep_their_names() -> None:
    """What has parameters is named in the order of the text: behind them nothing is moved."""
    text = """
block b(x) {
  level c every 1 token { memory h = matrix(out = dim(x), in = 1) }
  h = sigmoid(linear(x, dim(x), bias = true)) * h[1] + linear(x)
  return linear(h[1])
}
"""
    turned = text.replace(
        "sigmoid(linear(x, dim(x), bias = true)) * h[1] + linear(x)",
        "linear(x) + sigmoid(linear(x, dim(x), bias = true)) * h[1]",
    )
    front, behind = (compiled(t, dim=6) for t in (text, turned))
    assert "h.linear.bias" in front.parameter_paths() and "h.linear_2.bias" in behind.parameter_paths()
    forms = [[u.lowering for b in y.plan.blocks for u in b.units if u.memories] for y in (front, behind)]
    assert forms == [["linear_channel"], ["sequential"]]
