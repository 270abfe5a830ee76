"""Steps of a matrix as papers print them: the text itself, run with torch's matrices, against the layer."""

from __future__ import annotations

import re
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from nldsl.diagnostics import SpecError
from nldsl.graph import open_program
from nldsl.spec import printed_steps
from nldsl.view import explain
from tests.conformance.agreement import compiled, disagreements
from tests.conformance.test_matrix_memories import program

PRINTED: dict[str, tuple[str, str]] = {
    "S = a * S @ (I - b * outer(k, k)) + b * outer(v, k)": ("delta", "Gated DeltaNet"),
    "S = S @ (identity - b * outer(k, k)) + b * outer(v, k)": ("delta", "DeltaNet"),
    "S = a * (S @ (I - b * outer(k, k))) + outer(b * v, k)": ("delta", "Gated DeltaNet"),
    "S = a * S - b * outer(S @ k, k) + outer(v, k) * b": ("delta", "the gated delta rule of Hope"),
    "S = a * S + b * outer(v - S @ k, k)": ("delta", "the gated delta rule of Hope"),
    "S -= b * outer(S @ k - v, k) / 2": ("delta", "DeltaNet"),
    "S += b * outer(v, k) - b * S @ outer(k, k)": ("delta", "DeltaNet"),
    "S = S + c * outer(2 * b * v, k) - b * outer(S @ k, k)": ("delta_block", "Comba"),
    "S = S @ diag(w) @ (I - b * outer(k, k)) + b * outer(v, k)": ("delta_channel", "Kimi Delta Attention"),
    "S = S @ (diag(w) - outer(p, w * p)) + outer(v, k)": ("delta_block", "RWKV-7"),
    "S = S @ (I - b * outer(k, k)) @ (I - c * outer(p, p)) + c * outer(k, p)": ("delta_block", ""),
    "S = S @ (I - b * outer(k, k) - c * outer(p, p)) + outer(v, k)": ("delta_block", ""),
    "S = S @ (diag(w) - b * outer(p, k)) + outer(v, p)": ("delta_block", ""),
    "S = S @ (I - b * outer(p, k)) + b * outer(v, k)": ("delta_block", ""),
    "S = a * S @ (I + b * outer(p, w * k)) - c * outer(v, p)": ("delta_block", ""),
    "S += b * outer(v, k - transpose(S) @ v)": ("delta_value", "Oja"),
    "S = (I - b * outer(v, v)) @ S + b * outer(v, k)": ("delta_value", "Oja"),
    "S = a * S + b * outer(v, k) - b * outer(v, v) @ S": ("delta_value", "Oja"),
    "S = (I - b * outer(v, v)) @ S + outer(v, k)": ("delta_value", ""),
    "S = a * (I - b * outer(v, v)) @ S + outer(p, k)": ("delta_value", ""),
    "S = a * S + outer(v, k)": ("linear", "Mamba-2"),
    "S = diag(w) @ S @ diag(w) + outer(v, k)": ("", ""),
    "S = diag(w) @ S + outer(v, k)": ("linear_channel", ""),
    "S -= b * outer(v, k)": ("linear", "linear attention"),
    "S = S / (1 + b) + outer(v, k)": ("linear", ""),
    "S = w * S @ (I - b * outer(k, k)) + b * outer(v, k)": ("delta_channel", "Kimi Delta Attention"),
    "S = a * S + sum(S[k]) * outer(v, p) + outer(v, k)": ("sequential", ""),
    "S = sum(S[p]) * S + outer(v, k)": ("sequential", ""),
    "S = S - b * outer(S @ k, k) * w + outer(v, p)": ("delta_block", ""),
    "S = a * S + outer(v - b * (S @ p), k)": ("delta_block", ""),
    "S = a * S + outer(v - b * (S @ k), k)": ("delta_block", "Comba"),
    "S = a * S + c * outer(v - b * (S @ k), k)": ("delta_block", "Comba"),
    "S = a * S - outer(b * (S @ k) - b * v, k)": ("delta_block", "Comba"),
    "S += outer(v - b * (S @ k), k)": ("delta_block", "Comba"),
    "S += outer(v - b * S[p], k)": ("delta_block", ""),
    "S -= outer(b * (S @ p) - v + k, k)": ("delta_block", ""),
    "S = S - outer((S @ p) * b + c * S[k] - v, k)": ("delta_block", ""),
    "S = S + outer(v - (1 - a) * (S @ k), k)": ("delta_block", "Comba"),
    "S = a * S + b * (outer(v, k) + outer(k, p))": ("linear", ""),
    "S = a * (S - b * outer(S @ k, k)) + b * outer(v, k)": ("delta", "Gated DeltaNet"),
    "S = (S - b * (S @ outer(k, k) - outer(v, k))) * a": ("delta", "the gated delta rule of Hope"),
    "S = a * (S @ (I - b * outer(k, k)) + c * outer(v, k))": ("delta_block", "Comba"),
    "S = w * (S - b * outer(S @ k, k)) + outer(v, p)": ("delta_block", ""),
    "S -= b * (outer(S @ k, k) - a * (outer(v, k) + outer(k, p)))": ("delta_block", ""),
}
"""What is printed, with its form and its name; without a form it is refused."""
NAMES = {
    "k": "l2norm(x)",
    "p": "l2norm(x + 1)",
    "v": "x * x",
    "w": "sigmoid(x)",
    "a": "sigmoid(sum(x))",
    "b": "sigmoid(mean(x))",
    "c": "sigmoid(-mean(x))",
}
HEADED = {"a": "sigmoid(linear(x, 2))", "b": "sigmoid(linear(x, 2))", "c": "sigmoid(linear(x, 2))"}


