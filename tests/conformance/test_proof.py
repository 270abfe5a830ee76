"""The wider checks of `verify`: every form, slopes, long sequences, graphs; each of them can fail."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nldsl.certify import Certificate, verify
from nldsl.certify.bench import Build, build_module, call, other_forms
from nldsl.certify.forget import entry, forgotten
from nldsl.certify.lasting import Endurance, alive, rounding
from nldsl.certify.lasting_task import alive_task
from nldsl.driver.compile import emit, plan_of
from nldsl.emit.loader import load_module
from nldsl.graph import open_program
from nldsl.plan.export import against_export
from nldsl.plan.plan import Plan
from nldsl.reference import primitives
from nldsl.runtime.model import Layer
from tests.conformance.faults import HELD, STEPS

torch.set_num_threads(1)

SUM = """
block sums(x, heads = 2) {
  level context every 1 token { memory S = matrix() per head }
  S[split(linear(x), heads)] <- split(silu(linear(x)), heads)  minimize dot  by gd(lr = 0.1)  retain 0.9
  return linear(merge(S[split(linear(x), heads)]))
}
"""
RATE = """
block rated(x, keep = 0.9) {{
  level context every 1 token {{ memory S = matrix() init learned }}
  S[l2norm(linear(x))] <- linear(x)  minimize l2  by gd(lr = {lr})  retain keep
  return x + S[l2norm(linear(x))]
}}
"""


def check(certificate: Certificate, name: str) -> Any:
    """The result of the check of this name, in the last section that has it."""
    return next(c for s in reversed(certificate.sections) for c in s.checks if c.name == name)


def faulty(wanted: Any, old: str, new: str) -> Build:
    """A compiler whose text is edited for some plans."""

    def build(plan: Plan) -> Layer:
        text = emit(plan)
        if wanted(plan):
            assert old in text, text
            text = text.replace(old, new)
        module: Layer = load_module(text, "faulty").build(0)
        return module

    return build


# --- every lowering that accepts -------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "forms"),
    [
        (SUM, {"recurrence form": "linear", "sequential form": "sequential"}),
        (HELD, {"sequential form": "sequential", "checkpointed form": "chunk"}),
        (STEPS, {}),
    ],
)
def test_every_form_that_accepts_is_run(source: str, forms: dict[str, str]) -> None:
    plan = plan_of(open_program(source, dim=8))
    found = dict(other_forms(plan))
    assert {label: other.rows()[-1][2] for label, other in found.items()} == forms
    assert len({emit(other) for other in (plan, *found.values())}) == len(found) + 1


def test_a_fault_in_a_form_that_is_not_chosen_is_found() -> None:
    wanted = lambda plan: plan.target.family == "recurrence"  # noqa: E731
    certificate = verify(SUM, dim=8, build=faulty(wanted, "0.1 *", "0.1001 *"))
    assert [c.name for c in certificate.failures()] == ["other forms"]
    assert certificate.failures()[0].where.startswith("recurrence form")


# --- finite differences ----------------------------------------------------------------------


class _Silu(torch.autograd.Function):
    """Right values, a gradient that is one part in a thousand off: both sides would agree on it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return 1.001 * grads[0] * (s + x * s * (1 - s))


def test_a_gradient_that_is_wrong_on_both_sides_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.functional, "silu", _Silu.apply)
    monkeypatch.setitem(primitives.MEANINGS, "silu", lambda values, *_: _Silu.apply(values[0]))
    certificate = verify(SUM, dim=8)
    assert check(certificate, "gradients").passed
    assert [c.name for c in certificate.failures()] == ["finite differences"]


def test_slopes_go_through_two_writes_of_the_slowest_memory() -> None:
    result = check(verify(HELD, dim=8), "finite differences")
    assert result.passed and result.cases == 5 and 0.0 < result.error < 1e-6


def test_what_cuts_its_gradient_is_left_out() -> None:
    result = check(
        verify(SUM.replace("linear(x), heads)]))", "detach(x), heads)]))"), dim=8), "finite differences"
    )
    assert result.passed and result.cases == 0 and "`detach`" in result.note


# --- long sequences --------------------------------------------------------------------------


def endurance(source: str, **arguments: Any) -> Endurance:
    return Endurance(open_program(source, **arguments), build_module, 0)


def test_a_memory_that_lives() -> None:
    found = list(alive(endurance(RATE.format(lr=0.1), dim=4)))
    assert len(found) == 5 and all(f.good for f in found)


@pytest.mark.parametrize(
    ("lr", "keep", "said"),
    [
        (0.0, 1.0005, "it grows faster"),
        (0.1, 1.05, "it blows up; a smaller rate"),
        (0.0, 0.9, "moved by 0% in the last 2048 tokens: it is dead, its norm is"),
        (0.0, 1.0, "moved by 0% in the last 2048 tokens: it stands still"),
        (1e-6, 1.0, "memories do no more than their starts"),
    ],
)
def test_a_memory_that_grows_or_dies(lr: float, keep: float, said: str) -> None:
    found = [f.where for f in alive(endurance(RATE.format(lr=lr), dim=4, keep=keep)) if not f.good]
    assert any(said in where for where in found), found


TASK = """
model m(tokens, keep = 0.99, lr = 0.001) {
  level f every 64 tokens { memory F = mlp(1) }
  x = embed(tokens, 16, 4)
  F minimizes task by gd(lr = lr) retain keep toward init
  return head(x + F[norm(x)], 16)
}
"""


