"""Element-wise rules as one loop in C: the same numbers as torch, on any shape, or a reason why not."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import nldsl
from nldsl.assets import specs_folder
from nldsl.certify import rules_in
from nldsl.diagnostics import SpecError
from nldsl.runtime import native, rule_bundle, rule_gradients
from nldsl.spec.open_rule import open_rule
from nldsl.spec.program import GroupRule

needs_compiler = pytest.mark.skipif(not native.compiler(), reason="no C compiler")
SHAPES = [(5, 3), (33,), (), (2, 3, 4)]
OPTIONS = [
    "sgd(lr = 0.02, momentum = 0.9, decay = 0.1, dampening = 0.2)",
    "rmsprop(lr = 0.02, momentum = 0.5, centered = true)",
    "ademamix(lr = 0.02, warmup = 9)",
    "lookahead(radam(lr = 0.02), slow = 4)",
    'nonlinear_momentum(lr = 0.02, sigma = "sign")',
    "rule every_function(lr) { W -= lr * (sigmoid(g) + silu(g) + relu(g) + sin(g) * cos(g) + erf(g)"
    " + minimum(g, 1) + where(g > 0, abs(g), exp(g)) + log(1 + g ** 4)) }",
]


def elementwise() -> list[str | GroupRule]:
    """The rules of the library with a loop, and some with other options."""
    names = sorted(p.stem for p in (specs_folder() / "rules").glob("*.nl"))
    found: list[str | GroupRule] = list(OPTIONS)
    for group in (g for name in names for g in rules_in(name, {})):
        try:
            made = nldsl.optimizer(group, [nn.Parameter(torch.zeros(3, 2))])
        except SpecError:
            continue  # a rule that wants layers
        kernel = next(iter(made.kernels.values()))
        if kernel.native and kernel.form == "elementwise":
            found.append(group)
    return found


RULES = elementwise()


def run(rule: str | GroupRule, form: str, dtype: torch.dtype, steps: int = 12) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda shape: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)  # noqa: E731
    weights = [nn.Parameter(draw(shape)) for shape in SHAPES]
    given = {"lr": 0.02} if isinstance(rule, str) and rule.startswith("rule ") else {}
    optimizer = nldsl.optimizer(rule, weights, form=form, **given)
    assert {f for f, _ in optimizer.forms().values()} == {form}
    for _ in range(steps):
        for w in weights:
            w.grad = draw(w.shape)
        optimizer.step()
    kept = [v for s in optimizer.state.values() for v in s.values()]
    return [*(w.detach() for w in weights), *kept]


def name_of(rule: str | GroupRule) -> str:
    return rule.partition("(")[0] if isinstance(rule, str) else rule.rule


def test_most_rules_have_a_loop() -> None:
    assert {"adamw", "lion", "nadam", "radam", "schedule_free", "lookahead"} <= {name_of(r) for r in RULES}


@needs_compiler
@pytest.mark.parametrize("rule", RULES, ids=[f"{name_of(r)}-{i}" for i, r in enumerate(RULES)])
def test_the_loop_computes_what_torch_does(rule: str | GroupRule) -> None:
    for ours, theirs in zip(
        run(rule, "compiled", torch.float64), run(rule, "eager", torch.float64), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@needs_compiler
def test_the_loop_in_single_precision() -> None:
    for ours, theirs in zip(
        run("adamw(lr = 0.01)", "compiled", torch.float32),
        run("adamw(lr = 0.01)", "eager", torch.float32),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@needs_compiler
def test_weights_that_cannot_be_looped_over_take_the_other_way() -> None:
    """A transposed weight is not contiguous; a moved one has another address; both are trained right."""
    generator = torch.Generator().manual_seed(0)
    start, g = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    plain, turned, moved = (nn.Parameter(start.clone()) for _ in range(3))
    turned.data = start.T.contiguous().T
    optimizers = [nldsl.optimizer("adam", [w], lr=0.1, form="compiled") for w in (plain, turned, moved)]
    for step in range(3):
        if step == 1:
            moved.data = moved.data.clone()
            state = optimizers[2].state[moved]
            state["m"] = state["m"].clone()
        for w, optimizer in zip((plain, turned, moved), optimizers, strict=True):
            w.grad = g.clone()
            optimizer.step()
    torch.testing.assert_close(plain, turned, rtol=1e-12, atol=1e-12)
    assert torch.equal(plain, moved)


def test_the_choice_and_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    small = nldsl.optimizer("adamw", [("w", nn.Parameter(torch.zeros(9)))], lr=0.1)
    assert small.forms()["w"][0] == "eager" and "too few" in small.forms()["w"][1]
    large = nldsl.optimizer("adamw", [("w", nn.Parameter(torch.zeros(300, 300)))], lr=0.1)
    if native.compiler():
        assert large.forms()["w"] == ("compiled", "one pass over weight, gradient and memories")
    muon = nldsl.optimizer("muon", [("w", nn.Parameter(torch.zeros(300, 300)))], lr=0.1)
    assert muon.forms()["w"][0] == "matrix" and "orthogonalize" in muon.forms()["w"][1]
    monkeypatch.setattr(rule_bundle, "compiler", lambda: "")
    assert "no C compiler" in large.forms()["w"][1]
    forced = nldsl.optimizer("adamw", [nn.Parameter(torch.zeros(9))], lr=0.1, form="compiled")
    forced.param_groups[0]["params"][0].grad = torch.zeros(9)
    with pytest.raises(SpecError, match="NL0968"):
        forced.step()


@pytest.mark.parametrize("named", ["/bin/false", "/nowhere/cc", __file__])
def test_a_compiler_that_makes_nothing(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses, it is not there, it cannot be run: torch does it, the choice says so, NaN is found."""
    uncached = native.compiled.__wrapped__
    for module in (native, rule_bundle, rule_gradients):
        monkeypatch.setattr(module, "compiler", lambda: named)
        monkeypatch.setattr(module, "compiled", uncached)
    weight = nn.Parameter(torch.ones(300, 300))
    optimizer = nldsl.optimizer("adamw", [("w", weight)], lr=0.1)
    assert optimizer.forms()["w"] == ("eager", f"`{named}` makes no loop that runs here")
    weight.grad = torch.ones(300, 300)
    optimizer.step()
    assert weight.detach().lt(1.0).all()
    with pytest.raises(SpecError, match="NL0968"):
        nldsl.optimizer("adamw", [weight], lr=0.1, form="compiled").step()
    weight.grad[299, 299] = float("nan")
    with pytest.raises(SpecError, match="NL0967"):
        optimizer.step()


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("place", [0, 300, 511, 4095, 65535, 69999])
@pytest.mark.parametrize("what", [float("nan"), float("inf"), float("-inf")])
def test_no_bad_gradient_escapes_the_loop(dtype: torch.dtype, place: int, what: float) -> None:
    """Wherever it stands among the streams, blocks and rests, and with two threads as with one."""
    good = torch.full((70000,), -torch.finfo(dtype).max, dtype=dtype)
    bad = good.clone()
    bad[place] = what
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert rule_gradients.all_finite([good, good[:7]])
            assert not rule_gradients.all_finite([good[:7], bad, good])
    finally:
        torch.set_num_threads(before)


