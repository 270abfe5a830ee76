"""Whether `torch.compile` pays in training, by what computes a block: a reading of measurements, not a guess.

CPU time of a step with and without, on one thread, width 128, batch 4, 256 tokens: `python -m
benchmarks.compiled`; the figures are in `docs/tutorial/training.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.plan.plan import LoweringName, Plan

PAYS: dict[LoweringName, str] = {
    "delta": "kernels of a delta rule are many small operations: 8 to 12 % more steps per second",
}
DOES_NOT: dict[LoweringName, str] = {
    "attention": "its products and torch's own attention are the work: 3 to 11 % fewer steps per second",
    "linear": "no gain for `mamba2`, 8 % for `linear_attention`",
    "scan": "a scan has a pass of its own over the tokens: a tenth more steps per second without torch's",
    "delta_channel": "4 % fewer steps per second",
    "chunk": "products are most of a chunk's step: 2 % more steps per second",
}
UNROLLED = frozenset({"chunk", "held", "task", "sequential", "segments"})
"""What loops over tokens or chunks: a graph of the whole block would unroll them all."""


@dataclass(frozen=True)
class Compiling:
    """What a plan says of compiling a block: its class, its lowering, whether it pays, and why."""

    class_name: str
    lowering: LoweringName
    pays: bool
    reason: str

    @property
    def unrolls(self) -> bool:
        """Whether only the step of its loop can be compiled."""
        return self.lowering in UNROLLED


def compiling(plan: Plan) -> tuple[Compiling, ...]:
    """Every block with memories, and whether `torch.compile` makes its training faster.

    Example:
        >>> from nldsl.lowerings.forms import plan_program
        >>> from nldsl.graph import open_program
        >>> from nldsl.plan.plan import Target
        >>> [(c.class_name, c.pays) for c in compiling(plan_program(open_program("samba"), Target()))]
        [('Mamba1', False), ('Attention', False)]
    """
    found = []
    for block in plan.blocks:
        kinds = [unit.lowering for unit in block.units if unit.memories]
        if kinds:
            slow = next((k for k in kinds if k in UNROLLED), None)
            kind = slow or next((k for k in kinds if k in PAYS), kinds[0])
            reason = PAYS.get(kind) or DOES_NOT.get(kind) or "not measured"
            found.append(Compiling(block.class_name, kind, kind in PAYS, reason))
    return tuple(found)
