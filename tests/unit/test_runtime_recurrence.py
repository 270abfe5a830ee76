"""Chunk-parallel recurrences, decay kernels, scans and the inverse against token loops."""

import itertools

import pytest
import torch

from nldsl.runtime import recurrence
from nldsl.runtime.chunks import mask_out
from nldsl.runtime.decay import before, decay_kernel, decay_to_end
from nldsl.runtime.recurrence import delta_recurrence, linear_recurrence
from nldsl.runtime.triangular import by_doubling, unit_lower_inverse

torch.set_num_threads(1)
B, H, K, V = 2, 3, 4, 5


def loop(q, k, w, erase, state, decay, feedback, read, mask):
    """The recurrence as written."""
    rows = []
    for t in range(q.shape[1]):
        decayed = state if decay is None else decay[:, t, :, None, None] * state
        key, added = k[:, t, :, :, None], w[:, t, :, :, None]
        if erase is not None:
            seen = decayed if feedback == "decayed" else state
            added = added - erase[:, t, :, None, None] * (seen @ key)
        new = decayed + added * key.mT
        y = ({"after": new, "decayed": decayed, "before": state}[read] @ q[:, t, :, :, None])[..., 0]
        if mask is not None:
            y = torch.where(mask[:, t, None, None], y, 0.0)
            new = torch.where(mask[:, t, None, None, None], new, state)
        state = new
        rows.append(y)
    return (torch.stack(rows, 1) if rows else w), state


def case(tokens, kind, dtype=torch.float64):
    g = torch.Generator().manual_seed(tokens)
    draw = lambda *s: torch.randn(*s, generator=g, dtype=dtype)  # noqa: E731
    c = {
        "q": draw(B, tokens, H, K) / 2,
        "k": draw(B, tokens, H, K) / 2,
        "w": draw(B, tokens, H, V),
        "erase": draw(B, tokens, H).sigmoid() * 2,
        "state": draw(B, H, V, K),
        "gate": draw(B, tokens, H).tanh(),
    }
    if kind == "log":
        c["gate"] = -3 * c["gate"].abs()
    elif tokens > 1:
        c["gate"][:, 1] = 0
    return {name: value.requires_grad_() for name, value in c.items()}


def run(c, rule, kind, feedback, read, mask, chunk):
    gates = {"none": {}, "log": {"log_decay": c["gate"]}, "plain": {"decay": c["gate"]}}[kind]
    if rule == "linear":
        y, last = linear_recurrence(
            c["q"], c["k"], c["w"], c["state"], read=read, mask=mask, chunk=chunk, **gates
        )
    else:
        y, last = delta_recurrence(
            c["q"], c["k"], c["w"], c["erase"], c["state"],
            feedback=feedback, read=read, mask=mask, chunk=chunk, **gates,
        )  # fmt: skip
    return mask_out(y, mask), last


def wanted(c, rule, kind, feedback, read, mask):
    gate = {"none": None, "log": c["gate"].exp(), "plain": c["gate"]}[kind]
    return loop(
        c["q"],
        c["k"],
        c["w"],
        c["erase"] if rule == "delta" else None,
        c["state"],
        gate,
        feedback,
        read,
        mask,
    )


def grads(c, outs):
    seeds = [torch.randn(o.shape, generator=torch.Generator().manual_seed(9), dtype=o.dtype) for o in outs]
    loss = sum((o * s).sum() for o, s in zip(outs, seeds, strict=True))
    return torch.autograd.grad(loss, list(c.values()), allow_unused=True)


RULES = [("linear", "raw"), ("delta", "raw"), ("delta", "decayed")]
READS = ("after", "decayed", "before")


@pytest.mark.parametrize(
    ("rule_feedback", "kind", "read", "masked"),
    list(itertools.product(RULES, ("none", "log", "plain"), READS, (0, 1))),
)
def test_equals_the_token_loop(rule_feedback, kind, read, masked):
    rule, feedback = rule_feedback
    for tokens, chunk in ((0, 4), (1, 4), (2, 4), (13, 4), (67, 64)):
        c = case(tokens, kind)
        mask = torch.rand(B, tokens, generator=torch.Generator().manual_seed(1)) > 0.3 if masked else None
        got = run(c, rule, kind, feedback, read, mask, chunk)
        want = wanted(c, rule, kind, feedback, read, mask)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        if tokens:
            for a, b in zip(grads(c, got), grads(c, want), strict=True):
                torch.testing.assert_close(
                    torch.zeros(1) if a is None else a,
                    torch.zeros(1) if b is None else b,
                    rtol=1e-9,
                    atol=1e-9,
                )


