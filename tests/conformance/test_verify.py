"""`verify` on the library, its certificate, and what it says when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nldsl
from nldsl.certify import Certificate, examine, growth, verify
from nldsl.certify.bench import Build
from nldsl.certify.certificate import CheckResult
from nldsl.certify.clocks import Clocks, clock_sets, keep_ratios, token_clocks, with_clocks
from nldsl.certify.shrink import shrink
from nldsl.cli import main
from nldsl.driver.compile import emit
from nldsl.emit.loader import load_module
from nldsl.graph import open_program
from nldsl.plan.plan import Plan
from nldsl.runtime.model import Layer
from nldsl.spec.loader import standard_library
from tests.conformance.faults import STEPS

torch.set_num_threads(1)
FAST = (
    "transformer",
    "linear_attention",
    "gated_deltanet",
    "deltanet",
    "hope_literal",
    "hope_attention",
    "hope",
)
MODELS = sorted(name for kind, name in standard_library().index if kind == "model")
BLOCKS = {
    "self_modifying_titans": {"heads": 2},
    "cms": {},
    "attention": {"heads": 4, "groups": 2},
    "swiglu": {},
}


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.long) for n in MODELS]
)
def test_every_model_of_the_library_passes(name: str) -> None:
    certificate = verify(name)
    assert certificate.passed, certificate.text()
    assert certificate.difference is None


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_pass(name: str) -> None:
    certificate = verify(name, block=name, seed=3, **BLOCKS[name])
    assert certificate.passed, certificate.text()


def test_original_clocks_in_one_call() -> None:
    certificate = verify("cms", block="cms", full=True)
    assert certificate.passed and certificate.full
    (section,) = certificate.sections
    assert section.tokens == 256 + 16 + 3 and section.lengths == (275,)


def test_the_public_name() -> None:
    assert nldsl.verify is verify


# --- shrinking -------------------------------------------------------------------------------


def test_arguments_go_back_where_the_program_needs_them() -> None:
    """Three heads do not divide 16 channels: the first argument that helps goes back to what it was."""
    small = shrink("gated_deltanet", None, {"dim": 48, "heads": 12})
    assert dict(small.arguments) == {"dim": 48, "heads": 12, "depth": 2, "expand": 2, "vocab": 16}
    assert "dim = 48 stays: the program needs it" in small.notes


def test_clocks_keep_their_ratios_or_do_not_divide() -> None:
    assert keep_ratios([16, 48, 64]) == {16: 2, 48: 4, 64: 6}
    first, second = clock_sets(Clocks((16, 64, 256), ()))
    assert dict(first.forward) == {16: 2, 64: 4, 256: 8}
    assert dict(second.forward) == {16: 4, 64: 6, 256: 10}
    assert dict(clock_sets(Clocks((3, 5), ()))[1].forward) == {3: 3, 5: 5}
    small = with_clocks(open_program("hope"), clock_sets(token_clocks(open_program("hope")))[1])
    assert token_clocks(small) == Clocks((4, 6), (3, 6, 12))


# --- the certificate -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return verify("linear_attention", block="linear_attention", dim=8)


def test_certificate_as_json(certificate: Certificate) -> None:
    data = json.loads(json.dumps(certificate.to_json(), allow_nan=False))
    assert data["schema"] == 1 and data["passed"] is True
    assert data["spec"] == "linear_attention" and data["kind"] == "block" and data["seed"] == 0
    assert data["nldsl"] == nldsl.__version__ and data["torch"] == torch.__version__
    assert all(len(digest) == 64 for digest in data["sources"].values())
    assert "specs/blocks/linear_attention.nl" in data["sources"]
    assert len(data["program"]) == 64 and data["bounds"]["float64"] == 1e-9
    (section,) = data["sections"]
    assert {"outputs and states", "gradients", "padding", "float32 growth"} <= {
        c["name"] for c in section["checks"]
    }
    assert section["lowerings"][0]["lowering"] == "linear" and section["lowerings"][0]["reason"]
    assert all(
        c["passed"] and c["cases"] > 0 and c["error"] <= c["bound"] for c in section["checks"] if c["bound"]
    )
    assert {0, 1, 63, 64, 65, 130} <= set(section["lengths"])
    assert [g["tokens"] for g in section["growth"]] == [16, 64, 256]


def test_seed_and_program_make_the_certificate(certificate: Certificate) -> None:
    again = verify("linear_attention", block="linear_attention", dim=8)
    assert (again.program, again.sections) == (certificate.program, certificate.sections)
    other = verify("linear_attention", block="linear_attention", dim=8, seed=1)
    assert other.program == certificate.program and other.sections != certificate.sections


# --- failures --------------------------------------------------------------------------------


def faulty(old: str, new: str) -> Build:
    """A compiler whose text is edited."""

    def build(plan: Plan) -> Layer:
        text = emit(plan)
        assert old in text
        module: Layer = load_module(text.replace(old, new), "faulty").build(0)
        return module

    return build


@pytest.mark.parametrize(
    ("old", "new", "token", "memory", "part"),
    [
        ("ends_of(S_count, mask, x, 3)", "ends_of(S_count, mask, x, 4)", 2, "S", "committed weight"),
        ("F_weight * a_t", "F_weight + a_t", 0, "F", "running weight"),
        ("merge(out_S_2 + out_F_2)", "merge(out_F_2)", 0, "out", "output"),
    ],
)
def test_failure_names_the_first_token_and_memory(
    old: str, new: str, token: int, memory: str, part: str
) -> None:
    certificate = verify(STEPS, build=faulty(old, new), dim=8)
    assert not certificate.passed and certificate.failures()
    found = certificate.difference
    assert found is not None
    assert (found.token, found.memory, found.part) == (token, memory, part)
    assert f"first difference: token {token}, `{memory}`" in certificate.text()
    if memory == "S":
        assert found.level == "level slow, every 3 tokens"


def test_failure_of_learn_names_the_task_memory() -> None:
    where = 'path="F[1]",\n            every='
    build = faulty(f"{where}4", f"{where}8")
    certificate = verify("hope_attention", build=build, dim=8, depth=1, chunks=[16, 64])
    found = certificate.difference
    assert found is not None and found.calls.startswith("learn")
    assert (found.token, found.memory, found.part) == (4, "blocks[0].cms.F[1]", "delta W2")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit codes 0, and 1 for a difference and for what is not supported; the certificate as a file."""
    file = tmp_path / "cert.json"
    assert leaves(["verify", "swiglu", "--block", "swiglu", "-o", str(file)]) == 0
    assert "compiled form and interpreter agree" in capsys.readouterr().out
    assert json.loads(file.read_text())["passed"] is True
    assert leaves(["verify", "swiglu", "--block", "swiglu", "--json", "--seed", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 2
    spec = tmp_path / "own.nl"
    spec.write_text(STEPS.replace("gradient every 2 tokens", "").replace("every 3 tokens", "every 3 steps"))
    assert leaves(["verify", str(spec), "--set", "dim=8"]) == 1
    assert "NL0509" in capsys.readouterr().err


def test_command_fails_on_a_difference(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = faulty("linear(times_silu(", "linear(2.0 * times_silu(")
    monkeypatch.setattr("nldsl.certify.verify", lambda *a, **k: verify(*a, **k, build=wrong))
    assert leaves(["verify", "swiglu", "--block", "swiglu"]) == 1
    assert "FAIL outputs and states" in capsys.readouterr().out


def leaves(arguments: list[str]) -> int:
    """The exit code of the command line."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    code = left.value.code
    return code if isinstance(code, int) else 0


def test_the_rate_of_a_task_write_has_no_slope() -> None:
    """The state keeps the last token's rate and gate as constants of the task."""
    text = """
block b(x) {
  level f every 4 tokens { memory F = mlp(1) }
  F minimizes task  by gd(lr = 1e-2 * sigmoid(linear(x, 1)))  retain sigmoid(mean(x)) toward init
  return x + F[norm(x)]
}
model m(tokens, vocab = 16) { return head(norm(b(embed(tokens, vocab, 4))), vocab) }
train m { task next_token; rest by adamw(lr = 1e-3) }
"""
    certificate = verify(text)
    assert certificate.passed, [c for s in certificate.sections for c in s.checks if not c.passed]


# --- float32 ---------------------------------------------------------------------------------


def growth_of(name: str, monkeypatch: pytest.MonkeyPatch, **arguments: int) -> list[CheckResult]:
    """That check alone, on every set of clocks."""
    monkeypatch.setattr(examine, "_all", lambda *_: iter(()))
    found = verify(name, block=name, **arguments)
    return [c for section in found.sections for c in section.checks if c.name == "float32 growth"]


def test_a_program_that_amplifies_is_no_fault_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = growth_of("yaad", monkeypatch)
    assert checks and all(c.passed for c in checks)
    assert any("256 tokens 1." in c.where and "the program amplifies" in c.where for c in checks)


def test_float32_that_is_wrong_behind_the_first_tokens_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = growth.call

    def off(module: Layer, inputs: tuple[Tensor, ...]) -> Any:
        outputs, state = plain(module, inputs)
        late = torch.arange(outputs[0].shape[1]).ge(200).view(1, -1, 1)
        return [y * (1 + 0.5 * late) if y.dtype == torch.float32 else y for y in outputs], state

    monkeypatch.setattr(growth, "call", off)
    (check,) = growth_of("linear_attention", monkeypatch, dim=8)
    assert not check.passed and check.error is not None and check.error > check.bound >= growth.NONSENSE
    assert "256 tokens 5.0e-01" in check.where and "amplifies" not in check.where
