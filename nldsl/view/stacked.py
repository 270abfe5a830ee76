"""What a write does to a map of several weights that is linear in them all together, matrix by matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nldsl.calculus import Expr, UpdateClass, build, number
from nldsl.calculus.classify import StackedForms
from nldsl.calculus.pieces import Piece, TermForm
from nldsl.calculus.stacks import PAD, Stack
from nldsl.view.transition import Step, Transition


def stacked_transitions(
    stacks: StackedForms, unit: bool, told: Callable[[Step], Transition]
) -> Iterator[tuple[str, Transition]]:
    """The transition of every matrix that is erased along one vector, or along none.

    `unit`: whether keys have length one.  `told` makes a transition of a step.
    """
    stack_map, forms = stacks
    for stack, own in zip(stack_map.stacks, forms, strict=True):
        erasing = _erasing(own)
        if len(own) > 1 or own[0].momentum is not None or own[0].mixed is not None or len(erasing) > 1:
            continue
        step = Step(own[0].keep, number(0.0), number(0.0), number(1.0))
        if erasing:
            (piece,) = erasing
            if piece.erase is None or piece.seen is None or piece.seen is not piece.along:
                continue
            square = _square(piece.seen, stack_map.key if unit else None)
            step = Step(own[0].keep, piece.erase, build("mul", 1.0, piece.erase), square)
        yield _called(stack), told(step)


def stacked_words(update: UpdateClass) -> str:
    """What is said of matrices that a token erases along several vectors at once; empty if there are none."""
    if update.stacks is None:
        return ""
    said = []
    for stack, own in zip(update.stacks[0].stacks, update.stacks[1], strict=True):
        erasing = _erasing(own)
        if len(erasing) > 1 and all(p.seen is p.along for p in erasing):
            said.append(
                f"{_called(stack)}: a token erases along {len(erasing)} vectors a in one step, "
                "M' = M (I - sum r a a^T): real eigenvalues between 1 - sum r ||a||^2 and 1 where rates r "
                "are not negative"
            )
    return "; ".join(said)


def _erasing(own: tuple[TermForm, ...]) -> list[Piece]:
    return [p for f in own for p in f.pieces if p.erase is not None]


def _called(stack: Stack) -> str:
    """The weights of one matrix."""
    names = ", ".join(stack.names)
    return names if len(stack.names) == 1 else f"[{names}]"


def _square(asked: Expr, unit_key: Expr | None) -> Expr:
    """The square of the length of what a matrix is asked, part by part."""
    if asked.op == "concat":
        total = number(0.0)
        for part in asked.args:
            total = build("add", total, _square(part, unit_key))
        return total
    if asked.role == PAD:
        return number(1.0 if asked.name == "one" else 0.0)
    return number(1.0) if asked is unit_key else build("dot", asked, asked)