@pytest.mark.parametrize(
    ("keep", "lr", "said"), [(0.99, 0.001, ""), (0.99, 0.0, "moved by 0%"), (1.05, 0.001, "norm")]
)
def test_a_task_memory_that_lives_grows_or_dies(keep: float, lr: float, said: str) -> None:
    found = list(alive_task(endurance(TASK, keep=keep, lr=lr)))
    bad = [f.where for f in found if not f.good]
    assert len(found) == 4 and (any(said in where for where in bad) if said else not bad), found


def test_what_is_forgotten_keeps_its_clock() -> None:
    """Memories of one loop count alike: what the others hold does not depend on who has forgotten."""
    text = """
    block b(x) {
      level a every 4 tokens { memory M = mlp(1) }
      level c every 6 tokens { memory N = mlp(1) }
      M[l2norm(linear(x))] <- linear(x) by gd(lr = 0.1)
      y = M[linear(x)]
      N[l2norm(linear(y))] <- linear(x) by gd(lr = 0.1)
      return y, N[linear(x)]
    }
    """
    subject = endurance(text, x=4)
    with torch.no_grad():
        _, state = call(subject.module, subject.inputs(11, "first"))
        place = next(p for p in subject.places if p.path.endswith("N"))
        lost = forgotten(state, subject.module.init_state(1), (place,))
        more = subject.inputs(8, "more")
        (y, z), after = call(subject.module, more, state)
        (y2, z2), after2 = call(subject.module, more, lost)
    assert torch.equal(y, y2) and not torch.allclose(z, z2)
    counts = [entry(s, p)["count"] for s in (after, after2) for p in subject.places]
    assert all(torch.equal(c, counts[0]) for c in counts)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["gated_deltanet", "yaad", "titans_linear"])
def test_rounding_does_not_take_over(name: str, precision: str) -> None:
    program = open_program(name, dim=8, depth=1, heads=2, vocab=16)
    growth, findings = rounding(Endurance(program, build_module, 0), precision)
    assert all(f.good for f in findings)
    assert [g.tokens for g in growth] == [256, 1024, 4096]
    assert all(g.error is not None and g.error > 0 for g in growth)


def test_rounding_that_takes_over_is_found() -> None:
    """A sum whose values are rounded to float16 on the way: no longer what its type promises."""
    rough = "        v = v if v.element_size() == 8 else v.half().to(v.dtype)\n        S_write_split = "
    edited = faulty(lambda _: True, "        S_write_split = ", rough)
    program = open_program("linear_attention", block="linear_attention", dim=8)
    _, findings = rounding(Endurance(program, edited, 0), "float32")
    (first, *_) = findings
    assert first.error > 1e-5


ADAM = """
block inner(x, chunk = 16) {
  level context every chunk tokens { memory M = mlp(1) }
  M[l2norm(linear(x))] <- linear(x)  minimize l2  by adam(lr = 0.01)
  return linear(M[l2norm(linear(x))])
}
"""


def test_inner_adam_lives_in_bfloat16() -> None:
    """Its moments are corrected by 1 - 0.999^t, which bfloat16 rounds to zero."""
    _, findings = rounding(endurance(ADAM, dim=8), "bfloat16")
    first = next(findings)
    assert first.good and first.error < 0.1


def test_what_bfloat16_makes_zero_is_told() -> None:
    """Outputs of zero are off by one, and that is too much."""
    edited = faulty(
        lambda _: True, "        return out, new", "        return out * (out.element_size() > 2), new"
    )
    _, findings = rounding(Endurance(open_program(ADAM, dim=8), edited, 0), "bfloat16")
    first = next(findings)
    assert not first.good and "torch.autocast" in first.where


def test_the_long_section_of_a_certificate() -> None:
    certificate = verify(RATE.format(lr=0.0), dim=4, long=True)
    assert [c.name for c in certificate.failures()] == ["bounded and alive"]
    assert "over thousands of tokens it fails in: bounded and alive" in certificate.text()
    assert "compiled form and interpreter differ" not in certificate.text()


# --- graphs ----------------------------------------------------------------------------------


def test_torch_export_gives_the_same_numbers() -> None:
    certificate = verify(SUM, dim=8, exported=True)
    result = check(certificate, "torch.export")
    assert result.passed and result.cases == 3 and result.where.startswith("another input")


def test_an_export_that_remembers_its_example_is_found() -> None:
    old = "k_in = linear(x, self.S.key" if False else "return out, new"
    build = faulty(lambda _: True, old, "return out + __import__('random').random(), new")
    assert not check(verify(SUM, dim=8, exported=True, build=build), "torch.export").passed


@pytest.mark.parametrize("source", [HELD, STEPS])
def test_what_cannot_be_one_graph_says_why(source: str) -> None:
    certificate = verify(source, dim=8, exported=True)
    result = check(certificate, "torch.export")
    assert result.passed and result.cases == 0 and "NL0702" in result.note
    assert "`" in against_export(plan_of(open_program(source, dim=8)))


def test_torch_compile_gives_the_same_numbers() -> None:
    result = check(verify(SUM, dim=8, compiled=("aot_eager",)), "torch.compile, aot_eager")
    assert result.passed and result.cases == 3 and result.where.startswith("one graph")


@pytest.mark.long
@pytest.mark.parametrize("name", ["gated_deltanet", "hope_tiny", "transformer", "mamba"])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_torch_compile_of_models(name: str, backend: str) -> None:
    certificate = verify(name, compiled=(backend,), exported=True)
    assert certificate.passed


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["hope", "hope_tiny", "gated_deltanet", "titans_mlp", "mesanet", "transformer"]
)
def test_models_last(name: str) -> None:
    certificate = verify(name, long=True)
    assert certificate.passed
