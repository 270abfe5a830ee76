"""Matrix memories written every token: each form the plan knows, against the interpreter."""

from __future__ import annotations

import re
from typing import Any
from unittest import mock

import pytest
import torch

from nldsl.certify.verify import verify
from nldsl.runtime import chunk_widths, filters, matrix_memory, past_lessons, quick_chunks, state_filter
from tests.conformance.agreement import compiled, disagreements

VALUES = {
    "q": "l2norm(split(linear(x), heads))",
    "k": "l2norm(split(linear(x), heads))",
    "k2": "l2norm(split(linear(x), heads))",
    "v": "split(linear(x), heads)",
    "v2": "split(linear(x), heads)",
    "q6": "l2norm(split(linear(x, 24), 6))",
    "rate": "sigmoid(split(linear(x), heads))",
    "fade": "exp(-softplus(split(linear(x), heads)))",
    "steep": "exp(-60 * softplus(split(linear(x), heads)))",
    "root": "sigmoid(split(linear(x), heads)) ** 0.0625",
    "wave": "sin(split(linear(x), heads))",
    "keep": "exp(-softplus(linear(x, heads)))",
    "sign": "tanh(linear(x, heads))",
    "beta": "sigmoid(linear(x, heads))",
    "mu": "sigmoid(linear(x, heads))",
}
QUADRATIC = "objective own(pred, target) { return 0.25 * sum(pred ** 2) - sum(pred * target) }\n"
SHRINK = "rule shrink(lr, decay) { W = (1 - 0.1 * decay) * W - lr * g }\n"
SHIFTED = "map shifted(z) { W = weight(dim(z), dim(z)); return z + W @ silu(z) }\n"
NESTEROV = "rule ahead(lr, beta) { memory m = like(W); m = beta * m - lr * g; W = W + beta * m - lr * g }\n"
TWO = (
    "rule two(lr, fast, slow, share) { memory m, n = like(W); m = fast * m + (1 - fast) * g; "
    "n = slow * n + (1 - slow) * g; W = (1 - 0.1 * lr) * W - lr * (m + share * n) }\n"
)
BY_TWO = "two(lr = beta, fast = mu, slow = 0.95"
COUPLED = (
    "rule coupled(lr, turn) { memory m, n = like(W); m = cos(turn) * m + sin(turn) * n - lr * g; "
    "n = cos(turn) * n - sin(turn) * m + 0.1 * W; W = 0.9 * W + m + 0.5 * n }\n"
)
AVERAGED = (
    "rule averaged(lr, mix) { memory z = like(W); z = z - lr * g; z = 0.9 * z; "
    "W = (1 - mix) * W + mix * z }\n"
)
TURNED = "rule turned(lr) { memory m = like(W); m = 0.8 * m - lr * (outer(m @ x, x) + g); W = W + m }\n"
INSIDE = (
    "rule inside(lr, beta) { memory m = like(W); r = lr / (1 + lr * sum(x ** 2)); "
    "m = beta * m - r * (outer(m @ x, x) + g); W = W + m - 0.3 * lr * (outer(W @ x, x) + outer(dy, x)) }\n"
)
STATISTIC = "memory H = matrix() per head init zero"


def program(body: str, result: str = "S[q]", init: str = "zero", **extra: str) -> str:
    """A block with one memory `S` and the values that `body` names."""
    text = f"{body}\n{result}"
    used = [n for n in VALUES if re.search(rf"\b{n}\b", text)]
    memory = f"memory S = {extra.get('map', 'matrix()')} per head init {init}; {extra.get('more', '')}"
    lines = [
        "block b(x, heads = 2) {",
        f"level context every 1 token {{ {memory} }}",
        *(f"{n} = {VALUES[n]}" for n in used),
        body,
        f"return linear(merge({result}))",
        "}",
    ]
    return extra.get("before", "") + "\n".join(lines) + "\n"


def plain(body: str, init: str = "zero") -> str:
    """A block with one memory that is not per head, and a gate of its shape."""
    values = "q = linear(x); k = l2norm(linear(x)); v = linear(x); d = softplus(linear(x))"
    memory = f"level context every 1 token {{ memory S = matrix() init {init} }}"
    return f"block b(x) {{ {memory}\n{values}\nA = weight(dim(x), dim(x))\n{body}\n}}\n"


