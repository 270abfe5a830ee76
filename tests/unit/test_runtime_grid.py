"""The chunk grid: every token lands in the chunk its count says, whatever the counts and masks."""

import itertools

import pytest
import torch

from nldsl.runtime.chunks import mask_out
from nldsl.runtime.grid import ChunkGrid, choose

B, H, D = 4, 2, 3


def grid_case(tokens, aligned, masked):
    g = torch.Generator().manual_seed(tokens)
    count = torch.full((B,), 8) if aligned else torch.randint(0, 20, (B,), generator=g)
    mask = torch.rand(B, tokens, generator=g) > 0.4 if masked else None
    return count, mask


@pytest.mark.parametrize(
    ("tokens", "chunk", "aligned", "masked"),
    list(itertools.product((0, 1, 3, 4, 5, 17, 64), (1, 4, 16), (0, 1), (0, 1))),
)
def test_cut_and_join(tokens, chunk, aligned, masked):
    count, mask = grid_case(tokens, aligned, masked)
    grid = ChunkGrid(count, mask, tokens, chunk)
    live = torch.ones(B, tokens, dtype=torch.bool) if mask is None else mask
    sequence = torch.randn(B, tokens, H, D, dtype=torch.float64, requires_grad=True)
    shapes = {
        "headed": sequence,
        "heads": sequence[..., 0],
        "vector": sequence[:, :, 0],
        "scalar": sequence[:, :, 0, 0],
    }
    for kind, x in shapes.items():
        pieces = grid.cut(x, kind)
        assert len(pieces) == len(grid) == len(grid.valid) == len(grid.full) >= 1
        y = mask_out(grid.join(pieces, kind), mask)
        want = x * live.view(B, tokens, *(1,) * (x.dim() - 2))
        assert torch.equal(y, want)
        if tokens:
            (g,) = torch.autograd.grad(y.sum(), sequence)
            assert torch.equal(g != 0, torch.autograd.grad(want.sum(), sequence)[0] != 0)
    tokens_of = grid.cut(torch.arange(tokens).expand(B, -1), "token")
    for b in range(B):
        real = [t for t in range(tokens) if live[b, t]]
        seen = int(count[b])
        for piece, valid, full in zip(tokens_of, grid.valid, grid.full, strict=True):
            here = [int(t) for i, t in enumerate(piece[b]) if valid is None or valid[b, i]]
            assert here == real[: len(here)]
            real, before, seen = real[len(here) :], seen, seen + len(here)
            ends = full if isinstance(full, bool) else bool(full[b])
            assert ends == (bool(here) and seen % chunk == 0)
            assert not here or before // chunk == (seen - 1) // chunk
            assert not real or seen % chunk == 0
        assert not real and seen == int(grid.count[b])


def test_samples_in_step_cost_no_padding():
    grid = ChunkGrid(torch.full((B,), 5), None, 1, 64)
    assert (
        len(grid) == 1
        and grid.valid == [None]
        and grid.cut(torch.zeros(B, 1, D), "vector")[0].shape == (B, 1, D)
    )
    x = torch.randn(B, 128, D)
    pieces = ChunkGrid(torch.zeros(B, dtype=torch.long), torch.ones(B, 128, dtype=torch.bool), 128, 64).cut(
        x, "vector"
    )
    assert [p.data_ptr() for p in pieces] == [x.data_ptr(), x[:, 64:].data_ptr()]


def test_slower_clocks_end_with_some_pieces():
    grid = ChunkGrid(torch.tensor([0, 4]), None, 12, 4)
    assert [e if isinstance(e, bool) else e.tolist() for e in grid.ends(8)] == [
        [False, True],
        [True, False],
        [False, True],
    ]


def test_choose():
    new, old = torch.ones(2, 3), torch.zeros(2, 3)
    assert choose(True, new, old) is new and choose(False, new, old) is old
    assert choose(torch.tensor([False, True]), new, old).sum(1).tolist() == [0, 3]
