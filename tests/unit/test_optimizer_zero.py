"""`nonfinite = "zero"` in the loop in C: what the look before the step did, to the last bit."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import nldsl
from nldsl.runtime import native, rule_gradients
from nldsl.runtime.rule_gradients import TAKEN, zeroing
from nldsl.runtime.rule_optimizer import RuleOptimizer

pytestmark = pytest.mark.skipif(not native.compiler(), reason="no C compiler")
MINE = """rule mine(lr, beta = 0.9) {
  memory m = like(W)
  memory n = like(step)
  m = beta * m + (1 - beta) * g
  n = n * 0.5 + 1
  W = W - lr * n * (0.3 * sign(m) + 0.7 * m / (1 + abs(m)))
}
"""
RULES = ["adamw", "lion", "sgd", MINE]
SHAPES = [(40, 30), (7,), (), (513, 3), (70001,)]
BAD = [float("nan"), float("inf"), float("-inf")]
BAD_STEPS = (0, 1, 4)
"""The first one, the first of a lineup, and one among good ones."""


@pytest.fixture(params=[1, 2], ids=lambda n: f"{n} threads")
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def weights(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)) for s in SHAPES]


def gradients(step: int, dtype: torch.dtype) -> list[Tensor]:
    """Drawn; in bad steps what is not finite stands first, last, at odd places and twice in a block."""
    generator = torch.Generator().manual_seed(step)
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in SHAPES]
    if step in BAD_STEPS:
        for number, place in enumerate((0, 1, 383, 384, 16383, 35001, 70000)):
            drawn[4].view(-1)[place] = BAD[(number + step) % 3]
        drawn[0].view(-1)[-1] = BAD[step % 3]
        drawn[2].fill_(BAD[(step + 1) % 3])
        drawn[1][3] = torch.finfo(dtype).max
    return drawn


def made(rule: str, params: list[nn.Parameter], **settings: object) -> RuleOptimizer:
    groups = [{"params": params[:2], "lr": 0.01}, {"params": params[2:], "lr": 0.02}]
    return nldsl.optimizer(rule, groups, lr=0.5, **settings)  # type: ignore[arg-type]


def run(rule: str, dtype: torch.dtype, cleaned: bool, **settings: object) -> tuple[list[Tensor], list[str]]:
    """Everything behind six steps and what was said; `cleaned`: of gradients made finite before."""
    params, said = weights(dtype), list[str]()
    optimizer = made(rule, params, **settings)
    for step in range(6):
        for p, g in zip(params, gradients(step, dtype), strict=True):
            p.grad = torch.nan_to_num(g, nan=0.0, posinf=0.0, neginf=0.0) if cleaned else g
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimizer.step()
        said += [str(warning.message) for warning in caught]
    states = [t for p in params for t in optimizer.state[p].values()]
    return [*(p.detach() for p in params), *states, *(p.grad for p in params if p.grad is not None)], said


def check(rule: str, dtype: torch.dtype, form: str) -> None:
    """The loop against a loop on finite gradients, to the last bit, and against torch."""
    found, said = run(rule, dtype, False, form=form, nonfinite="zero")
    clean, nothing = run(rule, dtype, True, form=form, nonfinite="ignore")
    assert all(torch.equal(a, b) for a, b in zip(found, clean, strict=True)) and not nothing
    eager, told = run(rule, dtype, False, form="eager", nonfinite="zero")
    assert said == told and len(said) == len(BAD_STEPS)
    for ours, theirs in zip(found, eager, strict=True):
        rtol = 1e-9 if dtype == torch.float64 else 1e-4
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rule", RULES, ids=["adamw", "lion", "sgd", "mine"])
def test_the_loop_takes_what_is_not_finite_as_zero(rule: str, dtype: torch.dtype, threads: int) -> None:
    check(rule, dtype, "compiled")


def test_in_half_precision_there_is_no_loop_and_the_look_stays() -> None:
    check("adamw", torch.bfloat16, "auto")


def test_what_is_said() -> None:
    _, said = run("adamw", torch.float64, False, form="compiled", nonfinite="zero")
    assert said[2] == (
        "at step 5 the gradient of parameter 0 of group 0 (1 of 1200 elements), parameter 0 of group 1 "
        "(1 of 1 elements), parameter 2 of group 1 (7 of 70001 elements) is not finite: taken as zero"
    )


FAULTS = {
    "infinity is let through": ("== MASK;", "== MASK && (all & (MASK & -MASK) - 1);"),
    "the sign counts": ("(all & MASK) == MASK", "all == MASK"),
    "nothing is said": ("*found |= not_finite;", ""),
    "it is said and not done": ("not_finite ? 0 : x", "x"),
    "the largest number is no number": ("(all & MASK) == MASK", "(all & MASK) >= MASK - (MASK & -MASK)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = FAULTS[fault]
    assert right in TAKEN
    monkeypatch.setattr(rule_gradients, "TAKEN", TAKEN.replace(right, wrong))
    rule_gradients._zeroing.cache_clear()
    with pytest.raises(AssertionError):
        check("adamw", torch.float64, "compiled")
    rule_gradients._zeroing.cache_clear()


def test_options_that_deny_nan_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not `-ffast-math`: a library linked with it rounds denormal numbers of the whole process to zero.
    monkeypatch.setenv(native.MORE, "-ffinite-math-only")
    monkeypatch.setattr(rule_gradients, "compiled", native.compiled.__wrapped__)
    rule_gradients._zeroing.cache_clear()
    found, said = run(MINE, torch.float64, False, form="compiled", nonfinite="zero")
    rule_gradients._zeroing.cache_clear()
    clean, _ = run(MINE, torch.float64, True, form="compiled", nonfinite="ignore")
    assert len(said) == len(BAD_STEPS)
    for ours, theirs in zip(found, clean, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("policy", ["raise", "skip", "ignore"])
def test_other_policies_do_not_pay_for_it(policy: str) -> None:
    params = weights()
    optimizer = made("adamw", params, form="compiled", nonfinite=policy)
    for step in (2, 3):
        for p, g in zip(params, gradients(step, torch.float64), strict=True):
            p.grad = g
        optimizer.step()
    assert len(optimizer.lineups) == 2
    assert not any("zeroing" in vars(lineup) for lineup in optimizer.lineups.values())


def test_nothing_is_looked_at_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before a lineup is made nor with it; what no loop takes is, and what a lineup does not zero."""
    looked: list[int] = []
    real = rule_gradients.all_finite
    note = lambda found, native=True: (looked.append(len(found)), real(found, native))[1]  # noqa: E731
    monkeypatch.setattr(rule_gradients, "all_finite", note)
    monkeypatch.setattr(rule_gradients, "_looped_finite", lambda *_: looked.append(-1) or True)
    params = weights()
    params[0].data = params[0].data.t().contiguous().t()
    optimizer = made("adamw", params, form="compiled", nonfinite="zero")
    for step in (2, 3):
        for p, g in zip(params, gradients(step, torch.float64), strict=True):
            p.grad = g
        optimizer.step()
    assert looked == [1, 1]
    optimizer.nonfinite = "skip"
    optimizer.step()
    assert looked == [1, 1, -1, 2]


