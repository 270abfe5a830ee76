"""NL0608: a model whose task takes scores, and that returns probabilities."""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.diagnostics import Diagnostic
from nldsl.spec.program import Apply, Block, Call, Program, Repeat, Value

SQUASHING = ("softmax", "sigmoid")
"""Operations whose results lie between 0 and 1."""


def score_findings(program: Program) -> Iterator[Diagnostic]:
    """The loss takes the softmax itself: of numbers between 0 and 1 it makes nearly equal chances."""
    task = program.train.task if program.train is not None else ""
    if program.kind != "model" or task not in ("next_token", "label") or not program.root.outputs:
        return
    made = _maker(program.root, program.root.outputs[0])
    if made is None or made.op not in SQUASHING:
        return
    yield Diagnostic(
        "NL0608",
        f"the model returns `{made.op}(...)`, and task `{task}` takes scores",
        made.span,
        "numbers between 0 and 1 are nearly equal scores",
        "warning",
        help=f"return what `{made.op}` is given: the loss takes the softmax itself, and so does generation",
    )


def _maker(block: Block, value: Value) -> Apply | None:
    """The operation that makes a value, in this block or in one it calls."""
    for step in block.body:
        if isinstance(step, Apply) and step.out.name == value.name:
            return step
        if isinstance(step, Call | Repeat) and value.name in (names := [v.name for v in step.outs]):
            return _maker(step.block, step.block.outputs[names.index(value.name)])
    return None
