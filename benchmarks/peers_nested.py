"""nested-learning: its Hope as it trains, its self-modifying Titans, its M3.

Its training step (`two_pass_stopgrad_updates`, the setting it calls paper-faithful) goes in chunks as short
as the fastest clock: read the memories, go back, then write them in a second pass that no gradient goes
through.  Ours is one pass whose writes are differentiated, and one whose writes are constants as theirs are
(`FIRST`: the same gradients, of reads alone).  Theirs has one head of the full width, so the
layer is timed with one head too.  Their time grows in proportion to the tokens: it is measured on `SHORT`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from nested_learning.levels import LevelSpec
from nested_learning.model import HOPEModel, ModelConfig
from nested_learning.optim.m3 import M3, _newton_schulz
from nested_learning.titan.self_modifying import SelfModifyingTitans, SelfModifyingTitansConfig
from nested_learning.training import compute_teach_signal
from torch import Tensor, nn

import nldsl
from benchmarks.peer import BATCH, HEADS, TOKENS, WIDTH, Pair, ours, passes, tokens
from nldsl.runtime.newton_schulz import orthogonalize

SHORT = 64
CLOCKS = [16, 64, 256]
LAYERS = ((256, 1, 16, 64), (256, 4, 16, 64), (256, 4, 1, 1), (512, 8, 16, 64), (768, 12, 16, 64))
"""Width, heads of ours, clocks of theirs; those of ours are 16 and 64."""
FULL, FIRST = "self_modifying_titans", "self_modifying_titans_first"
"""Outer gradients through reads and writes, and through reads alone."""
SHAPES, SLOW = ((6, 512, 512), (1, 512, 2048)), 5
"""A quarter of the matrices of `benchmarks.optimizers`, and the clock of the slow momentum."""


def pairs() -> list[Pair]:
    """The model as it trains, the layer with one head and with four, and the optimiser."""
    first = [layers(*case, block=FIRST) for case in LAYERS if case[:2] == (256, 4)]
    return [hope(), *(layers(*case) for case in LAYERS), *first, m3(), m3(2, theirs=5)]


def layers(width: int, heads: int, chunk: int, clock: int, block: str = FULL) -> Pair:
    """The self-modifying layer; theirs has one head at any width."""
    mine = ours(block, block=block, x=width, heads=heads)
    sizes = f"{heads} x {width // heads}, 16/64; theirs 1 x {width}, {chunk}/{clock}"
    name = f"self-modifying layer{', first-order writes' if block == FIRST else ''}, {sizes}"
    run, other = passes(mine, tokens(width=width)), layer(width, chunk, clock)
    return Pair(name, run, other, scale=TOKENS / SHORT, most=1 if width > WIDTH else Pair.most)


def hope() -> Pair:
    """One layer of Hope: memories on 16 and 64 tokens, a continuum memory system on 16, 64 and 256."""
    bytes_ = torch.randint(0, 256, (BATCH, TOKENS + 1))
    mine = ours("hope", dim=WIDTH, depth=1, heads=HEADS, chunks=CLOCKS)
    config = ModelConfig(
        vocab_size=256,
        dim=WIDTH,
        num_layers=1,
        heads=HEADS,
        titan_level=LevelSpec("titan", 16),
        cms_levels=[LevelSpec(f"every {n}", n) for n in CLOCKS],
        cms_flush_partial_at_end=True,
        teach_scale=0.1,
        teach_clip=5.0,
        self_mod_chunk_size=16,
        self_mod_chunk_size_memory=64,
        self_mod_use_skip=False,
        block_variant="hope_selfmod",
    )
    theirs = HOPEModel(config)

    def ours_step() -> None:
        mine.zero_grad()
        mine.learn(bytes_, backward=1 / (BATCH * TOKENS))

    return Pair(
        f"Hope, 1 layer, memories 16/64, CMS {CLOCKS}: a step",
        ours_step,
        lambda: their_step(theirs, bytes_[:, : SHORT + 1]),
        scale=TOKENS / SHORT,
    )


def their_step(model: HOPEModel, stream: Tensor) -> None:
    """As `nested_learning.training` does it with `online_updates`, `use_fast_state` and boundary targets."""
    model.zero_grad()
    memory, length = model.init_fast_state(), stream.shape[1] - 1
    for start in range(0, length, CLOCKS[0]):
        piece, after = stream[:, start : start + CLOCKS[0]], stream[:, start + CLOCKS[0]]
        logits, _, _ = model.forward_with_block_outputs(piece, fast_state=memory)
        targets = torch.cat([piece[:, 1:], after.unsqueeze(1)], 1)
        F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        signal = compute_teach_signal(model, logits, piece, next_tokens=after)
        last = start + CLOCKS[0] >= length
        with torch.no_grad():
            model(piece, teach_signal=signal, fast_state=memory, finalize_updates=last)


def layer(width: int, chunk: int, clock: int) -> Callable[[], object]:
    """Their layer: read, backward, write."""
    config = SelfModifyingTitansConfig(width, chunk_size_other=chunk, chunk_size_memory=clock)
    module, x = SelfModifyingTitans(config), tokens(SHORT, width)
    read = passes(module, x)

    def once() -> None:
        read()
        with torch.no_grad():
            module.apply_updates_inplace(x)

    return once


def m3(iterations: int = 5, theirs: int = 5) -> Pair:
    """Steps of M3 (slow momentum once): as many iterations of Newton-Schulz, or an answer as orthogonal."""
    mine = nldsl.optimizer("m3", weights(), lr=1e-3, slow=SLOW, iterations=iterations, nonfinite="ignore")
    other = M3(weights(), lr=1e-3, ns_steps=theirs, slow_chunk=SLOW)

    def steps(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
        return lambda: [optimizer.step() for _ in range(SLOW)]

    sizes = " and ".join(f"{n} of {rows} x {columns}" for n, rows, columns in SHAPES)
    return Pair(
        f"M3, {sizes}, {SLOW} steps, iterations {iterations}; theirs {theirs}",
        steps(mine),
        steps(other),
        lambda: (
            f"95% of singular values above {smallest(lambda x: orthogonalize(x, iterations=iterations))}; "
            f"theirs {smallest(lambda x: _newton_schulz(x, theirs))}"
        ),
    )


def smallest(orthogonal: Callable[[Tensor], Tensor]) -> str:
    """The fifth percentile of the singular values made of a random matrix of each shape; 1 is exact."""
    generator = torch.Generator().manual_seed(0)
    made = [orthogonal(torch.randn(*shape, generator=generator)) for _, *shape in SHAPES]
    return ", ".join(f"{float(torch.linalg.svdvals(x).quantile(0.05)):.2f}" for x in made)


def weights() -> list[nn.Parameter]:
    made = [nn.Parameter(torch.randn(*shape) * 0.02) for count, *shape in SHAPES for _ in range(count)]
    for p in made:
        p.grad = torch.randn_like(p) * 0.01
    return made
