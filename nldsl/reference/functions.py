"""Maps, objectives and rules: straight-line functions, evaluated on tensors by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nldsl.reference.primitives import meaning
from nldsl.spec.program import Apply, Function

Weights = dict[str, Tensor]


@dataclass
class Recorder:
    """Watches the products `W @ z` of a map: the own input of every weight, and a probe at its output.

    `probes[W]` is zero and is added to `W @ z`; the gradient with respect to it is the gradient at
    the output of that weight (`dy` of a rule), as `inputs[W] = z` is its own input (`x` of a rule;
    reading P5: every weight of a deep memory has its own).
    """

    probes: Mapping[str, Tensor]
    inputs: Weights = field(default_factory=dict)
    ambiguous: set[str] = field(default_factory=set)

    def product(self, name: str, weight: Tensor, z: Tensor) -> Tensor:
        """`weight @ z`, noted; a weight that multiplies two vectors has no own input."""
        if name in self.inputs:
            self.ambiguous.add(name)
        self.inputs[name] = z
        y = weight @ z
        return y + self.probes[name] if name in self.probes else y


def apply(
    statement: Apply,
    env: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    prefix: str,
    dtype: torch.dtype,
) -> Tensor:
    """The value of one stateless primitive, its arguments looked up in `env`."""
    args = [env[a.name] for a in statement.args]
    options: dict[str, Any] = dict(statement.options)
    if statement.op == "constant":
        return torch.tensor(float(options["value"]), dtype=dtype)
    if statement.op == "identity":
        return torch.eye(int(options["size"]), dtype=dtype)
    if statement.op == "index":
        return torch.tensor([float(i) for i in range(int(options["size"]))], dtype=dtype)
    own = [parameters[join(prefix, p.path)] for p in statement.parameters]
    return meaning(statement.op)(args, [a.kind for a in statement.args], options, own)


def join(prefix: str, path: str) -> str:
    """An absolute path from an enclosing one and a relative one."""
    return f"{prefix}.{path}" if prefix and path else prefix or path


def evaluate(
    function: Function,
    env: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    prefix: str,
    recorder: Recorder | None = None,
) -> tuple[Tensor, ...]:
    """The outputs of `function` for the inputs and weights in `env` (by name)."""
    local = dict(env)
    dtype = next(iter(local.values())).dtype
    weights = {w.name for w in function.weights}
    for statement in function.body:
        first = statement.args[0].name if statement.args else ""
        watched = recorder is not None and statement.op == "matmul" and first in weights
        if watched and local[statement.args[1].name].dim() == 1:
            assert recorder is not None
            value = recorder.product(first, local[first], local[statement.args[1].name])
        else:
            value = apply(statement, local, parameters, prefix, dtype)
        local[statement.out.name] = value
    return tuple(local[o.name] for o in function.outputs)