@needs_compiler
@pytest.mark.parametrize("size", [383, 384, 385, 512, 1151, 70001])
def test_blocks_and_streams_cover_every_element_once(size: int) -> None:
    weights = [nn.Parameter(torch.arange(float(size))) for _ in range(3)]
    for w in weights:
        w.grad = torch.ones(size)
    nldsl.optimizer("sgd", weights, lr=1.0, form="compiled").step()
    assert all(torch.equal(w.detach(), torch.arange(float(size)) - 1) for w in weights)


def test_nothing_a_text_says_gets_into_the_loop() -> None:
    rule = open_rule("rule mine(lr, odd_name_xyz = 2) { W -= lr * odd_name_xyz * g }", lr=0.1)
    made = nldsl.optimizer(rule, [nn.Parameter(torch.zeros(3))])
    text = next(iter(made.kernels.values())).native
    assert text and "odd_name_xyz" not in text and "lr" not in text


MODEL = "model m(tokens) { return head(norm(embed(tokens, 16, 8)), 16) }\n"


def test_explain_says_how_every_weight_is_trained() -> None:
    text = MODEL + "train m { head by dgd(lr = 0.1); embeddings by muon(lr = 0.1); norms by adamw(lr = 0.1) }"
    forms = {row.path: row.form for row in nldsl.explain(text).parameters}
    assert [forms[p].partition(":")[0] for p in sorted(forms)] == ["matrices", "linear layers", "vectors"]
    assert "one loop in C" in forms["out.norm.weight"]


