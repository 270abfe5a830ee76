"""`task label`: `learn` scores every token by its own label, compiled and interpreted alike."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import nldsl
from nldsl.reference import Interpreter, flatten_state
from tests.conformance.agreement import comparable

TEXT = """
block system(x) {
  level f every 2 tokens { memory A = mlp(2) }
  level s every 4 tokens { memory B = mlp(2) }
  A minimizes task by gd(lr = 0.3)
  B minimizes task by momentum(lr = 0.3)
  return x + A[norm(x)] + B[norm(x)]
}
model m(tokens, label) { return head(norm(SYSTEM(embed(tokens, 7, 4))), 3) }
train m {
  task label(carry = "CARRY")
  rest by adamw(lr = 0.01)
}
"""


def made(carry: str = "trunc", system: str = "system") -> nldsl.Model:
    text = TEXT.replace("CARRY", carry).replace("SYSTEM", system)
    model = nldsl.compile(text if system else text[text.index("model") :], dtype=torch.float64)
    assert isinstance(model, nldsl.Model)
    return model


def drawn(tokens: int = 11) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    given, label = (torch.randint(0, n, (2, tokens), generator=generator) for n in (7, 3))
    mask = torch.ones(2, tokens, dtype=torch.bool)
    mask[0, [0, 5]] = mask[1, -1] = False
    return given, label, mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("carry", ["trunc", "exact"])
def test_learning_from_labels_equals_the_interpreter(carry: str, masked: bool) -> None:
    model = made(carry)
    tokens, label, mask = drawn()
    given = mask if masked else None
    meaning = Interpreter(model.program, dict(model.parameter_paths()), dtype=torch.float64)
    want, state = meaning.learn(tokens, mask=given, label=label)
    expected = {n.replace("[", ".").replace("]", ""): x for n, x in flatten_state(state).items()}
    parameters = list(model.parameters())
    theirs = torch.autograd.grad(want, parameters, allow_unused=True)
    for calls in ([(0, 11)], [(0, 1), (1, 6), (6, 11)]):
        total, mine = torch.zeros((), dtype=torch.float64), None
        scored = 0
        for start, end in calls:
            part = None if given is None else given[:, start:end]
            loss, mine = model.learn(tokens[:, start:end], mine, part, label=label[:, start:end])
            total, scored = total + loss, scored + mine.scored
        assert scored == state.scored == (int(mask.sum()) if masked else 22)
        torch.testing.assert_close(total, want)
        for name, value in comparable(mine).items():
            if ".delta." in name and ".open." not in name:
                assert value.abs().max() > 1e-4
                torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-11)
        ours = torch.autograd.grad(total, parameters, allow_unused=True)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    model.zero_grad()
    model.learn(tokens, mask=given, label=label, backward=1.0)
    for p, b in zip(parameters, theirs, strict=True):
        torch.testing.assert_close(p.grad, b, rtol=1e-8, atol=1e-10)


def test_one_label_per_sequence_without_task_memories() -> None:
    model = made(system="")
    tokens, label, _ = drawn()
    label[:, :-1] = -1
    loss, state = model.learn(tokens, label=label)
    logits, _ = model(tokens, label)
    torch.testing.assert_close(
        loss, torch.nn.functional.cross_entropy(logits[:, -1], label[:, -1], reduction="sum")
    )
    assert state.scored == 2


def test_labels_that_do_not_fit_are_refused() -> None:
    model = made()
    tokens, label, mask = drawn()
    with pytest.raises(ValueError, match="has the stream `label`"):
        model.learn(tokens)
    with pytest.raises(ValueError, match="shape"):
        model.learn(tokens, label=label[:, 1:])
    label[0, 5] = -1
    with pytest.raises(ValueError, match="label of every token"):
        model.learn(tokens, label=label)
    model.learn(tokens, mask=mask, label=label)
    plain = nldsl.compile("model p(tokens) { return head(norm(embed(tokens, 7, 4)), 7) }")
    assert isinstance(plain, nldsl.Model)
    with pytest.raises(ValueError, match="does not have the stream"):
        plain.learn(tokens, label=label)
