"""Cases drawn with hypothesis, and the smallest one in which a property fails."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import NonInteractiveExampleWarning

from nldsl.certify.cases import Case, FailedError, UnfitError
from nldsl.certify.properties import PROPERTIES
from nldsl.certify.tested import Tested

SEEDS = 1000
BATCH = 3


@dataclass(frozen=True)
class Outcome:
    """How one property came out: `cases` were tried; `failed` is the smallest that does not hold."""

    name: str
    cases: int
    failed: FailedError | None = None


@st.composite
def cases(draw: st.DrawFn, tested: Tested, name: str) -> Case:
    """Cases of one property of a specification.

    Example:
        >>> drawn = cases(Tested("linear_attention", "linear_attention", {"dim": 8}), "splits")
        >>> isinstance(drawn, st.SearchStrategy)
        True
    """
    tokens = draw(st.integers(1, PROPERTIES[name].longest) if draw(st.booleans()) else st.integers(1, 9))
    batch = draw(st.integers(1, BATCH if tokens < 40 else 1))
    cuts = draw(st.lists(st.integers(1, tokens), max_size=4, unique=True))
    places = st.tuples(st.integers(0, batch - 1), st.integers(0, tokens - 1))
    masked = draw(st.lists(places, max_size=min(12, tokens), unique=True)) if name in MASKED else []
    arguments = {n: draw(st.sampled_from(values)) for n, values in tested.choices.items()}
    return Case(
        tokens,
        batch,
        draw(st.integers(0, SEEDS)),
        draw(st.integers(0, tested.clock_choices - 1)),
        tuple(sorted({*cuts, tokens})),
        tuple(sorted(masked)),
        tuple(sorted(arguments.items())),
    )


MASKED = ("interpreted", "padding", "learning")
"""Properties that speak of masked tokens."""


def quick(examples: int) -> settings:
    """What hypothesis is told: so many cases, no clock, nothing stored."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
    )


def hunt(tested: Tested, name: str, examples: int, source: int) -> Outcome:
    """Try one property on cases drawn from the seed `source`; a failure is shrunk by hypothesis."""
    tried: set[Case] = set()

    @seed(source)
    @quick(examples)
    @given(case=cases(tested, name))
    def run(case: Case) -> None:
        tried.add(case)
        try:
            tested.check(name, case)
        except UnfitError:
            assume(False)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NonInteractiveExampleWarning)
            run()
    except FailedError as failed:
        return Outcome(name, len(tried), failed)
    return Outcome(name, len(tried))


def hunt_all(tested: Tested, names: tuple[str, ...], examples: int, source: int) -> Iterator[Outcome]:
    """Every property, one after the other."""
    yield from (hunt(tested, name, examples, source) for name in names)
