"""Continuum memory systems against literal loops: losses, fast weights, outer gradients, what comes after."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import nldsl
from nldsl.certify.observe import observe
from nldsl.graph import open_program
from nldsl.runtime.state import State
from nldsl.view.observed import compare_observed
from nldsl.view.timeline import timeline
from tests.conformance.task_loop_specs import CASES, MODEL
from tests.conformance.task_loops import Loop

LENGTH = 30
CUTS = {"whole": (LENGTH,), "pieces": (1, 2, 9, 10, 16, LENGTH), "tokens": tuple(range(1, LENGTH + 1))}


def made(name: str, carry: str) -> Any:
    text, beside, _, _ = CASES[name]
    return nldsl.compile(MODEL.format(text, beside, carry), dtype=torch.float64, seed=3)


def drawn(batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    tokens = torch.randint(0, 7, (batch, LENGTH), generator=generator)
    mask = torch.rand(batch, LENGTH, generator=generator) > 0.3
    return tokens, mask


def by_hand(name: str, model: Any, tokens: Tensor, mask: Tensor | None, carry: str) -> list[Loop]:
    """A loop for every sequence, over the tokens that are there."""
    slow, found = dict(model.parameter_paths()), []
    for b, row in enumerate(tokens):
        live = row if mask is None else row[mask[b]]
        loop = Loop(slow, CASES[name][2](), CASES[name][3], carry == "exact")
        loop.run(live.tolist())
        found.append(loop)
    return found


def gradients(loss: Tensor, model: Any) -> dict[str, Tensor]:
    own = model.parameter_paths()
    found = torch.autograd.grad(loss, list(own.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(own.items(), found, strict=True)}


def learnt(model: Any, tokens: Tensor, mask: Tensor | None, cuts: tuple[int, ...]) -> tuple[Tensor, Any]:
    loss, state = torch.zeros((), dtype=torch.float64), None
    for start, end in zip((0, *cuts), cuts, strict=False):
        more, state = model.learn(tokens[:, start:end], state, None if mask is None else mask[:, start:end])
        loss = loss + more
    return loss, state


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def deltas_equal(state: Any, loops: list[Loop]) -> None:
    for path, level in loops[0].levels.items():
        for name in level.delta:
            node: Any = state.tree["root"]
            for part in path.split("."):
                node = node[part]
            wanted = torch.stack([loop.levels[path].delta[name] for loop in loops])
            close(node["delta"][name], wanted)
            assert level.every > LENGTH or level.reset or float(wanted.abs().max()) > 1e-4, (
                "nothing was learnt"
            )


@pytest.mark.parametrize("carry", ["trunc", "exact"])
@pytest.mark.parametrize("masked", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_learning_is_the_loop(name: str, batch: int, masked: bool, carry: str) -> None:
    model, (tokens, mask) = made(name, carry), drawn(batch)
    live = mask if masked else None
    loops = by_hand(name, model, tokens, live, carry)
    wanted = sum((loop.loss for loop in loops), torch.zeros((), dtype=torch.float64))
    slopes = gradients(wanted, model)
    for cuts in CUTS.values():
        loss, state = learnt(model, tokens, live, cuts)
        close(loss, wanted)
        deltas_equal(state, loops)
        for path, slope in gradients(loss, model).items():
            close(slope, slopes[path])
    model.zero_grad()
    loss, _ = model.learn(tokens, None, live, backward=1.0)
    close(loss, wanted.detach())
    for path, p in model.parameter_paths().items():
        close(torch.zeros_like(p) if p.grad is None else p.grad, slopes[path])


@pytest.mark.parametrize("name", CASES)
def test_what_was_learnt_serves_afterwards(name: str) -> None:
    """Online, without gradients: logits behind the text are those of the loop; a pass writes nothing."""
    model, (tokens, _) = made(name, "trunc"), drawn(3)
    loops = by_hand(name, model, tokens, None, "trunc")
    with torch.no_grad():
        _, state = learnt(model, tokens, None, CUTS["pieces"])
        rest = State({k: v for k, v in state.tree.items() if k != "held"}, program=state.program)
        before = {n: x.clone() for n, x in rest.tensors().items() if "/delta/" in n}
        logits, behind = model(tokens[:, -1:], rest)
        wanted = torch.stack([loop.logits(int(row[-1])) for loop, row in zip(loops, tokens, strict=True)])
    close(logits[:, 0], wanted)
    assert before and all(torch.equal(x, behind.tensors()[n]) for n, x in before.items())


@pytest.mark.parametrize("name", [n for n in CASES if n != "weights that fade"])  # which move without a step
def test_a_step_of_zero_is_the_plain_model(name: str) -> None:
    """The loss is that of a pass with what it started from."""
    text, beside, _, _ = CASES[name]
    still = text
    for rate in ("0.3", "0.2", "0.1", "0.05", "0.02", "5"):
        still = still.replace(f"(lr = {rate}", "(lr = 0.0")
    assert "lr = 0.0" in still
    model = nldsl.compile(MODEL.format(still, beside, "trunc"), dtype=torch.float64, seed=3)
    tokens, _ = drawn(3)
    loss, _ = model.learn(tokens)
    plain = F.cross_entropy(model(tokens[:, :-1])[0].flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(loss, plain, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_a_run_is_what_its_timeline_says(name: str) -> None:
    text, beside, _, _ = CASES[name]
    program = open_program(MODEL.format(text, beside, "trunc"))
    seen = observe(program, 23)
    assert seen and compare_observed(timeline(program, 23), seen) == []


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("place", [6, 11])
def test_a_token_changes_nothing_before_it(name: str, place: int) -> None:
    """Nor another sequence; the loss of what stands before it is the same to the last bit."""
    model, (tokens, _) = made(name, "trunc"), drawn(2)
    other = tokens.clone()
    other[0, place] = (other[0, place] + 1) % 7
    found = []
    with torch.no_grad():
        for row in (tokens, other):
            state, losses = None, []
            for t in range(LENGTH):
                more, state = model.learn(row[:, t : t + 1], state)
                rest = State({k: v for k, v in state.tree.items() if k != "held"}, program=state.program)
                losses.append(model(row[:, t : t + 1], rest)[0][:, 0])
            found.append(torch.stack(losses, 1))
    assert torch.equal(found[0][1], found[1][1])
    assert torch.equal(found[0][0, :place], found[1][0, :place])
    assert not torch.equal(found[0][0, place], found[1][0, place])
