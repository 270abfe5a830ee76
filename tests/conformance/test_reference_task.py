"""Memories that minimise the task (Eq. 70-71) against plain PyTorch loops, and what `learn` promises."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nldsl.catalog.values import Initialiser
from nldsl.reference import Event, Interpreter, flatten_state
from nldsl.spec.program import Parameter, Program, TaskWrite, TrainPlan, Value
from tests.conformance.builders import NORMAL, Body, dot, draw, gd, matrix_map, mlp_map, momentum, term, value

torch.set_num_threads(1)
B, T, D, V = 2, 13, 4, 7
CLOCKS = (2, 4)
RATE = 0.3


def chain(carry: str = "trunc") -> Program:
    """embed, linear attention (state that crosses segments), two perceptrons on clocks 2 and 4, head."""
    b = Body()
    tokens = Value("tokens", (), "token")
    table = Parameter("x.embed.weight", (V, D), NORMAL, "embedding")
    x = b("embed", tokens, out=value("x", D), parameters=(table,), vocab=V, dim=D)
    b.memory("S", matrix_map(D, D), key_size=D, value_size=D)
    b.write("S", term(x, b.linear(x, D, "v"), dot(D), gd(1.0)))
    x = b("add", x, b.read("S", x))
    for i, c in enumerate(CLOCKS):
        name = f"F[{i}]"
        b.memory(name, mlp_map(D, 5, residual=False), key_size=D, value_size=D, every=c, learned=True)
        b.statements.append(TaskWrite(name, gd(RATE)))
        x = b("add", x, b.read(name, x))
    out = Parameter("out.head.weight", (V, D), Initialiser("normal", 0.5), "head")
    y = b("head", x, out=value("y", V), parameters=(out,), vocab=V)
    return b.program((tokens,), y, kind="model", train=TrainPlan("next_token", carry, ()))  # type: ignore[arg-type]


def tokens(seed: int = 0, length: int = T) -> torch.Tensor:
    return torch.randint(0, V, (B, length), generator=torch.Generator().manual_seed(seed))


def by_hand(
    p: dict[str, torch.Tensor], stream: torch.Tensor, carry: str
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """One sequence, segment by segment; every level steps on the summed gradient of its own last C tokens."""
    names = [f"F[{i}].{w}" for i in range(len(CLOCKS)) for w in ("W2", "W1")]
    delta = {n: torch.zeros_like(p[n]) for n in names}
    gathered = {n: torch.zeros_like(p[n]) for n in names}
    state, total = torch.zeros(D, D, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for start in range(0, len(stream) - 1, CLOCKS[0]):
        leaf = {n: d.detach().clone().requires_grad_() for n, d in delta.items()}
        loss = torch.zeros((), dtype=torch.float64)
        end = min(start + CLOCKS[0], len(stream) - 1)
        for t in range(start, end):
            x = p["x.embed.weight"][stream[t]]
            state = state + torch.outer(p["v.linear.weight"] @ x, x)
            x = x + state @ x
            for i in range(len(CLOCKS)):
                w2, w1 = (p[f"F[{i}].{w}"] + leaf[f"F[{i}].{w}"] for w in ("W2", "W1"))
                x = x + w1 @ F.silu(w2 @ x)
            loss = loss + F.cross_entropy((p["out.head.weight"] @ x)[None], stream[t + 1][None])
        grads = torch.autograd.grad(loss, [leaf[n] for n in names], retain_graph=True)
        gathered = {n: gathered[n] + g for n, g in zip(names, grads, strict=True)}
        total = total + loss
        for i, c in enumerate(CLOCKS):
            if end % c == 0 and end == start + CLOCKS[0]:
                for n in (f"F[{i}].W2", f"F[{i}].W1"):
                    delta[n] = delta[n] - RATE * gathered[n]
                    gathered[n] = torch.zeros_like(gathered[n])
        state = state.detach() if carry == "trunc" else state
    return total, delta


@pytest.mark.parametrize("carry", ["trunc", "exact"])
def test_chain_of_clocks(carry: str) -> None:
    """Loss, deltas and outer gradients of every parameter; the two carries differ in the last alone."""
    program = chain(carry)
    parameters = draw(program, grad=True)
    stream = tokens()
    loss, state = Interpreter(program, parameters).learn(stream)
    grads = torch.autograd.grad(loss, list(parameters.values()))
    both = [by_hand(parameters, row, carry) for row in stream]
    expected = both[0][0] + both[1][0]
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    assert state.scored == B * (T - 1)
    flat = flatten_state(state)
    for name in both[0][1]:
        memory, weight = name.rsplit(".", 1)
        found = flat[f"{memory}.delta.{weight}"]
        torch.testing.assert_close(found, torch.stack([d[name] for _, d in both]), rtol=1e-11, atol=1e-12)
        assert found.abs().max() > 1e-3
    for got, want in zip(grads, torch.autograd.grad(expected, list(parameters.values())), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cuts", [[1, 2], [4, 5, 6], [0, 13], list(range(1, 13))])
@pytest.mark.parametrize("carry", ["trunc", "exact"])
def test_any_split_learns_the_same(cuts: list[int], carry: str) -> None:
    program = chain(carry)
    parameters = draw(program, grad=True)
    machine, stream = Interpreter(program, parameters), tokens()
    whole, final = machine.learn(stream)
    state, losses, scored = None, [], 0
    for start, end in zip([0, *cuts], [*cuts, T], strict=True):
        loss, state = machine.learn(stream[:, start:end], state)
        losses.append(loss)
        scored += state.scored
    assert scored == B * (T - 1)
    total = torch.stack(losses).sum()
    torch.testing.assert_close(total, whole, rtol=1e-12, atol=1e-12)
    assert state is not None
    left, right = flatten_state(state), flatten_state(final)
    for name in right:
        torch.testing.assert_close(left[name], right[name], rtol=1e-10, atol=1e-12, msg=name)
    values = list(parameters.values())
    grads = zip(torch.autograd.grad(total, values), torch.autograd.grad(whole, values), strict=True)
    for got, want in grads:
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_forward_never_writes_and_takes_the_held_token_first() -> None:
    program = chain()
    machine, stream = Interpreter(program, draw(program)), tokens()
    _, learned = machine.learn(stream)
    before = {n: t for n, t in flatten_state(learned).items() if n.startswith("F")}
    more = tokens(1, 6)
    y, after = machine.run(more, learned)
    for name, tensor in before.items():
        assert torch.equal(flatten_state(after)[name], tensor), name
    assert flatten_state(after)["position"].tolist() == [T + 6] * B
    fresh = Interpreter(program, {n: t for n, t in draw(program).items()})
    assert not torch.equal(fresh.run(torch.cat([stream, more], 1))[0][:, T:], y), "what was learnt is used"


def test_masks_and_future_targets() -> None:
    """Padding changes nothing; a token's change reaches only losses whose target or past it is."""
    program = chain()
    machine, stream = Interpreter(program, draw(program)), tokens()
    whole, final = machine.learn(stream)
    padded, mask = tokens(5, T + 3), torch.ones(B, T + 3, dtype=torch.bool)
    mask[0, [0, 6, 7]] = False
    mask[1, [2, 14, 15]] = False
    for s in range(B):
        padded[s, mask[s]] = stream[s]
    loss, state = machine.learn(padded, mask=mask)
    torch.testing.assert_close(loss, whole, rtol=1e-12, atol=1e-12)
    for name, tensor in flatten_state(final).items():
        torch.testing.assert_close(flatten_state(state)[name], tensor, rtol=1e-12, atol=1e-12)
    other = stream.clone()
    other[:, 9] = (other[:, 9] + 1) % V
    early = [machine.learn(s[:, :9])[0] for s in (stream, other)]
    assert torch.equal(*early)


