"""What no other test of the library writes down: a gated perceptron, M3 with averages, the ablations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import nldsl
from nldsl.graph import open_program
from nldsl.graph.places import Place, places
from nldsl.spec.program import Memory, Program, TaskWrite, Write

torch.set_num_threads(1)
WIDTH, TOKENS = 6, 9

BLOCK = """
block layer(x) {{
  level context every 1 token {{ {memory} }}
  q = linear(x)
  k = l2norm(linear(x))
  v = linear(x)
  M[k] <- v  minimize l2  by {rule}
  return linear(M[q])
}}
"""


def layer_of(
    memory: str, rule: str
) -> tuple[nldsl.Layer, dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """A layer, its parameters, inputs, and what it makes of them."""
    layer = nldsl.compile(BLOCK.format(memory=memory, rule=rule), dim=WIDTH).double()
    x = torch.randn(TOKENS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return layer, dict(layer.named_parameters()), x, layer(x[None])[0][0]


def unit(z: torch.Tensor) -> torch.Tensor:
    return z / (z.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def test_swiglu_map_learns_by_the_gradients_of_its_three_weights() -> None:
    layer, p, x, y = layer_of("memory M = swiglu_map(2)", "gd(lr = 0.1)")
    weights = {n: p[f"M.{n}"].detach().squeeze().clone().requires_grad_() for n in ("W1", "W2", "W3")}

    def read(z: torch.Tensor) -> torch.Tensor:
        return weights["W3"] @ (F.silu(weights["W1"] @ z) * (weights["W2"] @ z))

    for token, got in zip(x, y, strict=True):
        q, k, v = (p[f"{n}.linear.weight"].detach() @ token for n in "qkv")
        loss = 0.5 * ((read(unit(k)) - v) ** 2).sum()
        steps = torch.autograd.grad(loss, list(weights.values()))
        weights = {
            n: (w - 0.1 * g).detach().requires_grad_()
            for (n, w), g in zip(weights.items(), steps, strict=True)
        }
        torch.testing.assert_close(got, p["out.linear.weight"] @ read(q), rtol=0, atol=1e-10)


def newton_schulz(x: torch.Tensor, steps: int) -> torch.Tensor:
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


def test_m3_ema_is_three_averages_one_of_them_on_a_slow_clock() -> None:
    """Eq. 75 with decay: what the slow average gathered in a period of two steps is seen from its end on."""
    layer, p, x, y = layer_of("memory M = matrix() init zero", "m3_ema(lr = 0.1, slow = 2, iterations = 3)")
    b1, b2, b3, alpha, eps = 0.95, 0.999, 0.95, 0.5, 1e-8
    W, m1, s, gathered, slow = (torch.zeros(WIDTH, WIDTH, dtype=torch.float64) for _ in range(5))
    for n, (token, got) in enumerate(zip(x, y, strict=True), start=1):
        q, k, v = (p[f"{name}.linear.weight"] @ token for name in "qkv")
        k = unit(k)
        g = torch.outer(W @ k - v, k)
        m1 = b1 * m1 + (1 - b1) * g
        s = b2 * s + (1 - b2) * g**2
        gathered = b3 * gathered + (1 - b3) * g
        d = newton_schulz(m1, 3) + alpha * newton_schulz(slow, 3)
        W = W - 0.1 * d / ((s / (1 - b2**n)).sqrt() + eps)
        if n % 2 == 0:
            slow = gathered
        torch.testing.assert_close(got, p["out.linear.weight"] @ (W @ q), rtol=0, atol=1e-8)


# --- the ablations of Table 6: each takes away what it says, and nothing else ------------------


def parts(program: Program) -> tuple[set[str], dict[str, Write], int]:
    """Memories, the write of each, and how many learn from the task."""
    memories: set[str] = set()
    writes: dict[str, Write] = {}
    tasks = 0
    for block, _ in places(program.root, Place.root(program)):
        own: list[Memory] = list(block.memories)
        memories |= {m.name for m in own}
        writes |= {s.memory: s for s in block.body if isinstance(s, Write)}
        tasks += sum(isinstance(s, TaskWrite) for s in block.body)
    return memories, writes, tasks


@pytest.mark.parametrize(
    ("name", "gone", "come"),
    [
        ("hope_without_decay", {"Ma"}, set()),
        ("hope_without_dgd", set(), set()),
        ("hope_without_inner_key", {"Mk"}, set()),
        ("hope_without_inner_value", {"Mv"}, set()),
        ("hope_with_inner_query", set(), {"Mq"}),
        ("hope_without_cms", {"F[0]", "F[1]", "F[2]"}, set()),
    ],
)
def test_an_ablation_takes_away_what_it_says(name: str, gone: set[str], come: set[str]) -> None:
    before, writes_before, tasks_before = parts(open_program("hope", depth=1))
    after, writes, tasks = parts(open_program(name, depth=1))
    assert (before - after, after - before) == (gone, come)
    assert tasks == (0 if name == "hope_without_cms" else tasks_before)
    kept = writes.keys() & writes_before.keys()
    assert kept >= {"M"}
    without_decay = {n for n in kept if writes[n].retain is None}
    assert without_decay == (kept if name == "hope_without_decay" else set())
    rules = {writes[n].terms[0].rule.name for n in kept}
    assert rules == ({"proximal"} if name == "hope_without_dgd" else {"dgd"})
