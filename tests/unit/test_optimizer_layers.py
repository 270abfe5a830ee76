"""Layers of rules that look at inputs: copies, pickles, layers of others, weights used by themselves."""

from __future__ import annotations

import copy
import io
import pickle
from types import MethodType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nldsl

EACH_ROW = (
    "rule each(lr = 0.1) { memory s = like(W)\n s = 0.9 * s + g ** 2\n W = W - lr * g / (sqrt(s) + 1) }"
)


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_a_copy_of_a_model_is_computed_with_its_own_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    ready = nldsl.optimizer("dgd(lr = 0.1)", model)
    twin = copy.deepcopy(model)
    x, before = torch.randn(4, 3), model(torch.ones(1, 3)).detach()
    model(x).square().sum().backward()
    ready.step()
    assert not torch.equal(model(torch.ones(1, 3)), before)
    assert torch.equal(twin(torch.ones(1, 3)), before)


@pytest.mark.parametrize("rule", ["dgd(lr = 0.1)", "dgd_momentum(lr = 0.1)"])
def test_an_average_of_a_model_is_its_average(rule: str) -> None:
    model = nn.Sequential(nn.Linear(3, 2)).double()
    ready = nldsl.optimizer(rule, model)
    average = torch.optim.swa_utils.AveragedModel(model)
    sums, x = torch.zeros(2, 3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    for step in range(4):
        ready.zero_grad()
        model(torch.randn(5, 3, dtype=torch.float64)).square().sum().backward()
        ready.step()
        average.update_parameters(model)
        sums += model[0].weight.detach() / 4
        assert step == 3 or not torch.equal(average(x), model(x)) or step == 0
    own: Any = average.module[0]
    torch.testing.assert_close(average(x), F.linear(x, sums, own.bias))


def test_a_model_is_saved_as_a_whole() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    ready = nldsl.optimizer("dgd(lr = 0.1)", model)
    x, file = torch.randn(4, 3), io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (torch.load(file, weights_only=False), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            assert torch.equal(twin(x), model(x))
        again = nldsl.optimizer("dgd(lr = 0.1)", twin)  # an optimizer of its own, rows and all
        for net, own in ((model, ready), (twin, again)):
            own.zero_grad()
            net(x).square().sum().backward()
        assert torch.equal(model[0].weight.grad, twin[0].weight.grad)
        with torch.no_grad():
            twin[0].weight.zero_()
            assert not torch.equal(twin(x), model(x))


def test_layers_with_a_forward_of_their_own_keep_it() -> None:
    """A class, or a wrapper as other libraries put around `forward`: their weights take their gradient."""

    def noted(self: nn.Linear, x: Tensor) -> Tensor:
        seen.append(1)
        return F.linear(x, self.weight, self.bias)

    seen: list[int] = []
    model = nn.Sequential(nn.Linear(3, 3), Doubled(3, 3), nn.Linear(3, 2)).double()
    object.__setattr__(model[2], "forward", MethodType(noted, model[2]))
    x = torch.randn(4, 3, dtype=torch.float64)
    wanted = model(x)
    ready = nldsl.optimizer("dgd(lr = 0.1)", model)
    assert torch.equal(model(x), wanted) and len(seen) == 2
    assert [ready.name_of(w) for w in ready.rows] == ["`0.weight`"]
    model(x).square().sum().backward()
    twin = copy.deepcopy(model[1:])
    (F.linear(twin[0](F.linear(x, model[0].weight, model[0].bias).detach()), twin[1].weight, twin[1].bias)
        .square().sum().backward())  # fmt: skip
    torch.testing.assert_close(model[1].weight.grad, twin[0].weight.grad)
    with pytest.raises(nldsl.SpecError, match=r"NL0963.*`0\.weight` is not the weight of one"):
        nldsl.optimizer(
            EACH_ROW.replace("g ** 2", "sum(x ** 2) * g ** 2"),
            nn.Sequential(Doubled(3, 3, bias=False), nn.Linear(3, 2, bias=False)),
        )


@pytest.mark.parametrize("rule", ["dgd(lr = 0.1)", EACH_ROW.replace("g ** 2", "sum(x ** 2) * g ** 2")])
def test_a_gradient_that_does_not_come_through_its_layer_is_refused(rule: str) -> None:
    layer = nn.Linear(3, 2, bias=False)
    ready, before = nldsl.optimizer(rule, layer), layer.weight.detach().clone()
    F.linear(torch.ones(4, 3), layer.weight).sum().backward()
    with pytest.raises(nldsl.SpecError, match="NL0974.*`weight` did not come through its layer"):
        ready.step()
    assert torch.equal(layer.weight, before)
    ready.zero_grad(set_to_none=False)  # an unused layer is none that is used elsewhere
    if "dgd" in rule:
        ready.step()


@pytest.mark.parametrize("look", ["before", "between", "held"])
def test_a_pass_that_only_looks_has_no_part_in_the_step(look: str) -> None:
    """A loss that is computed with gradients on, and dropped; or begun before the step of another one."""
    found, x, other = [], torch.randn(4, 3), torch.randn(7, 3)
    for looks in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
        ready = nldsl.optimizer("dgd(lr = 0.3)", model)
        for _ in range(3):
            if looks and look == "before":
                model(other).sum()
            loss = model(x).square().mean()
            if looks and look == "between":
                model(other).sum()
            ready.zero_grad()
            if looks and look == "held":  # what was begun is not forgotten by a step without gradients
                ready.step()
            loss.backward()
            ready.step()
        found.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("depth", [1, 2])
def test_autocast_is_the_same_but_for_rounding(depth: int) -> None:
    found, x = [], torch.randn(32, 16)
    for half in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(depth)))
        ready = nldsl.optimizer("dgd(lr = 0.1)", model)
        for _ in range(3):
            ready.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                y = model(x)
            assert y.dtype == (torch.bfloat16 if half else torch.float32)
            y.float().square().mean().backward()
            ready.step()
        found.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    assert not torch.equal(*found)
    torch.testing.assert_close(*found, rtol=0.02, atol=2e-3)


