"""What is fetched for the next turn: every line of an argument, none twice, whatever its layout."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from nldsl.native.fetches import fetches
from nldsl.native.graph import Buffer, View
from nldsl.native.lanes import Lanes

LINES = re.compile(r"x = (\d+); x < (\d+); x\+\+\) nl_fetch\(next\[3\] \+ x \* (\d+), (\d+)\)")


@pytest.mark.parametrize(
    ("shape", "strides", "rows", "step", "length"),
    [
        ((1, 1, 64, 64), (0, 0, 64, 1), 1, 0, 16384),
        ((1, 1, 32, 64), (0, 0, 256, 1), 32, 1024, 256),
        ((1, 1, 32, 1, 64), (0, 0, 256, 64, 1), 32, 1024, 256),
        ((1, 2, 5, 16), (0, 500, 100, 1), 10, 400, 64),
    ],
)
def test_every_line_is_fetched_once(
    shape: tuple[int, ...], strides: tuple[int, ...], rows: int, step: int, length: int
) -> None:
    size = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    view = View(Buffer(size, "float", "input", 3), 0, shape, strides)
    found: list[int] = []
    (fetch,) = fetches([None, view])
    for share in range(7):
        for first, last, move, lines in LINES.findall(fetch.share(share, 7)):
            places = range(int(first), int(last))
            found += [x * int(move) + 64 * line for x in places for line in range(int(lines))]
    wanted = [row * step + at for row in range(rows) for at in range(0, length, 64)]
    assert found == wanted


def test_few_numbers_are_not_worth_it() -> None:
    gate = View(Buffer(32, "float", "input", 0), 0, (1, 1, 32), (0, 0, 1))
    assert list(fetches([gate])) == []


def test_what_is_made_is_fetched_too_and_nothing_twice() -> None:
    """Room for what the next turn makes; what this turn makes, and a second name of an array, are near."""

    def step(x: Tensor, state: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
        return x @ state, state + same

    x, state = torch.ones(1, 1, 32, 32), torch.ones(1, 1, 32, 32)
    made = Lanes(step, 2)
    made(x, state, state.clone())
    text = next(form.text for form in made.known.values() if form is not None)
    assert sorted(set(re.findall(r"nl_fetch\(next\[(\d)\]", text))) == ["0", "1", "2", "3", "4"]
    assert "if (next[i] == at[j] || (j < i && next[i] == next[j])) next[i] = 0;" in text
