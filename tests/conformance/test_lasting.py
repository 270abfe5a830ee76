"""Memories that outlive a sequence: the next one begins as the interpreter says."""

from __future__ import annotations

import pytest
import torch

import nldsl
from nldsl.diagnostics import SpecError
from nldsl.reference import Interpreter, flatten_state
from tests.conformance.agreement import LOWERINGS, comparable, compare_states, compiled

SPEC = """
block part(x) {
  level c every 3 tokens {
    memory M = mlp(1) reset never
    memory N = mlp(1)
  }
  M[l2norm(linear(x))] <- linear(x) by momentum(lr = 0.1, beta = 0.5)
  N[l2norm(linear(x))] <- linear(x) by gd(lr = 0.1)
  return M[conv(x, 2)] + N[x]
}
block whole(x) {
  repeat 2 { x = x + part(x) }
  y = part(x)
  return y
}
"""


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_new_sequence(lowering: str) -> None:
    layer = compiled(SPEC, lowering, block="whole", x=4)
    meaning = Interpreter(layer.program, dict(layer.parameter_paths()), dtype=torch.float64)
    first, second = (torch.randn(2, n, 4, dtype=torch.float64) for n in (5, 4))
    _, state = layer(first)
    y, after = layer(second, state=layer.new_sequence(state))
    _, told = meaning.run(first)
    expected, told = meaning.run(second, state=meaning.new_sequence(told))
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    assert compare_states(comparable(after), flatten_state(told), 2) == []


def test_start_from_one_that_lasts_is_refused() -> None:
    text = SPEC.replace("memory N = mlp(1)", "memory N = mlp(1) init M")
    with pytest.raises(SpecError) as caught:
        compiled(text, block="part", x=4)
    assert {d.code for d in caught.value.diagnostics} == {"NL0701"}


TASKS = """
block part(x) {
  level fast every 2 tokens { memory F = mlp(1) reset never }
  level slow every 4 tokens { memory G = mlp(1) RESET }
  F minimizes task by momentum(lr = 0.1, beta = 0.5)
  G minimizes task by gd(lr = 0.1)
  return F[x] + G[x]
}
model whole(tokens) {
  x = embed(tokens, 8, 4)
  repeat 2 { x = x + part(x) }
  return head(x, 8)
}
"""


@pytest.mark.parametrize("lengths", [(6, 8), (5, 7)])
@pytest.mark.parametrize("reset", ["reset never", ""])
def test_task_memories_in_a_new_sequence(reset: str, lengths: tuple[int, int]) -> None:
    """What was learnt of the task stays if the memory outlives its sequence, also within a segment."""
    model = nldsl.compile(TASKS.replace("RESET", reset)).double()
    meaning = Interpreter(model.program, dict(model.parameter_paths()), dtype=torch.float64)
    first, second = (
        torch.randint(0, 8, (2, n + 1), generator=torch.Generator().manual_seed(n)) for n in lengths
    )
    _, state = model.learn(first)
    _, told = meaning.learn(first)
    if not reset and lengths[0] % 2:
        with pytest.raises(ValueError, match="end sequences at multiples of 2"):
            model.learn(second, model.new_sequence(state))
        return
    loss, after = model.learn(second, model.new_sequence(state))
    expected, told = meaning.learn(second, meaning.new_sequence(told))
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    assert compare_states(comparable(after), flatten_state(told), 2) == []
    forgotten, _ = model.learn(second)
    assert abs((forgotten - loss).item()) > 1e-3