def alone(body: str) -> str:
    """One copy, and values without parameters."""
    used = "\n".join(f"{n} = {e}" for n, e in NAMES.items() if re.search(rf"\b{n}\b", body))
    return (
        "block b(x) {\nlevel context every 1 token { memory S = matrix() }\n"
        f"{used}\n{body}\nreturn S[x]\n}}\n"
    )


def by_head(body: str) -> str:
    """Two copies, with numbers per head."""
    text = program(body.replace("a *", "keep *"))
    lines = {
        n: HEADED.get(n, f"split({'linear(x)' if n == 'v' else 'l2norm(linear(x))'}, 2)") for n in "abcpw"
    }
    used = "\n".join(f"{n} = {e}" for n, e in lines.items() if re.search(rf"\b{n}\b", text.split("}")[1]))
    return text.replace(body.replace("a *", "keep *"), f"{used}\n{body.replace('a *', 'keep *')}")


def literally(body: str, x: Tensor) -> list[Tensor]:
    """The text of the step, evaluated with matrices of torch, token by token."""
    operator, text = re.match(r"S ([-+]?=) (.*)", body).groups()  # type: ignore[union-attr]
    text = re.sub(r"S\[(\w+)\]", r"(S @ \1)", text)
    size = x.shape[-1]
    S, found = torch.zeros(size, size, dtype=x.dtype), []
    for z in x:
        words: dict[str, Any] = {
            "k": z / (z @ z + 1e-6).sqrt(), "v": z * z, "w": z.sigmoid(), "a": z.sum().sigmoid(),
            "p": (z + 1) / ((z + 1) @ (z + 1) + 1e-6).sqrt(), "b": z.mean().sigmoid(),
            "c": (-z.mean()).sigmoid(), "S": S, "I": torch.eye(size, dtype=x.dtype),
            "identity": torch.eye(size, dtype=x.dtype), "outer": torch.outer, "diag": torch.diag,
            "transpose": lambda m: m.T, "sum": torch.sum,
        }  # fmt: skip
        step = eval(text, {}, words)
        S = step if operator == "=" else S + step if operator == "+=" else S - step
        found.append(S @ z)
    return found


