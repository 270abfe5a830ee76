"""Rules with a number as memory in task writes: against torch's optimizers, by sample, on steps."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import nldsl
from nldsl.reference import Interpreter, flatten_state
from tests.conformance.agreement import compiled, disagreements

SEGMENT, VOCAB, DIM = 3, 7, 4
TEXT = """
model m(tokens, vocab = 7, dim = 4) {{
  x = embed(tokens, vocab, dim)
  x = x + plain(x)
  return head(x, vocab)
}}
block plain(x) {{
  level f every {clock} {{ memory B = matrix(){start} }}
  B minimizes task by {rule}
  return B[x]
}}
train m {{ task next_token; level slow every 1 step {{ "*" by sgd(lr = 0.1) }} }}
"""
NADAM = "nadam(lr = 0.05, momentum_decay = 0.1)"


def model_of(rule: str, clock: str = "3 tokens", start: str = "") -> Any:
    return nldsl.compile(TEXT.format(rule=rule, clock=clock, start=start), dtype=torch.float64)


def tokens_of(batch: int, length: int) -> Tensor:
    return torch.randint(0, VOCAB, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def numbers_of_torch_in_float64() -> Iterator[None]:
    """The numbers that torch's optimizers keep have the type that is the default where they begin."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def by_torch(model: Any, tokens: Tensor, make: Any) -> Tensor:
    """The weight of one sequence behind its last whole segment, moved by an optimizer of torch."""
    named = {n: p.detach() for n, p in model.parameter_paths().items()}
    E, H = (next(p for n, p in named.items() if word in n) for word in ("embed", "head"))
    W = torch.zeros(DIM, DIM, dtype=torch.float64, requires_grad=True)
    optimizer = make([W])
    for start in range(0, len(tokens) - SEGMENT, SEGMENT):
        x = E[tokens[start : start + SEGMENT]]
        logits = (x + x @ W.T) @ H.T
        optimizer.zero_grad()
        F.cross_entropy(logits, tokens[start + 1 : start + SEGMENT + 1], reduction="sum").backward()
        optimizer.step()
    return W.detach()


@pytest.mark.parametrize(
    "rule, make",
    [
        (NADAM, lambda p: torch.optim.NAdam(p, lr=0.05, momentum_decay=0.1)),
        (
            "adafactor(lr = 0.05, eps1 = 1e-12)",
            lambda p: torch.optim.Adafactor(p, lr=0.05, eps=(1e-12, 1e-3)),
        ),
    ],
    ids=["nadam", "adafactor"],
)
def test_steps_are_those_of_torch(rule: str, make: Any) -> None:
    """Each sequence has an optimizer of its own; one of them has padding, calls end anywhere."""
    model, tokens = model_of(rule), tokens_of(2, 16)
    mask = torch.ones(2, 16, dtype=torch.bool)
    mask[1, [0, 4, 5, 9]] = False
    wanted = torch.stack([by_torch(model, row[live], make) for row, live in zip(tokens, mask, strict=True)])
    meaning = Interpreter(model.program, dict(model.parameter_paths()), dtype=torch.float64)
    _, literal = meaning.learn(tokens, mask=mask)
    torch.testing.assert_close(flatten_state(literal)["plain.B.delta.weight"], wanted, rtol=1e-9, atol=1e-11)
    for cuts in ([16], [1, 2, 9, 16]):
        state = None
        for start, end in zip([0, *cuts], cuts, strict=False):
            _, state = model.learn(tokens[:, start:end], state, mask[:, start:end])
        entry = state.tree["root"]["plain"]["B"]
        torch.testing.assert_close(entry["delta"]["weight"].detach(), wanted, rtol=1e-9, atol=1e-11)


def test_the_number_is_one_per_sequence_and_survives_a_file() -> None:
    """Sequences that stand at different counts have different numbers; what is saved goes on as it was."""
    model, tokens = model_of(NADAM), tokens_of(2, 17)
    mask = torch.ones(2, 17, dtype=torch.bool)
    mask[1, 4:] = False
    _, state = model.learn(tokens, None, mask)
    share = state.tree["root"]["plain"]["B"]["slots"]["share.weight"]
    mus = [0.9 * (1 - 0.5 * 0.96 ** (t * 0.1)) for t in (1, 2, 3, 4, 5)]
    wanted = torch.tensor([torch.tensor(mus, dtype=torch.float64).prod(), mus[0]], dtype=torch.float64)
    torch.testing.assert_close(share, wanted, rtol=1e-12, atol=0)

    whole = model.learn(tokens)[1]
    kept = model.learn(tokens[:, :8])[1].detach()
    file = io.BytesIO()
    torch.save(kept.tree, file)
    file.seek(0)
    read = type(kept)(torch.load(file, weights_only=True), program=kept.program)
    behind = model.learn(tokens[:, 8:], read)[1]
    for name, value in whole.tensors().items():
        torch.testing.assert_close(behind.tensors()[name].detach(), value.detach(), rtol=1e-10, atol=1e-12)


def test_on_a_clock_of_steps_train_keeps_the_number() -> None:
    train = model_of(NADAM, "1 step", " init learned").program.train
    assert [g.rule for g in train.groups if "plain.B.*" in g.selectors] == ["nadam"]


@pytest.mark.parametrize("rule", ["adafactor(lr = 0.1)", "shampoo(lr = 0.1, eps = 0.1, slow = 2)", NADAM])
def test_an_inner_memory_of_several_sizes(rule: str) -> None:
    """`mlp(2)` has a tall weight and a wide one: each has memories of the size that goes with it."""
    text = f"""block b(x) {{
      level l every 1 token {{ memory M = mlp(2) per head(2) }}
      M[linear(x, 6)] <- linear(x, 6) by {rule}
      return merge(M[linear(x, 6)])
    }}"""
    assert disagreements(compiled(text, dim=3), pieces=(3, 1, 3)) == []
