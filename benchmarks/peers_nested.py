"""nested-learning: its Hope as it trains, its self-modifying Titans, its M3.

Its training step (`two_pass_stopgrad_updates`, the setting it calls paper-faithful) goes in chunks as short
as the fastest clock: read the memories, go back, then write them in a second pass that no gradient goes
through.  Ours is one pass whose writes are differentiated.  Theirs has one head of the full width, so the
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
from benchmarks.peer import BATCH, HEADS, TOKENS, WIDTH, Pair, passes, tokens
from nldsl.runtime.newton_schulz import orthogonalize

SHORT = 64
CLOCKS = [16, 64, 256]
SIDE, MATRICES, SLOW = 512, 6, 10


def pairs() -> list[Pair]:
    """The model as it trains, the layer with one head and with four, and the optimiser."""
    found = [hope()]
    for heads in (1, HEADS):
        ours = nldsl.compile("self_modifying_titans", block="self_modifying_titans", x=WIDTH, heads=heads)
        for chunk, clock in ((16, 64), (1, 1)):
            name = f"self-modifying layer, {heads} x {WIDTH // heads}, 16/64; theirs {chunk}/{clock}"
            found.append(Pair(name, passes(ours, tokens()), layer(chunk, clock), scale=TOKENS / SHORT))
    return [*found, m3()]


def hope() -> Pair:
    """One layer of Hope: memories on 16 and 64 tokens, a continuum memory system on 16, 64 and 256."""
    bytes_ = torch.randint(0, 256, (BATCH, TOKENS + 1))
    ours = nldsl.compile("hope", dim=WIDTH, depth=1, heads=HEADS, chunks=CLOCKS)
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
        ours.zero_grad()
        ours.learn(bytes_, backward=1 / (BATCH * TOKENS))

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


def layer(chunk: int, clock: int) -> Callable[[], object]:
    """Their layer: read, backward, write."""
    config = SelfModifyingTitansConfig(WIDTH, chunk_size_other=chunk, chunk_size_memory=clock)
    module, x = SelfModifyingTitans(config), tokens(SHORT)
    read = passes(module, x)

    def once() -> None:
        read()
        with torch.no_grad():
            module.apply_updates_inplace(x)

    return once


def m3() -> Pair:
    """Ten steps of M3 (the slow momentum once), five iterations of Newton-Schulz."""
    ours = nldsl.optimizer("m3", weights(), lr=1e-3, slow=SLOW, iterations=5, nonfinite="ignore")
    theirs = M3(weights(), lr=1e-3, ns_steps=5, slow_chunk=SLOW)

    def steps(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
        return lambda: [optimizer.step() for _ in range(SLOW)]

    return Pair(
        f"M3, {MATRICES} matrices of {SIDE} x {SIDE}, {SLOW} steps",
        steps(ours),
        steps(theirs),
        lambda: (
            f"five iterations leave 95% of singular values above {smallest(orthogonalize)}; "
            f"theirs {smallest(_newton_schulz)}"
        ),
    )


def smallest(orthogonal: Callable[..., Tensor]) -> str:
    """The fifth percentile of singular values after five iterations on a random matrix; 1 is exact."""
    made = orthogonal(
        torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0)), **ITERATIONS[orthogonal]
    )
    return f"{float(torch.linalg.svdvals(made).quantile(0.05)):.2f}"


ITERATIONS: dict[Callable[..., Tensor], dict[str, int]] = {
    orthogonalize: {"iterations": 5},
    _newton_schulz: {"steps": 5},
}


def weights() -> list[nn.Parameter]:
    made = [nn.Parameter(torch.randn(SIDE, SIDE) * 0.02) for _ in range(MATRICES)]
    for p in made:
        p.grad = torch.randn_like(p) * 0.01
    return made
