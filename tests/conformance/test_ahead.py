"""Blocks in front of the first task memory: once for all segments under `exact`, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor

import nldsl
from nldsl.runtime.model import Model
from nldsl.runtime.periods import Periods

torch.set_num_threads(1)
SIZES: dict[str, dict[str, Any]] = {
    "hope": {"dim": 8, "depth": 1, "heads": 2, "chunks": [4, 8, 16], "vocab": 11},
    "hope_attention": {"dim": 8, "depth": 2, "heads": 2, "chunks": [4, 8], "vocab": 11},
}
LABELLED = """
model m(tokens, label, vocab = 11, dim = 8) {
  x = embed(tokens, vocab, dim)
  x = x + first(norm(x))
  x = swiglu(norm(x))
  x = system(x)
  x = x + first(norm(x))
  return head(norm(x), 5)
}
block first(x) { return attention(norm(linear(x, 8)), 2) }
block system(x) {
  level f every 4 tokens { memory F = mlp(2) }
  F minimizes task by momentum(lr = 0.1, beta = 0.5)
  return x + F[norm(x)]
}
train m { task label(carry = "exact"); level slow every 1 step { "*" by sgd(lr = 0.1) } }
"""


def built(name: str) -> Model:
    if name == "labelled":
        model = nldsl.compile(LABELLED, dtype=torch.float64)
    else:
        model = nldsl.compile(name, dtype=torch.float64, **SIZES[name])
    assert isinstance(model, Model)
    model.carry = "exact"
    return model


@contextmanager
def piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(Periods, "look_ahead", lambda *_: None)
        yield


def run(model: Model, batch: int, cuts: tuple[int, ...], mask: Tensor | None = None) -> dict[str, Tensor]:
    """Losses, gradients and the last state of calls that end at `cuts`."""
    draw = torch.Generator().manual_seed(batch)
    tokens = torch.randint(0, 11, (batch, cuts[-1]), generator=draw)
    model.zero_grad(set_to_none=True)
    losses, state = [], None
    for start, end in zip((0, *cuts), cuts, strict=False):
        part = None if mask is None else mask[:, start:end]
        label = tokens[:, start:end] % 5 if "label" in model.streams else None
        loss, state = model.learn(tokens[:, start:end], state, part, backward=0.3, label=label)
        losses.append(loss)
    assert state is not None
    grads = {f"grad {n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {"loss": torch.stack(losses), **grads, **state.tensors()}


@pytest.mark.parametrize("name", [*SIZES, "labelled"])
@pytest.mark.parametrize("cuts", [(41,), (7, 41), (8, 19, 20, 37)])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_equals_segment_by_segment(
    name: str, cuts: tuple[int, ...], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = built(name)
    found = run(model, batch, cuts)
    with piece_by_piece(monkeypatch):
        want = run(model, batch, cuts)
    assert found.keys() == want.keys()
    for key, value in want.items():
        torch.testing.assert_close(found[key], value, rtol=1e-12, atol=1e-12, msg=key)


def test_they_run_once_and_the_others_with_every_segment() -> None:
    model = built("hope_attention")
    first, second = (block.attention for block in model.root.blocks)  # type: ignore[attr-defined]
    widths: dict[str, list[int]] = {"first": [], "second": []}
    plain = type(first).forward

    def watched(self: Any, x: Tensor, *rest: Any) -> Any:
        widths["first" if self is first else "second"].append(x.shape[1])
        return plain(self, x, *rest)

    type(first).forward = watched
    try:
        run(model, 2, (41,))
        assert widths == {"first": [40], "second": [4] * 10} and second is not first
        widths["first"].clear()
        run(model, 2, (41,), torch.arange(41).ne(3).expand(2, 41))
        assert widths["first"] == [4] * 9 + [3], "what is masked goes segment by segment"
        widths["first"].clear()
        model.carry = "trunc"
        run(model, 2, (41,))
        assert widths["first"] == [4] * 10, "`trunc` cuts every segment off"
    finally:
        type(first).forward = plain


def test_a_block_that_answers_in_its_own_way_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = built("hope_attention")
    block = model.root.blocks[0].attention  # type: ignore[attr-defined]
    plain, seen = block.forward, []
    block.forward = lambda *given: seen.append(1) or plain(*given)
    run(model, 1, (41,))
    assert len(seen) == 10 and "forward" in block.__dict__


def test_other_threads_see_the_blocks_themselves() -> None:
    model = built("hope_attention")
    tokens = torch.arange(20).view(1, 20) % 11
    want, found = model(tokens)[0], []
    cms = model.root.blocks[0].cms  # type: ignore[attr-defined]

    def beside(*_: Any) -> None:
        if not found:
            found.append(None)
            thread = Thread(target=lambda: found.append(model(tokens)[0]))
            thread.start()
            thread.join()

    hook = cms.register_forward_hook(beside)
    run(model, 1, (21,))
    hook.remove()
    assert torch.equal(found[1], want)
    assert not any("forward" in block.__dict__ for block in model.root.modules())


def test_two_threads_learn_at_once() -> None:
    """A call in the middle of one of the same model: both give what they give alone, and leave nothing."""
    model = built("hope_attention")
    cms = model.root.blocks[0].cms  # type: ignore[attr-defined]
    block = model.root.blocks[0].attention  # type: ignore[attr-defined]
    plain = type(block).forward
    whole: list[int] = []
    sizes = {41: 2, 23: 1}

    def watched(self: Any, x: Tensor, *rest: Any) -> Any:
        whole.append(x.shape[1])
        return plain(self, x, *rest)

    longer, shorter = run(model, 2, (41,)), run(model, 1, (23,))
    for outer, inner in ((41, 23), (23, 41)):
        found: list[dict[str, Tensor]] = []
        calls = 0

        def beside(*_: Any, inner: int = inner, found: list[dict[str, Tensor]] = found) -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                thread = Thread(target=lambda: found.append(_learnt(model, sizes[inner], inner)))
                thread.start()
                thread.join()

        model.zero_grad(set_to_none=True)
        whole.clear()
        type(block).forward = watched
        hook = cms.register_forward_hook(beside)
        try:
            mine = _learnt(model, sizes[outer], outer)
        finally:
            hook.remove()
            type(block).forward = plain
        both = {41: longer, 23: shorter}
        for learnt, size in ((mine, outer), (found[0], inner)):
            for key, value in learnt.items():
                torch.testing.assert_close(value, both[size][key], rtol=1e-12, atol=1e-12, msg=key)
        for name, p in model.named_parameters():
            if p.grad is not None:
                want = longer[f"grad {name}"] + shorter[f"grad {name}"]
                torch.testing.assert_close(p.grad, want, rtol=1e-11, atol=1e-12, msg=name)
        assert len([n for n in whole if n > 16]) == 2, "blocks in front run once in each call"
        assert not any("forward" in module.__dict__ for module in model.root.modules())


def _learnt(model: Model, batch: int, length: int) -> dict[str, Tensor]:
    """Loss and last state of a call; its gradients are added to those of others."""
    tokens = torch.randint(0, 11, (batch, length), generator=torch.Generator().manual_seed(batch))
    loss, state = model.learn(tokens, backward=0.3)
    return {"loss": loss[None], **state.tensors()}
