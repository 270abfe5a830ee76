"""The checks of what is legal and can hardly be meant: what each finds, and what it leaves alone."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from nldsl.calculus import Expr, build, symbol
from nldsl.calculus.ranges import Interval, range_of
from nldsl.diagnostics import Diagnostic, render_all
from nldsl.review import check
from nldsl.review.rates import _over_chunk

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted((ROOT / "specs").rglob("*.nl"))
UNIT = "l2norm(split(linear(x), 2))"
OPEN = "split(linear(x), 2)"


def layer(
    rule: str, *, eta: str = "", alpha: str = "", key: str = UNIT, clock: int = 1, memory: str = "matrix()"
) -> str:
    """A block with one memory of two heads and one write."""
    return (
        "block f(x) {\n"
        f"  level a every {clock} tokens {{ memory M = {memory} per head(2) }}\n"
        f"  k = {key}\n"
        + (f"  eta = {eta}\n" if eta else "")
        + (f"  alpha = {alpha}\n" if alpha else "")
        + f"  M[k] <- x  {rule}\n  return merge(M[k])\n}}\n"
    )


def codes(text: str) -> list[str]:
    return [d.code for d in check(text)]


def only(text: str) -> Diagnostic:
    found = check(text)
    assert len(found) == 1, render_all(found)
    return found[0]


GATE = "sigmoid(linear(x, 2))"
TWICE = f"2 * {GATE}"
RAW = 'dgd(lr = eta, rate = "raw") retain alpha'
PLUS = f"(1 + alpha) * {GATE}"


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_the_library_has_nothing_to_hide(path: Path) -> None:
    found = [d for d in check(path) if d.code != "NL0425"]
    if "It diverges" in path.read_text(encoding="utf-8"):
        assert {d.code for d in found} == {"NL0430"}
    else:
        assert not found, render_all(found)


# --- rates --------------------------------------------------------------------------------------------


def test_the_historic_default_of_hope_is_caught() -> None:
    """A rate in (0, 2) beside a free gate: where the gate closes, the factor is -2."""
    text = (ROOT / "specs" / "blocks" / "self_modifying_titans.nl").read_text(encoding="utf-8")
    old = text.replace("eta   = (1 + alpha) * sigmoid", "eta   = 2 * sigmoid")
    assert old != text and not check(text)
    found = only(old)
    assert found.code == "NL0430" and "between -1.98 and 1" in found.message
    assert found.span is not None and found.span.text == 'dgd(lr = eta, rate = "normalised")'
    assert found.help.startswith("keep `eta` below `1 + alpha`")
    assert {label.text for label in found.secondary} == {
        "`eta` is between 0 and 2",
        "`alpha` is between 0 and 1",
    }
    assert "`Mv`" in found.notes[0]


@pytest.mark.parametrize(
    ("rule", "gates", "low", "advice"),
    [
        (f"minimize dot by {RAW}", {"eta": TWICE, "alpha": GATE}, "-2", "1 + alpha"),
        (f"minimize l2 by {RAW}", {"eta": TWICE, "alpha": GATE}, "-4", "(1 + alpha) / 2"),
        ("by gd(lr = eta)", {"eta": f"3 * {GATE}"}, "-2", "below `2`"),
        ("by gd(lr = eta) retain alpha", {"eta": f"2 * {GATE}", "alpha": GATE}, "-2", "1 + alpha"),
        ("by gd(lr = 3)", {}, "-2", "`lr = 1` or less"),
        ("by gd(lr = eta)", {"eta": "softplus(linear(x, 2))"}, "minus infinity", "below `2`"),
        ("by gd(lr = eta)", {"eta": "linear(x, 2)"}, "minus infinity", "below zero"),
        ("by gd(lr = 0.5) retain alpha", {"alpha": f"1 + {GATE}"}, "2", "at most one"),
        ("by gd(lr = eta)", {"eta": GATE, "key": OPEN}, "minus infinity", "use `l2norm(k)`"),
        ("by momentum(lr = eta, beta = 0.9)", {"eta": "softplus(linear(x, 2))"}, "momentum", "below `3.8`"),
    ],
)  # fmt: skip
def test_rates_that_blow_up(rule: str, gates: dict[str, str], low: str, advice: str) -> None:
    found = only_rate(layer(rule, **gates))  # type: ignore[arg-type]
    assert found.code == "NL0430" and low in found.message and advice in found.help, render_all([found])


def only_rate(text: str) -> Diagnostic:
    found = [d for d in check(text) if d.code in ("NL0430", "NL0431")]
    assert len(found) == 1, render_all(check(text))
    return found[0]


@pytest.mark.parametrize(
    ("rule", "gates"),
    [
        ("minimize dot by gd(lr = eta)", {"eta": "softplus(linear(x, 2))"}),
        ("by gd(lr = eta)", {"eta": f"2 * {GATE}"}),
        ("by gd(lr = eta) retain alpha", {"eta": f"(1 + alpha) * {GATE}", "alpha": GATE}),
        (f"minimize dot by {RAW}", {"eta": PLUS, "alpha": GATE}),
        ('by dgd(lr = eta, rate = "raw") retain alpha', {"eta": f"(1 + alpha) / 2 * {GATE}", "alpha": GATE}),
        ("by proximal(lr = eta)", {"eta": "softplus(linear(x, 2))", "key": OPEN}),
        ("by dgd(lr = eta)", {"eta": GATE, "key": OPEN}),
        ("by gd(lr = eta)", {"eta": GATE, "key": "split(l2norm(linear(x)), 2)"}),
        ("by gd(lr = eta)", {"eta": GATE, "key": "0.5 * l2norm(split(linear(x), 2))"}),
        ("by gd(lr = eta) retain alpha", {"eta": GATE, "alpha": "exp(-softplus(linear(x, 2)))"}),
    ],
)  # fmt: skip
def test_rates_that_are_fine(rule: str, gates: dict[str, str]) -> None:
    text = layer(rule, **gates)  # type: ignore[arg-type]
    if "alpha" in gates:
        text = reordered(text)
    assert not [c for c in codes(text) if c in ("NL0430", "NL0431")], render_all(check(text))


def reordered(text: str) -> str:
    """The gate above the rate, which may be made of it."""
    lines = text.split("\n")
    eta = next(i for i, line in enumerate(lines) if line.startswith("  eta"))
    lines[eta], lines[eta + 1] = lines[eta + 1], lines[eta]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("rule", "gates", "limit"),
    [
        ("by gd(lr = eta)", {"eta": GATE}, "< 0.125"),
        ("by gd(lr = 0.3)", {}, "< 0.125"),
        ("by gd(lr = eta) retain 0.5", {"eta": "softplus(linear(x, 2))"}, "< 0.5"),
        ("by momentum(lr = eta, beta = 0.9)", {"eta": GATE}, "< 0.023"),
    ],
)
def test_old_gradients_with_the_admissible_range(rule: str, gates: dict[str, str], limit: str) -> None:
    found = only_rate(layer(rule, clock=16, **gates))  # type: ignore[arg-type]
    assert found.code == "NL0431" and limit in found.notes[0], render_all([found])
    good = float(limit.removeprefix("< ")) * 0.99
    fine = layer(rule.replace("eta", f"{good}").replace("0.3", f"{good}"), clock=16)
    assert "NL0431" not in codes(fine)


def test_a_weight_behind_a_hidden_layer_needs_a_rate_that_divides_by_its_input() -> None:
    text = layer("by gd(lr = eta)", eta=GATE, clock=16, memory="mlp()")
    assert only_rate(text).code == "NL0431" and "||z||^2" in only_rate(text).help
    raw = layer('minimize dot by dgd(lr = 0.1, rate = "raw")', memory="mlp()", clock=4)
    assert only_rate(raw).code == "NL0430"


def test_what_is_not_known_is_not_reported() -> None:
    """A rate that comes from outside may well be bounded."""
    text = "block f(x, b) {\n  level a every 1 token { memory M = matrix() }\n  k = l2norm(x)\n"
    assert not codes(text + "  M[k] <- x  by gd(lr = mean(b))\n  return M[k]\n}\n")


def test_a_chunk_in_closed_form_is_the_loop() -> None:
    for stay, push, chunk in [(1.0, 0.1, 16), (0.9, 0.3, 8), (-0.5, 0.2, 5), (0.0, 0.7, 3)]:
        state = 1.0
        for _ in range(chunk):
            state = stay * state - push
        assert math.isclose(_over_chunk(stay, push, chunk, None), state, abs_tol=1e-12)


# --- ranges -------------------------------------------------------------------------------------------


class _Gates:
    """Random expressions over a few unknowns, and their value at random places."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.symbols = [symbol(name) for name in "abc"]

    def expression(self, depth: int) -> Expr:
        if depth == 0 or self.random.random() < 0.15:
            if self.random.random() < 0.3:
                return build("mul", 1.0, self.random.choice([0.5, 1.0, 2.0, -1.0]))
            return build(
                self.random.choice(["sigmoid", "softplus", "tanh", "exp"]), self.random.choice(self.symbols)
            )
        op = self.random.choice(["add", "sub", "mul", "div", "neg", "sigmoid", "maximum", "minimum"])
        left = self.expression(depth - 1)
        if op in ("neg", "sigmoid"):
            return build(op, left)
        right = self.expression(depth - 1)
        return (
            build("div", left, build("add", 1.0, build("softplus", right)))
            if op == "div"
            else build(op, left, right)
        )

    def value(self, expr: Expr, at: dict[Expr, float]) -> float:
        if expr in at:
            return at[expr]
        if expr.value is not None:
            return expr.value
        args = [self.value(a, at) for a in expr.args]
        functions = {
            "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y,
            "div": lambda x, y: x / y, "neg": lambda x: -x,
            "sigmoid": lambda x: 0.5 * (1.0 + math.tanh(x / 2)),
            "softplus": lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))), "tanh": math.tanh,
            "exp": lambda x: math.exp(min(x, 300.0)), "maximum": max, "minimum": min,
            "logsigmoid": lambda x: min(x, 0.0) - math.log1p(math.exp(-abs(x))),
            "log": math.log, "pow": lambda x, y: x**y,
        }  # fmt: skip
        return float(functions[expr.op](*args))


