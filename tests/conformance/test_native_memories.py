"""Memories of the library in compiled lanes, and what `verify` says of lanes: minutes of compiling."""

from __future__ import annotations

import copy

import pytest

import nldsl
from nldsl.certify import verify
from nldsl.runtime.native import compiler
from tests.conformance.test_native_steps import HEADLESS
from tests.conformance.test_written_back import CASES, CHUNK, MASK, apart, built, flows

pytestmark = pytest.mark.skipif(not compiler(), reason="there is no C compiler")


@pytest.mark.long
def test_verify_holds_lanes_against_torch() -> None:
    result = verify(HEADLESS, x=8, compiled=("native",)).sections[-1].checks[0]
    assert (result.name, result.passed, result.cases) == ("native lanes", True, 3)


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_memories_of_the_library(name: str) -> None:
    plain = built(name)
    native = copy.deepcopy(plain)
    report = nldsl.native(native, at_once=True)
    pieces = (2, CHUNK + 1, 1, 2 * CHUNK - 2)
    for given in ((2 * CHUNK + 1,), (MASK.shape[1], MASK, pieces)):
        assert apart(flows(native, *given), flows(plain, *given)) < 1e-9
    assert report.running, str(report)