def test_weights_with_a_loop_and_without_are_named_together() -> None:
    """A transposed weight has none; its gradients are made finite before the step, the others behind it."""
    said = {}
    kept = {}
    for form in ("compiled", "eager"):
        params = weights()
        params[0].data = params[0].data.t().contiguous().t()
        optimizer = made("adamw", params, form=form, nonfinite="zero")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for step in range(5):
                for number, (p, g) in enumerate(zip(params, gradients(step, torch.float64), strict=True)):
                    p.grad = g if step == 4 or number else torch.ones_like(g)
                optimizer.step()
        said[form] = [str(w.message) for w in caught]
        kept[form] = [*params, *(p.grad for p in params)]
    assert said["compiled"] == said["eager"] and len(said["eager"]) == 3
    assert "parameter 0 of group 0" in said["eager"][2] and "parameter 0 of group 0" not in said["eager"][1]
    for ours, theirs in zip(kept["compiled"], kept["eager"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
        assert bool(torch.isfinite(ours).all())


def test_sums_of_a_slow_clock_that_overflow_stay_as_they_are() -> None:
    """Every gradient is finite, so nothing is taken as zero: a weight shows that training has diverged."""
    for form in ("compiled", "eager"):
        weight = nn.Parameter(torch.zeros(5))
        optimizer = nldsl.optimizer("sgd", [weight], lr=1.0, every=2, form=form, nonfinite="zero")
        for _ in range(2):
            weight.grad = torch.full((5,), torch.finfo(torch.float32).max)
            optimizer.step()
        assert torch.equal(weight.detach(), torch.full((5,), float("-inf")))


def test_rules_with_sums_are_looked_at_before() -> None:
    """What is added up would depend on how a compiler orders another text."""
    norm = "if rank(W) == 2 { n = sum(sum(g ** 2)) } else { n = sum(g ** 2) }"
    text = f"rule clipped(lr) {{ {norm} W = W - lr * g / sqrt(n + 1) }}"
    found = {}
    for form in ("compiled", "eager"):
        weight = nn.Parameter(torch.ones(500, dtype=torch.float64))
        optimizer = nldsl.optimizer(text, [weight], lr=0.1, form=form, nonfinite="zero")
        weight.grad = torch.arange(500, dtype=torch.float64)
        weight.grad[3] = float("nan")
        with pytest.warns(
            UserWarning, match=r"at step 1 .* \(1 of 500 elements\) is not finite: taken as zero"
        ):
            optimizer.step()
        found[form] = weight.detach()
        assert zeroing(optimizer.kernel_of(weight), torch.float64) is None
    torch.testing.assert_close(found["compiled"], found["eager"], rtol=1e-12, atol=0.0)


def test_a_warning_made_an_error_comes_when_the_step_is_done() -> None:
    params = weights()
    optimizer = made("adamw", params, form="compiled", nonfinite="zero")
    for p, g in zip(params, gradients(0, torch.float64), strict=True):
        p.grad = g
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="at step 1 .* taken as zero"):
            optimizer.step()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in params)
    assert {float(optimizer.state[p]["step"]) for p in params} == {1.0}


def test_a_copy_takes_zero_too() -> None:
    params = nn.ParameterList(weights())
    optimizer = nldsl.optimizer("adamw", list(params), lr=0.1, form="compiled", nonfinite="zero")
    for p, g in zip(params, gradients(2, torch.float64), strict=True):
        p.grad = g
    optimizer.step()
    twin, other = copy.deepcopy((params, optimizer))
    for owner, stepped in ((params, optimizer), (twin, other)):
        for p, g in zip(owner, gradients(4, torch.float64), strict=True):
            p.grad = g
        with pytest.warns(UserWarning, match="at step 2"):
            stepped.step()
    assert all(torch.equal(a, b) for a, b in zip(params, twin, strict=True))
