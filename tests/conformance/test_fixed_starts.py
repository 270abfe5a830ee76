"""Memories that start at numbers that never learn, and what an outer gradient goes through then."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import nldsl
from nldsl.emit.standalone import inline
from nldsl.runtime import native
from nldsl.runtime.model import Layer
from nldsl.runtime.state import State
from nldsl.spec import check
from tests.conformance.test_native_steps import pair
from tests.conformance.test_reference_specs import conv, l2norm, residual, rms
from tests.conformance.test_written_back import CHUNK, apart, built, flows, recorded

torch.set_num_threads(1)
TEXT = """
block f(x, heads = 2, chunk = 4) {
  level c every chunk tokens { memory M, K = residual_mlp(1) per head init START }
  z = split(x, heads)
  k = l2norm(K[z])
  write each of M, K { [k] <- self[z] + z  by dgd(lr = 0.2)  retain 0.9 toward init }
  return linear(merge(M[k]))
}
"""


def made(start: str = "fixed", seed: int = 0) -> Layer:
    return nldsl.compile(TEXT.replace("START", start), x=8, dtype=torch.float64, seed=seed)


def test_it_is_a_buffer_drawn_as_a_parameter_is() -> None:
    fixed, learned = made(seed=3), made("learned", seed=3)
    assert sorted(dict(fixed.named_parameters())) == ["out.linear.weight"]
    assert fixed.state_dict().keys() == learned.state_dict().keys()
    for name, value in learned.state_dict().items():
        assert torch.equal(fixed.state_dict()[name], value), name
    assert list(fixed.drawn_paths()) == [
        "out.linear.weight",
        *(f"{m}.{w}" for m in "MK" for w in ("W2", "W1")),
    ]
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    assert torch.equal(fixed(x)[0], learned(x)[0])
    other = made(seed=4)
    other.load_state_dict(fixed.state_dict())
    twin = copy.deepcopy(fixed)
    assert torch.equal(other(x)[0], fixed(x)[0]) and torch.equal(twin(x)[0], fixed(x)[0])
    assert twin.float().drawn_paths()["M.W1"].dtype == torch.float32


def test_a_file_of_its_own_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "alone_f.py").write_text(inline(made().source), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    alone = importlib.import_module("alone_f").build(3).to(torch.float64)
    x = torch.randn(1, 5, 8, dtype=torch.float64)
    assert apart([alone(x)[0]], [made(seed=3).double()(x)[0]]) < 1e-6
    assert sorted(dict(alone.named_parameters())) == ["out.linear.weight"]


def _leaves(state: State) -> list[Tensor]:
    """The weights of a state, made leaves, moved away from where they start."""
    draw = torch.Generator().manual_seed(5)
    found = []
    for memory in state.tree["root"].values():
        for group in ("running", "committed"):
            for name, w in memory.get(group, {}).items():
                noise = torch.randn(w.shape, generator=draw, dtype=w.dtype)
                memory[group][name] = (w.detach() + 0.1 * noise).requires_grad_()
                found.append(memory[group][name])
    return found


def test_a_fixed_start_is_no_parameter() -> None:
    """What only detached values are read of is refused with a learned start; `init fixed` is meant."""
    text = """
    block f(x) {
      level c every 4 tokens { memory M, K = mlp(1) INIT }
      k = detach(l2norm(K[detach(x)]))
      M[k] <- x  by gd(lr = 0.1)
      K[k] <- k  by gd(lr = 0.1)
      return M[x]
    }
    """
    learned = check(text.replace("INIT", "init learned"), arguments={"dim": 4})
    assert {d.code for d in learned} == {"NL0601"} and all("`init fixed`" in (d.help or "") for d in learned)
    fixed = text.replace("memory M, K = mlp(1) INIT", "memory M = mlp(1); memory K = mlp(1) init fixed")
    assert check(fixed, arguments={"dim": 4}) == []


@pytest.mark.parametrize("name", ["constant writes", "constant writes, clocks apart"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_state_may_have_a_gradient(name: str, batch: int) -> None:
    """Then it goes through all that reads and writes make of the state, though the writes are constant."""
    results = []
    for layer in (built(name), recorded(built(name))):
        state = layer.init_state(batch)
        leaves = _leaves(state)
        draw = torch.Generator().manual_seed(6)
        x = torch.randn(batch, 9, 8, generator=draw, dtype=torch.float64).requires_grad_()
        y, after = layer(x, state=state)
        ends = [w for m in after.tree["root"].values() for w in m.get("running", {}).values()]
        total = sum((o * torch.randn(o.shape, generator=draw, dtype=o.dtype)).sum() for o in (y, *ends))
        asked = [x, *leaves, *layer.parameters()]
        found = torch.autograd.grad(total, asked, allow_unused=True)
        results.append([y, *ends, *(torch.zeros(()) if g is None else g for g in found)])
    assert apart(*results) < 1e-9
    of_states = results[0][-len(asked) + 1 :][: len(leaves)]
    assert all(bool(g.abs().max() > 0) for g in of_states), "some part of the state is cut off"


def by_hand(p: dict[str, Tensor], x: Tensor, heads: int, clocks: dict[str, int]) -> Tensor:
    """One sequence, token by token: reads at `start + what was written`, writes without a gradient."""
    u = F.silu(conv(x, p["u.conv.weight"], p["u.conv.bias"])) + x
    width = u.shape[1] // heads
    z_all = u.shape[1] ** 0.5 * l2norm(u.detach().reshape(len(x), heads, width))
    q_all = l2norm((u @ p["q.linear.weight"].T).reshape(len(x), heads, width))
    y = []
    for h in range(heads):
        start = {n: (p[f"{n}.W2"][h], p[f"{n}.W1"][h]) for n in clocks}
        away = {n: [torch.zeros_like(w) for w in pair] for n, pair in start.items()}
        seen = {n: [d.clone() for d in pair] for n, pair in away.items()}
        for t, (z, q) in enumerate(zip(z_all[:, h], q_all[:, h], strict=True)):
            y.append(residual(tuple(w + d for w, d in zip(start["M"], seen["M"], strict=True)), q))
            with torch.no_grad():
                at = {n: tuple(w + d for w, d in zip(start[n], seen[n], strict=True)) for n in clocks}
                k, v = l2norm(residual(at["Mk"], z)), l2norm(residual(at["Mv"], z))
                alpha = torch.sigmoid(4 + 0.1 * residual(at["Ma"], z).sum())
                eta = (1 + alpha) * torch.sigmoid(0.1 * residual(at["Me"], z).sum())
                for n in clocks:
                    w2, w1 = (w.clone().requires_grad_() for w in at[n])
                    target = l2norm(residual(at[n], v))
                    with torch.enable_grad():
                        slopes = torch.autograd.grad(-residual((w2, w1), k) @ target, (w2, w1))
                    for d, g, own in zip(away[n], slopes, (k, F.silu(at[n][0] @ k)), strict=True):
                        rate = eta / (1e-2 + own @ own)
                        d.copy_(alpha * d - rate * (torch.outer(d @ own, own) + g))
                for n, every in clocks.items():
                    if (t + 1) % every == 0:
                        seen[n] = [d.clone() for d in away[n]]
    merged = torch.stack(y).reshape(heads, len(x), width).transpose(0, 1)
    return rms(merged, p["out.norm.weight"]).flatten(1) @ p["out.linear.weight"].T


def test_gradients_are_those_of_reads_alone() -> None:
    """Against a recurrence by hand whose writes record nothing: as `nested-learning` trains its Hope."""
    layer = built("constant writes, clocks apart")
    x = torch.randn(1, 15, 8, dtype=torch.float64).requires_grad_()
    seeds = torch.randn(1, 15, 8, dtype=torch.float64)
    clocks = {"Mk": 2, "Mv": 2, "Me": 2, "Ma": 2, "M": 6}
    want = by_hand(layer.drawn_paths(), x[0], 2, clocks)
    got = layer(x)[0]
    assert apart([got], [want.unsqueeze(0)]) < 1e-9
    asked = [x, *layer.parameters()]
    assert len(asked) == 8
    grads = [torch.autograd.grad((y * seeds).sum(), asked) for y in (got, want.unsqueeze(0))]
    assert apart(list(grads[0]), list(grads[1])) < 1e-9


CONSTANT = """
block written(x, heads = 2, chunk = 4) {
  level slow every chunk tokens {
    memory A = matrix() per head init learned("first")
    memory B = matrix() per head init fixed
  }
  z = split(linear(x), heads)
  u = l2norm(detach(z))
  k = detach(l2norm(B[u]))
  a = detach(sigmoid(sum(B[k])))
  write each of A, B { [k] <- u - detach(self[u])  minimize l2  by dgd(lr = 0.1)  retain a toward init }
  return merge(A[z])
}
"""


@pytest.mark.skipif(not native.compiler(), reason="there is no C compiler")
def test_in_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In two calls: the state of the second has the gradients of the first."""
    monkeypatch.setattr(native, "FLAGS", [["-O1", "-shared", "-fPIC", "-lm"]])
    plain, other, report = pair(CONSTANT)
    given = (2 * CHUNK, None, (CHUNK, CHUNK))
    assert apart(flows(other, *given), flows(plain, *given)) < 1e-10
    assert report.running >= 1 and str(report).endswith(": in lanes"), str(report)