def test_numbers_named_above_are_those_in_front_of_the_step() -> None:
    body = "S = a * S @ (I - b * outer(k, k)) + r * outer(v, p) + outer(v, k)"
    layer = compiled(alone(f"r = sum(S[p])\n{body}"), x=6)
    x = torch.randn(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, _ = layer(x.unsqueeze(0))
    assert torch.allclose(y[0], torch.stack(literally(body.replace("r *", "sum(S[p]) *"), x)), atol=1e-9)
    assert disagreements(layer, tokens=7, pieces=(3, 4)) == []


def taken(body: str) -> bool:
    """Whether a text stands for a write."""
    return bool(PRINTED[body][0])


@pytest.mark.parametrize("body", list(filter(taken, PRINTED)))
def test_the_layer_does_what_is_printed(body: str) -> None:
    layer = compiled(alone(body), x=6)
    (unit,) = [u for b in layer.plan.blocks for u in b.units if u.memories]
    assert unit.lowering == PRINTED[body][0]
    (memory,) = explain(alone(body), x=6).equations
    assert memory.known_as.startswith(PRINTED[body][1])
    x = torch.randn(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, _ = layer(x.unsqueeze(0))
    assert torch.allclose(y[0], torch.stack(literally(body, x)), atol=1e-9)
    assert disagreements(layer, tokens=7, pieces=(3, 4)) == []


@pytest.mark.parametrize("body", [b for b in PRINTED if taken(b) and not re.search("diag|/", b)])
def test_copies_per_head_take_the_same_form(body: str) -> None:
    layer = compiled(by_head(body), x=8)
    (unit,) = [u for b in layer.plan.blocks for u in b.units if u.memories]
    assert unit.lowering == PRINTED[body][0]
    assert disagreements(layer, tokens=5, batch=1) == []


def test_two_calls_are_two_values() -> None:
    """`linear(x)` twice has two weights: no delta rule, whatever it looks like."""
    text = alone("S = S - outer(S[l2norm(linear(x))], l2norm(linear(x))) + outer(v, k)")
    layer = compiled(text, x=6)
    assert len(layer.parameter_paths()) == 2
    assert [u.lowering for b in layer.plan.blocks for u in b.units if u.memories] == ["delta_block"]
    assert disagreements(layer, tokens=5) == []


OTHERS = {
    "S = diag(w) @ S @ diag(w) + outer(v, k)": "NL0404",
    "S = S": "NL0404",
    "S = S + S @ outer(v, k) + S": "NL0404",
    "S = S + S @ outer(k, k) + I": "NL0404",
    "S = S @ outer(k, k)": "NL0404",
    "S -= S": "NL0404",
    # The numbers are those in front of the whole step, not behind its first half.
    "S = a * S @ (I - b * outer(k, k)) + sum(S[p]) * outer(v, p)": "r = S[k]",
    "S = a * S @ (I - sum(S[p]) * outer(k, k)) + outer(v, p)": "r = S[k]",
    "S = S @ (I - b * outer(k, k)) @ (I - sum(S[k]) * outer(p, p)) + outer(v, p)": "r = S[k]",
    "S = S @ (I - b * outer(k, k)) @ diag(S[k]) + outer(v, p)": "r = S[k]",
    # Channels are scaled where they stand.
    "S = S @ (I - b * outer(k, k)) * w + b * outer(v, k)": "numbers with a name",
    "S = S @ (w * (I - b * outer(k, k))) + b * outer(v, k)": "numbers with a name",
    "S = S - w * S @ outer(k, k) + outer(v, p)": "numbers with a name",
    "S = w * (I - b * outer(v, v)) @ S + b * outer(v, k)": "numbers with a name",
    "S = S - w * outer(v, v) @ S + w * outer(v, k)": "numbers with a name",
    "S = a * S + outer(v - w * (S @ k), k)": "`v - b * (S @ p)`",
    "S = a * S + outer(v - (S @ k) * (S @ p), k)": "`v - b * (S @ p)`",
}


@pytest.mark.parametrize("body", OTHERS)
def test_what_is_no_such_step_is_refused(body: str) -> None:
    with pytest.raises(SpecError) as error:
        open_program(alone(body), x=6)
    assert OTHERS[body] in str(error.value)


def _as_given(original: Any) -> Any:
    """A sign lost."""
    return lambda node, negative: [(n, False) for n, _ in original(node, negative)]


FAULTS = {
    "a sign lost": ("summands", _as_given),
    "every sum is the pair of an erase": (
        "partner",
        lambda f: lambda wanted, key, rest: next((a for a in rest if printed_steps.same(a.right, key)), None),
    ),
    "numbers left out": (
        "number",
        lambda f: lambda product, more, span: f(printed_steps.Product(), more, span),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_seeded_faults_are_found(name: str) -> None:
    attribute, change = FAULTS[name]
    x = torch.randn(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wrong = []
    bodies = [b for b in PRINTED if taken(b) and "@ (" not in b and ") @" not in b]
    with mock.patch.object(printed_steps, attribute, change(getattr(printed_steps, attribute))):
        for body in bodies:
            y, _ = compiled(alone(body), x=6)(x.unsqueeze(0))
            wrong.append(not torch.allclose(y[0], torch.stack(literally(body, x)), atol=1e-9))
    assert any(wrong)
