"""The model of a run, and one step of it as it will be computed: what estimates measure before it begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from nldsl.driver import compile as compile_model
from nldsl.evaluate import LanguageModel
from nldsl.graph import open_sized
from nldsl.train.config import RunConfig
from nldsl.train.errors import fault
from nldsl.train.manner import face, recompute
from nldsl.train.passes import backward_from

WIDTH = 64
"""Of the inputs of a block, where nobody has said it."""


class TrainableModel(LanguageModel, Protocol):
    """A language model whose slow parameters are known by path and role."""

    def parameter_paths(self) -> dict[str, nn.Parameter]:
        """Every slow parameter by its absolute path."""

    def drawn_paths(self) -> dict[str, Tensor]:
        """The same, and constants that were drawn (`init fixed`)."""

    def parameter_roles(self) -> dict[str, Any]:
        """The role of every slow parameter."""

    def new_sequence(self, state: Any) -> Any:
        """The state at the start of the next sequence."""


def build(source: str, config: RunConfig) -> TrainableModel:
    """Compile the model.  Raises NL0987 for a block, which has no tokens to predict."""
    arguments: dict[str, Any] = dict(config.arguments)
    # Of a block nobody is asked for its width first: with one it could not be trained either.
    program, _ = open_sized(source, WIDTH, **arguments)
    if program.kind != "model":
        raise fault(
            "NL0987",
            f"`{program.name}` is a block, and only a model can be trained on bytes",
            help=f"`variant my_model of lm(mixer = {program.name})` makes a language model of it, or write "
            "a `model` around it: embed, block, head",
            span=program.root.span,
        )
    return cast(TrainableModel, compile_model(program, seed=config.seed))


def step_of(model: TrainableModel, config: RunConfig) -> Callable[[Any, Any], Any]:
    """What a step does with a batch of tokens: the loss, the gradients, the state behind.

    `model` computes from now on what `config` says again in the backward pass.
    """
    recompute(model, config.recompute)
    truncate = model.program.train.truncate if model.program.train is not None else 0
    device = torch.device("cpu")
    return lambda made, tokens: backward_from(face(made, config.precision, device), tokens, None, truncate)
