"""Values that are the same at every token: slow parameters and literals used as values.

They broadcast in elementwise operations as they are.  Where a sequence is wanted (keys, gates,
arguments of blocks, results) they get its batch and token axes; that is a view, not a copy.
"""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.emit.nodes import Starred, assign, name
from nldsl.library import PRIMITIVES
from nldsl.lowerings.apply import BY_MATRIX
from nldsl.lowerings.scope import Scope
from nldsl.plan.units import used
from nldsl.spec.program import Apply, Call, Read, Repeat, Statement, Update, Value, Write


def spread(scope: Scope, value: Value) -> None:
    """Give a slow parameter or a literal batch and token axes; nothing to do for other values."""
    rows = scope.source.attr("shape")[slice(None, 2)]
    made = scope.names.of(value)
    if value.name in scope.constants:
        number = scope.constants.pop(value.name)
        scope.add(assign(made, name("self").attr("like").method("new_full", rows, number)))
    elif value.name in scope.unbatched:
        scope.unbatched.discard(value.name)
        scope.add(assign(made, name(made).method("expand", Starred(rows), *value.shape)))


def spread_for(scope: Scope, statement: Statement, per_token: bool) -> None:
    """Prepare the values of a statement; `per_token`: it runs where heads stand in front of tokens."""
    for value in _wanted(scope, statement, per_token):
        spread(scope, value)


def _wanted(scope: Scope, statement: Statement, per_token: bool) -> Iterator[Value]:
    """The values this statement needs with the axes of a sequence."""
    if isinstance(statement, Call | Repeat):
        yield from statement.args
    elif isinstance(statement, Read):
        yield statement.key
    elif isinstance(statement, Write):
        yield from (t.key for t in statement.terms)
        yield from (v for v in used(statement) if v.name in scope.unbatched)
    elif isinstance(statement, Update):
        yield from (v for v in used(statement) if v.name in scope.unbatched and v.kind != "matrix")
    elif isinstance(statement, Apply):
        yield from _arguments(scope, statement, per_token)


def _arguments(scope: Scope, apply: Apply, per_token: bool) -> Iterator[Value]:
    primitive = PRIMITIVES[apply.op]
    if primitive.stateful:
        yield from apply.args
    elif primitive.elementwise or apply.op in BY_MATRIX | {"lookup"}:
        yield from (a for a in apply.args if per_token and a.name in scope.unbatched and a.kind != "matrix")
    elif per_token or not all(a.name in scope.unbatched for a in apply.args):
        yield from (a for a in apply.args if a.name in scope.unbatched)
