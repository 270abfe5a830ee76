"""What seeded faults put in the place of functions of lowerings and of the runtime."""

from __future__ import annotations

from typing import Any

from nldsl.emit.nodes import name


def running_of(original: Any) -> Any:
    """A read that sees the running state."""
    return lambda self: [self.current[w] for w in self.weights]


def committed_of(original: Any) -> Any:
    """A base that is what reads see."""
    return lambda self, write: self.visible()


def always_committed(original: Any) -> Any:
    """A family that commits behind every piece."""
    return lambda self, code, ends: original(self, code, lambda clock: name("True"))


def last_pending(original: Any) -> Any:
    """A rule that leaves the gradient it used pending."""

    def step(task: Any, state: dict[str, Any], due: Any) -> dict[str, Any]:
        return {**original(task, state, due), "pending": state["pending"]}

    return step


def silent_seeds(original: Any) -> Any:
    """A live weight that gathers for its states alone."""
    return lambda self, d, z, flows, seeds: original(self, d, z, flows, [s.clone() for s in seeds])


def faded_to_nothing(original: Any) -> Any:
    """The way back through retention toward zero."""
    return lambda self, i, keep, totals: self.flows.running[i].mul_(keep)


def nothing_waits(original: Any) -> Any:
    """The way back from a sum to what it was in front of the piece."""

    def wait(self: Any, n: int) -> None:
        original(self, n)
        for flow in self.flows.gathered:
            flow.zero_()

    return wait


def counted_backward(original: Any) -> Any:
    """The last token of every piece, counted from the end of the sequence."""
    return lambda self, x: original(self, x.flip(1))


def emptied_everywhere(original: Any) -> Any:
    """Sums that are gone behind every piece."""
    return lambda which, part, sums: [None] * len(sums)
