"""Laws every program obeys, on one block that uses all of the machinery at once."""

from __future__ import annotations

import pytest
import torch

from nldsl.catalog.values import Initialiser
from nldsl.reference import Event, Interpreter, State, flatten_state
from nldsl.spec.program import Parameter, Program
from tests.conformance.builders import (
    Body,
    dgd,
    dot,
    draw,
    gd,
    l2,
    matrix_map,
    mlp_map,
    momentum,
    term,
    value,
)

torch.set_num_threads(1)
B, T, H, D = 2, 11, 2, 3
N = H * D


def everything(init: str = "learned") -> Program:
    """Conv, shift, rope, two deep memories on two clocks, a momentum memory with resets, an Omega window."""
    b = Body()
    x = value("x", N)
    conv = (
        Parameter("u.conv.weight", (N, 3), Initialiser("normal", 0.5), "rest"),
        Parameter("u.conv.bias", (N,), Initialiser("constant", 0.0), "rest"),
    )
    b.memory("Mk", mlp_map(D, 4), key_size=D, value_size=D, heads=H, learned=True, every=2, init=init)
    b.memory("M", mlp_map(D, 4), key_size=D, value_size=D, heads=H, learned=True, every=4, init=init)
    b.memory("S", matrix_map(D, D), key_size=D, value_size=D, heads=H, every=1, reset="tokens", reset_every=5)
    b.memory("O", matrix_map(D, D), key_size=D, value_size=D, heads=H, every=3)
    u = b("silu", b("conv", x, parameters=conv, path="u.conv", window=3))
    u = b("add", u, b("shift", x, by=2, path="s.shift"))
    heads = b.split(u, H)
    turned = b("rope", b.split(b.linear(u, 2 * H, "t"), H), base=100.0, path="t.rope")
    eta = b("sigmoid", b.linear(u, H, "eta"))
    alpha = b("sigmoid", b.linear(u, H, "alpha"))
    k = b("l2norm", b.read("Mk", heads))
    v = b("l2norm", b.split(b.linear(u, N, "v"), H))
    y = b("add", b.read("M", k), b.read("O", k))
    gain = b("sum", turned, out=value("gain", H, kind="heads"))
    for name in ("Mk", "M"):
        own = b("l2norm", b.read(name, v))
        every = {"Mk": 2, "M": 4}[name]
        t = term(k, own, dot(D), dgd(eta, "normalised"))
        b.write(name, t, retain=alpha, toward="init", base_every=every)
    b.write("S", term(k, v, l2(D), momentum(eta, alpha)), retain=alpha, base_every=1)
    b.write("O", term(k, v, l2(D), gd(eta), window=2, weight=alpha), base_every=3)
    out = b("add", y, b("mul", gain, b.read("S", heads), like=y))
    return b.program((x,), b.linear(out, N, "out"))


def inputs(seed: int = 0, length: int = T, batch: int = B) -> torch.Tensor:
    return torch.randn(batch, length, N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(a: State, b: State) -> None:
    left, right = flatten_state(a), flatten_state(b)
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-11, atol=1e-11, msg=name)


@pytest.fixture(scope="module")
def machine() -> Interpreter:
    program = everything()
    return Interpreter(program, draw(program))


@pytest.mark.parametrize("cuts", [[0, 11], [1, 2, 5], [4, 8], list(range(1, 11))])
def test_any_split_gives_the_same_outputs_and_states(machine: Interpreter, cuts: list[int]) -> None:
    x = inputs()
    whole, final = machine.run(x)
    state, parts = None, []
    for start, end in zip([0, *cuts], [*cuts, T], strict=True):
        y, state = machine.run(x[:, start:end], state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-11, atol=1e-11)
    assert state is not None
    same(state, final)


def test_a_state_that_was_handed_out_never_changes(machine: Interpreter) -> None:
    _, state = machine.run(inputs())
    before = {n: t.clone() for n, t in flatten_state(state).items()}
    machine.run(inputs(1), state)
    after = flatten_state(state)
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_masked_tokens_are_the_identity(machine: Interpreter) -> None:
    """Padding in other places per sample: zeros out, and the state of the sequence without it."""
    x, padded = inputs(), inputs(7, T + 4)
    mask = torch.ones(B, T + 4, dtype=torch.bool)
    mask[0, [0, 3, 4, 14]] = False
    mask[1, [5, 6, 7, 8]] = False
    for s in range(B):
        padded[s, mask[s]] = x[s]
    whole, final = machine.run(x)
    y, state = machine.run(padded, mask=mask)
    for s in range(B):
        torch.testing.assert_close(y[s, mask[s]], whole[s], rtol=1e-11, atol=1e-11)
    assert torch.equal(y[~mask], torch.zeros_like(y[~mask]))
    same(state, final)


def test_samples_are_independent_and_the_past_does_not_see_the_future(machine: Interpreter) -> None:
    x = inputs()
    whole, _ = machine.run(x)
    other = x.clone()
    other[1, 6:] += 1.0
    y, _ = machine.run(other)
    assert torch.equal(y[0], whole[0])
    assert torch.equal(y[1, :6], whole[1, :6])
    assert not torch.equal(y[1, 6:], whole[1, 6:])
    flipped, _ = machine.run(x.flip(0))
    torch.testing.assert_close(flipped.flip(0), whole, rtol=0, atol=0)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 11])
