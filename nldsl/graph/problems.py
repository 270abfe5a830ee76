"""The nodes of the level graph: every optimisation problem of a program."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod

from nldsl.catalog.values import Shape
from nldsl.diagnostics import SpecError
from nldsl.graph.equations import formula, rule_formula
from nldsl.graph.model import Problem, Tensor
from nldsl.graph.outer_pair import outer_pair
from nldsl.graph.places import Place, all_parameters, claiming_group, own_once, places, slow_clock
from nldsl.graph.rule_labels import group_label, written_options
from nldsl.graph.state_sizes import BYTES, slot_bytes, window_bytes
from nldsl.source import Span
from nldsl.spec.outer_rules import weight_shape
from nldsl.spec.program import (
    Block,
    Clock,
    GroupRule,
    Memory,
    Parameter,
    Program,
    Rule,
    Slot,
    TaskWrite,
    Term,
    Write,
    option,
)

LIKE_W, OWN_SHAPE = "like W", "a shape of its own"
"""What memories of rules are as large as."""

TRAINING = "training"
"""The zone of optimiser memories."""

_PAIR = re.compile(
    r"\[(.+?)\] <- (.+?)(?: (?:minimize|over|weighted|by|retain|toward|gradient|at|project)\b| ?[;}]|$)"
)
_RETAINED = re.compile(
    r"\bretain (.+?)(?= (?:toward|gradient|at|project|minimize|over|weighted|by)\b|[;}]|$)"
)
_ROLE_WORDS = {
    "matrix": "projections",
    "embedding": "embedding",
    "head": "head",
    "norm": "norms",
    "rest": "rest",
}


def memory_problems(program: Program) -> Iterator[Problem]:
    """Every memory and every attention cache, one copy per repeat, in program order."""
    for block, place in places(program.root, Place.root(program)):
        for memory in block.memories:
            yield (
                _attention(memory, block, place) if memory.function is None else _memory(memory, block, place)
            )


def slow_problems(program: Program) -> Iterator[Problem]:
    """The slow parameters: one problem per block (where it is called) and clock."""
    groups: dict[str, _Slow] = {}
    for block, place in places(program.root, Place.root(program)):
        starts = {p.path for m in block.memories for p in m.initial if p is not None}
        own = _trained_here(block)
        for parameter in (p for p in own_once(block) if p.path not in own and p.schedule is None):
            id = place.slow_id(parameter)
            group = groups.setdefault(id, _Slow(id, block, place))
            group.add(parameter, place, is_start=parameter.path in starts)
    for group in groups.values():
        yield group.problem(program)


def _trained_here(block: Block) -> dict[str, Memory]:
    """The parameters that are the weights of memories on a clock of steps."""
    return {p.path: m for m in block.memories if m.trained is not None for p in m.initial if p is not None}


def optimiser_problems(program: Program) -> Iterator[tuple[Problem, tuple[str, ...]]]:
    """Every memory of the rules that train the program, with the slow problems it serves."""
    if program.train is None:
        return
    claimed, served = _claims(program)
    for index, group in enumerate(program.train.groups):
        if group.bound is None or not claimed.get(index):
            continue
        for slot in group.bound.slots:
            clock = Clock(group.every * (slot.clock.every if slot.clock else 1), "steps")
            yield _slot(index, slot, group, clock, claimed[index]), served[index]


def rule_label(rule: Rule, written: str = "") -> str:
    """`gd(lr = beta)`: the rule with what it was given, as `written` where that says it."""
    given = [f"{name} = {_argument(name, value.name, written)}" for name, value in rule.arguments]
    return f"{rule.name}({', '.join([*given, *written_options(rule.static)])})"


def _argument(name: str, value: str, written: str) -> str:
    """The expression behind `name =` in a clause; the value's name if that stands there, or nothing does."""
    found = re.search(rf"[(,] ?{name} ?= ?", written)
    if found is None or re.search(rf"\b{value}\b", written):
        return value
    depth, end = 0, found.end()
    while end < len(written) and (depth or written[end] not in ",)"):
        depth += {"(": 1, ")": -1}.get(written[end], 0)
        end += 1
    return written[found.end() : end].strip() or value


def who_trains(program: Program, path: str, parameter: Parameter) -> str:
    """The rule that trains the parameter at absolute `path`; empty if none does."""
    index = claiming_group(program.train, path, parameter)
    return "" if program.train is None or index is None else group_label(program.train.groups[index])


