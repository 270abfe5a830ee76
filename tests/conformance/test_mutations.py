"""Every seeded fault is killed by `verify`, and what has no fault passes."""

from __future__ import annotations

import pytest
import torch

from nldsl.certify.bench import build_module
from nldsl.certify.examine import examine
from tests.conformance.faults import EDITS, PATCHES, PROGRAMS, RUNTIME, Edit, Patch, subject

torch.set_num_threads(1)


def silent(_: str) -> None:
    """Nobody listens."""


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_a_fault_it_passes(program: str) -> None:
    section = examine(subject(program), build_module, silent)
    assert section.passed, [c for c in section.checks if not c.passed]
    assert section.difference is None


@pytest.mark.parametrize("fault", [*EDITS, *PATCHES], ids=lambda f: f"{f.program}: {f.label}")
def test_fault_is_killed(fault: Edit | Patch) -> None:
    section = examine(subject(fault.program), fault.build(), silent, until_failure=True)
    failed = [c for c in section.checks if not c.passed]
    assert failed, f"{fault.label} survives"
    # Seen by a comparison, or by what the faulty code raised: not by an edit that does not apply.
    assert "AssertionError" not in failed[0].note, failed[0].note


@pytest.mark.parametrize("fault", RUNTIME, ids=lambda f: f"{f.program}: {f.label}")
def test_fault_of_the_runtime_is_killed(fault: Patch) -> None:
    with fault.applied():
        section = examine(subject(fault.program), build_module, silent, until_failure=True)
    assert not section.passed


def test_there_are_enough_faults() -> None:
    labels = [f.label for f in (*EDITS, *PATCHES, *RUNTIME)]
    assert len(set(labels)) == len(labels) >= 30