def test_one_row_no_rows_and_names() -> None:
    layer, twin = (nn.Linear(3, 2) for _ in range(2))
    twin.load_state_dict(layer.state_dict())
    pair = [(m, nldsl.optimizer("dgd(lr = 0.1)", m)) for m in (layer, twin)]
    x = torch.randn(3)
    for (model, ready), given in zip(pair, (x, x[None]), strict=True):
        y = model(input=given)
        assert y.shape == (*given.shape[:-1], 2)
        y.square().sum().backward()
        ready.step()
    torch.testing.assert_close(layer.weight, twin.weight)
    before = [p.detach().clone() for p in layer.parameters()]
    pair[0][1].zero_grad()
    layer(torch.zeros(0, 3)).sum().backward()
    pair[0][1].step()
    assert all(torch.equal(p, b) for p, b in zip(layer.parameters(), before, strict=True))


def test_transforms_of_torch_see_the_plain_layer() -> None:
    layer = nn.Linear(3, 2)
    ready = nldsl.optimizer("dgd(lr = 0.1)", layer)
    assert torch.equal(torch.func.jacrev(layer)(torch.ones(3)), layer.weight)
    slopes = torch.func.vmap(torch.func.jacrev(layer))(torch.ones(4, 3))
    assert torch.equal(slopes, layer.weight.expand(4, 2, 3))
    assert ready.rows[layer.weight].count == 0


def test_the_projection_behind_attention_of_torch_is_named() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    ready = nldsl.optimizer("dgd(lr = 0.1)", layer)
    layer(torch.randn(2, 3, 8)).square().mean().backward()
    with pytest.raises(nldsl.SpecError, match=r"`self_attn\.out_proj\.weight` did not come"):
        ready.step()
