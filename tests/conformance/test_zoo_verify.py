"""`nldsl verify` on the layers of the zoo: every form the compiler chooses equals the interpreter."""

from __future__ import annotations

import pytest

from nldsl.certify import verify
from nldsl.spec.loader import standard_library
from tests.golden.test_golden import REFUSED

HEADLESS = ("mamba1", "longhorn")
FAST = ("retnet", "mesanet", "srwm")
"""A sum, a read that solves, and self-reference; the rest takes minutes."""
LAYERS = sorted(
    name
    for kind, name in standard_library().index
    if kind == "model" and ("block", name) in standard_library().index and f"blocks/{name}" not in REFUSED
)


def test_the_zoo_is_what_its_files_say() -> None:
    assert len(LAYERS) > 34 and set(FAST) <= set(LAYERS)


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.long) for n in LAYERS]
)
def test_layer_passes(name: str) -> None:
    heads = {} if name in HEADLESS else {"heads": 2}
    certificate = verify(name, block=name, dim=8, **heads)
    assert certificate.passed, certificate.text()
