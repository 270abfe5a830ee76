"""`nldsl test`: true properties hold, a seeded fault is found, and what is left of the program is small."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import nldsl
from nldsl.certify.cases import Case, FailedError, UnfitError
from nldsl.certify.hunt import hunt
from nldsl.certify.properties import PROPERTIES
from nldsl.certify.reduce import reduce, statements
from nldsl.certify.tested import Tested
from nldsl.cli import main
from nldsl.diagnostics import DiagnosticBag
from nldsl.runtime import ops, recurrence
from nldsl.runtime.state import State
from nldsl.spec.loader import load

torch.set_num_threads(1)

LAYER = """
map twice(z) { return z + linear(silu(linear(z))) }
block other(x) { return silu(linear(x)) }
block layer(x, heads = 2, window = 3) {
  level context every 1 token {
    memory S = matrix() per head
    memory T = twice() init learned
  }
  u = silu(conv(linear(x), window))
  q = l2norm(split(u, heads))
  k = l2norm(split(linear(x), heads))
  a = sigmoid(linear(x, heads))
  S *= a
  S[k] <- split(linear(x), heads)  minimize dot  by gd(lr = 0.5)
  T[l2norm(u)] <- other(x)  minimize l2  by gd(lr = 0.1)  retain 0.9
  y = merge(S[q]) + T[x]
  return linear(norm(y)) * silu(linear(x))
}
"""


MODEL = """
model learner(tokens, vocab = 11, dim = 4) {
  level slow every 4 tokens { memory F = mlp(1) }
  x = embed(tokens, vocab, dim)
  F minimizes task by gd(lr = 1e-2)
  return head(x + F[norm(x)], vocab)
}
"""


def test_every_property_holds_of_a_layer_and_of_a_model() -> None:
    for tested in (Tested(LAYER, arguments={"dim": 4}), Tested(MODEL)):
        for name in tested.names:
            outcome = hunt(tested, name, 2, 0)
            assert outcome.failed is None, outcome.failed
            assert outcome.cases >= 1
    assert "learning" in tested.names


def test_sizes_are_drawn_where_they_make_a_program() -> None:
    tested = Tested(LAYER, arguments={"dim": 4})
    assert tested.choices == {"heads": (1, 2, 4), "window": (1, 2, 3, 4, 6, 8, 12, 16)}
    with pytest.raises(UnfitError):
        tested.check("splits", Case(3, arguments=(("heads", 3),)))


def test_a_case_survives_json() -> None:
    case = Case(5, 2, 3, 1, (2, 5), ((0, 1),), (("heads", 2),))
    assert Case.from_json(json.loads(json.dumps(case.to_json()))) == case


def forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel whose state is off where a call has more than two tokens."""
    real = recurrence.linear_recurrence

    def wrong(q: Any, *rest: Any, **options: Any) -> Any:
        y, state = real(q, *rest, **options)
        return y, state * 1.001 if q.shape[1] > 2 else state

    monkeypatch.setattr(recurrence, "linear_recurrence", wrong)


def test_a_fault_of_a_kernel_is_found_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    forgets(monkeypatch)
    tested = Tested(LAYER, arguments={"dim": 4})
    failed = hunt(tested, "splits", 20, 0).failed
    assert failed is not None and failed.case.tokens == 3 and failed.case.batch == 1
    small = reduce(tested, failed)
    assert small.after <= 6 < small.before
    assert "memory S" in small.text and "memory T" not in small.text and "map" not in small.text
    again = Tested(small.text, small.block, dict(small.arguments), exact=True)
    with pytest.raises(FailedError, match="splits"):
        again.check("splits", small.failed.case)
    monkeypatch.undo()
    Tested(small.text, small.block, dict(small.arguments), exact=True).check("splits", small.failed.case)


def test_what_the_compiled_code_raises_is_a_failure_of_its_own_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any, **__: Any) -> Any:
        raise IndexError("nothing there")

    monkeypatch.setattr(ops, "merge", wrong)
    tested = Tested("block f(x) { y = 2 * x\n  return merge(split(linear(y), 2)) }\n", arguments={"dim": 4})
    failed = hunt(tested, "steps", 2, 0).failed
    assert failed is not None and failed.kind == "IndexError"
    assert reduce(tested, failed).after == 2


