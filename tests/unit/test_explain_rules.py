"""`nldsl explain` of a rule: sizes against real optimizers, stability against steps, words, refusals."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import nldsl
from nldsl.cli.app import main
from nldsl.spec.lone_rules import rules_in
from nldsl.spec.open_rule import open_rule
from nldsl.view.rule_page import RulePage, explain_rule

RULES = sorted(p.stem for p in (Path(__file__).parents[2] / "specs" / "rules").glob("*.nl"))
OF_ROWS = {"dgd", "dgd_momentum", "normalised_momentum", "proximal"}


def page_of(rule: str, **arguments: Any) -> RulePage:
    (group,) = rules_in(rule, arguments)
    return explain_rule(group, list(arguments))


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        main(list(arguments))
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    found = capsys.readouterr()
    return code, found.out, found.err


def told(total: str, out: int, wide: int) -> int:
    """`2 in^2 + out in + 1` as a number."""
    values = {"out": out, "in": wide, "out^2": out**2, "in^2": wide**2}
    return sum(
        math.prod(values.get(w) or int(w) for w in term.split()) for term in total.split(" + ") if term
    )


@pytest.mark.parametrize("rule", [r for r in RULES if r not in OF_ROWS])
def test_sizes_and_numbers_are_those_of_the_optimizer(rule: str) -> None:
    """`2 out in + 1` is what the state of an optimizer holds; what may change is what its groups have."""
    page = page_of(rule)
    for view, shape in ((page.views[0], (5, 3)), (page.views[-1], (5,))):
        if view.refused:
            continue
        weight = torch.nn.Parameter(torch.ones(shape))
        optimizer = nldsl.optimizer(page.call, [weight])
        weight.grad = torch.ones(shape)
        optimizer.step()
        kept = [x for name, x in optimizer.state[weight].items() if name != "step"]
        total = view.total.replace("out in", "out") if len(shape) == 1 else view.total
        assert told(total, 5, 3) == sum(x.numel() for x in kept)
        changes = {n.name for n in page.numbers if n.changes}
        assert changes == set(optimizer.param_groups[0]) - {"params", "every", "betas", "momentum"} | (
            changes & {"momentum"}
        )


DECAYED = """rule decayed(lr = 0.1, beta = 0.8) {
  memory m = like(W)
  m = beta * m + g + 0.1 * W
  W = W - lr * m
}"""


@pytest.mark.parametrize("rule", ["gd", "momentum", "nesterov", "sgd", DECAYED])
def test_stability_is_what_steps_on_a_quadratic_do(rule: str) -> None:
    """A little below the curvature that is told a weight stays bounded, a little above it it grows."""
    page = page_of(rule) if rule is not DECAYED else explain_rule(open_rule(rule))
    most = float(page.stability.partition("h <= ")[2].partition(",")[0])
    for curvature, bounded in ((0.999 * most, True), (1.01 * most, False), (0.5 * most, True)):
        weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = nldsl.optimizer(page.call if rule is not DECAYED else rule, [weight])
        for _ in range(3000):
            weight.grad = curvature * weight.detach()
            optimizer.step()
        assert (float(weight.detach().abs()) < 100.0) is bounded, curvature


def test_stability_of_rules_along_their_input() -> None:
    """With a key of length one an erase adds to the curvature: W' = (1 - r (1 + h)) W, r = lr / (1 + lr)."""
    rate = 0.5 / 1.5
    assert f"h <= {2 / rate - 1:.4g}" in page_of("dgd", lr=0.5).stability
    assert f"h <= {2 / rate:.4g}" in page_of("proximal", lr=0.5).stability
    assert "grows on every loss" in explain_rule(open_rule(GROWS)).stability
    assert "not linear" in page_of("adamw").stability and "step to step" in page_of("lookahead").stability


GROWS = "rule grows(lr = 0.1) { W = 1.1 * W - lr * g }"


def test_equations_are_written_as_papers_do() -> None:
    assert [line.text for line in page_of("adamw").views[0].lines] == [
        "m_t = beta1 m_{t-1} + (1 - beta1) g_t",
        "s_t = beta2 s_{t-1} + (1 - beta2) g_t^2",
        "W_t = (1 - decay lr) W_{t-1} - (lr m_t / (1 - beta1^t)) / (eps + sqrt(s_t / (1 - beta2^t)))",
    ]
    lookahead = page_of("lookahead", slow=3).views[0].lines
    assert any("where(t is a multiple of 3, " in line.text for line in lookahead)
    assert not any("inner_" in line.text for line in lookahead)
    shampoo = page_of("shampoo").views[0]
    assert shampoo.settings == ("inverse_root: eps = 0.0001, root = 4",)
    assert shampoo.reason == "the memory `left` is [out, out]" and not any(
        "11" in c for c in shampoo.computed
    )
    assert "m2_{last multiple of 10}" in page_of("m3").views[0].lines[-1].text


def test_where_a_rule_may_stand() -> None:
    assert any("minimizes task" in use for use in page_of("nadam").uses)
    for other in ("dgd", "deep_momentum"):
        assert not any("minimizes task" in use for use in page_of(other).uses)
    assert page_of("gd").in_a_write.startswith("delta: chunks of 32 tokens")
    assert page_of("adamw").in_a_write.startswith("sequential: one token after the other")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "two.nl"
    file.write_text(
        "# Half a step\nrule half(lr) { W = W - 0.5 * lr * g }\nrule twice(lr = 0.1) { W = W - 2 * lr * g }\n"
    )
    code, text, _ = shown(capsys, "explain", str(file), "--set", "lr=0.1")
    assert code == 0 and "Half a step" in text and "half  rule" in text and "twice  rule" in text
    assert "h <= 40, lr h <= 4" in text and "h <= 10, lr h <= 1" in text
    assert "has to be given" not in text and "has to be given" in shown(capsys, "explain", "gd")[1]
    assert r"W_{t} = W_{t-1} + m_{t}" in shown(capsys, "explain", "momentum", "--latex")[1]
    # What opens each of them from Python: of a file the last rule is meant, of the library the name.
    pages = json.loads(shown(capsys, "explain", str(file), "--json")[1])["rules"]
    half, twice = (" ".join(page["uses"]) for page in pages)
    assert f'nldsl.optimizer("{file}", model.parameters())' in twice
    assert "nldsl.optimizer(TEXT, model.parameters(), lr = " in half and "`rule half(..)" in half
    data = json.loads(shown(capsys, "explain", "adamw", "--json")[1])
    assert 'nldsl.optimizer("adamw(lr = ' in " ".join(data["rules"][0]["uses"])
    assert [n["name"] for n in data["rules"][0]["numbers"]] == ["lr", "beta1", "beta2", "eps", "decay"]
    code, _, said = shown(capsys, "explain", "adamw", "--params")
    assert code != 0 and "NL1024" in said
    assert "NL0320" in shown(capsys, "explain", "adamw", "--block", "adamw")[2]
    assert "NL0306" in shown(capsys, "explain", "adamw", "--set", "nope=1")[2]


def test_a_rule_is_explained_without_torch() -> None:
    script = "import sys; from nldsl.cli.app import main\n"
    script += "try: main(['explain', 'adamw'])\nexcept SystemExit: pass\n"
    script += "assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=100).returncode == 0
