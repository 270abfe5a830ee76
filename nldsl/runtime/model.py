"""The public face of a compiled program: `Layer` (one block) and `Model` (tokens to logits)."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from nldsl.runtime.c_calls import traced
from nldsl.runtime.chunks import stand_in
from nldsl.runtime.inputs import Taken, check_batch, check_inputs, tokens_in_range
from nldsl.runtime.learning import Held, Learning, check_asked, release, streams_of
from nldsl.runtime.module import Module
from nldsl.runtime.precision import keeps_islands
from nldsl.runtime.state import State, StateMismatchError, Tree, batch_of, map_tree
from nldsl.runtime.task import PlacedTask, find_tasks

NO_LABEL = -1


class Layer(nn.Module):
    """A compiled block: `y, state = layer(x, state, mask)`.

    `x` (and every further input) `[B, T, ...]`; `mask [B, T]` is true at real tokens.  Parameters carry
    their names in the program: `layer.q.linear.weight`.
    """

    root: Module
    taken: tuple[Taken, ...] = ()
    """What it is given, where that is known: shapes are compared before anything is computed."""
    __call__: Callable[..., tuple[Any, State]]

    def __init__(self, root: Module, name: str = "") -> None:
        super().__init__()
        # The wrapper *is* the root for torch (same parts, no name in front); only `forward` differs.
        object.__setattr__(self, "root", root)
        self._parameters = root._parameters
        self._buffers = root._buffers
        self._non_persistent_buffers_set = root._non_persistent_buffers_set
        self._modules = root._modules
        self.name = name

    def init_state(self, batch: int) -> State:
        """The state before the first token of `batch` sequences; learned starts stay differentiable."""
        check_batch(batch)
        return State({"root": self.root.initial_state(batch)}, program=self.name)

    def new_sequence(self, state: State) -> State:
        """`state` at the start of the next sequence: all begins anew but memories with `reset never`."""
        batch = batch_of(state.tree) or 0
        tree = self._tree(state, batch)
        fresh = self.root.initial_state(batch)
        self.root.keep_lasting(tree["root"], fresh)
        return State({"root": fresh}, program=self.name)

    def load_state(self, path: str | os.PathLike[str]) -> State:
        """A state that `State.save` wrote, if it is one of this program; on the device of the parameters.

        Errors: `StateFileError`, `StateVersionError`, `StateMismatchError`, `OSError`.
        """
        state = State.load(path).to(self.root.like.device)
        state.check_fits(self.init_state(batch_of(state.tree) or 0))
        return state

    def parameter_paths(self) -> dict[str, nn.Parameter]:
        """Every parameter by its path in the program."""
        return self.root.parameter_paths()

    def drawn_paths(self) -> dict[str, Tensor]:
        """Every parameter and every constant that was drawn (`init fixed`) by its path in the program."""
        return self.root.drawn_paths()

    def parameter_roles(self) -> dict[str, str]:
        """The role of every parameter: matrix, embedding, head, norm or rest."""
        return self.root.parameter_roles()

    @keeps_islands
    def forward(
        self, *inputs: Any, state: State | None = None, mask: Tensor | None = None
    ) -> tuple[Any, State]:
        """Outputs `[B, T, ...]` (zero at masked tokens) and the state behind them.

        Errors: `ValueError` for inputs or a mask of another shape, `StateMismatchError` for another state.
        """
        inputs, state, mask = _by_position(inputs, state, mask)
        check_inputs(self.name, inputs, mask, self.taken, state=state, like=self.root.like)
        tree = self._tree(state, inputs[0].shape[0])
        with tokens_in_range(self.root, self.name, inputs):
            *outputs, new = self.root(*(_given(x, mask) for x in inputs), tree["root"], mask)
        outputs = [_silent(y, mask) for y in outputs]
        y = outputs[0] if len(outputs) == 1 else tuple(outputs)
        return y, State({"root": _apart(new, inputs)}, program=self.name)

    def _tree(self, state: State | None, batch: int) -> dict[str, Any]:
        if state is None:
            return {"root": self.root.initial_state(batch)}
        if state.program != self.name:
            raise StateMismatchError(f"the state is of `{state.program}`, expected one of `{self.name}`")
        held = batch_of(state.tree)
        if held is not None and held != batch:
            raise StateMismatchError(f"the state is of {held} sequences, expected {batch}")
        tree: dict[str, Any] = state.tree
        return tree


class Model(Layer):
    """A compiled model: `logits, state = model(tokens, state, mask)`, and `learn`.

    `forward` never performs a task write; `learn` does.  What crosses a segment's edge is constant
    (`carry = "trunc"`) or keeps its history (`"exact"`).
    """

    def __init__(self, root: Module, name: str = "", carry: str = "trunc") -> None:
        super().__init__(root, name)
        if carry not in ("trunc", "exact"):
            raise ValueError(f"`carry` is `trunc` or `exact`, found `{carry}`")
        self.carry = carry
        self.streams = streams_of(root)

    @keeps_islands
    def forward(
        self, *inputs: Any, state: State | None = None, mask: Tensor | None = None
    ) -> tuple[Any, State]:
        """Logits `[B, T, vocab]` and the state behind them.

        The stream `label` may be left out: who asks for a class does not know it.  A token held back by
        `learn` is processed before the first real one; its output is dropped.
        """
        inputs, state, mask = _by_position(inputs, state, mask)
        if "label" in self.streams and len(inputs) == len(self.streams) - 1:
            place = self.streams.index("label")
            inputs = (*inputs[:place], torch.full_like(inputs[0], NO_LABEL), *inputs[place:])
        check_inputs(self.name, inputs, mask, self.taken, state=state, like=self.root.like)
        tree = self._tree(state, inputs[0].shape[0])
        held: Held | None = tree.get("held")
        if held is None:
            plain: tuple[Any, State] = super().forward(*inputs, state=state, mask=mask)
            return plain
        stream, live, rest = release(held, inputs[0], mask)
        with tokens_in_range(self.root, self.name, inputs):
            logits, new = self.root(stream, tree["root"], live)
        logits = _silent(logits, live)
        kept = {} if rest is None else {"held": rest}
        return logits[:, 1:], State({"root": new, **kept}, program=self.name)

    def task_memories(self) -> list[PlacedTask]:
        """The memories that minimise the task."""
        return find_tasks(self.root, self.root.initial_state(1))

    @keeps_islands
    def learn(
        self,
        tokens: Tensor,
        state: State | None = None,
        mask: Tensor | None = None,
        *,
        backward: float = 0.0,
        levels: Collection[str] | None = None,
        label: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """The summed loss of the task (nats) under the task writes it performs, and the state.

        Task `next_token`: position t is scored by token t + 1; the last token of a call is held back until
        the next call brings its target.  Task `label`: it is scored by `label [B, T]` at once, and not at all
        where that is negative; if the model has task memories, every token has a label.  `state.scored`
        counts the targets, `state.right` says which labels were the likeliest classes.  The sequence runs in
        segments of the smallest task clock; behind each, the gradient of its loss moves the deltas (constants
        of the outer problem), and under `trunc` all state becomes constant.  Inside a segment history is
        kept, also from call to call: detach the state to cut it.

        The loss is differentiable, and summed in float64; under `no_grad` no history outlives its segment.
        `backward = s` instead adds the gradient of `s * loss` to the parameters segment by segment: under
        `trunc` one pass serves writes and training, and the graph of one segment is all that is kept; the
        loss and the state come back detached. `levels`: only task memories of these levels move, the others
        stay what they are.

        Errors: `ValueError` if the labels are missing, or are not those of the model; for a `backward` that
        is no number, and levels without task memories.
        """
        check_inputs(self.name, (tokens,), mask, self.taken[:1], state=state, like=self.root.like)
        check_asked(backward, levels, [] if levels is None else self.task_memories())
        tree = self._tree(state, tokens.shape[0])
        outside = torch.is_grad_enabled()
        learning = Learning(self.root, self.carry, backward, levels, differentiable=outside or backward != 0)
        with torch.set_grad_enabled(outside or learning.writes(tree["root"])):
            with tokens_in_range(self.root, self.name, (tokens,)):
                loss, new, scored = learning.run(tokens, tree, mask, label)
        result = State(new, program=self.name, scored=scored, right=learning.right)
        if backward:
            return loss.detach(), result.detach()
        return (loss if outside else loss.detach()), result


def _given(x: Tensor, mask: Tensor | None) -> Tensor:
    """As `stand_in`; what is only marked as negative (`conj().imag`) C would read with the other sign."""
    plain = torch.compiler.is_compiling() or not x.is_neg()
    return stand_in(x if plain else x.resolve_neg(), mask)


def _apart(new: Tree, inputs: tuple[Tensor, ...]) -> Tree:
    """A state of its own: a cache may begin as the keys that were given, and callers fill arrays anew."""
    if traced():
        return new
    plain = (x for x in inputs if type(x) in (Tensor, nn.Parameter))
    given = {x.untyped_storage().data_ptr() for x in plain if x.is_floating_point() and x.numel()}
    if not given:
        return new
    return map_tree(lambda t: t.clone() if t.untyped_storage().data_ptr() in given else t, new)


def _silent(y: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros at masked tokens."""
    return y if mask is None else y.masked_fill(~mask.view(*mask.shape, *(1,) * (y.dim() - 2)), 0.0)


def _by_position(
    inputs: tuple[Any, ...], state: State | None, mask: Tensor | None
) -> tuple[tuple[Tensor, ...], State | None, Tensor | None]:
    """`(x, state, mask)` may be given by position: a state, or `None`, ends the inputs."""
    for i, value in enumerate(inputs):
        if value is None or isinstance(value, State):
            rest = inputs[i:]
            return inputs[:i], rest[0], rest[1] if len(rest) > 1 else mask
    return inputs, state, mask
