"""Rules that look at the inputs of linear layers: one product, equal to the mean over rows of the rule."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import nldsl
from nldsl.diagnostics import SpecError
from nldsl.spec.open_rule import open_rule
from nldsl.view.rule_forms import rule_form

LR = 0.3


def rate(kind: str, x: Tensor, eps: float = 1e-2) -> Tensor:
    size = (x * x).sum(-1)
    return {"raw": LR + 0 * size, "proximal": LR / (1 + LR * size), "normalised": LR / (eps + size)}[kind]


def layers() -> nn.Sequential:
    generator = torch.Generator().manual_seed(1)
    made = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 3, bias=False)).double()
    for p in made.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return made


@pytest.mark.parametrize("kind", ["raw", "proximal", "normalised"])
@pytest.mark.parametrize("erases", [True, False], ids=["dgd", "proximal"])
def test_the_fused_product_is_the_mean_of_the_rule_over_rows(kind: str, erases: bool) -> None:
    """Eq. 56-57 for every row, with `N dy` the gradient of its own loss, and then the mean."""
    model, twin = layers(), layers()
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rule = f'{"dgd" if erases else "proximal"}(lr = {LR}, rate = "{kind}")'
    optimizer = nldsl.optimizer(rule, model)
    for _ in range(3):
        optimizer.zero_grad()
        (model(x) ** 2).mean().backward()
        optimizer.step()
        literal_step(twin, x, kind, erases)
        for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["raw", "proximal", "normalised"])
def test_the_write_that_defines_dgd_is_one_product(kind: str) -> None:
    """`W[x] <- -dy` on l2: `e ** (2 - 1)`, as its gradient has it, is `e`, and rows enter once."""
    text = f'rule written(lr) {{ W[x] <- -dy minimize l2 by proximal(lr, rate = "{kind}") }}'
    model, twin = layers(), layers()
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    optimizer = nldsl.optimizer(text, model, lr=LR)
    assert "one product in the backward pass" in rule_form(open_rule(text, lr=LR), (6, 4), True)
    for _ in range(2):
        optimizer.zero_grad()
        (model(x) ** 2).mean().backward()
        optimizer.step()
        literal_step(twin, x, kind, True)
        for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("objective", ["huber(delta = 1)", "lp(p = 3)"])
def test_a_gradient_that_is_not_linear_needs_each_row(objective: str) -> None:
    text = f"rule written(lr) {{ W[x] <- -dy minimize {objective} by gd(lr = lr) }}"
    assert "needs each row" in rule_form(open_rule(text, lr=LR), (6, 4), True)


def literal_step(twin: nn.Sequential, x: Tensor, kind: str, erases: bool) -> None:
    """Row by row for linear weights, plain descent for everything else."""
    first, act, norm, last = twin
    inner = x.reshape(-1, 4)
    hidden = first(inner)
    normed = norm(act(hidden))
    out = last(normed)
    loss = (out**2).mean()
    grads = torch.autograd.grad(loss, [hidden, out, first.bias, norm.weight, norm.bias])
    count = len(inner)
    new = {}
    for layer, rows, dy in ((first, inner, grads[0]), (last, normed, grads[1])):
        W, change = layer.weight.detach(), torch.zeros_like(layer.weight)
        for z, d in zip(rows.detach(), dy, strict=True):
            r = rate(kind, z)
            after = W - r * (torch.outer(W @ z, z) * erases + torch.outer(count * d, z))
            change += (after - W) / count
        new[layer.weight] = W + change
    with torch.no_grad():
        for weight, value in new.items():
            weight.copy_(value)
        for p, g in zip((first.bias, norm.weight, norm.bias), grads[2:], strict=True):
            p.sub_(LR * g)


def test_accumulated_batches_count_all_their_rows() -> None:
    whole, halves = layers(), layers()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for model, pieces in ((whole, [x]), (halves, [x[:3], x[3:]])):
        optimizer = nldsl.optimizer("dgd", model, lr=LR)
        losses = [(model(piece) ** 2).sum() / 18 for piece in pieces]
        for loss in losses:
            loss.backward()
        optimizer.step()
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_passes_that_alternate_divide_by_all_rows() -> None:
    """The rows of earlier passes are divided anew; without being told, the second pass is refused."""
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for pieces in ([x], [x[:1], x[1:3], x[3:]]):
        model = layers()
        optimizer = nldsl.optimizer("dgd", model, lr=LR)
        optimizer.several_passes = len(pieces) > 1
        for _ in range(3):
            optimizer.zero_grad()
            for piece in pieces:
                ((model(piece) ** 2).sum() / 18).backward()
            optimizer.step()
        found.append([p.detach() for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    model = layers()
    optimizer = nldsl.optimizer("dgd", model, lr=LR)
    (model(x[:3]) ** 2).sum().backward()
    with pytest.raises(SpecError) as caught:
        (model(x[3:]) ** 2).sum().backward()
    assert caught.value.diagnostics[0].code == "NL0975"


def test_gradients_of_inner_problems_count_no_rows() -> None:
    """Under `exact`, `learn` differentiates segments for their memories before it trains the weights."""
    model = layers()
    optimizer = nldsl.optimizer("dgd", model, lr=LR)
    x = torch.randn(6, 4, dtype=torch.float64)
    twin = layers()
    inner = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    loss = (model(x + inner) ** 2).mean()
    torch.autograd.grad(loss, [inner], retain_graph=True)
    assert not any(rows.pulled for rows in optimizer.rows.values())
    loss.backward()
    optimizer.step()
    literal_step(twin, x, "proximal", True)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("unscaled", [False, True])
def test_a_scaled_loss_is_refused_where_it_would_scale_the_erase_away(unscaled: bool) -> None:
    found = []
    for rule in ("dgd", "proximal"):
        model = nn.Linear(4, 3)
        optimizer = nldsl.optimizer(rule, model, lr=LR)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        scaler.scale((model(torch.ones(5, 4)) ** 2).mean()).backward()
        if unscaled:
            scaler.unscale_(optimizer)
        before = model.weight.detach().clone()
        try:
            scaler.step(optimizer)
            found.append("ok")
        except SpecError as error:
            found.append(error.diagnostics[0].code)
            assert torch.equal(model.weight, before)
    assert found == ["NL0976", "ok"]


def test_clipping_and_schedules_see_an_ordinary_gradient() -> None:
    model = layers()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    optimizer = nldsl.optimizer("dgd", model, lr=LR)
    before = model[0].weight.detach().clone()
    optimizer.param_groups[0]["lr"] = 0.0
    (model(x) ** 2).mean().backward()
    assert torch.isfinite(model[0].weight.grad).all() and model[0].weight.grad.norm() > 1e-3
    optimizer.step()
    assert torch.equal(model[0].weight, before)


def test_parameters_without_their_layers_are_refused() -> None:
    with pytest.raises(SpecError) as caught:
        nldsl.optimizer("dgd", layers().parameters(), lr=LR)
    assert caught.value.diagnostics[0].code == "NL0972"


def test_emitted_models_pull_their_rows_too() -> None:
    model = nldsl.compile("transformer", vocab=16, dim=8, depth=1, heads=2)
    tokens = torch.randint(16, (2, 9), generator=torch.Generator().manual_seed(0))
    optimizer = nldsl.optimizer("dgd", model, lr=0.5)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        logits, _ = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        losses.append(loss.item())
        assert all(rows.count == 16 for rows in optimizer.rows.values()) and len(optimizer.rows) >= 4
        optimizer.step()
    assert losses[-1] < losses[0]
