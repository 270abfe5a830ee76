"""Matrix memories that begin anew by their own clock: parallel, and equal to the interpreter."""

from __future__ import annotations

import re
from typing import Any
from unittest import mock

import pytest
import torch

from nldsl.certify.verify import verify
from nldsl.driver import compile
from nldsl.graph import open_program
from nldsl.lowerings.forms import plan_program
from nldsl.plan.export import against_export
from nldsl.runtime import matrix_resets, past_lessons
from nldsl.runtime.grid import ChunkGrid
from nldsl.view.lowering import lowering_rows
from tests.conformance.agreement import compiled, disagreements, inputs_of, run_compiled
from tests.conformance.test_matrix_memories import FORMS, program

PERIODS = {
    "gla_root": 4, "value_wave": 1, "kda_steep": 4, "places": 5, "rwkv7": 2, "delta_product": 3,
    "comba": 8, "toward_init": 2, "shifted": 3, "oja_channel": 1, "titans": 5, "titans_init": 2,
    "nesterov": 4, "coupled": 2, "momentum_terms": 5, "momentum_value_channels": 4, "omega": 3,
    "omega_dgd": 1, "omega_two": 5, "mesa_places": 2, "momentum_elements": 2, "mamba1": 3,
    "element_delta": 4, "without_heads": 5,
}  # fmt: skip
"""Forms of `test_matrix_memories`, and the tokens between two resets."""


def resetting(name: str, every: int) -> str:
    """A form whose memories begin anew by their own clock."""
    text = re.sub(r"init (zero|learned)", rf"init \1 reset every {every} tokens", FORMS[name][1])
    assert text != FORMS[name][1]
    return text


@pytest.mark.parametrize("name", PERIODS)
def test_equals_the_interpreter(name: str) -> None:
    """The form it has without resets; calls that begin and end anywhere, samples at different counts."""
    layer = compiled(resetting(name, PERIODS[name]), x=8)
    assert [u.lowering for b in layer.plan.blocks for u in b.units if u.memories] == [FORMS[name][0]]
    mask = torch.rand(3, 8, generator=torch.Generator().manual_seed(1)) > 0.3
    mask[1] = False
    assert disagreements(layer, tokens=9) == []
    assert disagreements(layer, tokens=8, batch=3, mask=mask, pieces=(1, 3, 0, 4)) == []
    assert disagreements(layer, tokens=11, batch=1, pieces=(2, 5, 4)) == []


def test_lessons_of_a_window_are_forgotten() -> None:
    """What stays in the state is what the form token by token leaves, whether anything looks at it or not."""
    text = resetting("omega", 4)
    mask = torch.tensor([[True] * 9, [True] * 5 + [False] * 4])
    found = []
    for lowering in ("auto", "sequential"):
        layer = compiled(text, lowering, x=8)
        found.append(run_compiled(layer, inputs_of(layer, 2, 9), mask)[1].tensors())
    assert any("windows" in name for name in found[0])
    assert all(torch.allclose(found[0][name], x, atol=1e-9) for name, x in found[1].items())


@pytest.mark.parametrize("every", [5, 32, 33, 100])
def test_periods_beside_the_chunks_of_the_kernels(every: int) -> None:
    """Shorter and longer than a chunk, and no multiple of one; one sample runs late."""
    layer = compiled(resetting("kda", every), x=8)
    mask = torch.ones(2, 140, dtype=torch.bool)
    mask[1, 3:40:2] = False
    assert disagreements(layer, tokens=140, mask=mask, pieces=(20, 120)) == []


@pytest.mark.parametrize(
    "name", ["omega", *(pytest.param(n, marks=pytest.mark.long) for n in ("grouped", "titans", "mamba1"))]
)
def test_verify_is_green(name: str) -> None:
    """Every form against the interpreter: splits, masks, gradients, slopes, float32."""
    certificate = verify(resetting(name, 3), x=8)
    assert certificate.passed, certificate.failures()


def test_a_memory_that_outlives_its_sequence_is_parallel() -> None:
    text = FORMS["grouped"][1].replace("init zero", "init zero reset never")
    layer = compiled(text, x=8)
    assert [u.lowering for b in layer.plan.blocks for u in b.units if u.memories] == ["delta"]
    assert layer.plan.blocks[0].block.memories[0].reset == "never"
    assert disagreements(layer, tokens=7, pieces=(3, 4)) == []


