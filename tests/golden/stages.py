"""Every stage of the compiler as text that a reader can check line by line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nldsl.diagnostics import DiagnosticBag, SpecError
from nldsl.driver.compile import emit, plan_of
from nldsl.graph import build_graph
from nldsl.graph.equations import formula, number, rule_formula
from nldsl.source import SourceFile
from nldsl.spec.program import (
    Apply,
    Block,
    Call,
    Memory,
    Parameter,
    Program,
    Read,
    Repeat,
    Statement,
    TaskWrite,
    TrainPlan,
    Update,
    Value,
    Write,
)
from nldsl.syntax import parse, to_yaml


def tree(text: str, name: str) -> str:
    """The parsed text in the other form of the language, which spells out the structure."""
    bag = DiagnosticBag()
    found = parse(SourceFile(name, text), bag)
    bag.raise_if_errors()
    return to_yaml(found)


def program(found: Program) -> str:
    """What is meant: names resolved, numbers bound, shapes known; blocks in turn, callees first."""
    lines = [f"{found.kind} {found.name}"]
    if found.train is not None:
        lines += ["", *_train(found.train)]
    for block in blocks(found.root):
        lines += ["", *_block(block)]
    return "\n".join(lines) + "\n"


def graph(found: Program) -> str:
    """Levels with their reasons, the problems of each, and what passes between them."""
    levels = build_graph(found)
    lines = [f"{levels.name}"]
    for level in levels.levels:
        lines += [
            "",
            f"level {level.number}  {level.frequency}  {', '.join(level.names)}",
            f"  {level.reason}",
        ]
        lines += [f"  {id}" for id in level.problems]
    lines += ["", "problems"]
    for p in levels.problems:
        lines.append(f"  {p.id}  {p.kind}")
        facts = (
            ("objective", p.objective), ("context", p.context), ("map", p.map), ("rule", p.rule),
            ("retention", p.retention), ("start", p.start), ("reset", p.reset), ("copies", p.copies),
            ("multiplicity", p.multiplicity), ("parameters", p.parameters), ("state bytes", p.state_bytes),
            ("bytes per token", p.bytes_per_token),
        )  # fmt: skip
        lines += [f"    {name}: {value}" for name, value in facts if value not in ("", 0)]
    lines += ["", "transfers"]
    for t in levels.transfers:
        again = ", to the next copy" if t.wraps else ""
        lines.append(f"  {t.kind}: {t.source} -> {t.target}  ({', '.join(t.carries)}{again})")
    return "\n".join(lines) + "\n"


def plan(found: Program) -> str:
    """The lowering of every memory, and what each lowering that was asked said."""
    lines = [found.name]
    for block in plan_of(found).blocks:
        for unit in block.units:
            if unit.memories:
                lines += [
                    "",
                    f"{block.class_name}: {', '.join(unit.memories)}",
                    f"  {unit.lowering}: {unit.reason}",
                ]
                asked = [v for v in unit.verdicts if v.lowering != unit.lowering]
                lines += [f"  {'or' if v.accepted else 'not'} {v.lowering}: {v.reason}" for v in asked]
    return "\n".join(lines) + "\n"


def source(found: Program) -> str:
    """The PyTorch source that runs."""
    return emit(plan_of(found))


STAGES: dict[str, Callable[[Program], str]] = {
    "program.txt": program,
    "graph.txt": graph,
    "plan.txt": plan,
    "source.py": source,
}


def or_refusal(stage: Callable[[Program], str], found: Program) -> str:
    """The text of a stage, or why the compiler does not take the program."""
    try:
        return stage(found)
    except SpecError as refused:
        return "".join(f"# {d.code}: {d.message}\n" for d in refused.diagnostics)


def blocks(root: Block) -> list[Block]:
    """Every distinct block below `root`, callees first."""
    found: list[Block] = []
    for statement in root.body:
        if isinstance(statement, Call | Repeat):
            found += [b for b in blocks(statement.block) if b not in found]
    return [*found, root]


# --- the program -----------------------------------------------------------------------------


def _train(train: TrainPlan) -> Iterator[str]:
    yield f"train: task {train.task}, carry {train.carry}"
    for group in train.groups:
        arguments = [f"{name} = {number(value)}" for name, value in group.arguments]
        arguments += [f"{name} = {schedule}{dict(options)}" for name, schedule, options in group.schedules]
        every = f" every {group.every} steps" if group.every != 1 else ""
        yield f"  {group.level}: {', '.join(group.selectors)} by {group.rule}({', '.join(arguments)}){every}"


def _block(block: Block) -> Iterator[str]:
    static = "".join(f", {name} = {value}" for name, value in block.static)
    yield f"block {block.name}({', '.join(_typed(v) for v in block.inputs)}{static})"
    for memory in block.memories:
        yield from _memory(memory)
    for statement in block.body:
        yield f"  {_statement(statement)}"
    yield f"  return {', '.join(v.name for v in block.outputs)}"


def _typed(value: Value) -> str:
    return f"{value.name}: {value.kind}{list(value.shape)}"


def _clock(memory: Memory) -> str:
    clock = memory.clock
    return f"every {clock.every} {clock.unit}" if clock.unit in ("tokens", "steps") else clock.unit


def _memory(memory: Memory) -> Iterator[str]:
    heads = f", {memory.heads} heads" if memory.per_head else ""
    start = memory.init + (f" {memory.init_from}" if memory.init_from else "")
    yield (
        f"  memory {memory.name}: {memory.key_size} -> {memory.value_size}{heads}, level {memory.level}, "
        f"{_clock(memory)}, init {start}, reset {memory.reset}"
    )
    if memory.function is not None:
        yield f"    {memory.function.name}(z) = {formula(memory.function)}"
    yield from (f"    {name} = {value}" for name, value in memory.options)
    yield from (f"    {_parameter(p)}" for p in (*memory.initial, *memory.parameters) if p is not None)


def _parameter(parameter: Parameter) -> str:
    init = f"{parameter.init.kind}({number(parameter.init.scale)})"
    return f"{parameter.path} {list(parameter.shape)} {parameter.role} {init}"


def _apply(node: Apply) -> str:
    options = [f"{name} = {value}" for name, value in node.options]
    call = f"{node.op}({', '.join([*(a.name for a in node.args), *options])})"
    owned = "".join(f"; {_parameter(p)}" for p in node.parameters)
    return f"{_typed(node.out)} = {call}{owned}"


def _write(node: Write) -> str:
    clauses = [f"base every {node.base_every}"] if node.base_every != 1 else []
    if node.retain is not None:
        clauses.append(f"retain {node.retain.name} ({node.retain_axis}) toward {node.toward}")
    clauses += ["at commit"] if node.at_commit else []
    clauses += [f"project {node.project}"] if node.project else []
    lines = [f"{node.memory} {'append' if node.append else 'write'} {', '.join(clauses)}".rstrip()]
    for term in node.terms:
        weighted = f" weighted {term.weight.name}" if term.weight is not None else ""
        over = f" over {term.window} tokens" if term.window != 1 else ""
        arguments = ", ".join(f"{name} = {value.name}" for name, value in term.rule.arguments)
        lines.append(f"    [{term.key.name}] <- {term.target.name}{over}{weighted}")
        if not node.append:
            lines.append(f"      minimize {term.objective.name}: {formula(term.objective)}")
            lines.append(f"      by {term.rule.name}({arguments}): {rule_formula(term.rule)}")
    return "\n".join(lines)


def _statement(node: Statement) -> str:
    match node:
        case Apply():
            return _apply(node)
        case Read():
            solve = f" solve {node.solve}" if node.solve else ""
            return f"{_typed(node.out)} = {node.memory}[{node.key.name}]{solve}"
        case Write():
            return _write(node)
        case TaskWrite():
            retain = f" retain {node.retain.name} toward {node.toward}" if node.retain is not None else ""
            return f"{node.memory} minimizes task by {node.rule.name}: {rule_formula(node.rule)}{retain}"
        case Update():
            return f"{node.memory} {node.op} {node.value.name} ({node.axis})"
        case Call():
            outs, args = ", ".join(map(_typed, node.outs)), ", ".join(a.name for a in node.args)
            return f"{outs} = {node.block.name}({args})  # {node.path}"
        case Repeat():
            outs, args = ", ".join(map(_typed, node.outs)), ", ".join(a.name for a in node.args)
            return f"{outs} = {node.count} times {node.block.name}({args})  # {node.path}"
