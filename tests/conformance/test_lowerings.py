"""Programs a researcher might write: compiled code equals the interpreter, or a diagnostic says why not.

`specs/*.txt` holds them, one after the other: `### name | arguments of compile`, then the text.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from nldsl.diagnostics import SpecError
from tests.conformance.agreement import LOWERINGS, compiled, disagreements

SPECS = Path(__file__).parent / "specs"

CODED = {
    "NL0102": {"names_unicode"},
    "NL0313": {"map_conv"},
    "NL0401": {"gqa_keys", "weight_matmul_heads", "weight_as_target_chunk"},
    "NL0411": {"softmax_written_never_read", "matrix_written_never_read", "chunk_written_never_read"},
    "NL0418": {"plus_heads", "scale_weight_key_heads"},
    "NL0421": {"dgd_at_commit"},
    "NL0509": {"level_steps"},
    "NL0701": {"softmax_causal_false", "softmax_self_bent", "no_inputs", "x_of_an_objective_with_memory"},
}
"""Programs that are refused, by the code that says so; NL0701: no lowering takes them yet."""


def _programs() -> dict[str, tuple[str, dict[str, Any]]]:
    found = {}
    for file in sorted(SPECS.glob("*.txt")):
        for part in re.split(r"^### ", file.read_text(), flags=re.M)[1:]:
            head, text = part.split("\n", 1)
            name, _, arguments = head.partition(" | ")
            call = ast.parse(f"dict({arguments})", mode="eval").body
            assert isinstance(call, ast.Call)
            found[name.strip()] = text, {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    return found


PROGRAMS = _programs()
REFUSED = {name: code for code, names in CODED.items() for name in names}


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("name", [n for n in PROGRAMS if n not in REFUSED])
def test_equals_the_interpreter(name: str, lowering: str) -> None:
    """Whole, in pieces, with masked tokens and a fully masked sample; outputs, states, gradients."""
    text, arguments = PROGRAMS[name]
    layer = compiled(text, lowering, **arguments)
    mask = torch.rand(3, 7, generator=torch.Generator().manual_seed(1)) > 0.3
    mask[1] = False
    assert disagreements(layer, tokens=5) == []
    assert disagreements(layer, tokens=7, batch=3, mask=mask, pieces=(1, 3, 0, 3)) == []
    assert disagreements(layer, tokens=0, gradients=False) == []


@pytest.mark.long
@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("name", [n for n in PROGRAMS if n not in REFUSED])
def test_equals_the_interpreter_over_many_chunks(name: str, lowering: str) -> None:
    """Longer than every clock in use, so that each commits several times."""
    text, arguments = PROGRAMS[name]
    layer = compiled(text, lowering, **arguments)
    assert disagreements(layer, tokens=19) == []
    assert disagreements(layer, tokens=53, batch=1, pieces=(11, 24, 18)) == []


@pytest.mark.parametrize("name", sorted(REFUSED.keys() & PROGRAMS.keys()))
def test_is_refused_by_name(name: str) -> None:
    text, arguments = PROGRAMS[name]
    for lowering in LOWERINGS:
        with pytest.raises(SpecError) as caught:
            compiled(text, lowering, **arguments)
        codes = {d.code for d in caught.value.diagnostics}
        assert REFUSED[name] in codes
        assert all(d.span is not None for d in caught.value.diagnostics)
        assert all(d.message[-1] not in ",;:" for d in caught.value.diagnostics)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("softmax_self_bent", "`memory A = matrix()`"),
        ("softmax_causal_false", "leave `causal = false` out"),
        ("no_inputs", "give it an input, `block b(x)`"),
    ],
)
def test_what_no_lowering_takes_is_told_with_what_one_does(name: str, advice: str) -> None:
    text, arguments = PROGRAMS[name]
    with pytest.raises(SpecError) as found:
        compiled(text, **arguments)
    assert found.value.diagnostics[0].code == "NL0701" and advice in found.value.diagnostics[0].help
