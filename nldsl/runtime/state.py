"""The state of a compiled model between two calls: what it remembers of the sequence so far."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils import _pytree

VERSION = 1
FORMAT = "nldsl-state"
Tree = Any
"""Nested dictionaries (string keys) and lists of tensors and `None`."""


class StateError(ValueError):
    """A state that cannot be used; the message says what was found and what was expected."""


class StateFileError(StateError):
    """A file that is no state, or a damaged one."""


class StateVersionError(StateError):
    """A state file of another version."""


class StateMismatchError(StateError):
    """A state of another program, or of other sizes."""


@dataclass(eq=False, repr=False)
class State:
    """Memories, convolution tails, counters and caches of a batch, as nested dictionaries of tensors.

    `program` names the program it belongs to; `scored` counts the targets of the `learn` call that
    returned it, and `right [B, T]` says which of its labels were the likeliest classes.  States are values:
    calls return new ones and never change old ones.

    >>> state = State({"S": {"running": {"weight": torch.zeros(2, 3)}, "count": torch.tensor([0, 0])}})
    >>> state.to(torch.float64).tree["S"]["count"].dtype, state.numel(), state.bytes()
    (torch.int64, 8, 40)
    """

    # A dataclass: `DistributedDataParallel` looks into nothing else for what a backward pass may reach.
    tree: Tree
    _: KW_ONLY
    program: str = ""
    scored: int = 0
    right: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> State:
        """A state with `function` applied to every tensor."""
        return State(
            map_tree(function, self.tree), program=self.program, scored=self.scored, right=self.right
        )

    def detach(self) -> State:
        """The same values without their history."""
        return self.map(lambda x: x.detach())

    def clone(self) -> State:
        """A copy that shares no memory with this one."""
        return self.map(lambda x: x.clone())

    def to(self, *args: Any, **kwargs: Any) -> State:
        """On another device or in another float type; counters and tokens keep their type."""
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        return self.map(
            lambda x: x.to(device, dtype if x.is_floating_point() else None, non_blocking=non_blocking)
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its path, parts joined by `/`."""
        return flatten(self.tree)

    def structure(self) -> Any:
        """What the tensors are parts of, for JSON: the tree with 1 for every tensor."""
        return _structure(self.tree)

    @classmethod
    def restore(cls, structure: Any, get: Callable[[str], Tensor], *, program: str = "") -> State:
        """The state of this `structure` whose tensors are `get(path)`.

        >>> state = State({"a": [torch.zeros(1), None]})
        >>> State.restore(state.structure(), state.tensors().__getitem__).tree
        {'a': [tensor([0.]), None]}
        """
        return cls(_restore(structure, "", get), program=program)

    def numel(self) -> int:
        """How many numbers it holds."""
        return sum(x.numel() for x in self.tensors().values())

    def bytes(self) -> int:
        """How many bytes they take."""
        return sum(x.numel() * x.element_size() for x in self.tensors().values())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file; it is complete or not there."""
        tensors = {name: x.detach().cpu().clone().contiguous() for name, x in self.tensors().items()}
        metadata = {
            "format": FORMAT,
            "version": str(VERSION),
            "program": self.program,
            "scored": str(self.scored),
            "structure": json.dumps(_structure(self.tree)),
        }
        target = Path(path)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            save_file(tensors, partial, metadata)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> State:
        """Read a file that `save` wrote.

        Errors: `StateFileError` (no state, or damaged), `StateVersionError`, `OSError`.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise StateFileError(f"`{path}` is no saved state")
                if metadata.get("version") != str(VERSION):
                    raise StateVersionError(
                        f"`{path}` has version {metadata.get('version')}, expected {VERSION}"
                    )
                tree = _restore(json.loads(metadata["structure"]), "", file.get_tensor)
                return cls(tree, program=metadata["program"], scored=int(metadata["scored"]))
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError, RecursionError) as error:
            raise StateFileError(f"`{path}` is damaged: {error}") from error

    def check_fits(self, fresh: State) -> None:
        """Compare with a fresh state of the model it is given to.

        Errors: `StateMismatchError` for another program, other parts or another batch.
        """
        if self.program != fresh.program:
            raise StateMismatchError(f"the state is of `{self.program}`, expected one of `{fresh.program}`")
        found, expected = self.tensors(), fresh.tensors()
        for path, tensor in expected.items():
            if path not in found:
                raise StateMismatchError(f"the state has no `{path}`")
            if found[path].dim() != tensor.dim() or found[path].shape[:1] != tensor.shape[:1]:
                raise StateMismatchError(
                    f"`{path}` has shape {list(found[path].shape)}, expected {list(tensor.shape)}"
                )

    def __repr__(self) -> str:
        return f"State(program={self.program!r}, tensors={len(self.tensors())}, bytes={self.bytes()})"


def map_tree(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """`function` of every tensor; `None` stays.

    >>> map_tree(lambda x: x + 1, {"a": [torch.zeros(1), None]})
    {'a': [tensor([1.]), None]}
    """
    if isinstance(tree, dict):
        return {key: map_tree(function, value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [map_tree(function, value) for value in tree]
    return tree if tree is None else function(tree)


def batch_of(tree: Tree) -> int | None:
    """How many sequences a state holds; `None` if it holds no tensor.

    >>> batch_of({"a": [None, {"b": torch.zeros(3, 2)}]})
    3
    """
    if isinstance(tree, Tensor):
        return tree.shape[0]
    for value in tree.values() if isinstance(tree, dict) else tree or ():
        found = batch_of(value)
        if found is not None:
            return found
    return None


def flatten(tree: Tree, path: str = "") -> dict[str, Tensor]:
    """Tensors by path, parts joined by `/`."""
    if isinstance(tree, Tensor):
        return {path: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree or ())
    found: dict[str, Tensor] = {}
    for key, value in items:
        found |= flatten(value, f"{path}/{key}" if path else str(key))
    return found


def _structure(tree: Tree) -> Any:
    """The tree with 1 for every tensor, for JSON."""
    return map_tree(lambda _: 1, tree)  # type: ignore[arg-type, return-value]


def _restore(structure: Any, path: str, get: Callable[[str], Tensor]) -> Tree:
    if structure is None:
        return None
    join = f"{path}/" if path else ""
    if isinstance(structure, dict):
        return {key: _restore(value, f"{join}{key}", get) for key, value in structure.items()}
    if isinstance(structure, list):
        return [_restore(value, f"{join}{i}", get) for i, value in enumerate(structure)]
    return get(path)


_pytree.register_pytree_node(
    State,
    lambda state: ([state.tree], (state.program, state.scored)),
    lambda children, context: State(next(iter(children)), program=context[0], scored=context[1]),
    serialized_type_name="nldsl.State",
    to_dumpable_context=list,
    from_dumpable_context=tuple,
)
