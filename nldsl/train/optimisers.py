"""The rules of the outer levels behind one interface, executed by `torch.optim`.

A group owns its parameters, the optimiser's memories and its clock; the loop sees `step`, `state`
and `load`.  The rules are those of `specs/rules` of the same name, and tests hold the two together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nldsl.catalog.schedules import SCHEDULES
from nldsl.catalog.values import Static
from nldsl.diagnostics import did_you_mean
from nldsl.train.errors import fault
from nldsl.train.groups import Claimed

Numbers = Mapping[str, float]


class OptimiserGroup(Protocol):
    """Parameters that learn by one rule on one clock."""

    name: str
    parameters: dict[str, Tensor]

    def step(self, step: int, progress: float) -> dict[str, float]:
        """Take in the gradients of `step` (0 first), update if the clock fires; return scheduled values."""

    def state(self) -> dict[str, Tensor]:
        """The optimiser's memories by name, as they must be saved."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put saved memories back; the next step is bit for bit what it would have been."""


def sgd(parameters: list[Tensor], a: Numbers) -> torch.optim.Optimizer:
    """Eq. 8, with momentum and decay as `torch.optim.SGD` has them."""
    return torch.optim.SGD(parameters, lr=a["lr"], momentum=a["momentum"], weight_decay=a["decay"])


def momentum(parameters: list[Tensor], a: Numbers) -> torch.optim.Optimizer:
    """Eq. 33: `m' = beta m - lr g`, `W' = W + m'`; the rate is inside `m`, so gradients arrive times `lr`."""
    return torch.optim.SGD(parameters, lr=1.0, momentum=a["beta"])


def adamw(parameters: list[Tensor], a: Numbers) -> torch.optim.Optimizer:
    """Adam with decoupled decay, both moments unbiased."""
    betas = (a["beta1"], a["beta2"])
    return torch.optim.AdamW(parameters, lr=a["lr"], betas=betas, eps=a["eps"], weight_decay=a["decay"])


def muon(parameters: list[Tensor], a: Numbers) -> torch.optim.Optimizer:
    """Momentum, orthogonalised by Newton-Schulz: `W' = (1 - lr decay) W - lr orthogonalize(d)`.

    Torch multiplies the rate of a tall matrix by `sqrt(out / in)`, which the rule's text does not: every
    shape is a group of its own that carries the inverse (see `set_number`).
    """
    shapes = dict.fromkeys(tuple(p.shape) for p in parameters)
    optimiser = torch.optim.Muon(
        [{"params": [p for p in parameters if tuple(p.shape) == shape]} for shape in shapes],
        momentum=a["beta"],
        nesterov=bool(a["nesterov"]),
        ns_steps=int(a["iterations"]),
    )
    for group in optimiser.param_groups:
        set_number(group, "lr", a["lr"])
        set_number(group, "weight_decay", a["decay"])
    return optimiser


def set_number(group: dict[str, Any], name: str, value: float) -> None:
    """Set `lr` or `weight_decay` of a torch group; Muon's are undone by shape, their product is not."""
    if "ns_steps" in group:
        out, into = group["params"][0].shape
        tall = math.sqrt(max(1.0, out / into))
        value = value / tall if name == "lr" else value * tall
    group[name] = value


