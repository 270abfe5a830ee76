"""Random programs mean the same compiled, compiled token by token, and interpreted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings

from nldsl.diagnostics import SpecError
from tests.conformance.agreement import LOWERINGS, compiled, disagreements
from tests.conformance.random_specs import programs

QUIET = [
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.large_base_example,
]


def check(program: tuple[str, int]) -> None:
    """Both lowerings against the interpreter: in pieces, with masked tokens and a fully masked sample."""
    text, size = program
    mask = torch.rand(3, 8, generator=torch.Generator().manual_seed(2)) > 0.25
    mask[2] = False
    for lowering in LOWERINGS:
        try:
            layer = compiled(text, lowering, x=size)
        except SpecError as error:
            assume(False)
            raise AssertionError from error
        found = disagreements(layer, tokens=8, batch=3, mask=mask, pieces=(3, 1, 4))
        assert not found, f"{lowering}: {found}\n{text}"


@settings(max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=QUIET)
@given(program=programs())
def test_random_programs(program: tuple[str, int]) -> None:
    check(program)


@pytest.mark.long
@settings(
    max_examples=1500, deadline=None, suppress_health_check=QUIET, phases=[Phase.generate, Phase.shrink]
)
@given(program=programs())
def test_many_random_programs(program: tuple[str, int]) -> None:
    check(program)