@pytest.mark.parametrize(
    ("rule", "kind"), list(itertools.product(("linear", "delta"), ("none", "log", "plain")))
)
def test_any_split_gives_the_same(rule, kind):
    c = case(23, kind)
    whole, last = run(c, rule, kind, "raw", "after", None, 8)
    state, pieces, at = c["state"], [], 0
    for n in (3, 0, 1, 11, 8):
        part = {k: v if k == "state" else v[:, at : at + n] for k, v in c.items()} | {"state": state}
        y, state = run(part, rule, kind, "raw", "after", None, 8)
        pieces.append(y)
        at += n
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state, last, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("rule", "kind"), list(itertools.product(("linear", "delta"), ("none", "log", "plain")))
)
def test_single_precision_and_batch_independence(rule, kind):
    c = case(130, kind, torch.float32)
    keys = torch.nn.functional.normalize(c["k"].detach(), dim=-1)
    c = {**c, "k": keys.requires_grad_(), "erase": (c["erase"].detach() / 2).requires_grad_()}
    got = run(c, rule, kind, "decayed", "after", None, 64)
    double = {k: v.detach().double() for k, v in c.items()}
    for a, b in zip(got, wanted(double, rule, kind, "decayed", "after", None), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-5, atol=2e-5)
    alone = run({k: v[1:] for k, v in c.items()}, rule, kind, "decayed", "after", None, 64)
    torch.testing.assert_close(alone[0], got[0][1:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("steep", "width"), [(1.0, 34), (3.0, 17), (6.0, 8), (40.0, None)])
@pytest.mark.parametrize("rule_feedback", RULES)
def test_steep_decays_take_narrower_chunks(rule_feedback, steep, width, monkeypatch):
    """Float32 against the loop in float64: one anchor per chunk, in chunks as wide as it reaches."""
    widths, one_pass = [], recurrence.chunk_pass

    def counted(*given, width, **how):
        widths.append(width)
        return one_pass(*given, width=width, **how)

    monkeypatch.setattr(recurrence, "chunk_pass", counted)
    rule, feedback = rule_feedback
    for read in READS:
        exact = case(67, "log")
        exact["gate"] = (-steep * (1 + exact["gate"].detach().sigmoid())).requires_grad_()
        c = {n: x.detach().float().requires_grad_() for n, x in exact.items()}
        got = run(c, rule, "log", feedback, read, None, 64)
        want = wanted(exact, rule, "log", feedback, read, None)
        found = *got, *grads(c, [y.double() for y in got])
        true = *want, *grads(exact, want)
        # The gradient of a log decay is a difference of sums: their rounding is that of the largest numbers.
        noise = 4 * torch.finfo(torch.float32).eps * max(float(b.abs().max()) for b in true if b is not None)
        for a, b in zip(found, true, strict=True):
            if b is not None:
                assert (a - b).abs().max() <= 2e-5 * b.abs().max() + noise
    assert set(widths) == ({width} if width else set())


def test_later_tokens_change_nothing_before_them():
    c = case(40, "log")
    before_change, _ = run(c, "delta", "log", "raw", "after", None, 16)
    c["w"] = torch.cat([c["w"][:, :21], c["w"][:, 21:] + 1], 1)
    after_change, _ = run(c, "delta", "log", "raw", "after", None, 16)
    assert torch.equal(before_change[:, :21], after_change[:, :21])


def test_masked_garbage_is_never_seen():
    c = case(20, "log")
    mask = torch.arange(20) % 3 != 0
    mask = mask.expand(B, -1)
    want = run(c, "delta", "log", "raw", "after", mask, 8)
    dirty = {
        k: v if k == "state" else torch.where(mask.view(B, 20, *(1,) * (v.dim() - 2)), v, torch.nan)
        for k, v in c.items()
    }
    for a, b in zip(run(dirty, "delta", "log", "raw", "after", mask, 8), want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_decay_kernels_agree_and_strong_decays_stay_exact_in_float32():
    gate = torch.rand(2, 3, 9, dtype=torch.float64) * 0.9 + 0.05
    logs, plain = decay_kernel(gate.log()), decay_kernel(None, gate)
    for a, b in zip((*logs, *before(logs)), (*plain, *before(plain)), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(decay_to_end(gate.log()), (plain.to_end, plain.total), strict=True):
        torch.testing.assert_close(a, b)
    # One token forgets everything; its neighbours hardly anything.
    log = torch.full((1, 64), -0.01)
    log[:, 20] = -1e5
    exact, single = decay_kernel(log.double()), decay_kernel(log)
    torch.testing.assert_close(single.after.double(), exact.after, rtol=1e-6, atol=1e-7)
    decay = torch.rand(2, 7, dtype=torch.float64) * 2 - 1
    decay[0, 3] = 0
    assert torch.autograd.gradcheck(lambda d: tuple(decay_kernel(None, d)), decay.requires_grad_())


@pytest.mark.parametrize("size", [0, 1, 5, 32, 33, 64, 100, 129])
def test_unit_lower_inverse(size):
    n = torch.randn(3, size, size, dtype=torch.float64).tril(-1) / max(1, size) ** 0.5
    eye = torch.eye(size, dtype=torch.float64).expand(3, -1, -1)
    torch.testing.assert_close(unit_lower_inverse(n) @ (n + eye), eye)
    # What a GPU takes instead: the same for whatever stands on or above the diagonal.
    torch.testing.assert_close(by_doubling(n + torch.rand_like(n).triu()), unit_lower_inverse(n))
    assert by_doubling(n.to(torch.bfloat16)).dtype == torch.bfloat16
