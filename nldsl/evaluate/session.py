"""A model in use: sequences that go on, learn if they may, and can be kept, copied and put together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from nldsl.evaluate.contract import LanguageModel, device_of, writes_task
from nldsl.evaluate.generate import PREFILL, START, Sampling, draw, peek
from nldsl.evaluate.tokens import BYTES, Tokens
from nldsl.runtime.batching import join, take
from nldsl.runtime.model import Model
from nldsl.runtime.state import State, batch_of

Text = str | bytes | Tensor


class Session:
    """One or several sequences over one set of weights, isolated from one another.

    `learn`: whether memories that minimise the task may change (`True`, `False`), or the names of the levels
    that may.  Memories that learn from their context always do: that is the model's forward pass.  A
    session never changes the weights.  `tokens` turn text into tokens: bytes, or those of a tokenizer.

    Example:
        >>> import nldsl
        >>> model = nldsl.compile("hope_tiny", dim=16, depth=1)
        >>> session = Session(model, learn=True)
        >>> session.feed("a first line, and a second").shape
        torch.Size([1, 26, 256])
        >>> other = session.fork()
        >>> len(bytes(session.generate(4))), session.position, other.position
        (4, 30, 26)
    """

    def __init__(
        self,
        model: Model,
        *,
        learn: bool | Sequence[str] = False,
        state: State | None = None,
        batch: int = 1,
        tokens: Tokens = BYTES,
    ) -> None:
        self.model, self.tokens = model, tokens
        self.program = cast(LanguageModel, model).program
        self.learn = learn
        self._check_levels()
        self.state = model.init_state(batch).detach() if state is None else state.detach()
        self.positions = torch.zeros(self.batch, dtype=torch.int64)
        self._logits: Tensor | None = None

    def _check_levels(self) -> None:
        if isinstance(self.learn, bool):
            return
        known = {task.memory.level for task in self.model.task_memories()}
        unknown = sorted(set(self.learn) - known)
        if unknown:
            raise ValueError(f"no level `{unknown[0]}` learns from the task; found {sorted(known) or 'none'}")

    @property
    def batch(self) -> int:
        """How many sequences."""
        found = batch_of(self.state.tree)
        return 1 if found is None else found

    @property
    def position(self) -> int:
        """How many tokens the longest sequence has seen."""
        return int(self.positions.max())

    @property
    def bytes(self) -> int:
        """Bytes of state per sequence."""
        return self.state.bytes() // self.batch

    @property
    def device(self) -> torch.device:
        """Where the model computes; tokens and masks are put there."""
        return device_of(cast(LanguageModel, self.model))

    @property
    def learns(self) -> bool:
        """Whether anything may be learnt from the task."""
        return bool(self.learn) and writes_task(self.program)

    # --- going on ----------------------------------------------------------------------------

    def feed(self, text: Text, mask: Tensor | None = None) -> Tensor:
        """Read on; the logits `[B, T, vocab]` behind every token.

        `text`: a string (as UTF-8 bytes) or bytes, the same for every sequence, or tokens `[B, T]`.
        `mask [B, T]` is true at real tokens.  Long texts are read in pieces.
        """
        tokens = self._tokens(text)
        found = [
            self._piece(piece, None if mask is None else mask[:, i * PREFILL : i * PREFILL + piece.shape[1]])
            for i, piece in enumerate(tokens.split(PREFILL, 1))
        ]
        real = torch.full((self.batch,), tokens.shape[1]) if mask is None else mask.sum(1).cpu()
        self.positions = self.positions + real
        logits = torch.cat(found, 1)
        if logits.shape[1]:
            self._logits = logits[:, -1]
        return logits

    def _piece(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        mask = None if mask is None else mask.to(self.device)
        if not self.learns:
            with torch.no_grad():
                logits, self.state = self.model(tokens, self.state, mask)
            return cast(Tensor, logits)
        # Every byte is predicted before it is learnt: its logits come from the state in front of it.
        with torch.no_grad():
            logits, _ = self.model(tokens, self.state, mask)
        levels = None if isinstance(self.learn, bool) else tuple(self.learn)
        _, state = self.model.learn(tokens, self.state, mask, levels=levels)
        self.state = state.detach()
        return cast(Tensor, logits)

    def _tokens(self, text: Text) -> Tensor:
        if isinstance(text, Tensor):
            if text.dim() != 2 or text.shape[0] != self.batch:
                raise ValueError(f"expected tokens of shape [{self.batch}, T], found {list(text.shape)}")
            return text.to(self.device)
        ids = self.tokens.encode(text.encode() if isinstance(text, str) else text)
        return torch.tensor([ids] * self.batch, dtype=torch.int64, device=self.device).view(
            self.batch, len(ids)
        )

    def generate(self, count: int, sampling: Sampling | None = None) -> Iterator[int]:
        """Yield `count` tokens (bytes) that go on from here, drawn as `sampling` says (of one sequence).

        What is generated is read, but learnt only if the program says `learn_generated = true`.
        """
        if self.batch != 1:
            raise ValueError(f"one sequence generates at a time, found {self.batch}: use `split()`")
        chosen = sampling or Sampling()
        source = torch.Generator().manual_seed(chosen.seed)
        plan = self.program.train
        may, self.learn = self.learn, self.learn if plan is not None and plan.learn_generated else False
        try:
            logits = self._last()
            for _ in range(count):
                token = draw(logits[: self.tokens.count], chosen, source)
                yield token
                self.feed(torch.tensor([[token]]))
                logits = self._last()
        finally:
            self.learn = may

    def _last(self) -> Tensor:
        """The logits behind the last token."""
        held = self.state.tree.get("held")
        if held is not None and bool(held["valid"].all()):
            return peek(cast(LanguageModel, self.model), int(held["token"][0]), self.state)
        return (self.feed(START)[:, -1] if self._logits is None else self._logits)[0]

    # --- keeping -----------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the live state as safetensors; the file is whole or not there."""
        tree = dict(self.state.tree)
        if self._logits is not None:
            tree["behind"] = self._logits
        State(tree, program=self.state.program).save(path)

    def load(self, path: str | os.PathLike[str]) -> Session:
        """Go on from a state that `save` wrote; returns the session itself.

        Errors: `StateError` if it is damaged or of another model, `OSError`.
        """
        tree = dict(self.model.load_state(path).tree)
        self._logits = tree.pop("behind", None)
        self.state = State(tree, program=self.model.name)
        self.positions = torch.zeros(self.batch, dtype=torch.int64)
        return self

    def fork(self) -> Session:
        """A session of its own that starts where this one stands."""
        made = Session(self.model, learn=self.learn, tokens=self.tokens, state=self.state.clone())
        made.positions, made._logits = self.positions.clone(), self._logits
        return made

    def merge(self, *others: Session) -> Session:
        """The sequences of several sessions in one, to be run as a batch; each stays what it was."""
        if any(other.model is not self.model for other in others):
            raise ValueError("sessions of different models cannot be merged")
        parts = [self, *others]
        made = Session(
            self.model, learn=self.learn, tokens=self.tokens, state=join([part.state for part in parts])
        )
        made.positions = torch.cat([part.positions for part in parts])
        known = [part._logits for part in parts if part._logits is not None]
        made._logits = torch.cat(known) if len(known) == len(parts) else None
        return made

    def split(self) -> list[Session]:
        """One session per sequence."""
        found = []
        for row in range(self.batch):
            made = Session(self.model, learn=self.learn, tokens=self.tokens, state=take(self.state, [row]))
            made.positions = self.positions[row : row + 1].clone()
            made._logits = None if self._logits is None else self._logits[row : row + 1]
            found.append(made)
        return found

    def __repr__(self) -> str:
        return (
            f"Session({self.model.name!r}, batch={self.batch}, position={self.position}, bytes={self.bytes})"
        )