@dataclass
class _Slow:
    """Gathers the parameters of one slow problem."""

    id: str
    block: Block
    place: Place
    words: list[str] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)
    levels: list[str] = field(default_factory=list)
    clock: Clock | None = None
    count: int = 0

    def add(self, parameter: Parameter, place: Place, is_start: bool) -> None:
        word = "initial states" if is_start else _ROLE_WORDS[parameter.role]
        if word not in self.words:
            self.words.append(word)
        inside = place.path[len(self.place.path) :].lstrip(".")
        self.tensors.append(
            Tensor(f"{inside}.{parameter.path}" if inside else parameter.path, parameter.shape)
        )
        self.count += prod(parameter.shape) * place.copies
        path = place.parameter_path(parameter)
        self.clock = slow_clock(place.train, path, parameter)
        index = claiming_group(place.train, path, parameter)
        if place.train is None or index is None:
            return
        group = place.train.groups[index]
        for known, word in ((self.rules, group_label(group)), (self.levels, group.level)):
            if word not in known:
                known.append(word)

    def problem(self, program: Program) -> Problem:
        train = program.train
        task = train.task if train else ""
        order = [w for w in (*_ROLE_WORDS.values(), "initial states") if w in self.words]
        return Problem(
            id=self.id,
            name=", ".join(order),
            kind="slow parameters",
            zone=self.place.home,
            clock=self.clock or Clock(0, "never"),
            level=", ".join(self.levels) or (TRAINING if train else "slow parameters"),
            objective=task,
            context=f"the training data, through the task `{task}`" if task else "whatever trains the whole",
            rule=", ".join(self.rules),
            multiplicity=self.place.copies if self.place.home == self.place.zone else 1,
            tensors=tuple(self.tensors),
            parameters=self.count,
            reset="never",
            source=_where(self.block.span),
        )


def _memory(memory: Memory, block: Block, place: Place) -> Problem:
    function = memory.function
    assert function is not None
    writes = [s for s in block.body if isinstance(s, Write) and s.memory == memory.name]
    tasks = [s for s in block.body if isinstance(s, TaskWrite) and s.memory == memory.name]
    problem = Problem(
        id=place.memory_id(memory),
        name=memory.name,
        kind="task memory" if tasks or memory.trained else "memory",
        zone=place.zone,
        clock=memory.clock,
        level=memory.level,
        map=function.name,
        map_equation=formula(function),
        start=_start(memory),
        reset=_reset(memory),
        copies=memory.heads,
        multiplicity=place.copies,
        tensors=tuple(Tensor(w.name, w.shape) for w in function.weights),
        source=_where(memory.span),
    )
    size = memory.heads * sum(prod(w.shape) for w in function.weights) * BYTES
    if memory.trained is not None:
        return _with_group(problem, memory.trained, place)
    if tasks:
        return _with_task(problem, tasks[0], place, size)
    return _with_writes(problem, writes, memory.clock, size)


def _with_task(problem: Problem, write: TaskWrite, place: Place, size: int) -> Problem:
    task = f"the task `{place.train.task}`" if place.train else "the task"
    return replace(
        problem,
        objective="task",
        context=f"the error of {task}, back-propagated to this memory",
        rule=rule_label(write.rule, _written(write.span)),
        rule_equation=rule_formula(write.rule),
        retention=_retention(write),
        # What a sequence carries: its distance from the parameters, and what waits for the next commit.
        state_bytes=2 * size + slot_bytes(problem, [write.rule]),
        text=_written(write.span),
    )


def _with_group(problem: Problem, group: GroupRule, place: Place) -> Problem:
    """A memory on a clock of steps: one for the whole batch, whose weights are parameters."""
    task = f"the task `{place.train.task}`" if place.train else "the task"
    return replace(
        problem,
        objective="task",
        context=f"the errors of {task}, gathered over {group.every} steps"
        if group.every > 1
        else f"the errors of {task}",
        rule=group_label(group),
        rule_equation=rule_formula(group.bound) if group.bound is not None else "",
        start="learned: the weights are parameters",
        reset="never",
        parameters=problem.multiplicity * problem.copies * sum(prod(t.shape) for t in problem.tensors),
    )


def _with_writes(problem: Problem, writes: list[Write], clock: Clock, size: int) -> Problem:
    terms = [term for write in writes for term in write.terms]
    based = any(write.base_every not in (1, clock.every) for write in writes)
    gathered = sum(len(write.terms) for write in writes if write.at_commit)
    parts = 1 + (clock.unit == "tokens" and clock.every > 1) + based + gathered
    return replace(
        problem,
        objective=_each(term.objective.name for term in terms),
        objective_equation=_each((formula(term.objective) for term in terms), "; "),
        context=_each((_pair(term) for term in terms), "; ") if terms else "",
        rule=_each(rule_label(term.rule, _written(term.span)) for term in terms),
        rule_equation=_each((rule_formula(term.rule) for term in terms), "; "),
        retention=_each(_retention(write) for write in writes),
        state_bytes=parts * size
        + slot_bytes(problem, [term.rule for term in terms])
        + sum(map(window_bytes, terms)),
        text=_each((_written(write.span) for write in writes), "\n"),
    )


