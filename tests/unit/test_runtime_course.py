"""The course of a weight over a chunk against its recurrence, token by token."""

import pytest
import torch

from nldsl.runtime.course import (
    Course,
    Impulse,
    Momentum,
    channel_gates,
    gate_kernel,
    momentum_filter,
)

torch.set_num_threads(1)
B, H, C, IN, OUT = 2, 3, 7, 4, 5


def draw(*shape, seed=[0]):  # noqa: B006
    seed[0] += 1
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed[0]), dtype=torch.float64)
    return made.requires_grad_()


def rates(*shape):
    return draw(*shape).sigmoid()


def momentum_of(valid, erases=False):
    beta, rate, read = draw(B, H, C), rates(B, H, C), rates(B, H, C)
    erase = rates(B, H, C) if erases else None
    made = Momentum(draw(B, H, OUT, IN), momentum_filter(beta, rate, read, erase, valid))
    COEFFICIENTS[id(made.slot)] = beta, rate, read, torch.zeros(B, H, C) if erase is None else erase
    return made


COEFFICIENTS = {}
"""Of every momentum, by its slot."""


def impulse(plain, erase, momentum, window, weighted, valid):
    """`momentum` 2: one that erases itself."""
    lessons = C + window - 1
    return Impulse(
        draw(B, H, lessons, IN) / 2,
        draw(B, H, lessons, OUT),
        rates(B, H, C) if plain else None,
        rates(B, H, C) if erase else None,
        momentum_of(valid, momentum == 2) if momentum else None,
        rates(B, H, lessons) if weighted else None,
        window,
    )


def spread(gate, axis):
    """A gate of one token as something that multiplies `[B, H, o, i]`."""
    if axis == "scalar":
        return gate[..., None, None]
    return gate[..., None, :] if axis == "key" else gate[..., :, None]


def recurrence(weight, impulses, retain, axis, toward, valid, z):
    """The definition, one token after the other; also the answers behind and in front of every token."""
    D, slots = weight - toward, [i.momentum.slot if i.momentum else None for i in impulses]
    after, before = [], []
    for t in range(C):
        before.append(z[..., t, None, :] @ (D + toward).mT)
        on = valid[:, t, None, None, None]
        new = D * spread(retain[:, :, t], axis)
        for n, i in enumerate(impulses):
            lessons = range(t, t + i.window)
            w = torch.ones(B, H, C + i.window - 1) if i.weight is None else i.weight
            g = sum(w[..., j, None, None] * i.dy[..., j, :, None] * i.x[..., j, None, :] for j in lessons)
            x = i.x[..., t + i.window - 1, :]
            if i.rate is not None:
                new = new - i.rate[..., t, None, None] * g
            if i.erase is not None:
                new = new - i.erase[..., t, None, None] * (D @ x[..., None]) * x[..., None, :]
            if i.momentum is not None:
                beta, rate, read, inner = (r[..., t, None, None] for r in COEFFICIENTS[id(i.momentum.slot)])
                m = beta * slots[n] - rate * g - inner * (D @ x[..., None]) * x[..., None, :]
                slots[n] = torch.where(on, m, slots[n])
                new = new + read * m
        D = torch.where(on, new, D)
        after.append(z[..., t, None, :] @ (D + toward).mT)
    return D + toward, [s for s in slots if s is not None], torch.cat(after, -2), torch.cat(before, -2)


def leaves(*trees):
    found = []
    for tree in trees:
        if isinstance(tree, torch.Tensor):
            found += [tree] if tree.requires_grad else []
        elif isinstance(tree, tuple | list):
            found += leaves(*tree)
    return found


TERMS = {
    "momentum": [(0, 0, 1, 1, 0)],
    "momentum beside a rate": [(1, 0, 1, 1, 0)],
    "window": [(1, 0, 0, 3, 1)],
    "window longer than the chunk": [(1, 0, 1, 9, 0)],
    "weighted": [(1, 0, 0, 1, 1)],
    "erase": [(1, 1, 0, 1, 1)],
    "erase, momentum and window": [(1, 1, 1, 3, 1)],
    "erase in the momentum": [(0, 0, 2, 1, 0)],
    "erase in the momentum of a window, beside others": [(1, 0, 2, 3, 1), (1, 1, 1, 1, 0), (0, 0, 2, 1, 0)],
    "two terms": [(1, 1, 1, 1, 0), (1, 1, 0, 2, 1)],
    "three terms": [(1, 1, 0, 1, 0), (1, 0, 0, 1, 0), (1, 1, 1, 1, 0)],
}


@pytest.mark.parametrize("terms", list(TERMS))
@pytest.mark.parametrize("gate", ["none", "scalar", "key", "value"])
@pytest.mark.parametrize("masked", [False, True])
def test_course(terms, gate, masked):
    valid = torch.arange(C) < torch.tensor([[4], [0]]) if masked else torch.ones(B, C, dtype=torch.bool)
    given = valid if masked else None
    impulses = [impulse(*t, given) for t in TERMS[terms]]
    if gate in ("key", "value") and any(t[1] or t[2] == 2 for t in TERMS[terms]):
        pytest.skip("gates per channel do not meet an erase term")
    weight, toward, z = draw(B, H, OUT, IN), draw(H, OUT, IN), draw(B, H, C, IN)
    axis = "scalar" if gate == "none" else gate
    shape = {"scalar": (), "key": (IN,), "value": (OUT,)}[axis]
    retain = torch.ones(B, H, C, *shape, dtype=torch.float64) if gate == "none" else draw(B, H, C, *shape)
    made = {
        "none": lambda: None,
        "scalar": lambda: gate_kernel(retain=retain, valid=given),
        "key": lambda: channel_gates(retain, "key", given),
        "value": lambda: channel_gates(retain, "value", given),
    }[gate]()
    course = Course(weight, impulses, made, toward, given)
    end, slots, after, before = recurrence(weight, impulses, retain, axis, toward, valid, z)
    got, want = list(course.close()), [end, *slots]
    shown = valid[:, None, :, None]
    got += [course.after(z) * shown, course.before(z) * shown]
    want += [after * shown, before * shown]
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    coefficients = [COEFFICIENTS[id(i.momentum.slot)] for i in impulses if i.momentum]
    parts = [(i.x, i.dy, i.rate, i.erase, i.weight, i.momentum and i.momentum.slot) for i in impulses]
    inputs = leaves(weight, toward, z, retain, parts, coefficients)
    grads = []
    for outs in (got, want):
        seeds = [
            torch.randn(o.shape, generator=torch.Generator().manual_seed(1), dtype=o.dtype) for o in outs
        ]
        total = sum((o * s).sum() for o, s in zip(outs, seeds, strict=True))
        grads.append(torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
