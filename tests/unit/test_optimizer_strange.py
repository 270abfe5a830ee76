"""Tensors that are not what lies in their memory, and states and gradients of other kinds than usual."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor

import nldsl
from nldsl.diagnostics import SpecError
from nldsl.runtime import native
from nldsl.runtime.rule_optimizer import RuleOptimizer

needs_compiler = pytest.mark.skipif(not native.compiler(), reason="no C compiler")
BY_AXES = """rule by_axes(lr, beta = 0.9) {
  memory m = like(W)
  m = beta * m + (1 - beta) * g
  if rank(W) == 2 { W = W - lr * m / expand_last(1 + sum(abs(m)), m) } else { W = W - lr * m }
}
"""


def made(
    rule: str, form: str, *shapes: tuple[int, ...], **settings: object
) -> tuple[RuleOptimizer, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in shapes]
    optimizer = nldsl.optimizer(rule, list(weights), lr=0.1, form=form, **settings)  # type: ignore[arg-type]
    return optimizer, list(weights)


def draw(weights: list[Tensor], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for w in weights:
        w.grad = torch.randn(w.shape, generator=generator, dtype=torch.float64)


def everything(optimizer: RuleOptimizer, weights: list[Tensor]) -> list[Tensor]:
    return [t.detach() for w in weights for t in (w, *optimizer.state[w].values()) if isinstance(t, Tensor)]


def alike(run: Callable[[str], list[Tensor]]) -> None:
    for ours, theirs in zip(run("compiled"), run("eager"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@needs_compiler
@pytest.mark.parametrize("at", [0, 1, 3])
def test_gradients_that_are_only_marked_as_negative(at: int) -> None:
    """The imaginary part of a conjugate: of one number it lies dense."""

    def run(form: str) -> list[Tensor]:
        optimizer, weights = made("momentum", form, (1,), (5, 3))
        for step in range(4):
            draw(weights, step)
            if step == at:
                weights[0].grad = torch.tensor([1 + 2j], dtype=torch.complex128).conj().imag
                weights[1].grad = torch._neg_view(torch.ones(5, 3, dtype=torch.float64))
                assert weights[0].grad.is_neg() and weights[0].grad.is_contiguous()
            optimizer.step()
        return everything(optimizer, weights)

    alike(run)


@needs_compiler
def test_memories_that_are_only_marked_as_negative() -> None:
    def run(form: str) -> list[Tensor]:
        optimizer, weights = made("momentum", form, (4,), (5, 3))
        for step in range(4):
            draw(weights, step)
            optimizer.step()
            state = optimizer.state[weights[1]]
            state["m"] = torch._neg_view(state["m"])
        return everything(optimizer, weights)

    alike(run)


@needs_compiler
def test_classes_that_answer_for_themselves_are_left_to_torch() -> None:
    """What their memory has is not theirs: a loop in C ended the process."""
    two = nn.Parameter(TwoTensor(torch.ones(3, 4), torch.ones(3, 4)))
    one = nn.Parameter(torch.ones(3, 4))
    with pytest.raises(SpecError, match="NL0968.*a `TwoTensor` has its numbers elsewhere"):
        optimizer = nldsl.optimizer("adamw", [two], lr=0.1, form="compiled")
        two.grad = TwoTensor(torch.ones(3, 4), torch.ones(3, 4))
        optimizer.step()
    optimizer = nldsl.optimizer("adamw", [one, two], lr=0.1, form="auto")
    for state in optimizer.state.values():
        state["step"] = torch.tensor(1e5)  # from here on few elements have loops
    for _ in range(3):
        one.grad, two.grad = torch.ones(3, 4), TwoTensor(torch.ones(3, 4), torch.ones(3, 4))
        optimizer.step()
    assert [form for form, _ in optimizer.forms().values()] == ["compiled", "eager"]
    torch.testing.assert_close(two.detach().a, one.detach())  # type: ignore[attr-defined]


@needs_compiler
@pytest.mark.parametrize("size", [12, 1 << 17])
def test_gradients_of_such_a_class(size: int) -> None:
    def run(form: str) -> list[Tensor]:
        optimizer, weights = made("momentum", form, (size,))
        for step in range(4):
            draw(weights, step)
            if step != 1 and weights[0].grad is not None:
                weights[0].grad = TwoTensor(weights[0].grad, weights[0].grad)
            optimizer.step()
        found = everything(optimizer, weights)
        return [t.a if isinstance(t, TwoTensor) else t for t in found]

    alike(run)


@pytest.mark.parametrize("form", ["compiled", "eager"])
def test_a_weight_of_another_shape_at_the_same_place(form: str) -> None:
    """As many numbers, as dense: the memories are of the shape that was."""
    optimizer, (weight,) = made("adamw", form, (3, 4))
    for step in range(3):
        draw([weight], step)
        optimizer.step()
    weight.grad = None
    weight.data = weight.data.view(4, 3)
    draw([weight], 3)
    with pytest.raises(SpecError, match=r"NL0969.*`m` in the state.*is \[3, 4\], expected a tensor \[4, 3\]"):
        optimizer.step()


@pytest.mark.parametrize("form", ["compiled", "eager"])
def test_a_gradient_of_another_shape_at_the_same_place(form: str) -> None:
    optimizer, (weight,) = made("adamw", form, (3, 4))
    for step in range(3):
        draw([weight], step)
        optimizer.step()
    assert weight.grad is not None
    weight.grad.resize_(4, 3)
    with pytest.raises(SpecError, match=r"NL0966.*is \[4, 3\], the weight \[3, 4\]"):
        optimizer.step()


@needs_compiler
def test_the_loop_is_that_of_the_new_shape() -> None:
    """Sums of a rule run over rows: those of a matrix that was are others."""

    def run(form: str) -> list[Tensor]:
        optimizer, (weight,) = made(BY_AXES, form, (4, 6))
        for step, shape in enumerate([(4, 6)] * 3 + [(6, 4)] * 2 + [(24,)] * 2 + [(2, 12)]):
            state, weight.grad = optimizer.state[weight], None
            weight.data, state["m"].data = weight.data.view(shape), state["m"].data.view(shape)
            draw([weight], step)
            optimizer.step()
        return everything(optimizer, [weight])

    alike(run)


def expanded(shape: torch.Size) -> Tensor:
    return torch.tensor(float("nan"), dtype=torch.float64).expand(shape)


def of_inference_mode(shape: torch.Size) -> Tensor:
    with torch.inference_mode():
        return torch.full(shape, float("inf"), dtype=torch.float64)


@pytest.mark.parametrize("form", ["compiled", "eager"])
@pytest.mark.parametrize("bad", [expanded, of_inference_mode])
@pytest.mark.parametrize("every", [1, 2])
def test_what_may_not_be_written_is_replaced_by_zero(
    bad: Callable[[torch.Size], Tensor], form: str, every: int
) -> None:
    found = []
    for strange in (True, False):
        optimizer, weights = made("momentum", form, (3, 4), (5,), nonfinite="zero", every=every)
        for step in range(4):
            draw(weights, step)
            if step == 2:
                weights[0].grad = bad(weights[0].shape) if strange else torch.zeros_like(weights[0])
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                optimizer.step()
            assert [str(w.message)[-13:] for w in caught] == ["taken as zero"] * (strange and step == 2)
            assert weights[0].grad is not None and bool(torch.isfinite(weights[0].grad).all())
        found.append(everything(optimizer, weights))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("form", ["compiled", "eager"])
def test_gradients_of_fewer_digits_are_taken_as_they_are(form: str) -> None:
    """Squares are not rounded to the digits of the gradient, alone or beside others."""
    found = []
    for narrow in (True, False):
        optimizer, weights = made("adamw", form, (3, 4), (5,))
        for step in range(3):
            draw(weights, step)
            for w in weights[: 1 + step % 2]:
                assert w.grad is not None
                rounded = w.grad.to(torch.bfloat16)
                w.grad.data = rounded if narrow else rounded.double()
            optimizer.step()
        found.append(everything(optimizer, weights))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("count", [2, 2.0, torch.tensor(2)])
def test_a_saved_count_may_be_a_number(count: float | Tensor) -> None:
    found = []
    for number in (False, True):
        optimizer, weights = made("adamw", "eager", (3, 4))
        for step in range(2):
            draw(weights, step)
            optimizer.step()
        saved = copy.deepcopy(optimizer.state_dict())
        if number:
            saved["state"][0]["step"] = count
        optimizer.load_state_dict(saved)
        optimizer.step()
        found.append(everything(optimizer, weights))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_what_a_user_keeps_in_a_state_is_loaded_as_torch_loads_it() -> None:
    optimizer, (weight,) = made("adamw", "eager", (3, 4))
    kept = {"mine": 3, "more": torch.ones(2)}
    optimizer.state[weight].update(kept)  # type: ignore[arg-type]
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert optimizer.state[weight]["mine"] == 3
    assert torch.equal(optimizer.state[weight]["more"], torch.ones(2))


def test_a_state_is_loaded_where_it_was_emptied() -> None:
    optimizer, (weight,) = made("adamw", "eager", (3, 4))
    draw([weight], 0)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    before = [t.clone() for t in optimizer.state[weight].values()]
    optimizer.state.clear()
    optimizer.load_state_dict(saved)
    assert all(torch.equal(a, b) for a, b in zip(before, optimizer.state[weight].values(), strict=True))


@pytest.mark.parametrize("wrong", ["many", None, torch.ones(3)])
def test_a_saved_memory_that_is_none_is_refused(wrong: object) -> None:
    optimizer, (weight,) = made("adamw", "eager", (3, 4))
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["m"] = wrong
    before = dict(optimizer.state[weight])
    with pytest.raises(SpecError, match=r"NL0969.*`m` of parameter 0 of group 0 is .*expected \[3, 4\]"):
        optimizer.load_state_dict(saved)
    assert all(optimizer.state[weight][name] is value for name, value in before.items())


def test_a_state_of_another_type_is_loaded_in_the_type_of_the_weight() -> None:
    optimizer, weights = made("adamw", "eager", (3, 4))
    draw(weights, 0)
    optimizer.step()
    narrow = nn.Parameter(weights[0].detach().float())
    other = nldsl.optimizer("adamw", [narrow], lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    for name, value in other.state[narrow].items():
        assert value.dtype == torch.float32
        assert torch.equal(value, optimizer.state[weights[0]][name].float())
