"""Small steps of the forms that walk token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.chunks import stand_in


def live_at(mask: Tensor | None, t: int) -> Tensor | None:
    """The mask of one token, `[B, 1]`; `None` if every token counts."""
    return None if mask is None else mask[:, t : t + 1]


def hold(live: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    """`new` for the samples whose token counts, `old` for the others; `live [B, 1]`.

    >>> hold(torch.tensor([[True], [False]]), torch.ones(2, 1), torch.zeros(2, 1)).flatten().tolist()
    [1.0, 0.0]
    """
    return new if live is None else torch.where(live.view(-1, *(1,) * (new.dim() - 1)), new, old)


def tick(count: Tensor, live: Tensor | None) -> Tensor:
    """One more token for the samples whose token counts; `count [B]`."""
    return count + 1 if live is None else count + live.squeeze(1)


def tick_all(count: Tensor, mask: Tensor | None, tokens: Tensor) -> Tensor:
    """The count behind a whole call; `tokens [B, T, ...]` gives T."""
    return count + tokens.shape[1] if mask is None else count + mask.sum(1)


def next_step(count: Tensor, like: Tensor) -> Tensor:
    """The number of the step a rule is about to make, from one; broadcasts against `like [B, ...]`.

    >>> next_step(torch.tensor([0, 4]), torch.zeros(2, 3, 3)).flatten().tolist()
    [1.0, 5.0]
    """
    return (count + 1).to(like.dtype).view(-1, *(1,) * (like.dim() - 1))


def step_numbers(count: Tensor, mask: Tensor | None, like: Tensor, *, reset: int = 0) -> Tensor:
    """The same for every token of `like [B, T, ...]`, as a tensor `[B, T]`; masked tokens make no step.

    >>> step_numbers(torch.tensor([0, 3]), None, torch.zeros(2, 2, 1), reset=4).tolist()
    [[1.0, 2.0], [4.0, 1.0]]
    """
    tokens = like.shape[1]
    if mask is None:
        earlier = torch.arange(tokens, device=count.device)
    else:
        earlier = (mask.cumsum(1) - 1).clamp_min(0)
    numbers = count.unsqueeze(1) + earlier
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    return ((numbers % reset if reset else numbers) + 1).to(dtype)


def commits_before(count: Tensor, every: int, reset: int = 0) -> Tensor:
    """How often a memory had committed since its reset before the commit at `count [B]`.

    >>> commits_before(torch.tensor([4, 12]), 4, 8).tolist()
    [0, 0]
    """
    commits = torch.div(_since(count, reset), every, rounding_mode="floor")
    # Never negative: what a sample that does not commit would get has to be finite too.
    return (commits - 1).clamp_min(0)


def ends_of(
    count: Tensor, mask: Tensor | None, tokens: Tensor, every: int, reset: int = 0
) -> list[bool | Tensor]:
    """For every token of a call: whose count, since its reset, it makes a multiple of `every`.

    `True`, `False` or `[B]`, as `nldsl.runtime.grid.choose` takes it; `tokens [B, T, ...]` gives T.

    >>> ends_of(torch.tensor([1]), None, torch.zeros(1, 4), 2)
    [True, False, True, False]
    """
    length, batch = tokens.shape[1], count.shape[0]
    if mask is None and batch and bool((count == count[0]).all()):
        reached = range(int(count[0]) + 1, int(count[0]) + length + 1)
        return [(_since(n, reset) % every) == 0 for n in reached]
    steps = torch.ones(batch, length, dtype=torch.bool, device=count.device) if mask is None else mask
    places = count[:, None] + steps.cumsum(1)
    due = steps & (_since(places, reset) % every == 0)
    return list(due.unbind(1))


def _since(count: Any, reset: int) -> Any:
    """The count since the last reset; a token that completes a period still belongs to it."""
    return (count - 1) % reset + 1 if reset else count


def commit(count: Tensor, every: int, live: Tensor | None, running: Tensor, seen: Tensor) -> Tensor:
    """`running` where this token completes a multiple of `every`, else what was seen so far.

    >>> commit(torch.tensor([4, 5]), 4, None, torch.ones(2, 1), torch.zeros(2, 1)).flatten().tolist()
    [1.0, 0.0]
    """
    due = count % every == 0
    if live is not None:
        due = due & live.squeeze(1)
    return torch.where(due.view(-1, *(1,) * (seen.dim() - 1)), running, seen)


def join_tokens(pieces: Sequence[Tensor], axis: int, empty: Tensor, mask: Tensor | None = None) -> Tensor:
    """Pieces of one token each as a sequence `[B, T, ...]`; `axis` is where their token axis is.

    Pieces with heads have it behind the heads (`axis = 2`).  `empty [B, 0, ...]` is the answer if
    there are none.  `mask` as in `stand_in`.

    >>> join_tokens([torch.ones(1, 2, 1, 3)] * 5, 2, torch.ones(1, 0, 2, 3)).shape
    torch.Size([1, 5, 2, 3])
    """
    if not pieces:
        return empty
    joined = torch.cat(list(pieces), axis)
    return stand_in(joined.transpose(1, 2) if axis == 2 else joined, mask)


def spread(gate: Tensor | float, key: Tensor) -> Tensor:
    """A gate as one number per head and token, `[B, T, H]`, for keys `[B, T, H, d]`."""
    return torch.as_tensor(gate, dtype=key.dtype, device=key.device).expand(key.shape[:-1])


def spread_heads(gate: Tensor | float, key: Tensor) -> Tensor:
    """A number, or one per head, as `[B, H, C]` for keys `[B, H, C, d]` (`[B, C]` without heads)."""
    tensor = torch.as_tensor(gate, dtype=key.dtype, device=key.device)
    return (tensor.unsqueeze(-1) if tensor.dim() else tensor).expand(key.shape[:-1])
