"""Windows of lessons (`over c tokens`): what is looked back upon, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nldsl.runtime import past_lessons
from tests.conformance.agreement import compiled, disagreements

LONG = """
block b(x) {
  level c every 1 token { memory M = matrix() }
  M[l2norm(linear(x))] <- linear(x) over 9 tokens weighted sigmoid(mean(x)) by gd(lr = 0.2) retain 0.9
  return M[linear(x)]
}
"""


def test_a_window_costs_what_there_is_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lessons that no sample can have had are left out; masked and in pieces, the answers are the same."""
    seen = []

    def watched(*args: Any, **rest: Any) -> Any:
        found = kept(*args, **rest)
        seen.append(found[0].shape[3])
        return found

    kept = past_lessons.past_lessons
    monkeypatch.setattr(past_lessons, "past_lessons", watched)
    layer = compiled(LONG, x=4)
    mask = torch.rand(2, 14, generator=torch.Generator().manual_seed(1)) > 0.3
    assert disagreements(layer, tokens=14, mask=mask, pieces=(2, 3, 0, 9)) == []
    counts = [0, *mask.cumsum(1).amax(0).tolist()]
    assert seen == [max(1, min(9, counts[at] + n)) for at, n in ((0, 2), (2, 3), (5, 0), (5, 9))]
