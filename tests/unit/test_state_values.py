"""A state is a value: steps of an optimizer, which change weights in place, leave what is carried alone."""

import pytest
import torch

import nldsl
from nldsl.reference.interpreter import Interpreter
from nldsl.reference.states import flatten_state

torch.set_num_threads(1)
SIZES = {"dim": 16, "depth": 1, "heads": 2, "vocab": 32}
NAMES = ("titans_mac", "titans_mlp", "lact", "ttt_mlp", "srwm", "hope_tiny")


def _moved(model):
    """All weights changed in place, as by an optimizer that has no mercy."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lowering", ["auto", "sequential"])
def test_a_state_does_not_follow_the_weights(name, lowering):
    model = nldsl.compile(name, **SIZES, lowering=lowering)
    tokens = torch.randint(0, 32, (2, 3))
    fresh, (_, after), (_, learnt) = model.init_state(2), model(tokens), model.learn(tokens)
    states = [fresh, fresh.detach(), after, after.detach(), learnt.detach(), model.new_sequence(after)]
    values = [state.clone().tensors() for state in states]
    _moved(model)
    for state, value in zip(states, values, strict=True):
        for path, tensor in state.tensors().items():
            assert torch.equal(tensor, value[path]), path


def test_what_is_carried_decides_alone_what_comes():
    """The weights of the start are changed between two calls: the second goes on from where the first was."""
    model = nldsl.compile("titans_mac", **SIZES, dtype=torch.float64)
    tokens = torch.randint(0, 32, (2, 6))
    whole, _ = model(tokens)
    _, state = model(tokens[:, :2])
    with torch.no_grad():
        for path, p in model.parameter_paths().items():
            if ".M.W" in path:
                p.zero_()
    rest, _ = model(tokens[:, 2:], state.detach())
    assert torch.allclose(rest, whole[:, 2:], atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["titans_mac", "srwm"])
def test_the_start_keeps_its_gradient(name):
    """Through the state, too: a loss on what is carried reaches the learned start of every memory."""
    model = nldsl.compile(name, **SIZES)
    _, state = model(torch.randint(0, 32, (2, 3)))
    learned = [t for path, t in state.tensors().items() if "/running/" in path]
    sum(t.square().sum() for t in learned).backward()
    starts = {path: p for path, p in model.parameter_paths().items() if ".M.W" in path or ".W" in path}
    assert starts and all(p.grad is not None and p.grad.abs().sum() > 0 for p in starts.values())


def test_so_it_is_in_the_interpreter():
    model = nldsl.compile("titans_mlp", **SIZES, dtype=torch.float64)
    machine = Interpreter(nldsl.program("titans_mlp", **SIZES), model.parameter_paths())
    _, state = machine.run(torch.randint(0, 32, (2, 3)))
    values = {path: t.clone() for path, t in flatten_state(state).items()}
    kept = state.detach()
    _moved(model)
    for path, tensor in flatten_state(kept).items():
        assert torch.equal(tensor, values[path]), path


WITH_PASTS = {
    "conv": "block b(x) { return conv(x, 4) }",
    "shift": "block b(x) { return shift(x, by = 2) }",
    "attention": """block b(x) {
  level c every 1 token { memory A = softmax() }
  A[x] <- x
  return A[x]
}""",
    "window": """block b(x) {
  level c every 1 token { memory A = softmax(window = 4) }
  A[x] <- x
  return A[x]
}""",
    "sum": """block b(x) {
  level c every 1 token { memory M = matrix() }
  M[x] <- x  minimize dot  by gd(lr = 0.1)
  return M[x]
}""",
    "delta": """block b(x) {
  level c every 1 token { memory M = matrix() }
  M[l2norm(x)] <- x  minimize l2  by gd(lr = 0.5)
  return M[x]
}""",
}


@pytest.mark.parametrize("name", WITH_PASTS)
def test_a_state_does_not_follow_the_inputs(name):
    """A caller may fill one array with what comes, piece by piece."""
    layer = nldsl.compile(WITH_PASTS[name], x=4, dtype=torch.float64)
    x = torch.randn(2, 15, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole, _ = layer(x)
    buffer, state, found = torch.empty(2, 5, 4, dtype=torch.float64), None, []
    for piece in x.split(5, 1):
        y, state = layer(buffer.copy_(piece), state)
        found.append(y.clone())
    assert torch.allclose(torch.cat(found, 1), whole, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "name", [*(n for n in WITH_PASTS if n != "attention"), "deltaproduct", "retnet", "mamba2"]
)
def test_a_state_holds_no_more_than_its_own(name):
    """What is carried does not keep all tokens of the call that it comes from."""
    source = {"source": WITH_PASTS[name]} if name in WITH_PASTS else {"source": name, "block": name}
    layer = nldsl.compile(**source, x=16)
    with torch.no_grad():
        _, state = layer(torch.randn(1, 300, 16))
    for path, tensor in state.tensors().items():
        assert tensor.untyped_storage().nbytes() <= 2 * tensor.nbytes, path
