"""`verify` of rules: every rule of the library passes, and a wrong optimizer does not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from nldsl.assets import specs_folder
from nldsl.certify import rules as certify_rules
from nldsl.certify import rules_in, rules_of, verify_rules
from nldsl.cli.app import main
from nldsl.diagnostics import SpecError
from nldsl.graph import open_program

RULES = sorted(p.stem for p in (specs_folder() / "rules").glob("*.nl"))


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_of_the_library(rule: str) -> None:
    found = rules_in(rule, {})
    assert len(found) == 1
    certificate = verify_rules(found, rule)
    assert certificate.checks and certificate.passed, certificate.text()


def test_the_rules_of_a_model() -> None:
    found = rules_of(open_program("hope_tiny"))
    assert {g.rule for g in found} == {"muon", "adamw"}
    certificate = verify_rules(found, "hope_tiny")
    assert certificate.passed and len(certificate.checks) > 6


@pytest.mark.parametrize("fault", ["numbers", "memories", "weight"])
def test_a_wrong_optimizer_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = certify_rules.optimizer

    def broken(*given: Any, **keywords: Any) -> Any:
        made = usual(*given, **keywords)
        kernels = type(made).kernels
        type(made).kernels = {shape: faulty(kernel, fault) for shape, kernel in kernels.items()}
        return made

    monkeypatch.setattr(certify_rules, "optimizer", broken)
    certificate = verify_rules(rules_in("adamw", {}), "adamw")
    assert not certificate.passed and "differ" in certificate.text()


def faulty(kernel: Any, fault: str) -> Any:
    if fault == "numbers":
        return replace(kernel, numbers=lambda step, *rest: kernel.numbers(torch.clamp(step, max=5.0), *rest))

    def update(W: Any, g: Any, m: Any, s: Any, *numbers: Any) -> None:
        kernel.update(W, g, m, s, *numbers)
        (W if fault == "weight" else s).mul_(1 + 1e-8)

    return replace(kernel, update=update)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "lookahead", "--set", "slow=3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True
    assert run("verify", "hope_tiny", "--rules") == 0
    shown = capsys.readouterr().out
    assert "muon" in shown and "agree" in shown


WRITTEN = """
rule written(lr, rate = "proximal") { W[x] <- -dy  minimize l2  by proximal(lr, rate = rate) }
model m(tokens, vocab = 16) { return head(norm(linear(embed(tokens, vocab, 4), 6)), vocab) }
train m {
  task next_token
  matrices, head  by written(lr = 0.1)
  rest            by adamw(lr = 1e-3)
}
"""
"""Eq. 56 as a write, for layers that are not square; embeddings have no input."""


def test_a_rule_that_is_a_write_trains_every_layer() -> None:
    certificate = verify_rules(rules_of(open_program(WRITTEN)), "written")
    assert certificate.passed and any("written" in line for line in certificate.text().splitlines())


def test_what_is_wrong_in_such_a_write_is_told_once() -> None:
    with pytest.raises(SpecError) as refused:
        open_program(WRITTEN.replace("-dy", "-dx"))
    assert [(d.code, d.message) for d in refused.value.diagnostics] == [("NL0301", "unknown name `dx`")]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0)