WRITE = "S[k] <- v minimize"
FORMS: dict[str, tuple[str, str]] = {
    "gla": ("linear_channel", program(f"S *= fade\n{WRITE} dot by gd(lr = 1)")),
    "gla_root": ("linear_channel", program(f"S *= root\n{WRITE} dot by gd(lr = rate)", "S[q6]")),
    "value_gate": ("linear_channel", program(f"S *= values(fade)\n{WRITE} dot by gd(lr = 1)")),
    "value_wave": ("linear_channel", program(f"S *= values(wave)\n{WRITE} dot by gd(lr = beta) retain keep")),
    "grouped": ("delta", program(f"S *= keep\n{WRITE} l2 by gd(lr = beta)", "S[q6]")),
    "kda": ("delta_channel", program(f"S *= fade\n{WRITE} l2 by gd(lr = beta)")),
    "kda_steep": ("delta_channel", program(f"S *= steep\n{WRITE} l2 by gd(lr = beta)")),
    "kda_wave": ("delta_channel", program(f"S *= wave\n{WRITE} l2 weighted mu by gd(lr = beta) retain sign")),
    "places": (
        "delta_channel",
        program(
            f"y = S[q]\nS *= keep\nz = S[q]\n{WRITE} l2 by gd(lr = beta) retain sign\nw = S[q]\nS *= rate",
            "S[q] + 2 * y + 3 * z + 4 * w",
        ),
    ),
    "rwkv7": (
        "delta_block",
        program(
            "write S { [k2] <- 0 minimize l2 by gd(lr = rate); [k] <- v minimize dot by gd(lr = 1) }"
            " retain fade"
        ),
    ),
    "delta_product": (
        "delta_block",
        program(f"S *= keep\n{WRITE} l2 by gd(lr = beta)\nS[k2] <- v2 minimize l2 by gd(lr = mu)"),
    ),
    "comba": ("delta", program(f"S *= keep\n{WRITE} own by gd(lr = beta)", "S[q] - S[k]", before=QUADRATIC)),
    "longhorn": ("delta", program(f"{WRITE} l2 by proximal(lr = beta)")),
    "shrinking": (
        "delta",
        program(f"{WRITE} l2 by shrink(lr = beta, decay = mu) retain keep", before=SHRINK),
    ),
    "toward_init": (
        "delta_block",
        program(
            f"{WRITE} l2 by gd(lr = beta) retain fade toward init\n"
            "S[k2] <- v2 minimize l2 by dgd(lr = beta) retain keep toward init",
            init="learned",
        ),
    ),
    "shifted": (
        "delta_channel",
        program(f"{WRITE} l2 by gd(lr = beta) retain fade", init="learned", map="shifted()", before=SHIFTED),
    ),
    "oja": ("delta_value", program(f"{WRITE} oja by gd(lr = beta) retain keep")),
    "oja_channel": ("delta_value", program(f"{WRITE} oja by gd(lr = beta) retain values(rate)", "S[q6]")),
    "titans": ("filtered", program(f"{WRITE} l2 by momentum(lr = beta, beta = mu) retain keep")),
    "titans_init": (
        "filtered",
        program(f"{WRITE} l2 by momentum(lr = beta, beta = mu) retain keep toward init", init="learned"),
    ),
    "momentum_dot": (
        "filtered",
        program(
            f"S *= keep\n{WRITE} dot by momentum(lr = beta, beta = sign)\ny = S[q]\nS *= sign", "S[q] + y"
        ),
    ),
    "nesterov": (
        "filtered",
        program(f"{WRITE} l2 by ahead(lr = beta, beta = mu) retain keep", before=NESTEROV),
    ),
    "two_momenta": (
        "filtered",
        program(
            f"S *= sign\n{WRITE} l2 by {BY_TWO}, share = keep)\ny = S[k2]\nS *= keep",
            "S[q] + y",
            before=TWO,
        ),
    ),
    "two_momenta_dot": (
        "filtered",
        program(f"{WRITE} dot by {BY_TWO}, share = 2)", "S[q6]", before=TWO),
    ),
    "coupled": (
        "filtered",
        program(f"{WRITE} own by coupled(lr = beta, turn = sign)", before=QUADRATIC + COUPLED),
    ),
    "averaged": (
        "filtered",
        program(
            f"{WRITE} l2 by averaged(lr = beta, mix = mu) retain keep toward init",
            init="learned",
            before=AVERAGED,
        ),
    ),
    "erase_of_a_slot": ("filtered", program(f"{WRITE} l2 by turned(lr = beta)", before=TURNED)),
    "erase_inside": ("filtered", program(f"{WRITE} l2 by inside(lr = beta, beta = mu)", before=INSIDE)),
    "momentum_terms": (
        "filtered",
        program(
            "write S { [k] <- v minimize l2 by momentum(lr = beta, beta = mu); [k2] <- v2 minimize dot "
            "by ahead(lr = 0.1, beta = keep); [q] <- 0 minimize l2 by gd(lr = mu) } retain sign",
            before=NESTEROV,
        ),
    ),
    "momentum_writes": (
        "filtered",
        program(
            f"{WRITE} l2 by momentum(lr = beta, beta = mu) retain keep\ny = S[q]\n"
            "S[k2] <- v2 minimize l2 by momentum(lr = mu, beta = 0.5)",
            "S[q] + y",
        ),
    ),
    "momentum_channels_dot": (
        "filtered",
        program(f"{WRITE} dot by {BY_TWO}, share = 1) retain steep", before=TWO),
    ),
    "momentum_value_channels": (
        "filtered",
        program(f"{WRITE} dot by momentum(lr = beta, beta = mu) retain values(wave)", "S[q6]"),
    ),
    "momentum_oja": (
        "filtered",
        program(f"{WRITE} oja by momentum(lr = beta, beta = mu) retain keep"),
    ),
    "omega_two": (
        "filtered",
        program(
            f"{WRITE} l2 over 3 tokens weighted mu by {BY_TWO}, share = 1) retain keep",
            before=TWO,
        ),
    ),
    "momentum_elements": (
        "scan",
        plain(
            f"{WRITE} l2 by momentum(lr = 0.1, beta = 0.5) retain sin(A + outer(d, k))\nreturn linear(S[q])"
        ),
    ),
    "omega": (
        "filtered",
        program(
            f"y = S[k2]\n{WRITE} l2 over 3 tokens weighted mu by gd(lr = beta) retain keep", "S[q] + y"
        ),
    ),
    "omega_net": (
        "filtered",
        program(f"{WRITE} l2 over 3 tokens weighted mu by momentum(lr = beta, beta = 0.5) retain keep"),
    ),
    "omega_dgd": ("filtered", program(f"{WRITE} l2 over 4 tokens by dgd(lr = beta) retain fade")),
    "mesa": (
        "mesa",
        program(
            f"H *= keep\nH[k] <- k minimize dot by gd(lr = beta)\nS *= keep\n{WRITE} dot by gd(lr = beta)",
            "S[solve(H, q, ridge = 0.1, iterations = 3)]",
            more=STATISTIC,
        ),
    ),
    "mesa_places": (
        "mesa",
        program(
            "H *= fade\ny = S[solve(H, q6, ridge = 0.5)]\nH[k] <- k minimize dot by gd(lr = beta)\n"
            f"S *= keep\n{WRITE} l2 by gd(lr = beta)",
            "S[solve(H, q6, ridge = 1, iterations = 2)] + y",
            more=STATISTIC,
        ),
    ),
    "mamba1": (
        "scan",
        plain(
            "S *= exp(-outer(d, exp(k)) * exp(A))\nS[k] <- d * v minimize dot by gd(lr = 1)\n"
            "return linear(S[q])"
        ),
    ),
    "element_delta": (
        "scan",
        plain(
            f"y = S[v]\n{WRITE} l2 by gd(lr = 0.1) retain sin(A + outer(d, k))\nreturn linear(S[q] + y)",
            "learned",
        ),
    ),
    "rows_and_columns": ("scan", program(f"S *= values(wave)\nS *= wave\n{WRITE} l2 by gd(lr = beta)")),
    "without_heads": (
        "delta_block",
        plain(f"S *= exp(-d)\n{WRITE} l2 by gd(lr = d)\ny = S[q]\nS[q] <- 1 minimize dot by gd(lr = 2)\n"
              "return linear(S[q] + y + A @ q)", "learned"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_equals_the_interpreter(name: str) -> None:
    """The form that was meant; whole, in pieces, with masked tokens and a fully masked sample."""
    lowering, text = FORMS[name]
    layer = compiled(text, x=8)
    assert [u.lowering for b in layer.plan.blocks for u in b.units if u.memories] == [lowering]
    mask = torch.rand(3, 7, generator=torch.Generator().manual_seed(1)) > 0.3
    mask[1] = False
    assert disagreements(layer, tokens=5, batch=1) == []
    assert disagreements(layer, tokens=7, batch=3, mask=mask, pieces=(1, 3, 0, 3)) == []
    assert disagreements(layer, tokens=0, gradients=False) == []


@pytest.mark.long
@pytest.mark.parametrize("name", FORMS)
def test_verify_is_green(name: str) -> None:
    """Lengths around the kernels' chunks, splits, masks, gradients, float32."""
    certificate = verify(FORMS[name][1], x=8)
    assert certificate.passed, certificate.failures()


REFUSED = {
    "rate per value channel": (f"{WRITE} l2 by gd(lr = values(rate))", "no triangular solve"),
    "value gates of an erase along keys": (
        f"{WRITE} l2 by gd(lr = beta) retain values(fade)",
        "every row of the memory a triangular system of its own",
    ),
    "momentum per channel with an erase": (
        f"S *= fade\n{WRITE} l2 by momentum(lr = beta, beta = mu)",
        "every channel a filter of its own",
    ),
    "not affine": (f"{WRITE} huber by gd(lr = beta)", "not affine"),
    "both sides": (
        "write S { [k] <- v minimize oja by gd(lr = beta); [k] <- v minimize l2 by gd(lr = beta) }",
        "some terms erase along the key and some along the value",
    ),
    "reads that write": (
        f"y = S[q]\n{WRITE} l2 by gd(lr = beta)\nS[k2] <- y minimize l2 by gd(lr = 1)",
        "feeds",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_such_form_is_told_why(name: str) -> None:
    body, reason = REFUSED[name]
    layer = compiled(program(body), x=8)
    verdicts = [v for b in layer.plan.blocks for u in b.units for v in u.verdicts]
    (said,) = [v for v in verdicts if v.lowering == "recurrence"]
    assert not said.accepted and reason in said.reason


def test_names_play_no_part() -> None:
    """Objective, rule and memory under other names, written in another way: the same form."""
    own = (
        "objective o(p, t) { d = t - p; return sum(d * d) / 2 }\n"
        "rule r(step_size) { W = W - g * step_size }\n"
    )
    text = program("S *= fade\nS[k] <- v minimize o by r(step_size = beta)", before=own)
    plans = [compiled(t, x=8).plan for t in (text, FORMS["kda"][1])]
    units = [next(u for b in p.blocks for u in b.units if u.memories) for p in plans]
    assert units[0].lowering == units[1].lowering == "delta_channel"
    pieces = [[f.pieces for _, f in u.detail.members[0].steps[1].terms] for u in units]  # type: ignore[union-attr]
    assert str(pieces[0]).replace("step_size", "lr") == str(pieces[1])


def _later(original: Any) -> Any:
    """A write that is not seen by the step below it."""
    return lambda width, rows, columns, like: original(
        width, tuple(r._replace(step=r.step - 1) for r in rows), columns, like
    )


def _above(original: Any) -> Any:
    """A read that does not see the write above it."""
    return lambda early, strict: original(early=early, strict=True)


def _stale(original: Any) -> Any:
    """Gates of the token itself forgotten."""
    return lambda self, places: original(self, tuple(p._replace(gates=0) for p in places))


def _swapped(original: Any) -> Any:
    """The end of the chunk taken from the filter of the momentum."""

    def ended(self: Any, columns: Any, of: Any) -> Any:
        return original(self, columns, of).roll(columns.shape[-1], -1)

    return ended


def _fewer(original: Any) -> Any:
    """One lesson too few."""
    return lambda window, tokens, count: max(1, original(window, tokens, count) - 1)


def _forgetful(original: Any) -> Any:
    """A window that is not carried from call to call."""

    def call(*args: Any, state: Any, **rest: Any) -> Any:
        return original(*args, state={n: torch.zeros_like(x) for n, x in state.items()}, **rest)

    return call


def _short(original: Any) -> Any:
    """One step of conjugate gradients too few."""
    return lambda self, q, at, ridge, iterations: original(
        self, q, at=at, ridge=ridge, iterations=iterations - 1
    )


FAULTS = {
    "a write seen too late": ("delta_product", filters, "seen_mask", _later),
    "the pass reads above the write": ("kda", quick_chunks, "Reading", _above),
    "one anchor whatever the decay": ("kda_steep", chunk_widths, "steep_chunks", lambda f: lambda *a: []),
    "gates of the token left out": ("toward_init", filters.ChannelFilter, "sums", _stale),
    "decay and momentum exchanged": ("omega_net", filters.MomentumFilter, "ended", _swapped),
    "lessons forgotten between calls": ("omega", past_lessons, "past_lessons", _forgetful),
    "a lesson too few of the window": ("omega", past_lessons, "_there", _fewer),
    "too few steps of the solver": ("mesa", matrix_memory.MatrixMemory, "solve", _short),
    "halves anchored behind the border": (
        "kda_steep", filters, "pick_base", lambda f: lambda *a: a[1].shape[1]
    ),
    "later gates left out": (
        "kda_wave", state_filter.StateFilter, "_behind", lambda f: lambda s, of: s._columns(of)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_seeded_faults_are_found(name: str) -> None:
    form, owner, attribute, change = FAULTS[name]
    with mock.patch.object(owner, attribute, change(getattr(owner, attribute))):
        layer = compiled(FORMS[form][1], x=8)
        found = disagreements(layer, tokens=9, pieces=(2, 7)) + disagreements(layer, tokens=40, batch=1)
    assert found
