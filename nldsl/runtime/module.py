"""The base class of emitted modules: parameters known by their path in the program."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nldsl.catalog.naming import torch_name

Fill = Callable[[tuple[int, ...], torch.Generator], Tensor]
"""Draws the first value of a parameter of a given shape, in float64 on the CPU."""


def normal(std: float) -> Fill:
    """Draw from `N(0, std^2)`.

    >>> normal(0.5)((2, 3), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    return partial(_normal, std)


def constant(value: float) -> Fill:
    """Fill with one number."""
    return partial(_constant, value)


def identity(scale: float) -> Fill:
    """`scale` times the identity in the last two axes (zero elsewhere if they differ)."""
    return partial(_identity, scale)


# Functions with a name: a module that is pickled takes them along.
def _normal(std: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").mul_(std)


def _constant(value: float, shape: tuple[int, ...], _: torch.Generator) -> Tensor:
    return torch.full(shape, value, dtype=torch.float64, device="cpu")


def _identity(scale: float, shape: tuple[int, ...], _: torch.Generator) -> Tensor:
    return torch.eye(*shape[-2:], dtype=torch.float64, device="cpu").mul(scale).expand(shape).clone()


class Container(nn.Module):
    """What stands between a module and its parameters: `q` in `q.linear.weight`, `[1]` in `x[1]`."""

    def __getitem__(self, index: int) -> Any:
        """The part of an indexed name: `self.x[1]`."""
        return self._modules[str(index)]

    def __len__(self) -> int:
        return sum(name.isdigit() for name in self._modules)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def extra_repr(self) -> str:
        """Its own parameters with their sizes, as `print(model)` shows them."""
        own = self.named_parameters(recurse=False)
        return ", ".join(f"{name}: {' x '.join(map(str, p.shape)) or 'number'}" for name, p in own)


class Module(Container):
    """A block of the program: `declare` its parameters, `attach` its blocks, then `initialise` the root.

    >>> block = Module()
    >>> _ = block.declare("x[1].norm.weight", (4,), "norm", constant(1.0))
    >>> root = Module()
    >>> _ = root.attach("blocks[0].mixer", block)
    >>> _ = root.initialise(0)
    >>> root.blocks[0].mixer.x[1].norm.weight.data
    tensor([1., 1., 1., 1.])
    >>> list(root.parameter_paths()), list(root.state_dict())
    (['blocks[0].mixer.x[1].norm.weight'], ['blocks.0.mixer.x.1.norm.weight'])
    """

    like: Tensor
    lasting: tuple[str, ...] = ()
    """Paths of the memories that outlive a sequence (`reset never`)."""

    def __init__(self) -> None:
        super().__init__()
        # Program path -> (torch name, role, first value), relative to this module.
        self._declared: dict[str, tuple[str, str, Fill]] = {}
        self._fixed: dict[str, tuple[str, Fill]] = {}
        self._attached: dict[str, Module] = {}
        # Follows `.to(...)`, so that new states get the right type and device in a block without parameters.
        self.register_buffer("like", torch.empty(0), persistent=False)

    def zeros(self, *shape: int) -> Tensor:
        """Zeros of the type and on the device of this module: a fresh state."""
        return self.like.new_zeros(shape)

    def counter(self, batch: int) -> Tensor:
        """`[batch]` token counts, all zero."""
        return torch.zeros(batch, dtype=torch.int64, device=self.like.device)

    def start(self, parameter: Tensor, batch: int) -> Tensor:
        """A learned initial state for every sample: `[batch, *shape]`, differentiable, a value of its own."""
        # A view would follow the parameter: an optimizer's step would change states that are carried on.
        return parameter.clone().expand(batch, *parameter.shape)

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences; blocks with state have their own."""
        return {}

    def keep_lasting(self, old: dict[str, Any], fresh: dict[str, Any]) -> None:
        """Put what outlives a sequence from an old state into a fresh one, here and in every block below."""
        fresh.update({path: old[path] for path in self.lasting})
        for path, module in self._attached.items():
            if path in fresh:
                module.keep_lasting(old[path], fresh[path])
            elif path.endswith("]") and path[: path.rindex("[")] in fresh:
                start = path.rindex("[")
                index = int(path[start + 1 : -1])
                module.keep_lasting(old[path[:start]][index], fresh[path[:start]][index])

    def declare(
        self, path: str, shape: tuple[int, ...], role: str, init: Fill, *, learned: bool = True
    ) -> Tensor:
        """Register a parameter under its program path; its value is undefined until `initialise`.

        What is not `learned` is a buffer: drawn, saved and moved as parameters are, and no parameter.

        Errors: `ValueError` for a path that is taken.
        """
        name = torch_name(path)
        owner, last = self._owner(name)
        if hasattr(owner, last):
            raise ValueError(f"`{path}` is declared twice")
        value = torch.empty(shape)
        if learned:
            value = nn.Parameter(value)
            owner.register_parameter(last, value)
            self._declared[path] = (name, role, init)
        else:
            owner.register_buffer(last, value)
            self._fixed[path] = (name, init)
        return value

    def attach(self, path: str, module: Module) -> Module:
        """Register a block under its program path: `gated_deltanet`, `blocks[3]`, `mixer[1]`.

        Errors: `ValueError` for a path that is taken.
        """
        owner, last = self._owner(torch_name(path))
        if hasattr(owner, last):
            raise ValueError(f"`{path}` is attached twice")
        owner.add_module(last, module)
        self._attached[path] = module
        return module

    def attach_repeated(self, path: str, modules: Iterable[Module]) -> None:
        """Register copies of a block: `blocks[0]`, `blocks[1]`, ..."""
        for index, module in enumerate(modules):
            self.attach(f"{path}[{index}]", module)

    def initialise(self, seed: int) -> Module:
        """Fill every parameter and constant from a generator seeded by (seed, absolute program path).

        Values depend on nothing else: not on order, depth, device or type.  Call it on the root.
        """
        known = {path: (found[0], found[2]) for path, found in self._parameters_by_path().items()}
        for path, (parameter, fill) in (known | self._fixed_by_path()).items():
            digest = hashlib.sha256(f"{seed}:{path}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            with torch.no_grad():
                parameter.copy_(fill(tuple(parameter.shape), generator))
        return self

    def parameter_paths(self) -> dict[str, nn.Parameter]:
        """Every parameter by its program path (absolute if asked of the root)."""
        return {path: found[0] for path, found in self._parameters_by_path().items()}

    def drawn_paths(self) -> dict[str, Tensor]:
        """Whatever was drawn at the start, by its program path: parameters and constants (`init fixed`).

        >>> block = Module()
        >>> _ = block.declare("M.W", (1,), "matrix", constant(2.0), learned=False)
        >>> list(block.initialise(0).drawn_paths()), list(block.parameter_paths()), block.M.W
        (['M.W'], [], tensor([2.]))
        """
        constants = {path: found[0] for path, found in self._fixed_by_path().items()}
        return {**self.parameter_paths(), **constants}

    def parameter_roles(self) -> dict[str, str]:
        """The role of every parameter: matrix, embedding, head, norm or rest."""
        return {path: found[1] for path, found in self._parameters_by_path().items()}

    def parameter(self, path: str) -> Tensor:
        """A parameter or a constant declared here, by its path."""
        if path in self._fixed:
            return self.get_buffer(self._fixed[path][0])
        return self.get_parameter(self._declared[path][0])

    def attached(self) -> dict[str, Module]:
        """The blocks attached here, by their paths."""
        return dict(self._attached)

    def _parameters_by_path(self) -> dict[str, tuple[nn.Parameter, str, Fill]]:
        found = {
            path: (self.get_parameter(name), role, fill)
            for path, (name, role, fill) in self._declared.items()
        }
        for prefix, module in self._attached.items():
            for path, entry in module._parameters_by_path().items():
                found[f"{prefix}.{path}"] = entry
        return found

    def _fixed_by_path(self) -> dict[str, tuple[Tensor, Fill]]:
        found = {path: (self.get_buffer(name), fill) for path, (name, fill) in self._fixed.items()}
        for prefix, module in self._attached.items():
            for path, entry in module._fixed_by_path().items():
                found[f"{prefix}.{path}"] = entry
        return found

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        *parents, last = name.split(".")
        owner: nn.Module = self
        for part in parents:
            if part not in owner._modules:
                owner.add_module(part, Container())
            owner = owner._modules[part]  # type: ignore[assignment]
        return owner, last
