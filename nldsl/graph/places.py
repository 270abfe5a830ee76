"""Where the walk over a program stands, and the names things get there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from nldsl.catalog.selectors import first_match
from nldsl.spec.program import Block, Call, Clock, Memory, Parameter, Program, Repeat, TrainPlan
from nldsl.spec.walk import own_parameters, parameters_of


@dataclass(frozen=True)
class Place:
    """A block where it is called.

    `path` is its absolute path with `[*]` for the index of a repeat, `sample` the same of the first
    copy.  `zone` names the block in the graph; `home` is the block its slow parameters belong to:
    the body of a `repeat` is text of the block around it.
    """

    path: str
    sample: str
    zone: str
    home: str
    frames: tuple[str, ...]
    copies: int
    train: TrainPlan | None

    @staticmethod
    def root(program: Program) -> Place:
        """The place of the root block."""
        return Place("", "", program.name, program.name, (), 1, program.train)

    def call(self, call: Call) -> Place:
        """The place of the block that `call` runs."""
        path = _join(self.path, call.path)
        return replace(self, path=path, sample=_join(self.sample, call.path), zone=path, home=path)

    def repeat(self, repeat: Repeat) -> Place:
        """The place of the one copy that stands for all of `repeat`."""
        path = _join(self.path, f"{repeat.path}[*]")
        return replace(
            self,
            path=path,
            sample=_join(self.sample, f"{repeat.path}[0]"),
            zone=path,
            frames=(*self.frames, path),
            copies=self.copies * repeat.count,
        )

    def memory_id(self, memory: Memory) -> str:
        """The id of a memory's problem."""
        return _join(self.path, memory.path)

    def parameter_path(self, parameter: Parameter) -> str:
        """The absolute path of a parameter in the first copy."""
        return _join(self.sample, parameter.path)

    def slow_id(self, parameter: Parameter) -> str:
        """The id of the slow-parameter problem that `parameter` belongs to: one per home and clock."""
        every = slow_clock(self.train, self.parameter_path(parameter), parameter).every
        return f"slow({self.home})" + (f"@{every}" if every > 1 else "")


def _join(left: str, right: str) -> str:
    return f"{left}.{right}" if left else right


def claiming_group(train: TrainPlan | None, path: str, parameter: Parameter) -> int | None:
    """The index of the `train` group that steps the parameter at absolute `path`, if one does."""
    if train is None or parameter.schedule is not None:
        return None
    hit = first_match((g.selectors for g in train.groups), path, parameter.role)
    return None if hit is None else hit[0]


def slow_clock(train: TrainPlan | None, path: str, parameter: Parameter) -> Clock:
    """How often the `train` section steps the parameter at absolute `path`; never, without one."""
    index = claiming_group(train, path, parameter)
    return Clock(0, "never") if train is None or index is None else Clock(train.groups[index].every, "steps")


def own_once(block: Block) -> Iterator[Parameter]:
    """The parameters a block owns itself, each once however often it is used."""
    yield from {p.path: p for p in own_parameters(block)}.values()


def places(block: Block, place: Place) -> Iterator[tuple[Block, Place]]:
    """`block` and every block below it, one copy per repeat, in program order."""
    yield block, place
    for statement in block.body:
        if isinstance(statement, Call):
            yield from places(statement.block, place.call(statement))
        elif isinstance(statement, Repeat):
            yield from places(statement.block, place.repeat(statement))


def all_parameters(program: Program) -> Iterator[tuple[str, Parameter]]:
    """Every slow parameter with its absolute path, each once, repeats written out."""
    yield from dict(parameters_of(program.root)).items()