FAULTS = {
    "causality": (ops, "l2norm", lambda real: lambda x, **o: real(x, **o) + x.mean(1, keepdim=True)),
    "batches": (ops, "l2norm", lambda real: lambda x, **o: real(x, **o) + x.mean(0, keepdim=True)),
    "padding": (recurrence, "linear_recurrence", lambda real: lambda *a, mask, **o: real(*a, mask=None, **o)),
    "gradients": (ops, "l2norm", lambda real: lambda x, **o: real(x.detach(), **o)),
    "interpreted": (ops, "l2norm", lambda real: lambda x, **o: 0.999 * real(x, **o)),
    "steps": (ops, "l2norm", lambda real: lambda x, **o: real(x, **o) * (1 + 1e-6 * x.shape[1])),
    "saved": (State, "to", lambda real: lambda self, *a: self.map(lambda x: x.float().to(x.dtype))),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_property_can_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, make = FAULTS[name]
    monkeypatch.setattr(owner, attribute, make(getattr(owner, attribute)))
    if name == "steps":
        monkeypatch.setattr(owner, attribute, make(getattr(owner, attribute)))
    outcome = hunt(Tested("linear_attention", "linear_attention", {"dim": 8}), name, 30, 0)
    assert outcome.failed is not None and outcome.failed.name == name
    assert name in PROPERTIES


def test_what_rounding_leaves_of_a_zero_is_no_fault() -> None:
    """Keys of one channel have length one whatever made them: their gradient is rounding."""
    text = """
    block b(x, heads = 8) {
      level c every 1 token { memory S = matrix() per head }
      k = l2norm(split(linear(x), heads), eps = 0)
      S[k] <- x  minimize dot  by gd(lr = 1)
      return merge(S[k])
    }
    """
    tested = Tested(text, arguments={"dim": 8}, exact=True)
    for seed in range(3):
        tested.check("gradients", Case(tokens=3, batch=1, seed=seed))


OVERFLOWS = """
map gated(z) {
  A = weight(5, dim(z))
  B = weight(5, dim(z))
  C = weight(3, 5)
  return C @ (silu(A @ z) * (B @ z))
}
block b(x, heads = 2) {
  level c every 2 tokens { memory M = gated() per head }
  k = l2norm(split(linear(x), heads))
  v = linear(x, 6)
  b = 0.2 * sigmoid(linear(x, heads))
  M[k] <- v  minimize l2  by momentum(lr = b)
  return M[x]
}
"""


def test_a_program_that_overflows_without_its_padding_is_no_fault() -> None:
    """Its 33 tokens stay in bounds; the 32 that a mask leaves do not, whatever computes them."""
    case = Case(tokens=33, batch=1, seed=1, cuts=(33,), masked=((0, 0),))
    tested = Tested(OVERFLOWS, arguments={"dim": 8, "heads": 2})
    tested.check("splits", case)
    with pytest.raises(UnfitError, match="leave all bounds"):
        tested.check("padding", case)


def test_statements_are_counted() -> None:
    assert statements(load(LAYER, DiagnosticBag()).main.tree) == 17


# --- the command -----------------------------------------------------------------------------


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as leaving:
        main(["test", *arguments])
    code = leaving.value.code
    assert isinstance(code, int)
    return code


def test_the_command_reports_and_the_report_reruns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forgets(monkeypatch)
    spec, small = tmp_path / "layer.nl", tmp_path / "small.nl"
    spec.write_text(LAYER)
    asked = ("--set", "dim=4", "--property", "splits", "--property", "causality", "--examples", "8")
    assert run(str(spec), *asked, "-o", str(small)) == 1
    said = capsys.readouterr().out
    assert "FAIL splits" in said and "ok   causality" in said and "smallest program that fails" in said
    line = next(row for row in said.splitlines() if "again: nldsl test" in row)
    again = shlex.split(line.partition("nldsl test ")[2])
    assert again[0] == str(small) and run(*again) == 1
    monkeypatch.undo()
    assert run(*again) == 0


def test_the_command_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "twice.nl"
    spec.write_text("block twice(x) {\n  return 2 * x\n}\n")
    assert run(str(spec), "--set", "dim=2", "--examples", "2", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["passed"] and {row["property"] for row in data["properties"]} == set(PROPERTIES) - {
        "learning"
    }


@pytest.mark.long
def test_the_tests_as_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "layer.nl"
    spec.write_text(LAYER)
    target = tmp_path / "test_layer.py"
    asked = ("--set", "dim=4", "--property", "splits", "--property", "batches", "--examples", "2")
    assert run(str(spec), *asked, "--write", str(target)) == 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(target)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(nldsl.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("twice", "--property", "nothing"), "NL1030"),
        (("twice", "--property", "learning"), "NL1030"),
        (("twice", "--case", "{"), "NL1031"),
        (("twice", "--case", '{"token": 3}'), "NL1031"),
        (("twice", "--case", "[1]"), "NL1031"),
        (("twice", "--case", '{"tokens": -1}'), "NL1031"),
        (("twice", "--case", '{"tokens": "many"}'), "NL1031"),
        (("twice", "--case", '{"arguments": {"dim": 0}}'), "NL1031"),
    ],
)
def test_bad_requests(
    arguments: tuple[str, ...], code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "twice.nl"
    spec.write_text("block twice(x) {\n  return 2 * x\n}\n")
    assert run(str(spec), "--set", "dim=2", *arguments[1:]) == 2
    assert code in capsys.readouterr().err
