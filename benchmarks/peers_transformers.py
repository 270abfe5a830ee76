"""transformers: the layers of Qwen3-Next (gated delta rule) and Mamba-2, which torch computes on a CPU.

It warns of that, layer by layer: the kernels it asks for are for GPUs.  Here nothing else can be compared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Mamba2Config, Qwen3NextConfig, logging
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

from benchmarks import peer
from benchmarks.peer import CHUNK, HEADS, SIZE, WIDTH, Pair, difference, passes, tokens

STATE = 64


def pairs() -> list[Pair]:
    """Gated DeltaNet, and Mamba-2 with two sizes of its chunks."""
    logging.set_verbosity_error()
    x = tokens()
    ours, theirs = gated_deltanets()
    found = [Pair("Gated DeltaNet", passes(ours, x), passes(theirs, x), lambda: difference(ours, theirs, x))]
    for chunk in (CHUNK, 256):
        mine, other = mambas(chunk)
        found.append(
            Pair(
                f"Mamba-2, 8 heads, state {STATE}; theirs in chunks of {chunk}",
                passes(mine, x),
                passes(other, x),
                lambda mine=mine, other=other: difference(mine, other, x),
            )
        )
    return found


def gated_deltanets() -> tuple[nn.Module, nn.Module]:
    """Both with the same weights: ours has biases in its convolutions (zero), theirs scales its queries."""
    ours = peer.ours("gated_deltanet", block="gated_deltanet", dim=WIDTH, heads=HEADS)
    config = Qwen3NextConfig(
        hidden_size=WIDTH,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
        linear_num_key_heads=HEADS,
        linear_num_value_heads=HEADS,
        linear_key_head_dim=SIZE,
        linear_value_head_dim=SIZE,
        linear_conv_kernel_dim=4,
        # What the norm divides by is scaled like the queries, by 1 / sqrt(size).
        rms_norm_eps=1e-6 / SIZE,
    )
    theirs = Qwen3NextGatedDeltaNet(config, 0).float()
    p = dict(ours.named_parameters())
    with torch.no_grad():
        for name in "qkv":
            p[f"{name}.conv.bias"].zero_()
        parts = [p["q.linear.weight"], p["k.linear.weight"], p["v.linear.weight"], p["out.linear.weight"]]
        theirs.in_proj_qkvz.weight.copy_(by_head(parts, SIZE))
        theirs.in_proj_ba.weight.copy_(by_head([p["beta.linear.weight"], p["alpha.linear.weight"]], 1))
        theirs.conv1d.weight.copy_(torch.cat([p[f"{name}.conv.weight"] for name in "qkv"]).unsqueeze(1))
        theirs.A_log.zero_()
        theirs.dt_bias.zero_()
        theirs.norm.weight.copy_(p["out.norm.weight"])
        theirs.out_proj.weight.copy_(p["out.linear_2.weight"])
    return ours, theirs


def by_head(parts: list[Tensor], rows: int) -> Tensor:
    """Rows of several weights, head by head."""
    return torch.stack([part.unflatten(0, (HEADS, rows)) for part in parts], 1).flatten(0, 2)


def mambas(chunk: int) -> tuple[nn.Module, nn.Module]:
    """Both with the same weights."""
    heads, inner = 2 * WIDTH // SIZE, 2 * WIDTH
    ours = peer.ours("mamba2", block="mamba2", dim=WIDTH, heads=heads, state=STATE)
    config = Mamba2Config(
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_heads=heads,
        head_dim=SIZE,
        state_size=STATE,
        n_groups=1,
        chunk_size=chunk,
        layer_norm_epsilon=1e-6,
    )
    theirs = Mamba2Mixer(config, 0).float()
    p = dict(ours.named_parameters())
    with torch.no_grad():
        weights = [p["z.linear.weight"], p["u.linear.weight"], p["dt.linear.weight"]]
        theirs.in_proj.weight.copy_(torch.cat(weights))
        theirs.conv1d.weight.copy_(p["u.conv.weight"].unsqueeze(1))
        theirs.conv1d.bias.copy_(p["u.conv.bias"])
        theirs.dt_bias.copy_(p["dt.linear.bias"])
        theirs.A_log.copy_(p["A.weight.weight"])
        theirs.D.copy_(p["D.weight.weight"])
        theirs.norm.weight.copy_(p["out.norm.weight"])
        theirs.out_proj.weight.copy_(p["out.linear.weight"])
    assert theirs.intermediate_size == inner
    return ours, theirs
