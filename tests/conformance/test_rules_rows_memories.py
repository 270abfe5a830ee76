"""Rules that look at rows and remember: weights and memories against recurrences written by hand.

For each row `g_t = N dy_t x_t^T` of a mean loss; memories and weight are means over the rows, and what is
computed from a memory sees its mean.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import nldsl
from nldsl.certify import rules_in, verify_rules
from nldsl.diagnostics import SpecError
from nldsl.train import checkpoint as saved
from nldsl.train import train
from nldsl.train.loop import CHECKPOINTS

LR, BETA = 0.1, 0.5
TWO_WAYS = """rule two_ways(lr, beta = 0.5) {
  memory m = like(W)
  m = beta * m - lr / (1 + sum(x ** 2)) * g
  W = W + m - lr * outer(m @ x, x)
}"""
SQUARES = """rule squares(lr, beta = 0.5, eps = 1e-3) {
  memory m, s = like(W)
  m = beta * m + (1 - beta) * g / (1 + sum(x ** 2))
  s = beta * s + (1 - beta) * g ** 2
  W = W - lr * unbias(m, beta) / (sqrt(unbias(s, beta)) + eps)
}"""
SLOW = """rule slow(lr) {
  level fast every 1 step { memory m = like(W) }
  level long every 3 steps { memory l = like(W) }
  e = (outer(W @ x, x) + g) / (1 + sum(x ** 2))
  m = 0.5 * m + e
  l += 0.5 * e
  W = W - lr * (m + l)
}"""
MUON = """rule erased_muon(lr, beta = 0.5) {
  memory m = like(W)
  m = beta * m + (1 - beta) / (1 + sum(x ** 2)) * (outer(W @ x, x) + g)
  W = W - lr * orthogonalize(m)
}"""
Kept = dict[str, Tensor]
Recurrence = Callable[[Tensor, Kept, Tensor, Tensor, int], tuple[Tensor, Kept]]


def dgd_momentum(W: Tensor, kept: Kept, x: Tensor, dy: Tensor, step: int) -> tuple[Tensor, Kept]:
    rows = []
    for z, d in zip(x, len(x) * dy, strict=True):
        r = LR / (1 + LR * z @ z)
        rows.append(BETA * kept["m"] - (1 - BETA) * r * (torch.outer(W @ z, z) + torch.outer(d, z)))
    m = torch.stack(rows).mean(0)
    return W + m, {"m": m}


def normalised_momentum(W: Tensor, kept: Kept, x: Tensor, dy: Tensor, step: int) -> tuple[Tensor, Kept]:
    rows = [LR / (1e-2 + z @ z) * torch.outer(d, z) for z, d in zip(x, len(x) * dy, strict=True)]
    m = 0.9 * kept["m"] - torch.stack(rows).mean(0)
    return W + m, {"m": m}


def two_ways(W: Tensor, kept: Kept, x: Tensor, dy: Tensor, step: int) -> tuple[Tensor, Kept]:
    rows = [LR / (1 + z @ z) * torch.outer(d, z) for z, d in zip(x, len(x) * dy, strict=True)]
    m = BETA * kept["m"] - torch.stack(rows).mean(0)
    return W + m - LR * torch.stack([torch.outer(m @ z, z) for z in x]).mean(0), {"m": m}


def squares(W: Tensor, kept: Kept, x: Tensor, dy: Tensor, step: int) -> tuple[Tensor, Kept]:
    g = [torch.outer(d, z) for z, d in zip(x, len(x) * dy, strict=True)]
    m = BETA * kept["m"] + (1 - BETA) * torch.stack(
        [h / (1 + z @ z) for h, z in zip(g, x, strict=True)]
    ).mean(0)
    s = BETA * kept["s"] + (1 - BETA) * torch.stack([h**2 for h in g]).mean(0)
    share = 1 - BETA**step
    return W - LR * (m / share) / ((s / share).sqrt() + 1e-3), {"m": m, "s": s}


def slow(W: Tensor, kept: Kept, x: Tensor, dy: Tensor, step: int) -> tuple[Tensor, Kept]:
    rows = []
    for z, d in zip(x, len(x) * dy, strict=True):
        rows.append((torch.outer(W @ z, z) + torch.outer(d, z)) / (1 + z @ z))
    e = torch.stack(rows).mean(0)
    m, gathered = 0.5 * kept["m"] + e, kept["l"] + 0.5 * e
    seen = kept.get("seen", torch.zeros_like(W))
    return W - LR * (m + seen), {"m": m, "l": gathered, "seen": gathered if step % 3 == 0 else seen}


CASES: dict[str, tuple[str, Recurrence, bool]] = {
    "dgd_momentum": ("dgd_momentum", dgd_momentum, False),
    "normalised_momentum": ("normalised_momentum", normalised_momentum, False),
    "two_ways": (TWO_WAYS, two_ways, True),
    "squares": (SQUARES, squares, True),
    "slow": (SLOW, slow, True),
}


def layer(seed: int = 1) -> nn.Linear:
    generator = torch.Generator().manual_seed(seed)
    made = nn.Linear(5, 3, bias=False).double()
    made.weight.data = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    return made


def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(2, 4, n, generator=generator, dtype=torch.float64) for n in (5, 3))


def one_step(made: nn.Linear, optimizer: torch.optim.Optimizer, x: Tensor, aim: Tensor) -> Tensor:
    """A step on a mean of squares; gives dy `[N, out]`."""
    optimizer.zero_grad()
    y = made(x)
    y.retain_grad()
    ((y - aim) ** 2).sum(-1).mean().backward()
    optimizer.step()
    return y.grad.flatten(0, 1)


@pytest.mark.parametrize("name", CASES)
def test_weights_and_memories_follow_the_recurrence(name: str) -> None:
    rule, recurrence, by_rows = CASES[name]
    made, generator = layer(), torch.Generator().manual_seed(0)
    optimizer = nldsl.optimizer(rule, made, lr=LR)
    kernel = optimizer.kernel_of(made.weight)
    assert kernel.by_rows is by_rows and (kernel.rows is None) is by_rows
    W = made.weight.detach().clone()
    kept: Kept = {m.name: torch.zeros_like(W) for m in kernel.memories}
    for step in range(1, 9):
        x, aim = batch(generator)
        dy = one_step(made, optimizer, x, aim)
        W, kept = recurrence(W, kept, x.flatten(0, 1), dy, step)
        torch.testing.assert_close(made.weight.detach(), W, rtol=1e-10, atol=1e-10)
        for slot, value in kept.items():
            if slot in optimizer.state[made.weight]:
                torch.testing.assert_close(optimizer.state[made.weight][slot], value, rtol=1e-10, atol=1e-10)
    assert (W - layer().weight).abs().max() > 0.05


@pytest.mark.parametrize("rule", [TWO_WAYS, SQUARES, SLOW, MUON, "dgd_momentum", "normalised_momentum"])
def test_interpreter_and_optimizer_agree(rule: str, tmp_path: Path) -> None:
    """Also where numbers of the rule change on the way; Newton-Schulz is taken as it is written."""
    if rule.startswith("rule"):
        (tmp_path / "rule.nl").write_text(rule)
    certificate = verify_rules(
        rules_in(tmp_path / "rule.nl" if rule.startswith("rule") else rule, {}), "rule"
    )
    assert certificate.checks and certificate.passed, certificate.text()


@pytest.mark.parametrize("name", CASES)
def test_a_saved_state_goes_on_bit_for_bit(name: str) -> None:
    rule, generator = CASES[name][0], torch.Generator().manual_seed(0)
    batches = [batch(generator) for _ in range(6)]
    whole, first, second = layer(), layer(), layer(2)
    optimizers = [nldsl.optimizer(rule, made, lr=LR) for made in (whole, first, second)]
    for x, aim in batches:
        one_step(whole, optimizers[0], x, aim)
    for x, aim in batches[:4]:
        one_step(first, optimizers[1], x, aim)
    second.load_state_dict(first.state_dict())
    optimizers[2].load_state_dict(optimizers[1].state_dict())
    for x, aim in batches[4:]:
        one_step(second, optimizers[2], x, aim)
    assert torch.equal(whole.weight, second.weight)


def test_clipping_scales_every_row() -> None:
    """A gradient scaled as a whole is the gradient of scaled rows; any other change is refused."""
    rule, made = TWO_WAYS, layer()
    optimizer = nldsl.optimizer(rule, made, lr=LR)
    x, aim = batch(torch.Generator().manual_seed(0))
    y = made(x)
    y.retain_grad()
    ((y - aim) ** 2).sum(-1).mean().backward()
    norm = nn.utils.clip_grad_norm_(made.parameters(), 0.5)
    assert norm > 0.5
    W, kept = two_ways(
        made.weight.detach().clone(),
        {"m": torch.zeros(3, 5, dtype=torch.float64)},
        x.flatten(0, 1),
        y.grad.flatten(0, 1) * (0.5 / norm),
        1,
    )
    optimizer.step()
    torch.testing.assert_close(made.weight.detach(), W, rtol=1e-5, atol=1e-6)
    optimizer.zero_grad()
    ((made(x) - aim) ** 2).sum(-1).mean().backward()
    made.weight.grad[0] *= 2
    with pytest.raises(SpecError) as caught:
        optimizer.step()
    assert caught.value.diagnostics[0].code == "NL0974"


def test_two_passes_are_one_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    x, aim = (t.flatten(0, 1) for t in batch(generator))
    found = []
    for pieces in ([slice(None)], [slice(0, 3), slice(3, None)]):
        made = layer()
        optimizer = nldsl.optimizer(SQUARES, made, lr=LR)
        losses = [((made(x[p]) - aim[p]) ** 2).sum() / len(x) for p in pieces]
        for loss in losses:
            loss.backward()
        optimizer.step()
        found.append(made.weight.detach())
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_what_cannot_be_had_is_refused() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    with pytest.raises(SpecError) as caught:
        nldsl.optimizer(SQUARES, net, lr=LR)
    assert caught.value.diagnostics[0].code == "NL0963"
    with pytest.raises(SpecError) as caught:
        nldsl.optimizer(SQUARES, layer(), lr=LR, every=2)
    assert caught.value.diagnostics[0].code == "NL0968"
    # Where rows enter once, other weights take their gradient in place of the product.
    norm = nldsl.optimizer("dgd_momentum", net, lr=LR)
    net(torch.ones(2, 4)).square().mean().backward()
    before, g = net[1].weight.detach().clone(), net[1].weight.grad.clone()
    norm.step()
    torch.testing.assert_close(net[1].weight.detach(), before - (1 - BETA) * LR * g)


@pytest.mark.parametrize("rule", ["dgd_momentum(lr = 0.05)", "squares(lr = 0.001)"])
def test_a_run_resumes_bit_for_bit(rule: str, tmp_path: Path) -> None:
    text = f"""{SQUARES}
