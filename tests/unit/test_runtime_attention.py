"""Attention with a cache against the definition, query by query."""

import itertools

import pytest
import torch

from nldsl.runtime import attention as module
from nldsl.runtime.attention import attention
from nldsl.runtime.chunks import mask_out

torch.set_num_threads(1)
B, J, K, V = 3, 2, 4, 5


def naive(q, k, v, mask, scale, window, start, read_before):
    """Every query over the list of pairs that a real token has appended so far."""
    H = q.shape[2]
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    rows = []
    for b in range(q.shape[0]):
        pairs, row = [], []
        for t in range(q.shape[1]):
            if not mask[b, t]:
                row.append(out[b, t])
                continue
            here = [*pairs, (k[b, t], v[b, t])]
            seen = (pairs if read_before else here)[-(window or 10**9) :]
            pairs = here
            heads = []
            for h in range(H):
                j = h // (H // J)
                keys, values = [p[0][j] for p in seen], [p[1][j] for p in seen]
                if start is not None:
                    keys, values = [*start[0][j], *keys], [*start[1][j], *values]
                if not keys:
                    heads.append(out[b, t, h])
                    continue
                w = torch.softmax(torch.stack([scale * (q[b, t, h] * x).sum() for x in keys]), 0)
                heads.append((w[:, None] * torch.stack(values)).sum(0))
            row.append(torch.stack(heads))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def empty(batch=B):
    return {
        "keys": torch.zeros(batch, 0, J, K, dtype=torch.float64),
        "values": torch.zeros(batch, 0, J, V, dtype=torch.float64),
        "valid": None,
    }


CASES = list(itertools.product((1, 2), (None, 3, 20), (0, 1), (0, 1), (0, 1)))


@pytest.mark.parametrize("block", [1, 64])
@pytest.mark.parametrize(("groups", "window", "started", "read_before", "masked"), CASES)
def test_equals_the_definition_under_any_split(
    groups, window, started, read_before, masked, block, monkeypatch
):
    monkeypatch.setattr(module, "BLOCK", block)  # 1: nine tokens go in several blocks of queries
    torch.manual_seed(0)
    T, H = 9, groups * J
    draw = lambda *s: torch.randn(*s, dtype=torch.float64, requires_grad=True)  # noqa: E731
    q, k, v = draw(B, T, H, K), draw(B, T, J, K), draw(B, T, J, V)
    start = (draw(J, 2, K), draw(J, 2, V)) if started else None
    mask = torch.rand(B, T) > 0.4 if masked else torch.ones(B, T, dtype=torch.bool)
    options = dict(scale=0.7, window=window, start=start, read_before=bool(read_before))
    want = naive(q, k, v, mask, 0.7, window, start, read_before)
    inputs = [q, k, v, *(start or ())]
    wanted = torch.autograd.grad(
        (want * want.detach().cos()).sum(), inputs, retain_graph=True, allow_unused=True
    )
    for cuts in ([9], [1] * 9, [4, 0, 5], [2, 7]):
        cache, pieces, at = empty(), [], 0
        for n in cuts:
            part = slice(at, at + n)
            y, cache = attention(
                q[:, part], k[:, part], v[:, part], cache, mask=mask[:, part] if masked else None, **options
            )
            pieces.append(y)
            at += n
        got = mask_out(torch.cat(pieces, 1), mask)
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
        grads = torch.autograd.grad((got * want.detach().cos()).sum(), inputs, allow_unused=True)
        for a, b in zip(grads, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        count = mask.sum(1).max()
        assert cache["keys"].shape[1] == (count if window is None else min(count, window))


def test_without_causality_every_token_sees_all():
    q = torch.randn(B, 4, J, K, dtype=torch.float64)
    y, _ = attention(q, q, q[..., :K], {**empty(), "values": empty()["keys"]}, scale=1.0, causal=False)
    w = torch.softmax(torch.einsum("bthk,bshk->bhts", q, q), -1)
    torch.testing.assert_close(y, torch.einsum("bhts,bshk->bthk", w, q))


def test_a_memory_of_one_head_takes_start_pairs_without_a_head_axis():
    q = torch.randn(B, 2, 1, K)
    cache = {"keys": torch.zeros(B, 0, 1, K), "values": torch.zeros(B, 0, 1, K), "valid": None}
    start = (torch.zeros(3, K), torch.ones(3, K))
    y, _ = attention(q, q, torch.ones_like(q), cache, scale=1.0, start=start)
    torch.testing.assert_close(y, torch.ones_like(y))


def scores_of(tokens: int, window: int) -> int:
    """Sizes of the masks that a call hands to torch: entries over all blocks."""
    sizes = []
    read = module._dot_product

    def spy(q, keys, values, scale, **options):
        sizes.append(q.shape[0] * q.shape[1] * keys.shape[1])
        return read(q, keys, values, scale, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_dot_product", spy)
        q = torch.randn(1, tokens, J, K, dtype=torch.float64)
        attention(q, q, torch.ones(1, tokens, J, V, dtype=torch.float64), empty(1), scale=1.0, window=window)
    return sum(sizes)


def test_scores_of_a_window_grow_with_the_tokens_and_not_with_their_square():
    assert scores_of(4096, 64) == 4 * scores_of(1024, 64) == 2 * 4096 * 64


def test_a_long_sequence_through_a_window_equals_its_pieces():
    torch.manual_seed(1)
    q, v = torch.randn(B, 701, J, K, dtype=torch.float64), torch.randn(B, 701, J, V, dtype=torch.float64)
    whole, kept = attention(q, q, v, empty(), scale=0.5, window=70)
    cache, pieces = empty(), []
    for part in (slice(0, 33), slice(33, 500), slice(500, 560), slice(560, 701)):
        y, cache = attention(q[:, part], q[:, part], v[:, part], cache, scale=0.5, window=70)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(cache["keys"], kept["keys"])
