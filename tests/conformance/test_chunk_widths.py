"""The chunk that `explain` names is the chunk that the compiled layer takes."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch

from nldsl.runtime import chunk_pass, chunks, matrix_chunks, quick_chunks, recurrence
from nldsl.view.lowering import lowering_rows
from tests.conformance.agreement import compiled
from tests.conformance.test_matrix_memories import FORMS, WRITE, program

SPECS = {
    "delta": (32, program(f"S *= keep\n{WRITE} l2 by gd(lr = beta)")),
    "delta with a gate of any sign": (64, program(f"S *= sign\n{WRITE} l2 by gd(lr = beta)")),
    "sum": (64, program(f"S *= keep\n{WRITE} dot by gd(lr = beta)")),
    "gla": (64, FORMS["gla"][1]),
    "rwkv7": (32, FORMS["rwkv7"][1]),
    "kda": (32, FORMS["kda"][1]),
    "grouped": (64, FORMS["grouped"][1]),
    "delta_product": (32, FORMS["delta_product"][1]),
    "titans": (32, FORMS["titans"][1]),
    "nesterov": (32, FORMS["nesterov"][1]),
    "two_momenta_dot": (64, FORMS["two_momenta_dot"][1]),
    "omega_two": (21, FORMS["omega_two"][1]),
    "momentum_terms": (32, FORMS["momentum_terms"][1]),
    "momentum_channels_dot": (64, FORMS["momentum_channels_dot"][1]),
    "oja": (64, FORMS["oja"][1]),
    "scan": (0, FORMS["mamba1"][1]),
}


def widths(layer: Any, tokens: int) -> list[int]:
    """Of every chunk that rows were cut into, in the order of the calls."""
    found: list[int] = []

    def cut(x: torch.Tensor, layout: chunks.Layout) -> torch.Tensor:
        found.append(layout.width)
        return original(x, layout)

    def passed(*given: Any, width: int, **how: Any) -> Any:
        found.append(width)
        return one_pass(*given, width=width, **how)

    original, one_pass = chunks.cut, chunk_pass.chunk_pass
    with (
        mock.patch.object(matrix_chunks, "cut", cut),
        mock.patch.object(recurrence, "cut", cut),
        mock.patch.object(quick_chunks, "chunk_pass", passed),
        mock.patch.object(recurrence, "chunk_pass", passed),
    ):
        layer(torch.randn(1, tokens, 8))
    return found


@pytest.mark.parametrize("name", SPECS)
def test_what_is_explained_is_what_runs(name: str) -> None:
    wanted, text = SPECS[name]
    layer = compiled(text, x=8)
    (row,) = lowering_rows(layer.plan)
    assert row.chunk == wanted
    # So many tokens that chunks of equal width are whole ones.
    found = widths(layer.float(), 64 * 3 * (wanted or 1))
    assert set(found[-1:]) == ({wanted} if wanted else set())


def test_a_width_that_differs_elsewhere_is_said() -> None:
    (row,) = lowering_rows(compiled(SPECS["delta"][1], x=8).plan)
    assert (row.chunk, row.elsewhere, row.width) == (32, 64, "32 tokens (64 on a GPU)")
    (row,) = lowering_rows(compiled(SPECS["sum"][1], x=8).plan)
    assert row.width == "64 tokens"
