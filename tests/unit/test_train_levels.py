"""What is said of memories in training, against numbers worked out another way; TensorBoard's files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nldsl
from nldsl.train.board import Board, scalars
from nldsl.train.levels import by_level, lives

SPEC = """
block remember(x, heads = 2) {
  level fast every 1 token { memory S = matrix() per head init zero }
  k = l2norm(split(linear(x), heads))
  v = split(linear(x), heads)
  beta = sigmoid(linear(x, heads))
  alpha = sigmoid(linear(x, heads, bias = true))
  S[k] <- v  minimize l2  by gd(lr = beta)  retain alpha
  return linear(merge(S[k]))
}

model two(tokens, vocab = 16, dim = 8) {
  x = embed(tokens, vocab, dim)
  repeat 2 { x = x + remember(norm(x)) }
  return head(norm(x), vocab)
}
"""


@pytest.fixture
def model() -> nldsl.Model:
    made = nldsl.compile(SPEC, dtype=torch.float64)
    assert isinstance(made, nldsl.Model)
    return made


def tokens(rows: int = 3, length: int = 12) -> torch.Tensor:
    return torch.randint(0, 16, (rows, length), generator=torch.Generator().manual_seed(3))


def test_norms_are_those_of_the_state_and_of_its_change(model: nldsl.Model) -> None:
    (found,) = lives(model, tokens())
    assert (found.memory, found.level) == ("blocks[*].remember.S", "fast")
    with torch.no_grad():
        _, half = model(tokens()[:, :6])
        _, last = model(tokens()[:, 6:], half)

    def weights(state: nldsl.State) -> list[torch.Tensor]:
        return [t for name, t in state.tensors().items() if "remember/S" in name and t.dim() == 4]

    assert len(weights(last)) == 2
    norms = [float(t.flatten(1).norm(dim=1).mean()) for t in weights(last)]
    moved = [
        float((a - b).flatten(1).norm(dim=1).mean())
        for a, b in zip(weights(last), weights(half), strict=True)
    ]
    assert found.state_norm == pytest.approx(sum(norms) / 2)
    assert found.write_norm == pytest.approx(sum(moved) / 2)


def test_gates_are_those_of_the_first_half(model: nldsl.Model) -> None:
    parameters = model.parameter_paths()
    with torch.no_grad():
        for path, parameter in parameters.items():
            if ".beta." in path or ".alpha." in path:
                parameter.zero_()
        for copy, bias in ((0, 2.0), (1, -1.0)):
            parameters[f"blocks[{copy}].remember.alpha.linear.bias"].fill_(bias)
    (found,) = lives(model, tokens())
    assert found.rate == pytest.approx(0.5)
    assert found.retention == pytest.approx(float(torch.tensor([2.0, -1.0]).sigmoid().mean()))


def test_a_memory_that_nobody_reads_is_not_used(model: nldsl.Model) -> None:
    (found,) = lives(model, tokens())
    assert found.used > 1e-3
    with torch.no_grad():
        for path, parameter in model.parameter_paths().items():
            if path.endswith("remember.out.linear.weight") or ".remember." in path and "out" in path:
                parameter.zero_()
    (dead,) = lives(model, tokens())
    assert dead.used == 0.0 and dead.state_norm > 0


def test_nothing_of_the_model_changes_and_padding_is_no_token(model: nldsl.Model) -> None:
    before = {name: p.clone() for name, p in model.named_parameters()}
    rows = tokens(2, 12)
    padded = torch.cat([rows, torch.full((2, 12), -1)], 1)[:, :12]
    assert lives(model, padded) == lives(model, rows)
    rows[:, 9:] = -1
    assert lives(model, rows)[0].state_norm != lives(model, tokens(2, 12))[0].state_norm
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters())


def test_memories_of_the_task_learn_on_the_way() -> None:
    model = nldsl.compile("hope_tiny", dim=16, depth=1, chunks=(4, 8))
    found = lives(model, torch.randint(0, 256, (2, 32)))
    assert lives(model, torch.randint(0, 256, (2, 27)))  # the middle lies within a chunk
    levels = by_level(found)
    assert levels["f[0]"]["state_norm"] > 0 and levels["f[0]"]["used"] > 0
    assert 0 < levels["projections"]["retention"] < 1
    assert "rate" not in levels["f[0]"]
    assert lives(nldsl.compile("transformer", dim=16, depth=1, heads=2), torch.ones(1, 8).long()) == ()


def test_records_are_scalars_of_tensorboard(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    record = {"step": 4, "loss": 2.5, "levels": {"fast": {"used": 0.5}}, "skipped": "spike", "ok": True}
    assert dict(scalars(record)) == {"loss": 2.5, "levels/fast/used": 0.5}
    board = Board(tmp_path)
    for step in (1, 2, 3):
        board.add({**record, "step": step, "loss": float(step)})
    board.close()
    again = Board(tmp_path, resumed_at=2)
    again.add({**record, "step": 3, "loss": 30.0})
    again.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert events.Scalars("levels/fast/used")[-1].value == 0.5