@pytest.mark.parametrize("seed", range(150))
def test_ranges_hold_everywhere(seed: int) -> None:
    gates = _Gates(seed)
    expr = gates.expression(3)
    found = range_of(expr)
    for _ in range(200):
        scale = gates.random.choice([0.1, 1.0, 10.0, 100.0])
        at = {s: gates.random.gauss(0.0, scale) for s in gates.symbols}
        try:
            value = gates.value(expr, at)
        except (OverflowError, ZeroDivisionError):
            continue
        slack = 1e-6 * (1.0 + abs(value))
        assert found.low - slack <= value <= found.high + slack, f"{expr} = {value}, range {found}"


def test_ranges_of_gates_that_depend_on_one_another() -> None:
    alpha, free = build("sigmoid", symbol("a")), build("sigmoid", symbol("b"))
    eta = build("mul", build("add", 1.0, alpha), free)
    assert str(range_of(build("sub", alpha, eta))) == "(-1, 1)"
    assert str(range_of(build("sub", alpha, build("mul", 2.0, free)))) == "(-2, 1)"
    mean = build("mean", symbol("v", (4,), "vector"))
    assert not range_of(build("sub", mean, symbol("v", (4,), "vector"))) == Interval(0.0, 0.0)


# --- collapse, clauses without effect -----------------------------------------------------------------