variant rows of transformer(dim = 16, depth = 1, heads = 2) {{
  matrices by {rule}
}}
"""
    spec, data = tmp_path / "rows.nl", tmp_path / "text.txt"
    spec.write_text(text)
    data.write_bytes(b"".join(b"%d green bottles on the wall\n" % i for i in range(500)))
    common = {"data": str(data), "batch": 2, "length": 24, "seed": 1, "show": False}
    train(spec, out=tmp_path / "whole", steps=6, **common)
    train(spec, out=tmp_path / "parts", steps=3, **common)
    train(spec, out=tmp_path / "parts", steps=6, resume=True, **common)
    one, two = (saved.load_newest(tmp_path / run / CHECKPOINTS).tensors for run in ("whole", "parts"))
    assert one.keys() == two.keys() and any(":m" in path for path in one)
    assert all(torch.equal(t, two[path]) for path, t in one.items())
    assert all(t.abs().max() > 0 for path, t in one.items() if path.endswith(":m"))


TWIN = """rule twin(lr) {
  r = lr / (1 + lr * sum(x ** 2))
  W = W - r * outer(W @ x, x) - r * g
}"""
"""`dgd` in words that are not one product: every row by itself, at the step."""
MODELS = {
    "truncated": ("transformer(dim = 16, depth = 1, heads = 2)", "truncate 8 tokens", {}),
    "segments": ("hope_tiny(dim = 16, depth = 1, chunks = [8, 16])", "", {}),
    "exact": ("hope_tiny(dim = 16, depth = 1, chunks = [8, 16])", 'task next_token(carry = "exact")', {}),
    "accumulated": ("transformer(dim = 16, depth = 1, heads = 2)", "", {"accumulate": 2}),
}


@pytest.mark.parametrize("case", MODELS)
def test_rows_of_a_step_that_is_cut_are_all_counted(case: str, tmp_path: Path) -> None:
    """One product per pass, divided by all rows of the step, is what the rows give one by one."""
    base, setting, more = MODELS[case]
    data = tmp_path / "text.txt"
    data.write_bytes(b"".join(b"%d green bottles on the wall\n" % i for i in range(500)))
    found = []
    for rule in ("dgd", "twin"):
        spec = tmp_path / f"{rule}.nl"
        rows = f'"*.linear.weight" by {rule}(lr = 0.3)'
        others = "matrices, embeddings, head, norms, rest by sgd(lr = 0.01)"
        spec.write_text(
            f"{TWIN}\nvariant v of {base} {{\n  {setting}\n  {rows}\n  {others}\n}}\n",
        )
        # What Hope writes makes much of a last digit: one step says how rows are counted.
        steps = 1 if base.startswith("hope") else 3
        train(spec, out=tmp_path / rule, steps=steps, data=str(data), batch=2, length=24, show=False, **more)
        found.append(saved.load_newest(tmp_path / rule / CHECKPOINTS).tensors)
    assert any(path.endswith("linear.weight") for path in found[0])
    for path, t in found[0].items():
        torch.testing.assert_close(t, found[1][path], rtol=1e-4, atol=2e-6, msg=path)
