"""Learning from a stream as it comes: the loss of each segment before and after, and what is forgotten."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F

from nldsl.evaluate.contract import LanguageModel
from nldsl.evaluate.generate import as_input
from nldsl.evaluate.session import Session
from nldsl.evaluate.tokens import BYTES, Tokens
from nldsl.runtime.model import Model
from nldsl.runtime.state import State
from nldsl.runtime.task import get_at, put_at


@dataclass(frozen=True)
class Segment:
    """Bits per byte of one segment of a stream, each time read in a fresh context.

    `before` it was learnt, `after` it was, and at the `end` of the stream (a loss since is forgetting).
    """

    first: int
    bytes: int
    before: float
    after: float
    end: float

    @property
    def gained(self) -> float:
        """Bits per byte that learning the segment saved on it."""
        return self.before - self.after

    @property
    def forgotten(self) -> float:
        """Bits per byte that were lost again by the end of the stream."""
        return self.end - self.after


def learn_online(
    model: Model,
    text: bytes,
    segment: int = 1024,
    heard: Callable[[Segment], object] = lambda _: None,
    tokens: Tokens = BYTES,
) -> tuple[tuple[Segment, ...], Session]:
    """Read `text` once, every level learning at its clock; the segments, and the session behind the stream.

    `heard` is told of each segment as it ends (its `end` is then still its `after`).

    Errors: `ValueError` if nothing in the model learns from the task, or a segment is shorter than 2 bytes.
    """
    if not model.task_memories():
        raise ValueError("no memory of this model learns from the task")
    if segment < 2:
        raise ValueError(f"a segment has at least 2 bytes, found {segment}")
    session = Session(model, learn=True, tokens=tokens)
    found = []
    for start, piece in _pieces(text, segment, tokens):
        before = bits(model, piece, session.state, tokens)
        session.feed(piece)
        after = bits(model, piece, session.state, tokens)
        found.append(Segment(start, len(piece), before, after, after))
        heard(found[-1])
    ends = [bits(model, piece, session.state, tokens) for _, piece in _pieces(text, segment, tokens)]
    segments = (Segment(s.first, s.bytes, s.before, s.after, end) for s, end in zip(found, ends, strict=True))
    return tuple(segments), session


def _pieces(text: bytes, size: int, tokens: Tokens) -> Iterator[tuple[int, bytes]]:
    """Segments of `size` bytes; one of a single token, which predicts nothing, is left out."""
    for start in range(0, len(text), size):
        piece = text[start : start + size]
        if len(tokens.encode(piece)) > 1:
            yield start, piece


def bits(model: Model, piece: bytes, learnt: State, tokens: Tokens = BYTES) -> float:
    """Bits per byte of `piece` in a fresh context, with the task memories as `learnt` has them."""
    fresh: Any = model.init_state(1).tree["root"]
    for task in model.task_memories():
        delta = get_at(learnt.tree["root"], task.keys)["delta"]
        fresh = put_at(fresh, task.keys, {**get_at(fresh, task.keys), "delta": delta})
    ids = as_input(cast(LanguageModel, model), tokens.encode(piece))
    with torch.no_grad():
        logits, _ = model(ids[:, :-1], State({"root": fresh}, program=model.name))
        loss = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
    return float(loss) / math.log(2) * ids.shape[1] / len(piece)