def _attention(memory: Memory, block: Block, place: Place) -> Problem:
    window, start = (option(memory.options, name, 0) for name in ("window", "start"))
    writes = [s for s in block.body if isinstance(s, Write) and s.memory == memory.name]
    per_pair = memory.heads * (memory.key_size + memory.value_size) * BYTES
    # Persistent tokens are parameters, the same for every sequence.  A cache that forgets by its own clock is
    # empty where it does.
    limits = [window] if isinstance(window, int) and window else []
    limits += [len(writes) * (memory.reset_every - 1)] if memory.reset == "tokens" else []
    return Problem(
        id=place.memory_id(memory),
        name=memory.name,
        kind="attention",
        zone=place.zone,
        clock=memory.clock,
        level="attention",
        objective="weighted l2",
        objective_equation="sum(exp(k . q) * norm2(v - y))  (Eq. 62-63)",
        context=_each((_pair(t) for w in writes for t in w.terms), "; "),
        map="softmax",
        map_equation="y = sum(softmax(k . q) * v)",
        rule=f"keeps the last {window} pairs" if window else "keeps every pair",
        start=f"{start} persistent tokens" if start else "empty",
        reset=_reset(memory),
        copies=memory.heads,
        multiplicity=place.copies,
        tensors=(Tensor("keys", (memory.key_size,)), Tensor("values", (memory.value_size,))),
        state_bytes=min(limits, default=0) * per_pair,
        bytes_per_token=0 if limits else len(writes) * per_pair,
        source=_where(memory.span),
        text=_each((_written(write.span) for write in writes), "\n"),
    )


def _claims(program: Program) -> tuple[dict[int, list[Shape]], dict[int, tuple[str, ...]]]:
    """The shapes of what each train group steps, and which slow problems they belong to."""
    train = program.train
    assert train is not None
    shapes: dict[int, list[Shape]] = {}
    for path, parameter in all_parameters(program):
        index = claiming_group(train, path, parameter)
        if index is not None:
            shapes.setdefault(index, []).append(parameter.shape)
    served: dict[int, dict[str, None]] = {i: {} for i in range(len(train.groups))}
    for block, place in places(program.root, Place.root(program)):
        own = _trained_here(block)
        for parameter in own_once(block):
            index = claiming_group(train, place.parameter_path(parameter), parameter)
            if index is not None:
                memory = own.get(parameter.path)
                id = place.slow_id(parameter) if memory is None else place.memory_id(memory)
                served[index][id] = None
    return shapes, {i: tuple(ids) for i, ids in served.items()}


def _slot(index: int, slot: Slot, group: GroupRule, clock: Clock, shapes: list[Shape]) -> Problem:
    rule = group.bound
    assert rule is not None
    return Problem(
        id=f"train[{index}].{group.rule}.{slot.name}",
        name=f"{group.rule}.{slot.name}",
        kind="optimiser memory",
        zone=TRAINING,
        clock=clock,
        level=TRAINING,
        objective="compresses gradients",
        context="the gradients of " + ", ".join(group.selectors),
        map=LIKE_W if slot.shape is None else OWN_SHAPE,
        rule=group_label(group),
        rule_equation=rule_formula(rule),
        start="zero",
        reset="never",
        parameters=0,
        tensors=(Tensor(slot.name, (sum(_size(slot, group, shape) for shape in shapes),)),),
        source=_where(rule.function.span),
    )


def _size(slot: Slot, group: GroupRule, shape: Shape) -> int:
    """How many numbers the memory of a rule holds for a weight: as many as it, or those of its own shape."""
    if slot.shape is None or group.outer is None:
        return prod(shape)
    try:
        rule = group.outer.at(weight_shape(shape), False)
    except SpecError:  # the rule does not take such a weight, which the check of the program has told
        return prod(shape)
    own = next(one.shape for one in rule.slots if one.name == slot.name)
    return prod(shape if own is None else own)


def written_pair(term: Term) -> tuple[str, str]:
    """Key and target of a term as written, or by the names of the values."""
    written = _PAIR.search(_written(term.span))
    return (written[1], written[2]) if written else outer_pair(term)


def _pair(term: Term) -> str:
    """`(k -> l2norm(self[v]))`."""
    key, target = written_pair(term)
    over = f" over {term.window} tokens" if term.window > 1 else ""
    weighted = f" weighted {term.weight.name}" if term.weight else ""
    return f"({key} -> {target}){over}{weighted}"


def _retention(write: Write | TaskWrite) -> str:
    if write.retain is None:
        # What the rule erases is still the distance from the start.
        return "all, toward init" if write.toward == "init" else ""
    # What has no name of its own is as written.
    text = _written(write.span)
    found = _RETAINED.search(text)
    named = found is None or re.search(rf"\b{write.retain.name}\b", text)
    gate = write.retain.name if named or found is None else found[1].strip()
    return gate + (" toward init" if write.toward == "init" else "")


def _start(memory: Memory) -> str:
    words = {
        "zero": "zero",
        "learned": "learned",
        "first": "learned, first order",
        "fixed": "drawn, never learned",
    }
    return words.get(memory.init, f"the state of {memory.init_from}")


def _reset(memory: Memory) -> str:
    if memory.reset == "tokens":
        return f"every {memory.reset_every} tokens"
    return {"sequence": "every sequence", "never": "never"}[memory.reset]


def _each(texts: Iterator[str], joint: str = ", ") -> str:
    return joint.join(dict.fromkeys(t for t in texts if t))


def _where(span: Span | None) -> str:
    return f"{span.file.name.rpartition('/')[2]}:{span.line}" if span else ""


def _written(span: Span | None) -> str:
    return span.words if span else ""