def test_commits_per_level(length: int) -> None:
    program = everything()
    trace: list[Event] = []
    machine = Interpreter(program, draw(program), trace=trace)
    y, state = machine.run(inputs(length=length))
    assert y.shape == (B, length, N)
    for name, every in (("Mk", 2), ("M", 4), ("S", 1), ("O", 3)):
        events = [e for e in trace if e.memory == name]
        assert sum(e.kind == "commit" for e in events) == B * (length // every)
        assert sum(e.kind == "write" for e in events) == B * length
        assert [e.token % every for e in events if e.kind == "commit"] == [every - 1] * (
            B * (length // every)
        )
    count = flatten_state(state)
    assert count["M.count"].tolist() == [length] * B
    assert count["S.count"].tolist() == [length % 5] * B


def test_outer_gradient_equals_finite_differences() -> None:
    """Through reads, writes, self-made targets, rates, gates, initial states: every parameter."""
    program = everything()
    parameters = draw(program, grad=True)
    x, names = inputs(length=6, batch=1), list(parameters)

    def loss(*values: torch.Tensor) -> torch.Tensor:
        y, _ = Interpreter(program, dict(zip(names, values, strict=True))).run(x)
        return (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)).sum()

    values = tuple(parameters.values())
    total = loss(*values)
    grads = torch.autograd.grad(total, values)
    g = torch.Generator().manual_seed(3)
    for i, name in enumerate(names):
        assert grads[i].abs().max() > 0, name
        way = torch.randn(values[i].shape, generator=g, dtype=torch.float64)
        with torch.no_grad():
            moved = [
                loss(*(v + s * 1e-5 * way if j == i else v for j, v in enumerate(values))) for s in (1, -1)
            ]
        slope = (moved[0] - moved[1]) / 2e-5
        torch.testing.assert_close((grads[i] * way).sum(), slope, rtol=2e-6, atol=1e-8, msg=name)


def test_first_order_start_cuts_only_the_dependence_of_the_inner_gradient_on_the_state() -> None:
    """Two delta writes: `learned` gives dM2/dM0 = (I - eta k1 k1^T)(I - eta k2 k2^T), `first` gives I."""

    def gradient(init: str) -> tuple[torch.Tensor, torch.Tensor]:
        b = Body()
        k, v = value("k", D), value("v", D)
        b.memory("S", matrix_map(D, D), key_size=D, value_size=D, learned=True, init=init)
        b.write("S", term(k, v, l2(D), gd(0.3)))
        y = b.read("S", k)
        program = b.program((k, v), y)
        parameters = draw(program, grad=True)
        g = torch.Generator().manual_seed(5)
        data = tuple(torch.randn(1, 2, D, generator=g, dtype=torch.float64) for _ in "kv")
        _, state = Interpreter(program, parameters).run(data)
        final = flatten_state(state)["S.running.weight"]
        (grad,) = torch.autograd.grad(final.sum(), parameters["S.weight"])
        return grad, data[0][0]

    full, keys = gradient("learned")
    ones, eye = torch.ones(D, D, dtype=torch.float64), torch.eye(D, dtype=torch.float64)
    steps = [eye - 0.3 * torch.outer(k, k) for k in keys]
    torch.testing.assert_close(full, ones @ steps[1] @ steps[0])
    first, _ = gradient("first")
    torch.testing.assert_close(first, ones)


def test_never_resetting_memories_survive_a_new_sequence() -> None:
    b = Body()
    k, v = value("k", D), value("v", D)
    b.memory("Keep", matrix_map(D, D), key_size=D, value_size=D, reset="never")
    b.memory("Drop", matrix_map(D, D), key_size=D, value_size=D)
    for name in ("Keep", "Drop"):
        b.write(name, term(k, v, dot(D), gd(1.0)))
    program = b.program((k, v), b("add", b.read("Keep", k), b.read("Drop", k)))
    machine = Interpreter(program, {})
    data = (inputs(1)[..., :D], inputs(2)[..., :D])
    _, state = machine.run(data)
    fresh = flatten_state(machine.new_sequence(state))
    assert torch.equal(fresh["Keep.running.weight"], flatten_state(state)["Keep.running.weight"])
    assert not fresh["Drop.running.weight"].any()
    assert fresh["position"].tolist() == [0, 0]


def test_a_memory_that_starts_from_another() -> None:
    """`init M2`, `reset every 3 tokens`: the faster memory returns to what the slower one shows (Eq. 72)."""
    b = Body()
    k, v = value("k", D), value("v", D)
    slow = {"key_size": D, "value_size": D, "every": 3, "learned": True}
    b.memory("Slow", matrix_map(D, D), **slow)
    b.memory("Fast", matrix_map(D, D), key_size=D, value_size=D, init="from", init_from="Slow",
             reset="tokens", reset_every=3)  # fmt: skip
    for name, every in (("Slow", 3), ("Fast", 1)):
        b.write(name, term(k, v, l2(D), gd(0.1)), base_every=every)
    program = b.program((k, v), b.read("Fast", k))
    machine = Interpreter(program, draw(program))
    _, state = machine.run((inputs(1)[:, :6, :D], inputs(2)[:, :6, :D]))
    flat = flatten_state(state)
    assert torch.equal(flat["Fast.running.weight"], flat["Slow.committed.weight"])
    assert not torch.equal(flat["Slow.committed.weight"][0], draw(program)["Slow.weight"])
    assert flat["Fast.count"].tolist() == [0, 0]


def test_missing_parameters_are_named() -> None:
    program = everything()
    with pytest.raises(KeyError, match="Mk.W2"):
        Interpreter(program, {})
