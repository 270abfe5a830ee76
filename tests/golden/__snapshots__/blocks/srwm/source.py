"""`srwm`, compiled by nldsl from specs/blocks/srwm.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, normal
from nldsl.runtime.ops import linear, merge, parts, softmax, split, sum
from nldsl.runtime.token import hold, join_tokens, live_at, tick_all
from torch import Tensor


def matrix(z: Tensor, weight: Tensor) -> Tensor:
    """The map `matrix`, row by row: `[..., C, z] -> [..., C, y]`."""
    y = z @ weight.mT
    return y


def matrix_l2_gradient(key: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of `l2` at the map `matrix`, row by row.

    Returns x_weight, dy_weight: `x_W` is the input of the weight `W`, `dy_W` the gradient at its
    output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    return key, key @ weight.mT - target


class Srwm(Module):
    """`srwm(x)` with heads = 2.

    Wk, Wq, Wb: sequential (one token after the other: its keys, rates or gates are made of what it
    reads in the state that the token before has left, and no form is parallel in that).

    Wy: sequential (one token after the other: what it reads in the state of every token is what it
    writes).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("z.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("Wy.weight", (2, 16, 16), "matrix", normal(0.25))
        self.declare("Wk.weight", (2, 16, 16), "matrix", normal(0.25))
        self.declare("Wq.weight", (2, 16, 16), "matrix", normal(0.25))
        self.declare("Wb.weight", (2, 4, 16), "matrix", normal(0.25))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "Wy": {"running": {"weight": self.start(self.Wy.weight, batch)}, "count": self.counter(batch)},
            "Wk": {"running": {"weight": self.start(self.Wk.weight, batch)}, "count": self.counter(batch)},
            "Wq": {"running": {"weight": self.start(self.Wq.weight, batch)}, "count": self.counter(batch)},
            "Wb": {"running": {"weight": self.start(self.Wb.weight, batch)}, "count": self.counter(batch)},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        z = softmax(split(linear(x, self.z.linear.weight), n=2))
        z_tokens = z.transpose(1, 2).split(1, 2)
        Wk_weight = state["Wk"]["running"]["weight"]
        Wk_count = state["Wk"]["count"]
        Wq_weight = state["Wq"]["running"]["weight"]
        Wq_count = state["Wq"]["count"]
        Wb_weight = state["Wb"]["running"]["weight"]
        Wb_count = state["Wb"]["count"]
        k_all = []
        q_all = []
        b1_sigmoid_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            z_t = z_tokens[t]
            k_Wk = matrix(z_t, Wk_weight)
            k_2 = softmax(k_Wk)
            q_Wq = matrix(z_t, Wq_weight)
            q_2 = softmax(q_Wq)
            b1_Wb = matrix(z_t, Wb_weight)
            b1_sigmoid = torch.sigmoid(b1_Wb)
            b2 = parts(b1_sigmoid, index=1, sizes=(1, 1, 1, 1))
            b3 = parts(b1_sigmoid, index=2, sizes=(1, 1, 1, 1))
            b4 = parts(b1_sigmoid, index=3, sizes=(1, 1, 1, 1))
            r2 = sum(b2)
            r3 = sum(b3)
            r4 = sum(b4)
            vk = matrix(q_2, Wk_weight)
            vq = matrix(q_2, Wq_weight)
            vb = matrix(q_2, Wb_weight)
            Wk_x_weight, Wk_dy_weight = matrix_l2_gradient(k_2, vk, Wk_weight)
            Wk_weight_next = Wk_weight - (Wk_dy_weight * r2[..., None]).mT @ Wk_x_weight
            Wq_x_weight, Wq_dy_weight = matrix_l2_gradient(k_2, vq, Wq_weight)
            Wq_weight_next = Wq_weight - (Wq_dy_weight * r3[..., None]).mT @ Wq_x_weight
            Wb_x_weight, Wb_dy_weight = matrix_l2_gradient(k_2, vb, Wb_weight)
            Wb_weight_next = Wb_weight - (Wb_dy_weight * r4[..., None]).mT @ Wb_x_weight
            Wk_weight = hold(live, Wk_weight_next, Wk_weight)
            Wq_weight = hold(live, Wq_weight_next, Wq_weight)
            Wb_weight = hold(live, Wb_weight_next, Wb_weight)
            k_all.append(k_2)
            q_all.append(q_2)
            b1_sigmoid_all.append(b1_sigmoid)
        k = join_tokens(k_all, 2, self.zeros(x.shape[0], 0, 2, 16), mask)
        q = join_tokens(q_all, 2, self.zeros(x.shape[0], 0, 2, 16), mask)
        b1_sigmoid_2 = join_tokens(b1_sigmoid_all, 2, self.zeros(x.shape[0], 0, 2, 4), mask)
        new["Wk"] = {"running": {"weight": Wk_weight}, "count": tick_all(Wk_count, mask, x)}
        new["Wq"] = {"running": {"weight": Wq_weight}, "count": tick_all(Wq_count, mask, x)}
        new["Wb"] = {"running": {"weight": Wb_weight}, "count": tick_all(Wb_count, mask, x)}
        b1 = parts(b1_sigmoid_2, index=0, sizes=(1, 1, 1, 1))
        r1 = sum(b1)
        z_tokens_2 = z.transpose(1, 2).split(1, 2)
        q_tokens = q.transpose(1, 2).split(1, 2)
        k_tokens = k.transpose(1, 2).split(1, 2)
        Wy_weight = state["Wy"]["running"]["weight"]
        Wy_count = state["Wy"]["count"]
        r1_tokens = r1.mT[..., None].split(1, -2)
        y_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            z_t_2 = z_tokens_2[t]
            q_t = q_tokens[t]
            k_t = k_tokens[t]
            r1_t = r1_tokens[t]
            y = matrix(z_t_2, Wy_weight)
            vy = matrix(q_t, Wy_weight)
            Wy_x_weight, Wy_dy_weight = matrix_l2_gradient(k_t, vy, Wy_weight)
            Wy_weight_next = Wy_weight - (Wy_dy_weight * r1_t).mT @ Wy_x_weight
            Wy_weight = hold(live, Wy_weight_next, Wy_weight)
            y_all.append(y)
        y_2 = join_tokens(y_all, 2, self.zeros(x.shape[0], 0, 2, 16), mask)
        new["Wy"] = {"running": {"weight": Wy_weight}, "count": tick_all(Wy_count, mask, x)}
        out = linear(merge(y_2), self.out.linear.weight)
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `srwm`, its parameters drawn from `seed`."""
    return Layer(Srwm().initialise(seed), "srwm")
