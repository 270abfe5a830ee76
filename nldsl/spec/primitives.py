"""Apply a primitive of the library: shapes by its contract, parameters and hidden state by its path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nldsl.catalog.primitive import ContractError, Operand, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.diagnostics import Label
from nldsl.library import PRIMITIVES, is_identity
from nldsl.source import Span
from nldsl.spec.frame import FastWeight, Frame
from nldsl.spec.items import POISON, Poison, describe
from nldsl.spec.program import Apply, Parameter, Value
from nldsl.spec.session import MAX_PARAMETERS, MAX_SIZE


def apply(
    frame: Frame,
    op: str,
    args: Sequence[Value],
    options: Mapping[str, Static],
    span: Span,
    target: str | None = None,
    spans: Sequence[Span] = (),
    derived: bool = False,
) -> Value | Poison:
    """Add `op(args, **options)` to the body and return its value.

    `derived`: the elaborator writes it, not the author, so it may be any primitive.

    Errors: NL0401 if shapes do not fit, NL0402 if heads do not divide, NL0410 for anything else the
    contract refuses, NL0313 if the primitive has no place here, NL0812 for a size out of bounds.
    """
    primitive = PRIMITIVES[op]
    if not derived and not allowed(frame, primitive, span):
        return POISON
    args = [merged(frame, a, span) for a in args] if primitive.merges else list(args)
    operands = tuple(Operand(a.shape, a.kind) for a in args)
    try:
        if is_identity(op, operands, options):
            return args[0]
        outcome = primitive.shape(operands, options)
    except ContractError as refusal:
        return refused(frame, op, args, str(refusal), span, spans)
    if not in_bounds(frame, outcome, span):
        return POISON
    if frame.place == "map" and op in ("weight", "linear"):
        return fast(frame, op, args, outcome, span, target)
    path = frame.operation_path(op) if outcome.parameters or primitive.stateful else ""
    parameters = tuple(
        Parameter(f"{path}.{p.name}", p.shape, p.init, p.role, span) for p in outcome.parameters
    )
    if frame.place == "map":
        frame.slow.extend(parameters)
    out = frame.new(outcome.shape, outcome.kind, target, op)
    frame.body.append(Apply(out, op, tuple(args), tuple(sorted(options.items())), parameters, path, span))
    return out


_INSTEAD = {
    "lookup": "look tokens up in a shared table with `embed(tokens, E)`",
    "expand_last": "values of different shapes combine by themselves: a number per head scales its head",
    "silu_pullback": "the compiler derives gradients; write `silu(x)`",
    "gelu_pullback": "the compiler derives gradients; write `gelu(x)`",
    "conv": "a memory's map sees one token: convolve its key or value, as in `k = conv(linear(x), 4)`",
    "shift": "a memory's map sees one token: shift its key or value before the write",
    "identity": "in a block, a key that is written to itself is `M[k] <- k`",
    "like": "in a block, a memory is declared by its map: `memory S = matrix()`",
    "orthogonalize": "it acts on weights: `by muon(lr = 0.1)`, or `project orthogonalize` behind a write",
    "rownorm": "it acts on weights: `project rownorm` behind a write; in a map `(W @ z) / sqrt(sum(W ** 2))`",
}
"""What to write instead of a primitive that has no place in a body of some kind."""


def allowed(frame: Frame, primitive: Primitive, span: Span) -> bool:
    """Whether a body of this kind may use the primitive."""
    if frame.place in primitive.places and not (frame.place == "rule" and primitive.stateful):
        return True
    places = " and ".join(f"{p}s" for p in sorted(primitive.places)) or "none of them"
    frame.session.report(
        "NL0313",
        f"`{primitive.name}` cannot be used in {'an' if frame.place == 'objective' else 'a'} {frame.place}",
        span,
        f"allowed in {places}" if primitive.places else "written in another way",
        help=_INSTEAD.get(primitive.name, ""),
    )
    return False


def merged(frame: Frame, value: Value, span: Span) -> Value:
    """A headed value, or one number per head, as a vector; anything else as it is."""
    if value.kind == "heads":
        cut = frame.new((value.shape[0], 1), "headed", None, "split")
        frame.body.append(Apply(cut, "split", (value,), (("n", value.shape[0]),), span=span))
        value = cut
    if value.kind != "headed":
        return value
    out = frame.new((value.shape[0] * value.shape[1],), "vector", None, "merge")
    frame.body.append(Apply(out, "merge", (value,), span=span))
    return out


def refused(
    frame: Frame, op: str, args: Sequence[Value], message: str, span: Span, spans: Sequence[Span]
) -> Poison:
    """Report what the contract refused, with where each operand stands and what it is."""
    code = "NL0402" if op == "split" else "NL0401" if len(args) > 1 else "NL0410"
    secondary = (
        tuple(Label(s, describe(a)) for s, a in zip(spans, args, strict=False)) if len(args) > 1 else ()
    )
    first, _, help_ = message.partition("; ")
    label = describe(args[0]) if len(args) == 1 else "these do not fit together" if args else "refused"
    return frame.session.report(code, first, span, label, secondary=secondary, help=help_)


def in_bounds(frame: Frame, outcome: Outcome, span: Span) -> bool:
    """Stop sizes nobody can have meant, before anything is allocated for them."""
    largest = max((*outcome.shape, *(n for p in outcome.parameters for n in p.shape), 0))
    if largest > MAX_SIZE:
        frame.session.report(
            "NL0812", f"an axis of {largest} elements is too large", span, f"at most {MAX_SIZE} are possible"
        )
        return False
    for parameter in outcome.parameters:
        count = 1
        for n in parameter.shape:
            count *= n
        frame.session.parameters += count
    if frame.session.parameters > MAX_PARAMETERS:
        frame.session.stop(
            "NL0812", "the program has too many parameters", span, f"more than {MAX_PARAMETERS}"
        )
    return True


def fast(
    frame: Frame, op: str, args: Sequence[Value], outcome: Outcome, span: Span, target: str | None
) -> Value | Poison:
    """In a map `weight` and `linear` are the memory's own weights; `linear(z)` is written `W @ z`."""
    first, *rest = outcome.parameters
    if op == "weight":
        value = frame.new(first.shape, "matrix" if len(first.shape) == 2 else "vector", target, "weight")
        frame.weights.append(FastWeight(value, first.init, span))
        return value
    weight = frame.new(first.shape, "matrix", None, "linear")
    frame.weights.append(FastWeight(weight, first.init, span))
    product = apply(frame, "matmul", (weight, args[0]), {}, span, None if rest else target)
    if not rest or product is POISON:
        return product
    bias = frame.new(rest[0].shape, "vector", None, "bias")
    frame.weights.append(FastWeight(bias, rest[0].init, span))
    return apply(frame, "add", (product, bias), {}, span, target)
