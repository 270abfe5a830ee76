"""The interpreter: what a program means, token by token, sample by sample.

It is slow and obvious on purpose.  Every compiled form equals it in outputs, states and outer
gradients.  It shares no code with the runtime or the calculus; the only derivative it knows is
`torch.func.grad` of the objective as it is declared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.reference.block import BlockMeaning
from nldsl.reference.inner import Scope
from nldsl.reference.parameters import parameters as needed
from nldsl.reference.states import Sample, State, TaskState
from nldsl.reference.task import TaskMemory, feel, variables
from nldsl.spec.program import Program

Inputs = Tensor | tuple[Tensor, ...]


class Event(NamedTuple):
    """One line of the trace; `token` is -1 for a token that an earlier call had held back."""

    memory: str
    sample: int
    token: int
    kind: str


class Interpreter:
    """Runs a program literally.

    `parameters` maps every absolute parameter path to its tensor; results are differentiable with
    respect to them.  `trace`, if given, is filled with an `Event` per write and per commit.

    Errors: `KeyError` naming the parameters that are missing; `ValueError` for what has no meaning
    token by token (non-causal attention, memories on a step clock).
    """

    def __init__(
        self,
        program: Program,
        parameters: Mapping[str, Tensor],
        dtype: torch.dtype = torch.float64,
        trace: list[Event] | None = None,
    ) -> None:
        self.program = program
        self.dtype = dtype
        self.trace = trace
        missing = [p for p in needed(program.root) if p not in parameters]
        if missing:
            raise KeyError(f"no value for {', '.join(f'`{p}`' for p in missing)}")
        self.parameters = {path: value.to(dtype) for path, value in parameters.items()}
        self.root = BlockMeaning(program.root, "", Scope(self.parameters, ""), dtype)
        self.tasks = {p: m for p, m in self.root.everything() if isinstance(m, TaskMemory)}
        self.segment = min((m.every for m in self.tasks.values()), default=0)
        for path, task in self.tasks.items():
            if task.every % self.segment or task.memory.reset_every % self.segment:
                raise ValueError(
                    f"a clock of `{path}` is no multiple of the smallest task clock, {self.segment}"
                )
        self.carry = "trunc" if program.train is None else program.train.carry

    # --- states ------------------------------------------------------------------------------

    def initial_state(self, batch: int) -> State:
        """The state before the first token of `batch` sequences."""
        samples = [Sample() for _ in range(batch)]
        for sample in samples:
            self.root.begin(sample)
        return State(samples)

    def new_sequence(self, state: State) -> State:
        """`state` at the start of the next sequence: all is reset but `reset never` memories."""
        fresh = state.copy()
        for sample in fresh.samples:
            sample.position, sample.held = 0, None
            self.root.begin(sample, keep=True)
        return fresh

    # --- forward -----------------------------------------------------------------------------

    def run(
        self, inputs: Inputs, state: State | None = None, mask: Tensor | None = None
    ) -> tuple[Inputs, State]:
        """Outputs `[B, T, ...]` at every token, and the state after the last one.

        A masked token (`mask[b, t]` false) is the identity for all state and gives zeros.  A token
        held back by `learn` is processed before the first unmasked one; its output is dropped.
        """
        streams = inputs if isinstance(inputs, tuple) else (inputs,)
        batch, length = streams[0].shape[:2]
        new = self.initial_state(batch) if state is None else state.copy()
        streams = tuple(s if not s.is_floating_point() else s.to(self.dtype) for s in streams)
        blank = tuple(torch.zeros(v.shape, dtype=self.dtype) for v in self.program.root.outputs)
        rows = []
        for b, sample in enumerate(new.samples):
            row = [blank] * length
            for t in range(length):
                if mask is not None and not bool(mask[b, t]):
                    continue
                self.release(sample, b)
                row[t] = self.token(sample, tuple(s[b, t] for s in streams), b, t)
            rows.append(row)
        outputs = tuple(self._batch(rows, i, length) for i in range(len(blank)))
        return (outputs[0] if len(outputs) == 1 else outputs), new

    def _batch(self, rows: list[list[tuple[Tensor, ...]]], index: int, length: int) -> Tensor:
        shape = self.program.root.outputs[index].shape
        if not rows or not length:
            return torch.zeros(len(rows), length, *shape, dtype=self.dtype)
        return torch.stack([torch.stack([outputs[index] for outputs in row]) for row in rows])

    def release(self, sample: Sample, b: int) -> None:
        """Process the token that `learn` held back, without its target."""
        if sample.held is not None:
            held, sample.held = sample.held, None
            self.token(sample, held, b, -1)

    def token(self, sample: Sample, inputs: tuple[Tensor, ...], b: int, t: int) -> tuple[Tensor, ...]:
        """One unmasked token of one sample."""

        def report(memory: str, kind: str) -> None:
            if self.trace is not None:
                self.trace.append(Event(memory, b, t, kind))

        outputs = self.root.token(sample, inputs, report)
        sample.position += 1
        return outputs

    # --- learning ----------------------------------------------------------------------------

    def learn(
        self,
        tokens: Tensor,
        state: State | None = None,
        mask: Tensor | None = None,
        label: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Summed loss in nats over the tokens whose target is known, and the state after them.

        Task `next_token`: position t is scored by `-log softmax(logits_t)[token t+1]`.  The last
        unmasked token of the call is held back and processed when the next call brings its target.
        Task `label`: position t is scored by `-log softmax(logits_t)[label t]`, at once.
        `state.scored` counts the targets.  `carry = "trunc"`: at the end of a segment all state
        becomes constant.  `carry = "exact"`: it keeps its history, so the outer gradient sees all
        segments; deltas are constants in both, and both give the same values.  Between two calls
        history is kept as well, so a split changes nothing; detach the state to cut it.
        """
        task = "next_token" if self.program.train is None else self.program.train.task
        if self.program.kind != "model" or (task == "label") != (label is not None):
            raise ValueError(f"`learn` needs a model and what its task, `{task}`, is measured by")
        new = self.initial_state(tokens.shape[0]) if state is None else state.copy()
        total = torch.zeros((), dtype=self.dtype)
        with torch.enable_grad():
            for b, sample in enumerate(new.samples):
                kept = [t for t in range(tokens.shape[1]) if mask is None or bool(mask[b, t])]
                if label is not None:
                    lessons = [(t, self._streams(tokens[b, t], label[b, t]), label[b, t]) for t in kept]
                    new.scored += len(lessons)
                    total = total + self.learn_sample(sample, b, lessons)
                    continue
                stream = [(t, tokens[b, t]) for t in kept]
                if sample.held is not None:
                    stream = [(-1, sample.held[0]), *stream]
                if stream:
                    sample.held = (stream[-1][1],)
                    new.scored += len(stream) - 1
                    pairs = zip(stream, stream[1:], strict=False)
                    lessons = [(t, (token,), target) for (t, token), (_, target) in pairs]
                    total = total + self.learn_sample(sample, b, lessons)
        return total, new

    def _streams(self, token: Tensor, label: Tensor) -> tuple[Tensor, ...]:
        return tuple(label if v.name == "label" else token for v in self.program.root.inputs)

    def learn_sample(
        self, sample: Sample, b: int, lessons: Sequence[tuple[int, tuple[Tensor, ...], Tensor]]
    ) -> Tensor:
        """The loss of one sample over (place, inputs, target); its task memories take their steps."""
        total = torch.zeros((), dtype=self.dtype)
        segment = torch.zeros((), dtype=self.dtype)
        for t, inputs, target in lessons:
            (logits,) = self.token(sample, inputs, b, t)
            loss = torch.logsumexp(logits, -1) - logits[target]
            total, segment = total + loss, segment + loss
            if self.felt(sample):
                self.close_segment(sample, segment, b, t)
                segment = torch.zeros((), dtype=self.dtype)
        feel((s for _, s in self.task_states(sample)), segment)
        return total

    def task_states(self, sample: Sample) -> Iterator[tuple[str, TaskState]]:
        """The task memories of a sample, by path."""
        for path in self.tasks:
            state = sample.memories[path]
            assert isinstance(state, TaskState)
            yield path, state

    def felt(self, sample: Sample) -> bool:
        """One more error is known; true at the end of a segment."""
        ends = False
        for _, state in self.task_states(sample):
            state.count += 1
            ends = ends or state.count % self.segment == 0
        return ends

    def close_segment(self, sample: Sample, loss: Tensor, b: int, t: int) -> None:
        """Gradient of the segment's loss; rules of the memories whose period ends; fresh variables."""
        feel((s for _, s in self.task_states(sample)), loss)
        for path, state in self.task_states(sample):
            memory = self.tasks[path]
            if state.count % memory.every == 0:
                memory.step(state)
                if self.trace is not None:
                    self.trace.append(Event(path, b, t, "commit"))
        self.root.reset_due_tasks(sample)
        for _, state in self.task_states(sample):
            state.leaf = variables(state.delta)
        if self.carry == "trunc":
            cut = sample.map(lambda x: x.detach())
            sample.memories, sample.tails = cut.memories, cut.tails
