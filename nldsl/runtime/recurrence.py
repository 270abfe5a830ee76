"""Matrix memories that are written every token, all chunks at once.

`M_t = a_t M_{t-1} + u_t k_t^T` (gd on a dot product: linear attention, RetNet, Mamba-2) and
`M_t = a_t M_{t-1} - e_t (F_t k_t) k_t^T + w_t k_t^T` (gd on l2, dgd: DeltaNet, Gated DeltaNet), where
`F_t` is `M_{t-1}` ("raw") or `a_t M_{t-1}` ("decayed").

Shape suffixes: `B` batch, `T` tokens, `H` heads, `N` chunks, `C` tokens of a chunk, `K` key size,
`V` value size, `X` = `B * H`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nldsl.catalog.widths import WIDTH, pass_width
from nldsl.runtime.attend import chunk_read, chunk_write, delta_transform
from nldsl.runtime.chunk_buffers import Reading
from nldsl.runtime.chunk_pass import Instead, chunk_pass
from nldsl.runtime.chunk_sums import Width
from nldsl.runtime.chunk_widths import fitting
from nldsl.runtime.chunks import Layout, cut, layout_of, mask_out, stand_in, tokens
from nldsl.runtime.decay import DecayKernel, before, causal_mask, decay_kernel
from nldsl.runtime.scan import decay_scan, delta_scan

Read = Literal["after", "decayed", "before"]
"""Which state a query sees: `M_t`, `a_t M_{t-1}` or `M_{t-1}`."""


def linear_recurrence(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    u_BTHV: Tensor,
    state_BHVK: Tensor,
    *,
    decay: Tensor | None = None,
    log_decay: Tensor | None = None,
    read: Read = "after",
    mask: Tensor | None = None,
    chunk: int = WIDTH,
    instead: Instead | None = None,
) -> tuple[Tensor, Tensor]:
    """`M_t = a_t M_{t-1} + u_t k_t^T`, read with `q`; return the reads `[B, T, H, V]` and `M_T`.

    Gates `[B, T, H]`: `log_decay` where the decay is known to be positive, else `decay` (any
    sign, zero too).  `mask [B, T]`: false tokens leave the state alone, and others stand in for what they
    read (`stand_in`).

    >>> k = torch.eye(2).view(1, 2, 1, 2)
    >>> y, state = linear_recurrence(k, k, 3.0 * k, torch.zeros(1, 1, 2, 2))
    >>> y.flatten().tolist()
    [3.0, 0.0, 0.0, 3.0]
    """
    if q_BTHK.shape[1] <= 1:
        return _one_token(q_BTHK, k_BTHK, u_BTHV, None, state_BHVK, decay, log_decay, "raw", read, mask)
    layout = layout_of(q_BTHK, chunk)
    made = _in_one_pass(
        layout, (q_BTHK, k_BTHK, u_BTHV, None), state_BHVK, decay, log_decay, "raw", read, mask, instead
    )
    if made is not None:
        return made
    q, k, u, kernel = _chunks(layout, q_BTHK, k_BTHK, u_BTHV, decay, log_decay, mask)
    update = chunk_write(k, u, None if kernel is None else kernel.to_end)
    total = _total(kernel, layout, state_BHVK)
    lead = (layout.chunks, layout.batch * layout.heads)
    states, last = decay_scan(total.view(lead), update.unflatten(0, lead), state_BHVK.flatten(0, 1))
    scores, carried = _read_kernel(kernel, read, layout.width, q)
    y = chunk_read(q, k, u, scores, carried, states.flatten(0, 1))
    return tokens(y, layout, mask), last.view(state_BHVK.shape)


def delta_recurrence(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    w_BTHV: Tensor,
    erase_BTH: Tensor,
    state_BHVK: Tensor,
    *,
    decay: Tensor | None = None,
    log_decay: Tensor | None = None,
    feedback: Literal["raw", "decayed"] = "raw",
    read: Read = "after",
    mask: Tensor | None = None,
    chunk: int | None = None,
    instead: Instead | None = None,
) -> tuple[Tensor, Tensor]:
    """`M_t = a_t M_{t-1} - e_t (F_t k_t) k_t^T + w_t k_t^T`, read with `q`; return reads and `M_T`.

    Inside a chunk the values really added, `d_t = w_t - e_t F_t k_t`, solve a unit lower triangular
    system, `(I + N) d = w - e c (k M_0^T)` with `N_tj = e_t (k_t . k_j) L_tj`.  Gates `[B, T, H]`;
    `decay` and `log_decay`, `mask` as in `linear_recurrence`.

    >>> k = torch.ones(1, 3, 1, 1)
    >>> half, empty = torch.full((1, 3, 1), 0.5), torch.zeros(1, 1, 1, 1)
    >>> y, _ = delta_recurrence(k, k, torch.ones(1, 3, 1, 1), half, empty)
    >>> y.flatten().tolist()
    [1.0, 1.5, 1.75]
    """
    given = (q_BTHK, k_BTHK, w_BTHV, erase_BTH)
    if q_BTHK.shape[1] <= 1:
        return _one_token(*given, state_BHVK, decay, log_decay, feedback, read, mask)
    layout = layout_of(q_BTHK, chunk or pass_width(True, q_BTHK.device.type))
    made = _in_one_pass(layout, given, state_BHVK, decay, log_decay, feedback, read, mask, instead)
    if made is not None:
        return made
    layout = layout_of(q_BTHK, chunk or WIDTH)
    q, k, w, kernel = _chunks(layout, q_BTHK, k_BTHK, w_BTHV, decay, log_decay, mask)
    erase = cut(mask_out(erase_BTH, mask), layout)
    scores, carried = _read_kernel(kernel, "before" if feedback == "raw" else "decayed", layout.width, q)
    key_end = k if kernel is None else k * kernel.to_end.unsqueeze(-1)
    lead = (layout.chunks, layout.batch * layout.heads)
    target, erased = (x.unflatten(0, lead) for x in delta_transform(k, w, erase, scores, carried))
    ends, total = key_end.unflatten(0, lead), _total(kernel, layout, state_BHVK).view(lead)
    d, states, last = delta_scan(target, erased, ends, total, state_BHVK.flatten(0, 1))
    same = _same_kernel(feedback, read)
    again = (scores, carried) if same else _read_kernel(kernel, read, layout.width, q)
    y = chunk_read(q, k, d.flatten(0, 1), *again, states.flatten(0, 1))
    return tokens(y, layout, mask), last.view(state_BHVK.shape)


def _in_one_pass(
    layout: Layout,
    given: tuple[Tensor, Tensor, Tensor, Tensor | None],
    state: Tensor,
    decay: Tensor | None,
    log_decay: Tensor | None,
    feedback: str,
    read: Read,
    mask: Tensor | None,
    instead: Instead | None,
) -> tuple[Tensor, Tensor] | None:
    """Reads and state by `chunk_pass`; `None` if it does not take the gates, or code is traced."""
    if torch.compiler.is_compiling() or (decay is not None and log_decay is None):
        return None
    sums: Tensor | None = None
    width: Width = layout.width
    if log_decay is not None:
        if (found := fitting(mask_out(log_decay, mask), layout.width)) is None:
            return None
        sums, width = found[0].unsqueeze(-1), found[1]
    q, k, w = (mask_out(x, mask) for x in given[:3])
    erase = None if given[3] is None else (k, mask_out(given[3], mask), k, w)
    reads = Reading(early=sums is not None and read == "before", strict=read != "after")
    early = sums is not None and feedback == "raw"
    plain = (k, w) if erase is None else None
    y, last = chunk_pass(
        q, erase, plain, sums, state, reads=reads, early_erase=early, width=width, instead=instead
    )
    return stand_in(y, mask), last


def _chunks(
    layout: Layout,
    q: Tensor,
    k: Tensor,
    u: Tensor,
    decay: Tensor | None,
    log_decay: Tensor | None,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, DecayKernel | None]:
    """Everything in chunks; masked tokens and the padding write nothing and do not decay."""
    q, k, u = (cut(mask_out(x, mask), layout) for x in (q, k, u))
    if log_decay is not None:
        return q, k, u, decay_kernel(cut(mask_out(log_decay, mask), layout))
    if decay is not None:
        # Cut the distance from one: zeros behind the end then mean "no decay".
        return q, k, u, decay_kernel(None, 1.0 - cut(mask_out(1.0 - decay, mask), layout))
    return q, k, u, None


def _read_kernel(
    kernel: DecayKernel | None, read: Read, width: int, like: Tensor
) -> tuple[Tensor, Tensor | None]:
    if kernel is None:
        return causal_mask(width, like, strict=read != "after"), None
    if read == "before":
        return before(kernel)
    return kernel.after if read == "after" else kernel.after.tril(-1), kernel.carried


def _same_kernel(feedback: str, read: Read) -> bool:
    return (feedback, read) in {("raw", "before"), ("decayed", "decayed")}


def _total(kernel: DecayKernel | None, layout: Layout, state: Tensor) -> Tensor:
    count = layout.chunks * layout.batch * layout.heads
    return kernel.total if kernel is not None else state.new_ones(count)


def _one_token(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    w_BTHV: Tensor,
    erase_BTH: Tensor | None,
    state: Tensor,
    decay: Tensor | None,
    log_decay: Tensor | None,
    feedback: str,
    read: Read,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The recurrence as written, for decoding (`T` = 1) and for `T` = 0."""
    if q_BTHK.shape[1] == 0:
        return w_BTHV.new_zeros(w_BTHV.shape), state
    q, k, w = q_BTHK[:, 0, :, :, None], k_BTHK[:, 0, :, :, None], w_BTHV[:, 0, :, :, None]
    gate = log_decay.exp() if log_decay is not None else decay
    decayed = state if gate is None else gate[:, 0, :, None, None] * state
    added = w
    if erase_BTH is not None:
        seen = decayed if feedback == "decayed" else state
        added = w - erase_BTH[:, 0, :, None, None] * (seen @ k)
    new = decayed + added * k.mT
    source = {"after": new, "decayed": decayed, "before": state}[read]
    y = (source @ q).squeeze(-1).unsqueeze(1)
    if mask is not None:
        new = torch.where(mask[:, 0, None, None, None], new, state)
    return stand_in(y, mask), new
