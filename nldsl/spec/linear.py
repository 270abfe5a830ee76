"""Which weights of a map are used as `W @ z`, and so have an input and an output gradient of their own."""

from __future__ import annotations

from nldsl.spec.program import Function


def linear_weights(function: Function) -> frozenset[str]:
    """Names of the weights whose only use is one product `W @ z` with a vector.

    Example:
        >>> linear_weights(Function("none", (), (), (), ()))
        frozenset()
    """
    uses: dict[str, list[bool]] = {w.name: [] for w in function.weights}
    for apply in function.body:
        for position, value in enumerate(apply.args):
            if value.name in uses:
                linear = apply.op == "matmul" and position == 0 and apply.args[1].kind == "vector"
                uses[value.name].append(linear)
    return frozenset(name for name, found in uses.items() if found == [True])