def test_commits_and_nothing_to_learn() -> None:
    program = chain()
    trace: list[Event] = []
    machine = Interpreter(program, draw(program), trace=trace)
    _, state = machine.learn(tokens())
    for i, c in enumerate(CLOCKS):
        commits = [e for e in trace if e.memory == f"F[{i}]" and e.kind == "commit"]
        assert len(commits) == B * ((T - 1) // c)
    assert flatten_state(state)["F[0].count"].tolist() == [T - 1] * B
    for length in (0, 1):
        loss, state = machine.learn(tokens(length=length))
        assert float(loss) == 0.0 and state.scored == 0


def test_clocks_that_do_not_divide_are_refused() -> None:
    b = Body()
    x = value("x", D)
    for i, c in enumerate((2, 3)):
        b.memory(f"F{i}", mlp_map(D, 5), key_size=D, value_size=D, every=c, learned=True)
        b.statements.append(TaskWrite(f"F{i}", gd(0.1)))
    program = b.program((x,), b.read("F0", x))
    with pytest.raises(ValueError, match="multiple of the smallest"):
        Interpreter(program, draw(program))


@pytest.mark.parametrize("toward", ["zero", "init"])
def test_retention_and_rule_memories_of_a_task_write(toward: str) -> None:
    """W' = r + a (W - r) + m', m' = beta m - lr g: once per C tokens, on the summed gradient."""
    c, a, lr, beta = 2, 0.8, 0.2, 0.7
    b = Body()
    tokens_in = Value("tokens", (), "token")
    table = Parameter("x.embed.weight", (V, D), NORMAL, "embedding")
    x = b("embed", tokens_in, out=value("x", D), parameters=(table,), vocab=V, dim=D)
    gate, rate, keep = b.number(a), b.number(lr), b.number(beta)
    b.memory("F", matrix_map(D, V), key_size=D, value_size=V, every=c, learned=True)
    b.statements.append(TaskWrite("F", momentum(rate, keep), gate, toward))  # type: ignore[arg-type]
    y = b.read("F", x, out=value("y", V))
    program = b.program((tokens_in,), y, kind="model")
    p, stream = draw(program), tokens()
    _, state = Interpreter(program, p).learn(stream)
    for s in range(B):
        w0 = p["F.weight"]
        w, m, g = w0, torch.zeros_like(w0), torch.zeros_like(w0)
        r = w0 if toward == "init" else torch.zeros_like(w0)
        for t in range(T - 1):
            x_t, target = p["x.embed.weight"][stream[s, t]], F.one_hot(stream[s, t + 1], V)
            g = g + torch.outer(torch.softmax(w @ x_t, 0) - target, x_t)
            if (t + 1) % c == 0:
                m = beta * m - lr * g
                w, g = r + a * (w - r) + m, torch.zeros_like(g)
        flat = flatten_state(state)
        torch.testing.assert_close(flat["F.delta.weight"][s], w - w0, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(flat["F.slots.m.weight"][s], m, rtol=1e-11, atol=1e-12)