def test_a_rule_on_weights_it_cannot_train_is_a_finding_of_check() -> None:
    found = nldsl.check(MODEL + "train m { rest by soap(lr = 0.1) }\n")
    assert found == []
    (finding,) = nldsl.check(MODEL + "train m { rest by muon(lr = 0.1) }\n")
    assert finding.code == "NL0607" and "`out.norm.weight`" in finding.message


ELSEWHERE = """
import pickle, sys, torch
optimizer = pickle.load(open(sys.argv[1], "rb"))
p = optimizer.param_groups[0]["params"][0]
p.grad = torch.ones_like(p)
optimizer.step()
optimizer.add_param_group({"params": [torch.zeros(7, requires_grad=True)]})
said = [optimizer.source, optimizer.bounds, optimizer.forms(), p.detach()]
pickle.dump(said, open(sys.argv[1], "wb"))
"""


@needs_compiler
def test_what_is_pickled_to_another_process_is_the_same_there(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = nldsl.optimizer("adamw", [weight], lr=0.1, form="compiled")
    place = tmp_path / "optimizer.pickle"
    place.write_bytes(pickle.dumps(optimizer))
    subprocess.run([sys.executable, "-c", ELSEWHERE, str(place)], check=True)
    source, bounds, forms, there = pickle.loads(place.read_bytes())
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert source == optimizer.source and bounds == optimizer.bounds and "lr" in bounds
    assert {form for form, _ in forms.values()} == {"compiled"} and len(forms) == 2
    assert torch.equal(weight, there)


@needs_compiler
@pytest.mark.parametrize("form", ["eager", "compiled", "auto"])
@pytest.mark.parametrize("rule", ["adamw(lr = 0.01)", "sgd(lr = 0.01)", "lion(lr = 0.01)"])
def test_a_step_given_to_torch_compile_is_the_same(rule: str, form: str) -> None:
    """Traced, a loop in C would be given addresses of nothing, and lists what only torch traces."""

    def trained(compiled: bool) -> list[Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).double()
        optimizer = nldsl.optimizer(rule, net)
        optimizer.form = form
        step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
        for _ in range(6):
            optimizer.zero_grad()
            net(torch.randn(8, 6, dtype=torch.float64)).square().mean().backward()
            step()
        return [p.detach() for p in net.parameters()]

    torch._dynamo.reset()
    for plain, own in zip(trained(False), trained(True), strict=True):
        assert torch.equal(plain, own)


@needs_compiler
def test_a_form_that_is_assigned_holds_from_the_next_step_on() -> None:
    weight = nn.Parameter(torch.ones(4))
    optimizer = nldsl.optimizer("adamw", [weight], lr=0.1, form="eager")
    for form in ("eager", "compiled", "eager"):
        optimizer.form = form
        weight.grad = torch.ones(4)
        optimizer.step()
        assert {choice.step is not None for choice in optimizer.choices.values()} == {form == "compiled"}
    with pytest.raises(SpecError, match="`form` is one of auto, eager, compiled; found `fast`"):
        optimizer.form = "fast"
    with pytest.raises(SpecError, match="`nonfinite` is one of"):
        optimizer.nonfinite = "never"
    assert optimizer.form == "eager" and copy.deepcopy(optimizer).form == "eager"