def body(*lines: str, memory: str = "matrix() init learned") -> str:
    inner = "".join(f"  {line}\n" for line in ("k = l2norm(linear(x))", "v = l2norm(linear(x))", *lines))
    level = f"level a every 1 token {{ memory S = {memory} }}"
    return f"block f(x) {{\n  {level}\n{inner}  return S[k] + 0 * v\n}}\n"


@pytest.mark.parametrize(
    ("line", "memory"),
    [
        ("S *= 0.9", "matrix() init learned"),
        ("S *= sigmoid(mean(x))", "mlp()"),
        ("S[k] <- 0  by gd(lr = 0.1)", "matrix() init learned"),
        ("S[k] <- S[v]  by gd(lr = 0.1)  retain 0.9", "matrix()"),
        ("S[k] <- 2 * S[v]  by dgd(lr = 0.1)", "mlp()"),
    ],
)
def test_memories_that_collapse(line: str, memory: str) -> None:
    found = [d for d in check(body(line, memory=memory)) if d.code != "NL0430"]
    assert [d.code for d in found] == ["NL0432"], render_all(found)


@pytest.mark.parametrize(
    "line",
    [
        "S *= 1",
        "S[k] <- x  by gd(lr = 0.1)  retain 0.9",
        "S[k] <- l2norm(S[v])  by gd(lr = 0.1)  retain 0.9",
        "S[k] <- S[v]  by gd(lr = 0.1)  retain 0.9 toward init",
        "write S { [k] <- 0 by gd(lr = 0.1); [v] <- x minimize dot by gd(lr = 0.1) }",
        "S[k] <- 0  minimize dot  by gd(lr = 0.1)",
    ],
)
def test_memories_that_live(line: str) -> None:
    assert "NL0432" not in codes(body(line))


def test_self_targets_of_a_map_that_answers_its_key_are_no_collapse() -> None:
    assert "NL0432" not in codes(body("S[k] <- S[v]  by gd(lr = 0.1)  retain 0.9", memory="residual_mlp()"))


@pytest.mark.parametrize(
    ("line", "memory", "under"),
    [
        ("S[k] <- x  by gd(lr = 0.1)  retain 0.9 toward init", "matrix()", "toward"),
        ("S[k] <- x  by gd(lr = 0.1)  toward init", "matrix() init learned", "toward"),
        ("S[k] <- x  by gd(lr = 0.1)  retain 1", "matrix()", "retain"),
        ("S[k] <- x  minimize dot  by gd(lr = 0.1)  gradient every 4 tokens", "matrix()", "gradient"),
    ],
)
def test_clauses_without_effect(line: str, memory: str, under: str) -> None:
    found = only(body(line, memory=memory))
    assert found.code == "NL0434" and found.span is not None and found.span.text.startswith(under)


