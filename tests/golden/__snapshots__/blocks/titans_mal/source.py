"""`titans_mal`, compiled by nldsl from specs/blocks/titans_mal.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.attention import attention
from nldsl.runtime.grid import ChunkGrid
from nldsl.runtime.held_gates import fading, following, gate_rows
from nldsl.runtime.held_parts import Pulled
from nldsl.runtime.held_pass import held_pass
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, l2norm, linear, merge, norm, rope, silu_pullback, split, times_silu
from torch import Tensor
from torch.nn import functional


def mlp_following(key: Tensor, W2: Any, W1: Any) -> tuple[Tensor, ...]:
    """`mlp`, row by row, and what its way back needs, at the weights of every token: `W(z)` for `W @ z`,
    `W.back(d)` for the way back.
    """
    matmul = W2(key)
    silu = functional.silu(matmul)
    return W1(silu), matmul


def mlp_following_back(d_1: Tensor, key: Tensor, W2: Any, W1: Any, matmul: Tensor) -> tuple[Tensor, ...]:
    """From gradients `d_i` at its results to those at key, then `dy, x` of every outer product of the
    gradient of every weight, at the weights of every token: `W(z)` for `W @ z`, `W.back(d)` for the way
    back.
    """
    silu_pullback_ = silu_pullback(W1.back(d_1), matmul)
    silu = functional.silu(matmul)
    return W2.back(silu_pullback_), silu_pullback_, key, d_1, silu


def mlp_l2_normalised_momentum_gradient_kept(
    key: Tensor, target: Tensor, lr: Tensor, W2: Tensor, W1: Tensor
) -> tuple[Tensor, ...]:
    """`mlp_l2_normalised_momentum_gradient`, row by row, and what its way back needs."""
    dot = (key * key).sum(-1, keepdim=True)
    add = 0.01 + dot
    div = lr / add
    matmul = key @ W2.mT
    silu = functional.silu(matmul)
    matmul_2 = silu @ W1.mT
    sub = matmul_2 - target
    matmul_3 = sub @ W1
    silu_pullback_ = silu_pullback(matmul_3, matmul)
    mul = silu_pullback_.mul_(div)
    dot_2 = (silu * silu).sum(-1, keepdim=True)
    add_2 = 0.01 + dot_2
    div_2 = lr / add_2
    mul_2 = sub.mul_(div_2)
    return key, mul, silu, mul_2, dot, matmul, silu, matmul_2, matmul_3, dot_2


def mlp_l2_normalised_momentum_gradient_pullback(
    d_1: Tensor,
    d_2: Tensor,
    d_3: Tensor,
    d_4: Tensor,
    key: Tensor,
    target: Tensor,
    lr: Tensor,
    W2: Tensor,
    W1: Tensor,
    dot: Tensor,
    matmul: Tensor,
    silu: Tensor,
    matmul_2: Tensor,
    matmul_3: Tensor,
    dot_2: Tensor,
) -> tuple[Tensor, ...]:
    """From gradients `d_i` at its results, which are written over, to those at key, target, lr, then `dy,
    x` of every outer product of the gradient of every weight.
    """
    sub = matmul_2 - target
    add = 0.01 + dot
    div = lr / add
    mul = d_2 * div
    silu_pullback_ = silu_pullback(mul, matmul)
    sigmoid = torch.sigmoid(matmul)
    mul_2 = 2.0 * silu_pullback_
    sub_2 = mul.sub_(mul_2)
    mul_3 = sigmoid.mul_(sub_2)
    add_2 = mul_3.add_(silu_pullback_)
    mul_4 = add_2.mul_(matmul_3)
    add_3 = 0.01 + dot_2
    div_2 = lr / add_3
    mul_5 = d_4 * div_2
    add_4 = mul_5.baddbmm_(silu_pullback_, W1.mT)
    dot_3 = (d_4 * sub).sum(-1, keepdim=True)
    mul_6 = div_2.mul_(dot_3)
    div_3 = mul_6.div_(add_3)
    mul_7 = silu * div_3
    sub_3 = d_3.sub_(mul_7)
    sub_4 = sub_3.sub_(mul_7)
    add_5 = sub_4.baddbmm_(add_4, W1)
    silu_pullback_2 = silu_pullback(add_5, matmul)
    add_6 = mul_4.add_(silu_pullback_2)
    add_7 = d_1.baddbmm_(add_6, W2)
    silu_pullback_3 = silu_pullback(matmul_3, matmul)
    dot_4 = (d_2 * silu_pullback_3).sum(-1, keepdim=True)
    mul_8 = div.mul_(dot_4)
    div_4 = mul_8.div_(add)
    mul_9 = key * div_4
    sub_5 = add_7.sub_(mul_9)
    sub_6 = sub_5.sub_(mul_9)
    div_5 = dot_3 / add_3
    div_6 = dot_4 / add
    add_8 = div_5.add_(div_6)
    return sub_6, -add_4, add_8, add_6, key, sub, silu_pullback_, add_4, silu


class TitansMlp(Module):
    """`titans_mlp(x)` with chunk = 16, expand = 2, heads = 2, window = 4.

    M: held (gradients are held at a base, reads of `M` follow: 16 tokens are parallel, and all chunks
    are one function whose way back is derived, not recorded).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("q.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("q.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("q.conv.bias", (32,), "rest", constant(0.0))
        self.declare("k.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("k.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("k.conv.bias", (32,), "rest", constant(0.0))
        self.declare("v.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("v.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("v.conv.bias", (32,), "rest", constant(0.0))
        self.declare("theta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("eta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("keep.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("keep.linear.bias", (2,), "rest", constant(0.0))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("M.W2", (2, 32, 16), "matrix", normal(0.25))
        self.declare("M.W1", (2, 16, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "k.conv": {"tail": self.zeros(batch, 3, 32)},
            "v.conv": {"tail": self.zeros(batch, 3, 32)},
            "M": {
                "running": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "base": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "slots": {"m.W2": self.zeros(batch, 2, 32, 16), "m.W1": self.zeros(batch, 2, 16, 32)},
                "count": self.counter(batch),
            },
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        q_conv_silu, new["q.conv"] = conv(
            linear(x, self.q.linear.weight),
            self.q.conv.weight,
            self.q.conv.bias,
            state=state["q.conv"],
            mask=mask,
            activation="silu",
        )
        q = l2norm(split(q_conv_silu, n=2), eps=1e-06)
        k_conv_silu, new["k.conv"] = conv(
            linear(x, self.k.linear.weight),
            self.k.conv.weight,
            self.k.conv.bias,
            state=state["k.conv"],
            mask=mask,
            activation="silu",
        )
        k = l2norm(split(k_conv_silu, n=2), eps=1e-06)
        v_conv_silu, new["v.conv"] = conv(
            linear(x, self.v.linear.weight),
            self.v.conv.weight,
            self.v.conv.bias,
            state=state["v.conv"],
            mask=mask,
            activation="silu",
        )
        v = v_conv_silu
        theta = torch.sigmoid(linear(x, self.theta.linear.weight)) / 16
        eta = torch.sigmoid(linear(x, self.eta.linear.weight)) / 2
        keep = 1 - torch.sigmoid(linear(x, self.keep.linear.weight, self.keep.linear.bias)) / 16
        M_write_split = split(v, n=2)
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        M_fade = fading(grid, k, retain=keep, beta=eta, slot_rate=1.0, read=1.0)
        M_after = following(grid, k, retain=keep, beta=eta, slot_rate=1.0, read=1.0)
        M_held = held_pass(
            grid,
            16,
            (
                Pulled(mlp_following, mlp_following_back, 1, (1, 1)),
                Pulled(
                    mlp_l2_normalised_momentum_gradient_kept,
                    mlp_l2_normalised_momentum_gradient_pullback,
                    4,
                    (1, 2),
                ),
            ),
            ((q,), k, M_write_split, gate_rows(k, theta)),
            M_fade,
            (
                (state["M"]["running"]["W2"], state["M"]["running"]["W1"]),
                (state["M"]["base"]["W2"], state["M"]["base"]["W1"]),
                (state["M"]["slots"]["m.W2"], state["M"]["slots"]["m.W1"]),
            ),
            live=(M_after,),
        )
        out_M = M_held.reads[0]
        new["M"] = {
            "running": {"W2": M_held.running[0], "W1": M_held.running[1]},
            "base": {"W2": M_held.committed[0], "W1": M_held.committed[1]},
            "slots": {"m.W2": M_held.slots[0], "m.W1": M_held.slots[1]},
            "count": grid.count,
        }
        out = linear(
            times_silu(
                merge(norm(out_M, self.out.norm.weight, eps=1e-06)), linear(x, self.out.linear.weight)
            ),
            self.out.linear_2.weight,
        )
        return out, new


class PersistentAttention(Module):
    """`persistent_attention(x)` with base = 10000, heads = 2, persistent = 4, window = 64.

    A: attention (softmax memory: scaled dot-product attention over the cached keys and values).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("A_write.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("A_write.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("A.keys", (2, 4, 16), "rest", normal(0.25))
        self.declare("A.values", (2, 4, 16), "rest", normal(0.25))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "A_write.rope": {"count": self.counter(batch)},
            "out.rope": {"count": self.counter(batch)},
            "A": {"keys": self.zeros(batch, 0, 2, 16), "values": self.zeros(batch, 0, 2, 16), "valid": None},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        A_write_rope, new["A_write.rope"] = rope(
            split(linear(x, self.A_write.linear.weight), n=2),
            base=10000,
            state=state["A_write.rope"],
            mask=mask,
        )
        A_write_split_1 = split(linear(x, self.A_write.linear_2.weight), n=2)
        out_rope, new["out.rope"] = rope(
            split(linear(x, self.out.linear.weight), n=2), base=10000, state=state["out.rope"], mask=mask
        )
        out_A, new["A"] = attention(
            out_rope,
            A_write_rope,
            A_write_split_1,
            state["A"],
            mask=mask,
            scale=0.25,
            window=64,
            start=(self.A.keys, self.A.values),
        )
        out = linear(merge(out_A), self.out.linear_2.weight)
        return out, new


class TitansMal(Module):
    """`titans_mal(x)` with chunk = 16, heads = 2, persistent = 4, window = 64."""

    def __init__(self) -> None:
        super().__init__()
        self.attach("titans_mlp", TitansMlp())
        self.attach("persistent_attention", PersistentAttention())

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "titans_mlp": self.titans_mlp.initial_state(batch),
            "persistent_attention": self.persistent_attention.initial_state(batch),
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        out_titans_mlp, new["titans_mlp"] = self.titans_mlp(x, state["titans_mlp"], mask)
        out, new["persistent_attention"] = self.persistent_attention(
            out_titans_mlp, state["persistent_attention"], mask
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `titans_mal`, its parameters drawn from `seed`."""
    return Layer(TitansMal().initialise(seed), "titans_mal")