@pytest.mark.parametrize("name", ["titans", "kda", "mamba1"])
def test_half_precision(name: str) -> None:
    """States keep the type that they have without resets; two calls, values near those of float32."""
    x = torch.randn(2, 23, 8, generator=torch.Generator().manual_seed(0))
    wide, half = (compile(resetting(name, 4), x=8, dtype=d) for d in (torch.float32, torch.bfloat16))
    a, state = half(x[:, :9].bfloat16())
    b, state = half(x[:, 9:].bfloat16(), state=state)
    plain = compile(FORMS[name][1], x=8, dtype=torch.bfloat16)(x.bfloat16())[1].tensors()
    assert {n: t.dtype for n, t in state.tensors().items()} == {n: t.dtype for n, t in plain.items()}
    want = wide(x)[0].detach()
    assert float((torch.cat([a, b], 1).detach().float() - want).abs().max() / want.abs().max()) < 0.05


def test_the_plan_says_so() -> None:
    """No chunk is longer than a period, and no graph of one shape knows where a period ends."""
    plan = plan_program(open_program(resetting("kda", 5), x=8))
    (row,) = lowering_rows(plan)
    assert (row.lowering, row.chunk) == ("delta_channel", 5)
    assert "every 5 tokens between two resets are a sample of their own" in row.reason
    assert "`S`" in against_export(plan)
    assert against_export(plan_program(open_program(FORMS["kda"][1], x=8))) == ""


def test_a_start_that_moves_is_told() -> None:
    text = program(
        "P[k] <- v minimize l2 by gd(lr = beta)\nS[k] <- v minimize l2 by gd(lr = beta)",
        "S[q] + P[q]",
        more="memory P = matrix() per head",
    ).replace(
        "memory S = matrix() per head init zero", "memory S = matrix() per head init P reset every 4 tokens"
    )
    layer = compiled(text, x=8)
    verdicts = [v for b in layer.plan.blocks for u in b.units for v in u.verdicts if v.family == "recurrence"]
    assert ["not a plain parameter" in v.reason for v in verdicts] == [True]
    assert disagreements(layer, tokens=6) == []


def _all_carried(original: Any) -> Any:
    """Every period goes on where the call began."""

    def begun(self: Any, states: Any, part: Any) -> Any:
        anew = self.resets
        self.resets = anew._replace(fresh=states)
        found = original(self, states, part)
        self.resets = anew
        return found

    return begun


def _unfinished(original: Any) -> Any:
    """The state of a period that is over is kept."""

    def last(self: Any, found: Any) -> Any:
        anew = self.resets
        self.resets = anew._replace(every=10**6)
        made = original(self, found)
        self.resets = anew
        return made

    return last


def _from_zero(original: Any) -> Any:
    """Where in its period a call begins is forgotten."""
    return lambda count, mask, tokens, chunk: original(torch.zeros_like(count), mask, tokens, chunk)


FAULTS = {
    "nothing is reset": ("titans", 3, matrix_resets.Periods, "begun", _all_carried),
    "no reset at the end of a call": ("grouped", 4, matrix_resets.Periods, "last", _unfinished),
    "periods counted from the call": ("mamba1", 3, matrix_resets, "ChunkGrid", _from_zero),
    "lessons of the period before": ("omega", 3, past_lessons, "_since", lambda f: lambda w, age: w),
    "only the last period": (
        "grouped", 4, matrix_resets.Periods, "_standing",
        lambda f: lambda self, states: states[-1].unflatten(0, (-1, self.parts[-1].periods))[:, -1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_seeded_faults_are_found(name: str) -> None:
    form, every, owner, attribute, change = FAULTS[name]
    mask = torch.ones(2, 11, dtype=torch.bool)
    mask[1, 5:] = False
    assert matrix_resets.ChunkGrid is ChunkGrid
    with mock.patch.object(owner, attribute, change(getattr(owner, attribute))):
        layer = compiled(resetting(form, every), x=8)
        found = disagreements(layer, tokens=8, pieces=(2, 6))
        found += disagreements(layer, tokens=11, mask=mask, pieces=(2, 9))
    assert found
