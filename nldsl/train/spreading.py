"""What a step takes on every one of several devices, and what they send each other: predicted.

Shares, owners and memories are those of the run itself, laid out on no device at all.  State and
activations are measured in one sequence; of a model with `depth` above 2, at depths 1 and 2, and continued
as a line: every further block has the weights and the activations of the second one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from nldsl.catalog.values import Static
from nldsl.diagnostics import SpecError
from nldsl.spec.program import TrainPlan
from nldsl.train.building import TrainableModel, build, step_of
from nldsl.train.config import FLOAT32, RunConfig
from nldsl.train.errors import fault
from nldsl.train.groups import claim, inner_schedules, training_plan
from nldsl.train.memory import bytes_of, predict, refused, surely_fits
from nldsl.train.parallel_rules import SharedGroup
from nldsl.train.passes import gathered_for_the_step
from nldsl.train.reduce import rows_of

DEPTH = "depth"
PARTS = ("parameters", "masters", "gathered", "gradients", "optimiser", "state", "activations")
"""What `Spread.total` adds up."""


@dataclass(frozen=True)
class Spread:
    """Bytes on the first of `devices`, which holds the most, and what it receives in one step.

    `gathered` are whole weights while they are needed, `masters` the matrices it owns.
    """

    devices: int
    parallel: str
    weights: int
    parameters: int
    masters: int
    gathered: int
    gradients: int
    optimiser: int
    state: int
    activations: int
    received: dict[str, int]

    @property
    def total(self) -> int:
        """Of memory."""
        return sum(getattr(self, part) for part in PARTS)

    @property
    def communication(self) -> int:
        """Bytes received in a step."""
        return sum(self.received.values())


class Imagined:
    """The layout of a process that is not there; its tensors are on the device `meta`."""

    rank = 0

    def __init__(self, world: int, sharded: bool) -> None:
        self.world, self.sharded = world, sharded

    def held(self, p: Tensor) -> Tensor:
        """Its share."""
        return p.new_empty(rows_of(len(p), self.world)[0], *p.shape[1:]) if self.sharded else p

    def master(self, p: Tensor) -> Tensor:
        """A whole matrix."""
        return torch.empty_like(p)

    def named(self, held: Tensor, p: Tensor) -> Tensor:
        """As it is."""
        return held

    def collect(self, group: SharedGroup, *, weights: bool = False) -> None:
        """Nothing is sent."""

    def spread(self, group: SharedGroup) -> None:
        """Nothing is sent."""


@dataclass(frozen=True)
class Sketch:
    """The weights of a model that need not have been made, and what one sequence leaves and saves."""

    weights: dict[str, Tensor]
    roles: dict[str, Any]
    state: int
    activations: int
    at_once: bool
    plan: TrainPlan
    model: nn.Module

    def share(self, layout: Imagined, path: str) -> int:
        """Bytes of a weight that the process holds."""
        return bytes_of([layout.held(self.weights[path])])


def predict_spread(
    source: str | Path,
    *,
    devices: int,
    parallel: str = "fsdp",
    batch: int = 16,
    length: int = 256,
    arguments: Mapping[str, Static] | None = None,
    recompute: str = "none",
    precision: str = FLOAT32,
) -> Spread:
    """Memory and communication of one of `devices` at a step of `batch` windows shared by all.

    Raises NL0981 for another `parallel` than `ddp` or `fsdp`, NL0993 if the batch cannot be shared, NL0994
    for a rule that shares of weights cannot have.
    """
    if parallel not in ("ddp", "fsdp"):
        raise fault("NL0981", f"`--parallel` is `ddp` or `fsdp`, found `{parallel}`")
    if devices < 1:
        raise fault("NL0981", f"`--devices` must be at least 1, found {devices}")
    if batch % devices:
        raise fault("NL0993", f"`--batch {batch}` windows cannot be shared by {devices} devices")
    config = RunConfig(str(source), arguments=dict(arguments or {}), batch=batch, length=length, steps=1)
    config = replace(config, recompute=recompute, precision=precision)
    return spread_of(sketch(config, batch // devices), Imagined(devices, parallel == "fsdp"))


def refusal(
    model: TrainableModel, config: RunConfig, world: int, *, sharded: bool, have: int
) -> SpecError | None:
    """NL0991 with the numbers if a step takes more than the `have` bytes of one of `world` processes."""
    rows = config.batch // world
    if not have or surely_fits(model, step_of(model, config), batch=rows, length=config.length, have=have):
        return None
    found = spread_of(sketch_of(model, config, rows), Imagined(world, sharded))
    parts = {part: getattr(found, part) for part in PARTS}
    return refused(parts, have, "each of the processes") if found.total > have else None


def spread_of(found: Sketch, layout: Imagined) -> Spread:
    """Memory and communication of the first of the devices that share a model so."""
    groups = [
        SharedGroup(claimed, layout, found.model) for claimed in claim(found.plan, found.weights, found.roles)
    ]
    weights = bytes_of(found.weights.values())
    held = sum(found.share(layout, path) for path in found.weights)
    gathered, gradients = working(found, held) if layout.sharded else (0, weights)
    return Spread(
        devices=layout.world,
        parallel="fsdp" if layout.sharded else "ddp",
        weights=weights,
        parameters=held,
        masters=sum(bytes_of(g.owned.values()) for g in groups) if layout.sharded else 0,
        gathered=gathered,
        gradients=gradients,
        optimiser=sum(bytes_of(g.state().values()) for g in groups),
        state=found.state,
        activations=found.activations,
        received=received(found, layout, groups, held),
    )


def working(found: Sketch, held: int) -> tuple[int, int]:
    """Whole weights, and gradients, while a step is under way."""
    weights = bytes_of(found.weights.values())
    if found.at_once:
        return weights, weights + held
    largest = max(blocks_of(found).values(), default=0)
    root = weights - sum(blocks_of(found).values())
    # One block runs while the next one is gathered.
    return root + 2 * largest, root + largest + held


def received(found: Sketch, layout: Imagined, groups: list[SharedGroup], held: int) -> dict[str, int]:
    """Bytes that come to the first device in a step, by what they are; rings move all but one share."""
    others = layout.world - 1
    back = {g.name: [p for p, who in g.owners.items() if who != layout.rank] for g in groups}
    if not layout.sharded:
        size = bytes_of(found.weights.values())
        new = sum(bytes_of(found.weights[p] for p in back[g.name]) // g.rule.every for g in groups)
        return {"gradients summed": 2 * others * size // layout.world, "matrices from owners": new}
    again = 0 if found.at_once else sum(found.share(layout, p) for p in found.weights if block_of(p))
    mine = [p for g in groups for p in g.owned]
    new = sum(sum(found.share(layout, p) for p in back[g.name]) // g.rule.every for g in groups)
    return {
        "weights gathered": others * (held + again),
        "gradients scattered": others * held,
        "gradients to owners": sum(bytes_of([found.weights[p]]) - found.share(layout, p) for p in mine),
        "matrices from owners": new,
    }


def block_of(path: str) -> str:
    """The outermost block a weight belongs to, as `fsdp` gathers it; empty for those of the model itself.

    Example:
        >>> block_of("blocks[3].cms.F[0].W1"), block_of("out.head.weight")
        ('blocks[3]', '')
    """
    first = path.partition(".")[0]
    return first if first.endswith("]") else ""


def blocks_of(found: Sketch) -> dict[str, int]:
    """The bytes of every block."""
    sizes: dict[str, int] = {}
    for path, p in found.weights.items():
        if block := block_of(path):
            sizes[block] = sizes.get(block, 0) + bytes_of([p])
    return sizes


def sketch(config: RunConfig, rows: int) -> Sketch:
    """Weights, state and activations of a model of which each process takes so many rows."""
    depth = config.arguments.get(DEPTH, 0)
    if not isinstance(depth, int) or depth <= 2:
        return drawn(config, rows)
    one, two = (drawn(replace(config, arguments={**config.arguments, DEPTH: d}), rows) for d in (1, 2))
    more = range(2, depth)
    weights, roles = dict(two.weights), dict(two.roles)
    for path in [path for path in two.weights if "[1]." in path and path not in one.weights]:
        for n in more:
            deeper = path.replace("[1].", f"[{n}].", 1)
            weights[deeper], roles[deeper] = two.weights[path], two.roles[path]
    return replace(
        two,
        weights={path: torch.empty_like(p) for path, p in weights.items()},
        roles=roles,
        state=two.state + len(more) * (two.state - one.state),
        activations=two.activations + len(more) * (two.activations - one.activations),
    )


def drawn(config: RunConfig, rows: int) -> Sketch:
    """Of a model that is made."""
    return sketch_of(build(config.source, config), config, rows)


def sketch_of(model: TrainableModel, config: RunConfig, rows: int) -> Sketch:
    """Of this model."""
    plan = training_plan(model.program)
    needs = predict(model, plan, step_of(model, config), batch=rows, length=config.length)
    learnt = {p: t for p, t in model.parameter_paths().items() if p not in inner_schedules(model.program)}
    weights = {path: torch.empty_like(p, device="meta") for path, p in learnt.items()}
    roles = dict(model.parameter_roles())
    once = gathered_for_the_step(model)
    return Sketch(weights, roles, needs.state, needs.activations, once, plan, cast(nn.Module, model))
