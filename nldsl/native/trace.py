"""A function of tensors as a graph of the operations of torch, at one lane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import get_decompositions
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from nldsl.native.graph import UnsupportedError
from nldsl.native.opaque import opaque_routines

Function = Callable[..., Sequence[Tensor | None]]
aten = torch.ops.aten
APART: Any = get_decompositions(
    [
        aten.silu_backward,
        aten.sigmoid_backward,
        aten.tanh_backward,
        aten.gelu_backward,
        aten.elu,
        aten.elu_backward,
        aten.leaky_relu,
        aten.leaky_relu_backward,
        aten.hardtanh,
        aten.hardtanh_backward,
        aten.softplus,
        aten.softplus_backward,
        aten.threshold_backward,
        aten.log_sigmoid_forward,
        aten.log_sigmoid_backward,
        aten._softmax,
        aten._softmax_backward_data,
        aten._log_softmax,
        aten._log_softmax_backward_data,
        aten.native_layer_norm,
        aten.native_layer_norm_backward,
        aten.linalg_vector_norm,
        aten.var,
        aten.std,
        aten.norm,
        aten.square,
        aten.mse_loss,
        aten.huber_loss,
        aten.linalg_vecdot,
        aten.logsumexp,
        aten.select_backward,
        aten.slice_backward,
        aten.unfold,
    ]
)
"""What is taken apart into operations that have a form in C."""


def traced(function: Function, lane: Sequence[Tensor | None]) -> fx.GraphModule:
    """The graph of `function` at the tensors of one lane: it takes those that are not `None`.

    What a function writes into its own arguments is left out.  Raises `UnsupportedError` where it asks for
    a value.
    """
    given = [x for x in lane if x is not None]
    empty: list[bool] = []

    def flat(*tensors: Tensor) -> list[Tensor]:
        rest = iter(tensors)
        found = function(*(None if x is None else next(rest) for x in lane))
        empty[:] = [y is None for y in found]
        return [y for y in found if y is not None]

    try:
        # Without one for all, every number of the graph is given a mode of its own: that takes as long again.
        context = TracingContext(FakeTensorMode(allow_fallback_kernels=True))
        with torch.no_grad(), opaque_routines(), tracing(context):
            try:
                graph = make_fx(functionalize(flat), decomposition_table=APART)(*given)
            except RuntimeError:
                # Functions with a backward pass of their own cannot be made functional, what they call can.
                literal = make_fx(flat)(*given)
                graph = make_fx(functionalize(literal), decomposition_table=APART)(*given)
    except (RuntimeError, NotImplementedError, ValueError, TypeError, KeyError, IndexError) as error:
        raise UnsupportedError(f"it cannot be traced: {str(error).splitlines()[0]}") from error
    graph.graph.eliminate_dead_code()
    graph.meta["empty"] = list(empty)
    return graph
