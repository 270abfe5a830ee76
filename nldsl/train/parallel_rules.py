"""The groups of a `train` section over several processes: who applies a rule to what.

A rule that treats elements one by one acts where they lie, on the whole weight or on a share of it.  A rule
that sees a matrix as a whole (`muon`, `m3`, `shampoo`, `soap`) is applied by one process, the owner of that
matrix, which alone keeps its memories; the new weight goes back to all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nldsl.diagnostics import SpecError
from nldsl.driver.rules import optimizer
from nldsl.runtime.rule_optimizer import RuleOptimizer
from nldsl.train.errors import fault
from nldsl.train.groups import Claimed
from nldsl.train.optimisers import put_back, require_schedules, scheduled
from nldsl.train.reduce import buckets

Tensors = dict[str, Tensor]


class Layout(Protocol):
    """How parameters lie in the processes."""

    rank: int
    world: int
    sharded: bool

    def held(self, p: Tensor) -> Tensor:
        """What this process holds of a parameter."""

    def master(self, p: Tensor) -> Tensor:
        """Where an owner has the whole of one."""

    def named(self, held: Tensor, p: Tensor) -> Tensor:
        """A memory that lies as `held` does, in a form checkpoints know to be part of a whole."""

    def collect(self, group: SharedGroup, *, weights: bool = False) -> None:
        """Bring the gradients (or the weights) to where the rules act."""

    def spread(self, group: SharedGroup) -> None:
        """Bring the new weights of owners to all."""


class Whole:
    """Every process holds every parameter, and the same gradients."""

    sharded = False

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world

    def held(self, p: Tensor) -> Tensor:
        """The parameter."""
        return p

    def master(self, p: Tensor) -> Tensor:
        """The parameter."""
        return p

    def named(self, held: Tensor, p: Tensor) -> Tensor:
        """As it is."""
        return held

    def collect(self, group: SharedGroup, *, weights: bool = False) -> None:
        """All is there."""

    @torch.no_grad()
    def spread(self, group: SharedGroup) -> None:
        """Owners broadcast."""
        for owner in range(self.world):
            theirs = [group.parameters[path] for path in group.of(owner)]
            for bucket in buckets(theirs):
                flat = torch.cat([p.reshape(-1) for p in bucket])
                dist.broadcast(flat, src=owner)
                if owner != self.rank:
                    for p, new in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                        p.copy_(new.view_as(p))


class SharedGroup:
    """An `OptimiserGroup` of several processes; its memories have the names they have in one process.

    Raises `SpecError`: NL0965 as in one process, NL0994 for a rule that looks at the inputs of layers whose
    weights are in shares.
    """

    def __init__(self, claimed: Claimed, layout: Layout, module: nn.Module) -> None:
        self.name, self.rule, self.parameters = claimed.name, claimed.rule, claimed.parameters
        self.layout = layout
        self.owners: dict[str, int] = {}
        self.local: Tensors = {}
        self.owned: Tensors = {}
        self.optimizers: list[RuleOptimizer] = []
        like = {path: torch.empty_like(p, device="meta") for path, p in plain(self.parameters).items()}
        try:
            probe = optimizer(self.rule, list(like.items()), every=self.rule.every, nonfinite="ignore")
        except SpecError as error:
            if error.diagnostics[0].code != "NL0972":
                raise
            self._by_rows(module)
        else:
            self._by_form(probe, like)
        require_schedules(self.rule, self.optimizers[0].arguments if self.optimizers else self.arguments)

    def _by_rows(self, module: nn.Module) -> None:
        """A rule that looks at rows: each process pulls its own, as a share of the rows of all."""
        if self.layout.sharded:
            raise fault(
                "NL0994",
                f"`{self.rule.rule}` looks at the inputs of layers, and `fsdp` holds their weights in shares",
                help="use `--parallel ddp`, or another rule",
            )
        self.local = dict(self.parameters)
        made = optimizer(
            self.rule, list(self.local.items()), module=module, every=self.rule.every, nonfinite="ignore"
        )
        for p, rows in made.rows.items():
            if made.kernel_of(p).by_rows:
                raise fault(
                    "NL0994",
                    f"`{self.rule.rule}` needs every row of a layer, and each process has its own: "
                    f"{made.kernel_of(p).reason}",
                    help="train in one process, or let rows enter the rule once, as in `dgd_momentum`",
                )
            rows.processes = self.layout.world
        self.optimizers = [made]

    def _by_form(self, probe: RuleOptimizer, like: Tensors) -> None:
        """Elements where they lie, matrices with their owners."""
        matrices = {path: t for path, t in like.items() if not by_element(probe, t)}
        self.owners = owners({path: tuple(t.shape) for path, t in matrices.items()}, self.layout.world)
        for path, p in self.parameters.items():
            if path not in self.owners:
                self.local[path] = self.layout.held(p)
            elif self.owners[path] == self.layout.rank:
                self.owned[path] = self.layout.master(p)
        self.layout.collect(self, weights=True)
        whole = {t: like[path] for path, t in self.local.items()}
        self.optimizers = [
            type(probe)(
                list(held.items()),
                every=self.rule.every,
                nonfinite="ignore",
                more=probe.more,
                whole=whole,
            )
            for held in (self.local, self.owned)
            if held
        ]
        self.arguments = probe.arguments

    @property
    def counts_rows(self) -> bool:
        """Rules such as `dgd` look at the rows of a layer."""
        return any(made.rows for made in self.optimizers)

    def alternate(self, several: bool) -> None:
        """As in one process."""
        for made in self.optimizers:
            made.several_passes = several

    def of(self, owner: int) -> list[str]:
        """The paths of the matrices of one process, in the order in which they are sent."""
        return [path for path, who in self.owners.items() if who == owner]

    def begin(self, step: int, progress: float) -> dict[str, float]:
        """Put the scheduled values of a step in place."""
        found = scheduled(self.rule, step, progress)
        for made in self.optimizers:
            made.param_groups[0].update(found)
        return found

    def step(self, step: int, progress: float) -> dict[str, float]:
        """Take in the gradients of one step; on a slow clock they are summed until it fires."""
        found = self.begin(step, progress)
        self.layout.collect(self)
        for made in self.optimizers:
            made.step()
        if (step + 1) % self.rule.every:
            return {}
        self.layout.spread(self)
        return found

    def state(self) -> Tensors:
        """The memories this process has, as `path:memory`."""
        found: Tensors = {}
        for held in (self.local, self.owned):
            for path, t in held.items():
                for slot, value in self._memories(t).items():
                    part = held is self.local and value.dim() > 0
                    found[f"{path}:{slot}"] = (
                        self.layout.named(value, self.parameters[path]) if part else value
                    )
        return found

    def _memories(self, held: Tensor) -> Tensors:
        return next(dict(made.state[held]) for made in self.optimizers if held in made.state)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put saved memories back.  Raises NL0986 unless they are those of this rule."""
        put_back(self.rule, self.state(), state)
        self.layout.collect(self, weights=True)


def plain(parameters: Mapping[str, Tensor]) -> Tensors:
    """Tensors on no device with the shapes of parameters, whatever holds them."""
    return {path: torch.empty(p.shape, dtype=p.dtype, device="meta") for path, p in parameters.items()}


def by_element(made: RuleOptimizer, weight: Tensor) -> bool:
    """Whether a share of a weight can be updated without the rest."""
    kernel = made.kernel_of(weight)
    return kernel.form == "elementwise" and all(memory.shape is None for memory in kernel.memories)


def owners(shapes: Mapping[str, tuple[int, ...]], world: int) -> dict[str, int]:
    """An owner for every matrix, by path; the work, elements times the shorter side, is spread evenly.

    Example:
        >>> owners({"a": (4, 4), "b": (8, 8), "c": (4, 4)}, 2)
        {'a': 1, 'b': 0, 'c': 1}
    """
    work = [0] * world
    found: dict[str, int] = {}
    cost = {path: torch.Size(s).numel() * (min(s[-2:]) if s else 1) for path, s in shapes.items()}
    for path in sorted(shapes, key=lambda p: (-cost[p], p)):
        found[path] = min(range(world), key=lambda r: (work[r], r))
        work[found[path]] += cost[path]
    return {path: found[path] for path in shapes}
