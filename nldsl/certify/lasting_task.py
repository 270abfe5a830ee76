"""Long sequences of a model that learns from its task: do its task memories stay bounded and alive?

The model runs through `learn` as it would online: every target counts when it arrives.  What a memory
has learned is its distance from the slow parameters it starts at.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch

from nldsl.certify.align import places
from nldsl.certify.compare import Finding
from nldsl.certify.lasting import PIECE, TAIL, TOKENS, Endurance, Run, bounded, moving, used
from nldsl.certify.learning import learns
from nldsl.runtime.model import Model
from nldsl.runtime.state import State


def alive_task(subject: Endurance) -> Iterator[Finding]:
    """The loss stays finite; what is learned grows like T at most, still moves, and is used."""
    own = tuple(p for p in places(subject.program) if p.kind == "task")
    if not own or not learns(subject.program):
        return
    model = copy.deepcopy(subject.module).float()
    assert isinstance(model, Model)
    run = _run(model, subject)
    if isinstance(run, int):
        yield Finding(f"learning from the task: the loss is not finite before token {run}", math.inf)
        return
    yield Finding(f"learning from the task: the loss is finite over {TOKENS} tokens", 0.0)
    more = subject.inputs(TAIL, "more")
    for place in own:
        every = place.memory.clock.every if place.memory is not None else 1
        if every > TOKENS - PIECE:
            yield Finding(f"`{place.path}`: its clock of {every} tokens is longer than the run", 0.0)
            continue
        yield bounded(place, run)
        yield moving(place, run)
        yield used(model, place, run.last, more)


def _run(model: Model, subject: Endurance) -> Run | int:
    """The states behind every piece, or the end of the piece in which the loss stopped being finite."""
    (tokens,) = subject.inputs(TOKENS, "long")
    states: list[State] = []
    for start in range(0, TOKENS, PIECE):
        # Not at a round number, where every clock has just committed.
        end = start + PIECE - (3 if start + PIECE == TOKENS else 0)
        with torch.no_grad():
            loss, state = model.learn(tokens[:, start:end], states[-1] if states else None)
        states.append(state.detach())
        if not bool(torch.isfinite(loss)):
            return end
    return Run(states, ())