@pytest.mark.parametrize("line", ["S[k] <- x  by gd(lr = 0)", "S[k] <- S[k]  by gd(lr = 0.1)"])
def test_writes_without_effect(line: str) -> None:
    assert only(body(line)).code == "NL0433"


def test_a_target_read_before_another_write_is_another_one() -> None:
    assert "NL0433" not in codes(body("y = S[k]", "S *= 0.9", "S[k] <- y  by gd(lr = 0.1)"))


# --- levels and clocks --------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "fires"), [(None, 3), (1000, 3), (257, 3), (256, 2), (64, 1), (10, 0)])
def test_levels_that_never_fire_in_a_run(length: int | None, fires: int) -> None:
    found = check("hope_attention", run_length=length)
    assert {d.code for d in found} <= {"NL0507"} and len(found) == 3 - fires


def test_truncation_before_the_first_commit() -> None:
    text = (
        "model m(tokens) {{\n  x = embed(tokens, 16, 8)\n"
        "  level a every 64 tokens {{ memory S = matrix() }}\n"
        "  k = l2norm(x)\n  S[k] <- x  by gd(lr = 0.01)\n  return head(S[k], 16)\n}}\n"
        "train m {{ task next_token; truncate {} tokens; rest, head, embeddings by sgd(lr = 0.1) }}\n"
    )
    assert codes(text.format(32)) == ["NL0507"] and codes(text.format(128)) == []


def test_dead_levels_through_calls_and_repeats() -> None:
    dead = (
        "block inner(x) {\n  level a every 1 token { memory S = matrix() }\n  k = l2norm(x)\n"
        "  S[k] <- x  by gd(lr = 0.1)\n  return x, S[k]\n}\n"
        "block stack(x) {\n  repeat 2 { x, y = inner(x) }\n  return {0}\n}\n"
    )
    assert codes(dead.replace("{0}", "x")) == ["NL0508", "NL0323"]
    assert (
        codes(dead.replace("{0}", "x + y").replace("repeat 2 { x, y = inner(x) }", "x, y = inner(x)")) == []
    )


# --- the future ---------------------------------------------------------------------------------------

CLASSIFY = (
    "model c(tokens, label) {\n  level a every 1 token { memory S = matrix() }\n  x = embed(tokens, 16, 8)\n"
    "  y = embed(label, 16, 8)\n  k = l2norm(linear(x))\n%s\n  return head(z, 16)\n}\n"
)


@pytest.mark.parametrize(
    ("lines", "leaks"),
    [
        ("  S[k] <- y  by gd(lr = 0.5)\n  z = S[k]", True),
        ("  z = S[k]\n  S[k] <- y  by gd(lr = 0.5)", False),
        ("  S[k] <- x  by gd(lr = 0.5)\n  z = S[k] + y", True),
        ("  S[k] <- x  by gd(lr = 0.5)\n  z = S[k] + shift(y)", False),
        ("  S[k] <- x  by gd(lr = 0.5)\n  z = S[k] + conv(y, 4)", True),
        ("  S[l2norm(y)] <- x  by gd(lr = 0.5)\n  z = S[k]", True),
    ],
)
def test_labels_used_before_they_are_known(lines: str, leaks: bool) -> None:
    found = [d for d in check(CLASSIFY % lines) if d.code == "NL0606"]
    assert bool(found) is leaks
    assert all(d.severity == "error" and d.span is not None for d in found)


def test_a_label_stored_by_a_level_that_commits_later_is_known_by_then() -> None:
    lines = CLASSIFY % "  S[k] <- y  by gd(lr = 0.01)\n  z = S[k]"
    assert "NL0606" not in codes(lines.replace("every 1 token", "every 16 tokens"))


def test_attention_that_looks_ahead() -> None:
    text = (
        "model m(tokens{0}) {{\n  memory A = softmax(causal = false)\n  x = embed(tokens, 16, 8)\n"
        "  A[linear(x)] <- linear(x)\n  return head(A[linear(x)], 16)\n}}\n"
    )
    assert codes(text.format("")) == ["NL0606"]
    assert "NL0606" not in codes(text.format(", label").replace("return", "y = label\n  return"))


# --- arguments that nothing reads ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "idle"),
    [
        ('dgd(lr = 0.5, rate = "raw", eps = 0.1)', True),
        ("dgd(lr = 0.5, eps = 0.1)", True),
        ('dgd(lr = 0.5, rate = "normalised", eps = 0.1)', False),
        ("muon(lr = 0.5, nesterov = false)", False),
        ("gd(lr = 0.5)", False),
    ],
)
def test_arguments_that_nothing_reads(call: str, idle: bool) -> None:
    assert ("NL0331" in codes(body(f"S[k] <- x  by {call}"))) is idle
