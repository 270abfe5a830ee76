"""`nldsl bisect`: the first token, level and statement at which two forms or two specifications part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nldsl.catalog.forms import FORMS
from nldsl.certify.bench import Build
from nldsl.certify.bisect import Bisection, bisect
from nldsl.certify.traces import form_plan
from nldsl.cli import main
from nldsl.driver.compile import emit
from nldsl.emit.loader import load_module
from nldsl.graph import open_program
from nldsl.plan.plan import Plan
from nldsl.runtime.model import Layer
from tests.conformance.faults import HELD, STEPS

torch.set_num_threads(1)

TWO = """
block two(x, slow = 4, rate = 0.1) {
  level fast every 1 token { memory F = matrix() }
  level deep every slow tokens { memory D = mlp(1) }
  k = l2norm(linear(x))
  u = tanh(linear(x))
  F[k] <- u  minimize l2  by gd(lr = 0.3)  retain 0.9
  D[k] <- u  minimize l2  by gd(lr = rate)
  y = F[k] + D[k]
  return linear(y)
}
"""
FORMS_OF = ("interpreter", "compiled")


def faulty(old: str, new: str) -> Build:
    """A compiler whose text is edited."""

    def build(plan: Plan) -> Layer:
        text = emit(plan)
        assert old in text, text
        module: Layer = load_module(text.replace(old, new), "faulty").build(0)
        return module

    return build


def parted(old: str, new: str) -> Bisection:
    program = open_program(TWO, dim=4)
    return bisect(program, program, FORMS_OF, build=faulty(old, new))


@pytest.mark.parametrize(("source", "forms"), [(TWO, 3), (HELD, 4), (STEPS, 2)])
def test_forms_of_a_program_do_not_part(source: str, forms: int) -> None:
    program = open_program(source, dim=8)
    found = [f for f in FORMS if f == "interpreter" or form_plan(program, f) is not None]
    assert len(found) >= forms
    for form in found[1:]:
        result = bisect(program, program, ("interpreter", form))
        assert result.first is None, result.text()
        assert result.compared > 8 and result.only == ((), ())


def test_a_fault_of_a_value_is_found_in_its_statement() -> None:
    found = parted("u = torch.tanh(", "u = 1.01 * torch.tanh(").first
    assert found is not None and (found.token, found.path, found.part) == (0, "u", "value")
    assert abs(found.second / found.first - 1.01) < 1e-6


def test_a_fault_of_the_fast_memory_is_found_in_its_level() -> None:
    result = parted('new["F"] = {"running": {"weight": ', 'new["F"] = {"running": {"weight": 1.01 * ')
    assert result.first is not None and result.first.token == 0
    assert (result.first.path, result.first.part) == ("F", "running weight")
    assert result.first.level == "level fast, every 1 token"
    assert [p.path for p in result.levels] == ["F"]


def test_a_fault_of_the_slow_memory_is_found_where_it_commits() -> None:
    """A commit that comes too late: reads differ from the token behind it, the memory at it."""
    result = parted(
        "D_held = held_pass(\n            grid,\n            4,",
        "D_held = held_pass(\n            grid,\n            8,",
    )
    assert result.first is not None and result.first.token == 3
    assert result.first.level == "level deep, every 4 tokens"
    assert result.first.part.startswith("committed")


def test_two_specifications_that_differ_in_one_rate() -> None:
    one, two = (open_program(TWO, dim=4, rate=rate) for rate in (0.1, 0.11))
    result = bisect(one, two, ("interpreter", "interpreter"))
    assert result.first is not None and result.first.token == 0 and result.first.path == "D"
    assert result.first.part.startswith("running") and result.only == ((), ())
    assert [p.level for p in result.levels] == ["level deep, every 4 tokens"]
    again = bisect(one, two, ("compiled", "compiled"))
    assert again.first is not None and (again.first.token, again.first.path) == (0, "D")


def test_two_specifications_on_other_clocks() -> None:
    one, two = (open_program(TWO, dim=4, slow=slow) for slow in (4, 2))
    result = bisect(one, two, ("interpreter", "interpreter"))
    assert result.first is not None and result.first.token == 1 and result.first.part.startswith("committed")


def test_what_only_one_has_is_said() -> None:
    more = TWO.replace("y = F[k] + D[k]", "y = F[k] + D[k] + linear(k)")
    result = bisect(open_program(TWO, dim=4), open_program(more, dim=4), ("interpreter", "interpreter"))
    assert result.only == ((), ("`y.linear.weight`",))
    assert result.first is not None and result.first.path == "y"
    assert "only in second: `y.linear.weight`" in result.text()


# --- the command -----------------------------------------------------------------------------


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as leaving:
        main(["bisect", *arguments])
    code = leaving.value.code
    assert isinstance(code, int)
    return code


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "two.nl"
    path.write_text(TWO)
    return str(path)


def test_the_command(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(spec, "--set", "dim=4", "--tokens", "9") == 0
    assert "no difference" in capsys.readouterr().out
    assert run(spec, f"{spec}@rate=0.2", "--set", "dim=4") == 1
    assert "first difference: token 0, level deep" in capsys.readouterr().out
    assert run(spec, f"{spec}@rate=0.2", "--set", "dim=4", "--json") == 1
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert data["first"]["token"] == 0 and data["first"]["path"] == "D" and not data["equal"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--forms", "compiled"), "NL1032"),
        (("--forms", "compiled,compiled"), "NL1032"),
        (("--forms", "interpreter,quick"), "NL1032"),
        (("--forms", "interpreter,checkpointed"), ""),
        (("--forms", "interpreter,recurrence"), ""),
        (("transformer@dim=16",), "NL1033"),
        (("nowhere",), "NL0801"),
        (("OTHER@dim=8",), "NL1033"),
    ],
)
def test_bad_requests(
    arguments: tuple[str, ...], code: str, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [a.replace("OTHER", spec) for a in arguments]
    assert run(spec, *given, "--set", "dim=4") == (2 if code else 0)
    assert code in capsys.readouterr().err


NUMBERED = """
block numbered(x, clocks = [1, 2, 4]) {
  y = x
  for c, i in clocks {
    level l every c tokens { memory S = matrix() init zero reset every 8 tokens }
    S[x] <- linear(y)  minimize dot  by gd(lr = 1)
    y = y + S[x]
  }
  return linear(y)
}
"""
"""Values called `y_S`, `y_S_1`, `y_S_2`, the first of them made in a loop: its sequence is no `y_S_2`."""


def test_names_of_the_code_are_those_of_the_program() -> None:
    program = open_program(NUMBERED, dim=4)
    found = bisect(program, program, ("interpreter", "compiled"), tokens=9)
    assert found.first is None, found.text()


GATED = """
block gated(x, heads = 2) {
  level c every 1 token { memory S = matrix() per head }
  k = l2norm(split(silu(conv(linear(x), 3)), heads))
  b = sigmoid(split(linear(x), heads))
  g = silu(linear(x))
  S[k] <- b * k  by gd(lr = 0.3)
  return linear(merge(S[k]) * g)
}
"""
"""What is activated where it is used: a convolution, and two gates that have names."""


@pytest.mark.parametrize("source", [GATED, "gated_deltanet", "mamba2", "swiglu"])
def test_a_value_that_is_activated_later_has_another_name(source: str) -> None:
    program = open_program(source, dim=4, block=None if source == GATED else source)
    found = bisect(program, program, ("interpreter", "compiled"), tokens=5)
    assert found.first is None, found.text()