RULES: dict[str, tuple[Callable[[list[Tensor], Numbers], torch.optim.Optimizer], dict[str, float | None]]] = {
    "sgd": (sgd, {"lr": None, "momentum": 0.0, "decay": 0.0}),
    "momentum": (momentum, {"lr": None, "beta": 0.9}),
    "adamw": (adamw, {"lr": None, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": 0.01}),
    "muon": (muon, {"lr": None, "beta": 0.95, "nesterov": 1.0, "decay": 0.0, "iterations": 5}),
}
"""Rules by name with the defaults of their arguments; `None` means it must be given."""

SCHEDULABLE = {"lr": "lr", "decay": "weight_decay"}


def bind_arguments(claimed: Claimed) -> dict[str, float]:
    """The numbers a rule starts from; scheduled ones at their first step.

    Raises `SpecError`: NL0964 for an unknown rule, NL0965 for an unknown, missing or non-numeric argument.
    """
    rule = claimed.rule
    if rule.rule not in RULES:
        raise fault(
            "NL0964",
            f"`{rule.rule}` cannot train slow parameters yet",
            help=did_you_mean(rule.rule, RULES) or f"known: {', '.join(RULES)}",
        )
    defaults = RULES[rule.rule][1]
    values: dict[str, Static] = dict(defaults) | dict(rule.arguments)
    values |= {argument: 0.0 for argument, _, _ in rule.schedules}
    for name, value in values.items():
        if name not in defaults:
            raise fault(
                "NL0965",
                f"`{rule.rule}` has no argument `{name}`",
                help=did_you_mean(name, defaults) or f"known: {', '.join(defaults)}",
            )
        if not isinstance(value, int | float):
            found = "nothing" if value is None else f"`{value}`"
            raise fault("NL0965", f"`{name}` of `{rule.rule}` must be a number, found {found}")
    for argument, schedule, _ in rule.schedules:
        if argument not in SCHEDULABLE or schedule not in SCHEDULES:
            raise fault("NL0965", f"`{argument}` of `{rule.rule}` cannot follow `{schedule}`")
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


class TorchGroup:
    """An `OptimiserGroup` whose rule `torch.optim` executes.

    Muon works on matrices.  The initial state of a `per head` memory is `[heads, out, in]`: each
    head is a matrix of its own, and the optimiser is given views of them.
    """

    def __init__(self, claimed: Claimed) -> None:
        self.name = claimed.name
        self.rule = claimed.rule
        self.parameters = claimed.parameters
        self.numbers = bind_arguments(claimed)
        self.pieces = self._pieces()
        make = RULES[self.rule.rule][0]
        self.optimiser = make([piece for _, piece, _ in self.pieces], self.numbers)
        self.gathered: dict[str, Tensor] = {}

    def _pieces(self) -> list[tuple[str, Tensor, int | None]]:
        """(name, leaf given to torch, head or None): parameters, or their heads if matrices are needed."""
        pieces: list[tuple[str, Tensor, int | None]] = []
        for path, parameter in self.parameters.items():
            if self.rule.rule != "muon" or parameter.ndim == 2:
                pieces.append((path, parameter, None))
            elif parameter.ndim == 3:
                data = parameter.detach()
                pieces += [(f"{path}#{h}", nn.Parameter(data[h]), h) for h in range(len(data))]
            else:
                raise fault(
                    "NL0963",
                    f"`muon` works on matrices, and `{path}` has shape {list(parameter.shape)}",
                    help="give it to another group, such as `rest by adamw(lr = 3e-4)`",
                )
        return pieces

    def step(self, step: int, progress: float) -> dict[str, float]:
        """Take in the gradients of one step; on a slow clock they are summed until it fires."""
        if self.rule.every > 1 and not self._gather(step):
            return {}
        shown = {}
        for argument, schedule, options in self.rule.schedules:
            shown[argument] = SCHEDULES[schedule].value(step, progress, dict(options))
            self.numbers[argument] = shown[argument]
        for group in self.optimiser.param_groups:
            for argument in shown:
                if not (self.rule.rule == "momentum" and argument == "lr"):
                    set_number(group, SCHEDULABLE[argument], shown[argument])
        self._hand_over()
        self.optimiser.step()
        return shown

    def _gather(self, step: int) -> bool:
        """Add this step's gradients to what is gathered; at the clock's tick make them the gradients."""
        for path, parameter in self.parameters.items():
            if parameter.grad is not None:
                held = self.gathered.get(path)
                self.gathered[path] = parameter.grad.clone() if held is None else held + parameter.grad
        if (step + 1) % self.rule.every:
            return False
        for path, parameter in self.parameters.items():
            parameter.grad = self.gathered.pop(path, None)
        return True

    def _hand_over(self) -> None:
        """Give every piece its gradient; a weight that no gradient reached is left alone."""
        by_head = {name: piece for name, piece, head in self.pieces if head is not None}
        for name, piece in by_head.items():
            path, _, head = name.rpartition("#")
            grad = self.parameters[path].grad
            piece.grad = None if grad is None else grad[int(head)]
        if self.rule.rule == "momentum":
            for parameter in self.parameters.values():
                if parameter.grad is not None:
                    parameter.grad.mul_(self.numbers["lr"])

    def state(self) -> dict[str, Tensor]:
        """Memories as `name:slot`, gathered gradients as `path:gathered`."""
        state = {f"{path}:gathered": g for path, g in self.gathered.items()}
        for name, piece, _ in self.pieces:
            for slot, value in self.optimiser.state.get(piece, {}).items():
                if value is not None:
                    state[f"{name}:{slot}"] = torch.as_tensor(value)
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put saved memories back; what is not in `state` starts afresh."""
        self.gathered = {}
        leaves = {name: piece for name, piece, _ in self.pieces}
        self.optimiser.state.clear()
        for name, value in state.items():
            path, _, slot = name.rpartition(":")
            if slot == "gathered":
                self.gathered[path] = value.clone()
            else:
                self.optimiser.state[leaves[path]][slot] = value.clone()


def make_groups(claims: list[Claimed]) -> list[OptimiserGroup]:
    """One optimiser per group of the plan."""
    return [TorchGroup(claimed) for claimed in claims]
