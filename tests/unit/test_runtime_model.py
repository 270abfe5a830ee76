"""`Model.learn` against its definition, sample by sample and token by token; states and wrappers."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from nldsl.runtime.chunks import mask_out
from nldsl.runtime.model import Layer, Model
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.recurrence import linear_recurrence
from nldsl.runtime.state import State, StateFileError, StateMismatchError, StateVersionError
from nldsl.runtime.task import TaskMemory, adapted

torch.set_num_threads(1)
VOCAB, D, B, T = 7, 4, 3, 29


def momentum(W, g, m):
    """The emitted form of `rule momentum(lr = 0.3, beta = 0.5)`."""
    m = 0.5 * m - 0.3 * g
    return W + m, m


def decayed(W, g, step):
    """A rule that sees the weight and the number of its application."""
    return 0.9 * W - 0.2 / step * g


class Block(Module):
    tasks = (
        TaskMemory("F[0]", 4, ("W",), momentum, ("W", "g", "m"), ("m",)),
        TaskMemory("F[1]", 8, ("W",), decayed, ("W", "g", "step")),
    )

    def __init__(self):
        super().__init__()
        for i in range(2):
            self.declare(f"F[{i}].W", (D, D), "matrix", normal(0.5))

    def initial_state(self, batch):
        counts = lambda: {"delta": None, "count": self.counter(batch)}  # noqa: E731
        return {"S": self.zeros(batch, 1, D, D), "F[0]": counts(), "F[1]": counts()}

    def forward(self, x, state, mask):
        new = dict(state)
        for i in range(2):
            W = adapted(self.F[i].W, state[f"F[{i}]"], "W")
            x = x + torch.tanh(x @ W.mT)
        gate = torch.full((*x.shape[:2], 1), 0.8, dtype=x.dtype)
        h = x.unsqueeze(2)
        y, new["S"] = linear_recurrence(h, h, h, state["S"], decay=gate, mask=mask, chunk=4)
        return x + 0.3 * torch.tanh(y.squeeze(2)), new


class Root(Module):
    def __init__(self):
        super().__init__()
        self.declare("x.embed.weight", (VOCAB, D), "embedding", normal(1.0))
        self.attach_repeated("blocks", [Block() for _ in range(2)])
        self.declare("out.head.weight", (VOCAB, D), "head", normal(0.5))

    def initial_state(self, batch):
        return {"blocks": [layer.initial_state(batch) for layer in self.blocks]}

    def forward(self, tokens, state, mask):
        x, states = F.embedding(tokens, self.x.embed.weight), []
        for layer, own in zip(self.blocks, state["blocks"], strict=True):
            x, kept = layer(x, own, mask)
            states.append(kept)
        logits = x @ self.out.head.weight.mT
        if mask is not None:
            logits = logits.masked_fill(~mask.unsqueeze(-1), 0.0)
        return logits, {"blocks": states}


def model(carry="trunc"):
    return Model(Root().double().initialise(3), "toy", carry)


def literal(model, row, carry):
    """One sequence: every token alone; segments of 4; rules at 4 and 8 (section 6 of the language)."""
    root, tables = model.root, [(b, t) for b in range(2) for t in Block.tasks]
    state = root.initial_state(1)
    leaf = {(b, t.path): torch.zeros(1, D, D, dtype=torch.float64, requires_grad=True) for b, t in tables}
    pending = {k: torch.zeros(1, D, D, dtype=torch.float64) for k in leaf}
    slot = {k: torch.zeros(1, D, D, dtype=torch.float64) for k in leaf}
    total = segment = torch.zeros((), dtype=torch.float64)
    for count, (token, target) in enumerate(zip(row[:-1], row[1:], strict=True), 1):
        for b, path in leaf:
            state["blocks"][b][path] = {"delta": {"W": leaf[b, path]}, "count": None}
        logits, state = root(token.view(1, 1), state, None)
        loss = F.cross_entropy(logits[0], target.view(1), reduction="sum")
        total, segment = total + loss, segment + loss
        if count % 4:
            continue
        grads = torch.autograd.grad(segment, list(leaf.values()), retain_graph=True)
        segment = torch.zeros((), dtype=torch.float64)
        for key, g in zip(leaf, grads, strict=True):
            pending[key] = pending[key] + g
        for b, t in tables:
            key, W = (b, t.path), root.blocks[b].F[int(t.path[2])].W.detach()
            delta = leaf[key].detach()
            if count % t.every == 0:
                if t.slots:
                    new, slot[key] = momentum(W + delta, pending[key], slot[key])
                else:
                    new = decayed(W + delta, pending[key], count // t.every)
                delta, pending[key] = new - W, torch.zeros_like(delta)
            leaf[key] = delta.clone().requires_grad_()
        if carry == "trunc":
            for own in state["blocks"]:
                own["S"] = own["S"].detach()
    return total, {k: v.detach() for k, v in leaf.items()}


def data(masked):
    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, VOCAB, (B, T), generator=g)
    mask = torch.rand(B, T, generator=g) > 0.35 if masked else None
    return tokens, mask


def gradients(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()))


CUTS = [[T], [0, 1, 10, 18], [3] * 9 + [2], [1] * T]


@pytest.mark.parametrize(
    ("carry", "masked", "cuts"), list(itertools.product(("trunc", "exact"), (0, 1), CUTS))
)
def test_learn_is_its_definition_under_any_split(carry, masked, cuts):
    net, (tokens, mask) = model(carry), data(masked)
    state, losses, at, scored = None, [], 0, 0
    for n in cuts:
        part = slice(at, at + n)
        loss, state = net.learn(tokens[:, part], state, None if mask is None else mask[:, part])
        losses.append(loss)
        at, scored = at + n, scored + state.scored
    rows = [row if mask is None else row[mask[b]] for b, row in enumerate(tokens)]
    want = [literal(net, row, carry) for row in rows]
    assert scored == sum(len(row) - 1 for row in rows)
    total = sum(w[0] for w in want)
    torch.testing.assert_close(sum(losses), total, rtol=1e-10, atol=1e-10)
    for block, i in itertools.product(range(2), range(2)):
        delta = state.tree["root"]["blocks"][block][f"F[{i}]"]["delta"]["W"]
        for b in range(B):
            torch.testing.assert_close(delta[b : b + 1], want[b][1][block, f"F[{i}]"], rtol=1e-9, atol=1e-9)
    for a, b in zip(gradients(net, sum(losses)), gradients(net, total), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("carry", ["trunc", "exact"])
def test_backward_at_once_equals_backward_later(carry):
    net, (tokens, mask) = model(carry), data(True)
    loss, later = net.learn(tokens, mask=mask)
    want = gradients(net, 0.5 * loss)
    at_once, state = net.learn(tokens, mask=mask, backward=0.5)
    assert not at_once.requires_grad and not any(x.requires_grad for x in state.tensors().values())
    torch.testing.assert_close(at_once, loss.detach())
    for p, g in zip(net.parameters(), want, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-8, atol=1e-10)
    a, b = (s.tree["root"]["blocks"][1]["F[0]"]["delta"]["W"] for s in (later, state))
    torch.testing.assert_close(a, b)


def test_learning_without_gradients_gives_the_same_values():
    net, (tokens, _) = model(), data(False)
    loss, state = net.learn(tokens)
    with torch.no_grad():
        quiet, same = net.learn(tokens[:, :11])
        rest, same = net.learn(tokens[:, 11:], same)
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet + rest, loss.detach())
    a, b = (s.tree["root"]["blocks"][0]["F[1]"]["delta"]["W"] for s in (state, same))
    torch.testing.assert_close(a, b)


def test_forward_processes_the_held_token_first_and_never_learns():
    net, (tokens, mask) = model(), data(True)
    _, state = net.learn(tokens[:, :9], mask=mask[:, :9])
    idle, same = net(tokens[:, :2], state, torch.zeros(B, 2, dtype=torch.bool))
    assert not idle.any() and "held" in same.tree
    got, after = net(tokens[:, 9:], same, mask[:, 9:])
    assert "held" not in after.tree and got.shape == (B, T - 9, VOCAB)
    held = state.tree["held"]
    first, kept = net.root(held["token"].unsqueeze(1), state.tree["root"], held["valid"].unsqueeze(1))
    want = mask_out(net.root(tokens[:, 9:], kept, mask[:, 9:])[0], mask[:, 9:])
    torch.testing.assert_close(got, want)


def test_names_have_nothing_in_front_and_follow_the_program():
    net = model()
    assert "blocks.0.F.1.W" in net.state_dict() and not any(n.startswith("root") for n in net.state_dict())
    assert net.parameter_paths()["blocks[1].F[0].W"] is net.blocks[1].F[0].W
    assert net.parameter_roles()["x.embed.weight"] == "embedding"
    assert model().float().blocks[0].F[0].W.dtype == torch.float32


def test_first_values_depend_on_seed_and_path_only():
    one = Module()
    one.declare("a.weight", (3,), "matrix", normal(1.0))
    two = Module()
    two.declare("b.bias", (5,), "rest", constant(2.0))
    two.declare("a.weight", (3,), "matrix", normal(1.0))
    one.initialise(1), two.double().initialise(1)
    torch.testing.assert_close(one.a.weight, two.a.weight.float(), rtol=0, atol=0)
    before = one.a.weight.clone()
    assert not torch.equal(one.initialise(2).a.weight, before)
    with pytest.raises(ValueError, match="declared twice"):
        two.declare("b.bias", (5,), "rest", constant(2.0))


def test_states_survive_files_and_say_what_is_wrong(tmp_path):
    net, (tokens, _) = model(), data(False)
    _, state = net.learn(tokens)
    path = tmp_path / "state.safetensors"
    state.save(path)
    loaded = net.load_state(path)
    assert loaded.program == "toy" and loaded.scored == state.scored
    assert loaded.tree["root"]["blocks"][0]["S"].equal(state.tree["root"]["blocks"][0]["S"])
    a, b = net(tokens, loaded)[0], net(tokens, state)[0]
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StateFileError, match="damaged"):
        State.load(path)
    path.write_text("no state")
    with pytest.raises(StateFileError):
        State.load(path)
    with pytest.raises(StateMismatchError, match="expected one of `toy`"):
        net(tokens, State(state.tree, program="other"))
    with pytest.raises(StateMismatchError, match="has no `root/blocks"):
        State({"root": {}}, program="toy").save(path)
        net.load_state(path)
    with pytest.raises(StateMismatchError, match="sequences"):
        net(tokens[:1], state)
    assert list(tmp_path.iterdir()) == [path]


def test_states_of_another_version_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr("nldsl.runtime.state.VERSION", 0)
        State({"a": torch.zeros(1)}).save(path)
    with pytest.raises(StateVersionError, match="version 0, expected 1"):
        State.load(path)


def test_states_move_and_are_trees():
    state = State({"a": [torch.ones(2, 3), None], "count": torch.tensor([1, 2])}, program="p", scored=4)
    moved = state.to(torch.float64)
    assert moved.tree["a"][0].dtype == torch.float64 and moved.tree["count"].dtype == torch.int64
    doubled = torch.utils._pytree.tree_map(lambda x: None if x is None else x * 2, state)
    assert doubled.scored == 4 and doubled.tree["count"].tolist() == [2, 4] and doubled.tree["a"][1] is None
    state.check_fits(state.clone())
    with pytest.raises(StateMismatchError, match="no `a/0`"):
        State({"count": state.tree["count"]}, program="p").check_fits(state)


def test_a_layer_takes_several_inputs():
    class Two(Module):
        def forward(self, x, z, state, mask):
            return x + z, x - z, state

    layer = Layer(Two())
    (a, b), state = layer(torch.ones(1, 2), torch.ones(1, 2))
    assert a.sum() == 4 and b.sum() == 0
    (a, _), _ = layer(torch.ones(1, 2), torch.ones(1, 2), state, None)
    assert a.sum() == 4
